"""What a language model is asked: prompt files that lie beside the configuration.

    system.txt       who the model is and which rules hold
    findings.txt     asks for FINDINGS;    $present $absent $anatomy are the lists of terms
    impression.txt   asks for IMPRESSION;  $findings is the accepted section, the lists may be used too
    retry.txt        put after either when the last answer failed the check;  $feedback says why

They are filled by :class:`string.Template`, which knows nothing but ``$name`` (``$$`` is a dollar sign): unlike
``str.format`` it needs no care with the braces of JSON, and what is filled in is never read as a template itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from string import Template

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.writers.base import Request

TERMS = ("present", "absent", "anatomy")
# For each file, which variables it may use and which it must: without them the model would not know what to write.
VARIABLES = {"system": ((), ()), "findings": (TERMS, TERMS), "impression": ((*TERMS, "findings"), ("findings",)),
             "retry": (("feedback",), ("feedback",))}


class Prompts:
    """The four prompt files of a folder.

    Attributes:
        hash: SHA-256 of their names and texts; line ends do not count, as a checkout on Windows changes them.

    Raises:
        UserError: no such folder or file, not UTF-8, an unknown variable or a missing one.
    """

    def __init__(self, folder: str | Path) -> None:
        self._templates = {name: _read(Path(folder) / f"{name}.txt", *VARIABLES[name]) for name in VARIABLES}
        named = "".join(f"{name}\0{template.template}\0" for name, template in self._templates.items())
        self.hash = hashlib.sha256(named.encode()).hexdigest()

    def wants_json(self, section: str) -> bool:
        """Whether the prompt of ``section`` asks for JSON; else the answer as a whole is the section."""
        return "json" in self._templates[section].template.lower()

    def messages(self, request: Request) -> list[dict[str, str]]:
        """The conversation to send: ``[{"role": "system", …}, {"role": "user", …}]``."""
        present, absent, anatomy = [], [], []
        for entity in request.entities:
            (anatomy if entity.type == "anatomy" else absent if entity.denies else present).append(entity)
        asked = self._templates[request.section].substitute(
            present=_listed(present), absent=_listed(absent), anatomy=_listed(anatomy), findings=request.findings)
        if request.feedback:
            asked += "\n\n" + self._templates["retry"].substitute(feedback=request.feedback)
        return [{"role": "system", "content": self._templates["system"].substitute()},
                {"role": "user", "content": asked}]


def _listed(entities: Iterable[Entity]) -> str:
    """One term a line."""
    return "\n".join(f"- {entity.en}" for entity in entities) or "(none)"


def _read(file: Path, known: tuple[str, ...], required: tuple[str, ...]) -> Template:
    try:
        template = Template(file.read_text("utf-8-sig").strip())
    except UnicodeDecodeError:
        raise UserError(f"提示词文件 {file} 不是 UTF-8 编码；请用编辑器另存为 UTF-8") from None
    except OSError as error:
        raise UserError(f"读不到提示词文件（prompt）{file}（{error.strerror}）；文件夹里应有 "
                        f"{'、'.join(f'{name}.txt' for name in VARIABLES)}，"
                        "可从 configs/synthesis/prompts/en 复制后改写") from None
    used = set()
    for match in template.pattern.finditer(template.template):  # Template.get_identifiers() came with Python 3.11
        if match["invalid"] is not None:
            line = template.template.count("\n", 0, match.start()) + 1
            raise UserError(f"{file} 第 {line} 行：$ 后面不是变量名；要写美元符号请写 $$")
        used.add(match["named"] or match["braced"])
    for name in sorted(used - {None, *known}):
        accepted = "、".join(f"${one}" for one in known) or "无"
        raise UserError(f"{file}：没有变量 ${name}{did_you_mean(name, known)}（可用变量：{accepted}）")
    for name in required:
        if name not in used:
            raise UserError(f"{file}：缺少 ${name}；没有它，模型就不知道该写什么")
    return template
