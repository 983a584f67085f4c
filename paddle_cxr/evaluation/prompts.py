"""What a report says of a finding: the prompts of zero-shot classification and grounding, read from a YAML file.

One finding an entry, its key as in the labels.  An entry is of one of three kinds::

    effusion:                             # lists, as CheXzero's and BioViL's
      zh: 胸腔积液
      en: Pleural effusion
      positive: [There is a pleural effusion., Pleural effusion is present.]
      negative: There is no pleural effusion.

    _templates_:                          # lists made of terms, as BioViL's: every template with every term
      positive: ["Findings suggesting {term}.", "Findings consistent with {term}."]
      negative: ["No evidence of {term}."]
      others: true                        # findings that the file does not name: their English name is the term
                                          # (zh: the Chinese one, for models that learned from Chinese reports)
    pneumonia:
      terms: [pneumonia, lung infection]

    Edema:                                # combinations, as GLoRIA's: a part of each list, one after another
      severity: ["", mild, improvement in]
      subtype: [pulmonary edema, pulmonary interstitial edema]
      location: ["", at the lung base]

For classification either every finding has negative prompts, or none has: then the findings compete with one another
(:mod:`paddle_cxr.evaluation.zero_shot`), and there must be two at least.  Grounding reads the positive ones alone.

References: Tiu et al. 2022 (CheXzero, positive and negative prompts); Boecking et al. 2022 (BioViL, lists of both);
Huang et al. 2021 (GLoRIA, severity × subtype × location).
"""

from __future__ import annotations

import itertools
import math
import os
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from paddle_cxr.config import Origins, read_recipe
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.schema import Section, checked

TEMPLATES, TERM = "_templates_", "{term}"
_PARTS = ("severity", "subtype", "location")
_MOST = 20_000  # prompts of one finding: more are a mistake, and would fill the memory
_NAMED = 5  # unused findings named in a notice
_MOST_NAMED = 30  # findings named in a message


@dataclass(frozen=True)
class FindingPrompts:
    """The prompts of one finding.

    Attributes:
        name: the finding's key in the labels.
        positive, negative: what a report says where it is present, and where it is absent; ``negative`` is empty where
            the findings compete with one another.
        zh, en: display names.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    zh: str
    en: str


def _as_list(value: Any) -> Any:
    """A single prompt is a list of one; white space at the ends and line breaks of YAML's ``>`` mean nothing."""
    if isinstance(value, str):
        value = [value]
    return [" ".join(text.split()) if isinstance(text, str) else text for text in value] if isinstance(value, list) \
        else value


Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), BeforeValidator(_as_list)]
Parts = Annotated[list[str], Field(min_length=1), BeforeValidator(_as_list)]


class _Entry(Section):
    zh: str = Field("", description="中文显示名；不写则用征象的键")
    en: str = Field("", description="英文显示名；不写则用征象的键")


class _Lists(_Entry):
    positive: Texts = Field(description="有此征象时报告的说法，一条或几条")
    negative: Texts = Field(default=[], description="没有此征象时报告的说法，一条或几条；所有征象都不写则互相比较")


class _Terms(_Entry):
    terms: Texts = Field(description="征象的几种叫法，填进模板的 {term}")


class _Combinations(_Entry):
    severity: Parts = Field(default=[""], description="程度；空字符串表示不说")
    subtype: Texts = Field(description="征象的几种叫法")
    location: Parts = Field(default=[""], description="部位；空字符串表示不说")


class _Templates(Section):
    positive: Texts = Field(description="有此征象时的说法，{term} 处填征象的叫法")
    negative: Texts = Field(default=[], description="没有此征象时的说法")
    others: bool | Literal["zh"] = Field(False, description="文件里没写的征象：用英文名（true）或中文名（zh）填模板")


def read_prompts(file: str | Path, sample: int | None = None, seed: int = 0,
                 findings: Sequence[ClassInfo] | None = None, classifying: bool = True) -> tuple[FindingPrompts, ...]:
    """Prompts from a YAML file; see the top of this module.

    Args:
        sample: of more combinations than this, so many are drawn (GLoRIA draws a few a class); None takes all.
        seed: of the draw, which does not depend on the other findings.
        findings: of the data set, for templates that serve those that the file does not name; None: not known yet.
        classifying: whether a finding must have something to be compared with.

    Raises:
        UserError: no such file, not YAML, no entry, an unknown key, a side without text, one text on both sides;
            for classifying, negative prompts for some findings only, one finding alone with nothing to compare with.
    """
    if not os.path.isfile(file):
        raise UserError(f"找不到提示词（prompt）文件 {file}；应是一个 .yaml 文件，每个征象写 positive 和 negative")
    written, origins = read_recipe(file)
    templates = written.pop(TEMPLATES, None)
    if not written and templates is None:
        raise UserError(f"提示词（prompt）文件 {file} 是空的；应写 征象名: {{positive: [...], negative: [...]}}")
    if templates is not None:
        templates = _checked_templates(templates, origins.get(TEMPLATES, str(file)))
        if not written and not templates.others:
            raise UserError(f"提示词（prompt）文件 {file} 只有 {TEMPLATES}：请写上征象，或写 others: true，"
                            "用征象的英文名填模板（zh：中文名）")
        if templates.others:
            written |= {one.name: {"terms": one.zh if templates.others == "zh" else _term(one.en or one.name),
                                   "zh": one.zh, "en": one.en}
                        for one in findings or () if one.name not in written}
    found = tuple(_finding(name, value, origins.get(name, str(file)), templates, sample, seed)
                  for name, value in written.items())
    if classifying and (templates is None or not templates.others or findings is not None):
        _check_sides(found, origins, str(file))
    return found


def prompt_texts(prompts: Sequence[FindingPrompts]) -> list[str]:
    """Every different prompt once, in order: the texts to encode, and the columns of the scores."""
    return list(dict.fromkeys(text for one in prompts for text in (*one.positive, *one.negative)))


def prompts_for(findings: Sequence[str], prompts: Sequence[FindingPrompts], source: str, skip: bool,
                say: Callable[[str], None]) -> tuple[FindingPrompts, ...]:
    """The prompts of the findings that are to be classified, in the order of ``findings``.

    Args: as of :func:`named_prompts`, which this adds notices and one check to.

    Raises:
        UserError: a finding has no prompts; none has; one alone has nothing to be compared with.
    """
    chosen = named_prompts(findings, prompts, source, skip, say)
    unused = [one.name for one in prompts if one.name not in findings]
    if unused:
        more = " …" if len(unused) > _NAMED else ""
        say(f"{source} 里另有 {len(unused)} 种征象不在要评估的里，不用：{'、'.join(unused[:_NAMED])}{more}")
    if len(chosen) == 1 and not chosen[0].negative:
        raise UserError(f"征象 {chosen[0].name} 没有 negative 提示词，又没有别的征象可比；"
                        "请补 negative，或再评估一种征象")
    return chosen


def named_prompts(findings: Sequence[str], prompts: Sequence[FindingPrompts], source: str, skip: bool,
                  say: Callable[[str], None]) -> tuple[FindingPrompts, ...]:
    """The prompts of ``findings``, in their order.

    Args:
        findings: keys in the labels.
        prompts: there are.
        source: what the user knows them by (a file name).
        skip: leave findings without prompts out, and say so, instead of raising.
        say: receives notices.

    Raises:
        UserError: a finding has no prompts; none has.
    """
    by_name = {one.name: one for one in prompts}
    absent = [name for name in findings if name not in by_name]
    if absent and (not skip or len(absent) == len(findings)):
        way_out = "请把提示词的键改成标签的写法" if skip else (
            "请补上，或用 Metric.findings 选要评估的征象，或设 Prompts.missing: skip 略去")
        raise UserError(f"征象 {_listed(absent)} 在 {source} 里没有提示词（prompt）"
                        f"{did_you_mean(absent[0], list(by_name))}（有：{_listed(by_name)}）；{way_out}")
    if absent:
        say(f"!! 征象 {_listed(absent)} 在 {source} 里没有提示词（prompt），略去不评估")
    return tuple(by_name[name] for name in findings if name in by_name)


def _listed(names: Collection[str]) -> str:
    """Names for people; PadChest has 190."""
    some = "、".join(itertools.islice(names, _MOST_NAMED))
    return some + (f" 等 {len(names)} 种" if len(names) > _MOST_NAMED else "")


def _finding(name: str, value: Any, where: str, templates: _Templates | None, sample: int | None, seed: int
             ) -> FindingPrompts:
    what = f"{where}：征象 {name} 的提示词（prompt）"
    if not isinstance(value, Mapping):
        raise UserError(f"{what}应写成 {{positive: [...], negative: [...]}}")
    try:
        if "terms" in value:
            section = checked(value, _Terms)
            positive, negative = _filled(section.terms, templates)
        elif any(part in value for part in _PARTS):
            section = checked(value, _Combinations)
            positive, negative = _combined(section, name, sample, seed), []
        else:
            section = checked(value, _Lists)
            positive, negative = section.positive, section.negative
    except UserError as error:
        raise UserError(f"{what}：{error}") from None
    both = set(positive) & set(negative)
    if both:
        raise UserError(f"{what}：正、负提示词里有同一句话 {min(both)!r}，会互相抵消；请去掉一边")
    return FindingPrompts(name, tuple(positive), tuple(negative), section.zh or name, section.en or name)


def _term(name: str) -> str:
    """A finding's name within a sentence: "Pleural effusion" in small letters, "COVID-19" as it is."""
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def _checked_templates(value: Any, where: str) -> _Templates:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}：{TEMPLATES} 应写成 {{positive: [...], negative: [...]}}")
    try:
        templates = checked(value, _Templates)
    except UserError as error:
        raise UserError(f"{where}：{TEMPLATES}：{error}") from None
    for text in (*templates.positive, *templates.negative):
        if TERM not in text:
            raise UserError(f"{where}：{TEMPLATES} 里的 {text!r} 没有 {TERM}，不知道征象的叫法填在哪里")
    return templates


def _filled(terms: Sequence[str], templates: _Templates | None) -> tuple[list[str], list[str]]:
    """Every template with every term, of both sides."""
    if templates is None:
        raise UserError(f"terms：文件里没有 {TEMPLATES}，不知道怎样成句；请补上，或改写 positive 和 negative")
    _check_number(len(terms) * max(len(templates.positive), len(templates.negative)))
    positive, negative = ([template.replace(TERM, term) for template in side for term in terms]
                          for side in (templates.positive, templates.negative))
    return positive, negative


def _combined(section: _Combinations, name: str, sample: int | None, seed: int) -> list[str]:
    """Every combination of the parts, or so many of them drawn without replacement."""
    parts = [getattr(section, part) for part in _PARTS]
    _check_number(math.prod(map(len, parts)))
    texts = list(dict.fromkeys(" ".join(filter(None, one)) for one in itertools.product(*parts)))
    if sample is None or len(texts) <= sample:
        return texts
    random = np.random.default_rng((seed, zlib.crc32(name.encode())))
    return [texts[place] for place in np.sort(random.choice(len(texts), sample, replace=False))]


def _check_number(number: int) -> None:
    if number > _MOST:
        raise UserError(f"组合出 {number} 条提示词，最多 {_MOST} 条；请减少几项")


def _check_sides(prompts: Sequence[FindingPrompts], origins: Origins, file: str) -> None:
    without = [one.name for one in prompts if not one.negative]
    if not without:
        return
    where = f"{origins.get(without[0], file)}：征象 {without[0]} 的提示词（prompt）：negative：缺少这个键"
    if len(without) < len(prompts):
        raise UserError(f"{where}，而别的征象有；要么都写 negative，要么都不写（各征象互相比较）")
    if len(prompts) == 1:
        raise UserError(f"{where}，又没有别的征象可比")
