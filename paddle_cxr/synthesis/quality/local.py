"""A judge on this machine: a CLIP model weighs statements about an image against their opposites.

"A sharp chest X-ray" against "a blurry chest X-ray": which does the image resemble more?  Asking for quality by pairs
of opposite prompts is CLIP-IQA (Wang et al., "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023,
arXiv:2207.12396); it gives a probability that can be thresholded, wants no training, and runs on a CPU.  PaddleNLP also
has a model that answers questions in words (BLIP), but it learned from photographs and its yes and no come without a
number, while CLIP models fine-tuned on medical figures exist in the layout read here (PubMedCLIP).

It knows pictures and captions, not radiography: measure on films of your own what it keeps before relying on it.

Statement files lie beside the configuration, for each question it is to answer

    sharp_yes.txt    statements that are true of a good image, one a line
    sharp_no.txt     what is true of a bad one
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.endpoint import check_ranges
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer, Verdict

_MOST = 1000  # statements in a file
_UNASKED = Answer(None, None, "没有这一问的提示词（statements）")


@dataclass(frozen=True)
class _Statements:
    """What is true of a good image, and what of a bad one."""

    yes: tuple[str, ...]
    no: tuple[str, ...]


@register("judge")
class LocalJudge:
    """Answers the six questions (SynCXR, arXiv 2410.13523) with a CLIP model from a local folder.

    The probability of yes is the softmax, at the model's own scale, of the mean similarity to the statements for yes
    and of that to the statements for no; it is the answer's ``value``.  A question without statement files is answered
    None.

    Args:
        folder: the model (:class:`paddle_cxr.synthesis.quality.clip.Clip`).
        prompts: folder of the statement files.
        threshold: the least probability for yes, above 0 and below 1; calibrate it on images you have looked at.
        batch_size: images at a time.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the model folder's name.
        prompts_hash: SHA-256 of the statements.

    Raises:
        UserError: an argument out of range, no or half a pair of statement files, a statement longer than the model
            takes, or what the model's folder has to say.
    """

    def __init__(self, folder: str, prompts: str, threshold: float = 0.5, batch_size: int = 16,
                 device: str = "auto") -> None:
        check_ranges("Judge", threshold=(threshold, 1e-6, 1 - 1e-6), batch_size=(batch_size, 1, 4096))
        statements = _read_statements(Path(prompts))
        text = "".join(f"{question}\0{pair}\0" for question, pair in statements.items())
        self.prompts_hash = hashlib.sha256(text.encode()).hexdigest()
        from paddle_cxr.synthesis.quality.clip import Clip

        self._model = Clip(folder, device)
        self.title = self._model.title
        self._threshold, self._batch_size = threshold, batch_size
        self._directions = {question: self._direction(question, pair, Path(prompts))
                            for question, pair in statements.items()}

    def _direction(self, question: str, pair: _Statements, folder: Path) -> np.ndarray:
        """float32 ``[D]``: its product with an image's vector is the mean similarity to yes minus that to no."""
        for kind, lines in (("yes", pair.yes), ("no", pair.no)):
            longest = max(lines, key=self._model.tokens)
            if (tokens := self._model.tokens(longest)) > self._model.longest:
                raise UserError(f"{folder / f'{question}_{kind}.txt'}：{longest[:40]!r}… 有 {tokens} 个词元（token），"
                                f"模型最多 {self._model.longest} 个；请写短一些")
        yes, no = (self._model.embed_texts(lines).mean(axis=0) for lines in (pair.yes, pair.no))
        return yes - no

    def judge(self, images: Sequence[np.ndarray]) -> list[Verdict]:
        """A verdict for each image: uint8, ``[H, W]`` or ``[H, W, 3]``, any size.

        Raises:
            UserError: the weights produce values that are no numbers.
        """
        verdicts: list[Verdict] = []
        for start in range(0, len(images), self._batch_size):
            vectors = self._model.embed_images(images[start:start + self._batch_size])
            yes = {question: _probability(self._model.scale * (vectors @ direction))
                   for question, direction in self._directions.items()}
            verdicts += [{question: self._answer(yes[question][row]) if question in yes else _UNASKED
                          for question in QUESTIONS} for row in range(len(vectors))]
        return verdicts

    def _answer(self, probability: float) -> Answer:
        value = float(probability)
        sign = "≥" if value >= self._threshold else "<"
        return Answer(value >= self._threshold, value, f"是的概率 P(yes) {value:.3f} {sign} {self._threshold:g}")


def _probability(difference: np.ndarray) -> np.ndarray:
    """The softmax of two numbers, from their difference; without overflow."""
    return 0.5 * (1 + np.tanh(difference.astype(np.float64) / 2))


def _read_statements(folder: Path) -> dict[str, _Statements]:
    if not folder.is_dir():
        raise UserError(f"找不到提示词文件夹（prompts）{folder}；可从 configs/synthesis/prompts/judge/statements "
                        "复制后改写")
    found = {}
    for question in QUESTIONS:
        files = {kind: folder / f"{question}_{kind}.txt" for kind in ("yes", "no")}
        there = [file for file in files.values() if file.is_file()]
        if len(there) == 1:
            absent = next(file for file in files.values() if file not in there)
            raise UserError(f"提示词只有一半：有 {there[0]}，没有 {absent.name}；每一问要有正反两个文件，或都删去")
        if there:
            found[question] = _Statements(_lines(files["yes"]), _lines(files["no"]))
    if not found:
        raise UserError(f"{folder} 里没有提示词文件（{QUESTIONS[0]}_yes.txt、{QUESTIONS[0]}_no.txt …）；"
                        "可从 configs/synthesis/prompts/judge/statements 复制后改写")
    return found


def _lines(file: Path) -> tuple[str, ...]:
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"提示词文件 {file} 不是 UTF-8 编码；请用编辑器另存为 UTF-8") from None
    except OSError as error:
        raise UserError(f"读不到提示词文件 {file}（{error.strerror}）") from None
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not 1 <= len(lines) <= _MOST:
        raise UserError(f"提示词文件 {file} 应有 1–{_MOST} 行陈述，每行一句，现在有 {len(lines)} 行")
    return lines
