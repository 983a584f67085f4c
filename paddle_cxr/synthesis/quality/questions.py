"""The six questions as a multimodal model is asked them, and reading its answers.

Prompt files lie beside the configuration, one folder a language:

    system.txt       who the model is, and that it answers in one word
    chest_xray.txt … sharp.txt    the six questions (:data:`~paddle_cxr.synthesis.quality.base.QUESTIONS`)
    retry.txt        put after a question whose last answer could not be read

Every question is worded so that **yes is good**: the answer *is* the verdict.  SynCXR (arXiv 2410.13523) asks its six
in their own words; these are written for this project and may be rewritten in the same way.
"""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.quality.base import QUESTIONS

FILES = ("system", *QUESTIONS, "retry")
_YES, _NO = frozenset({"yes", "是", "是的"}), frozenset({"no", "否", "不是"})
_ORNAMENT = " \t\r\n.。!！*\"'“”‘’「」`"  # what stands round a single word and changes nothing; a comma would go on


class JudgePrompts:
    """The prompt files of a folder.

    Attributes:
        hash: SHA-256 of their names and texts; line ends do not count, as a checkout on Windows changes them.

    Raises:
        UserError: no such folder or file, not UTF-8, empty.
    """

    def __init__(self, folder: str | Path) -> None:
        self._texts = {name: _read(Path(folder) / f"{name}.txt") for name in FILES}
        self.hash = hashlib.sha256("".join(f"{name}\0{text}\0" for name, text in self._texts.items()).encode()
                                   ).hexdigest()

    def messages(self, question: str, image_url: str, again: bool) -> list[dict[str, Any]]:
        """The conversation to send.

        The image stands before the words: it is the part that the six questions have in common, and a server that
        caches prefixes then encodes it once.

        Args:
            question: one of the six.
            image_url: the image as a data URL.
            again: the last answer could not be read.
        """
        asked = self._texts[question] + ("\n\n" + self._texts["retry"] if again else "")
        return [{"role": "system", "content": self._texts["system"]},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": image_url}},
                                             {"type": "text", "text": asked}]}]


def read_yes_no(answer: Any) -> bool | None:
    """Whether an answer is yes or no, in English or Chinese; None for anything that is more or less than that word.

    Case, width, a full stop, quotes and Markdown's asterisks make no difference, and the thoughts of a model that
    reasons (up to ``</think>``) are left out.  "Yes, but …" and "Yes or no" are neither.
    """
    if not isinstance(answer, str):
        return None
    word = unicodedata.normalize("NFKC", answer.rpartition("</think>")[2]).strip(_ORNAMENT).lower()
    return True if word in _YES else False if word in _NO else None


def _read(file: Path) -> str:
    try:
        text = file.read_text("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UserError(f"提示词文件 {file} 不是 UTF-8 编码；请用编辑器另存为 UTF-8") from None
    except OSError as error:
        raise UserError(f"读不到提示词文件（prompt）{file}（{error.strerror}）；文件夹里应有 "
                        f"{'、'.join(f'{name}.txt' for name in FILES)}，"
                        "可从 configs/synthesis/prompts/judge/en 复制后改写") from None
    if not text:
        raise UserError(f"提示词文件 {file} 是空的；没有它，模型就不知道该回答什么")
    return text
