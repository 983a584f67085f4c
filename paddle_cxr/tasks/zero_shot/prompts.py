"""The prompts that a recipe's ``Prompts`` section names, and the findings asked for.  Nothing here loads Paddle."""

from __future__ import annotations

from collections.abc import Sequence

from paddle_cxr.data.findings import FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts
from paddle_cxr.evaluation.prompts import FindingPrompts, read_prompts
from paddle_cxr.tasks.evaluation_schema import PromptsSection


def check_section(section: PromptsSection) -> None:
    """Refuse a section that names no prompts, or two kinds, or a key without effect; raises :class:`UserError`."""
    if (section.file is None) == (section.name is None):
        raise UserError("Prompts：file（提示词文件）和 name: phantom 写一个，也只写一个")
    if section.file is not None and section.language != "en":
        raise UserError(f"Prompts.language：{section.language} 只用于 name: phantom，提示词文件自己就有语言；请删去"
                        "（中文的有 configs/prompts/generic_zh.yaml）")


def read_section(section: PromptsSection, seed: int = 0, findings: Sequence[ClassInfo] | None = None,
                 classifying: bool = True) -> tuple[FindingPrompts, ...]:
    """All prompts there are, those of findings that the data set does not speak of included.

    Args:
        section: of the recipe.
        seed: of the draw where ``sample`` is set.
        findings: of the data set, for a file whose templates serve any of them; None: not known yet.
        classifying: whether a finding must have something to be compared with.

    Raises:
        UserError: as of :func:`check_section` and :func:`paddle_cxr.evaluation.prompts.read_prompts`.
    """
    check_section(section)
    if section.file is None:
        return phantom_prompts(section.language)
    return read_prompts(section.file, section.sample, seed, findings, classifying)


def known_as(section: PromptsSection) -> str:
    """What the user knows the prompts by."""
    return section.file or "自带的模体（phantom）提示词"


def asked_findings(wanted: Sequence[str] | None, source: FindingsSource) -> list[str]:
    """What is evaluated: ``Metric.findings``, or all that the data set speaks of.

    Raises:
        UserError: a finding that it does not speak of, or one named twice.
    """
    there = [one.name for one in source.findings]
    for place, name in enumerate(wanted or []):
        if name not in there:
            raise UserError(f"Metric.findings：数据 {source.name} 没有征象 {name!r}{did_you_mean(name, there)}"
                            f"（有：{'、'.join(there)}）")
        if name in (wanted or [])[:place]:
            raise UserError(f"Metric.findings：{name} 写了两次；每个征象（finding）写一次")
    return list(wanted or there)
