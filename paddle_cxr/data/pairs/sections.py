"""Radiology reports as text: their sections, and the sentences of a section, in English and in Chinese.

The sections are found as the authors of MIMIC-CXR do (github.com/MIT-LCP/mimic-cxr, ``txt/section_parser.py``), on
which published work on its reports rests; differences are named where they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache

FINDINGS, IMPRESSION, PREAMBLE = "FINDINGS", "IMPRESSION", "PREAMBLE"

_HANZI = "\u3400-\u4dbf\u4e00-\u9fff"
_DIGIT = "0-9\uff10-\uff19"  # full-width ones too

# --- sections

_ZH_FINDINGS = ("影像所见", "影像表现", "影像描述", "影像学所见", "影像学表现", "检查所见", "检查描述", "放射学所见",
                "放射学表现", "X线所见", "X线表现", "所见")
_ZH_IMPRESSION = ("诊断意见", "诊断印象", "诊断结论", "影像诊断", "影像学诊断", "放射学诊断", "X线诊断", "检查意见",
                  "检查结论", "印象", "结论", "诊断")
# What stands around them, above all names of people and dates below, which are no part of the IMPRESSION.
_ZH_OTHER = ("检查部位", "检查方法", "检查技术", "检查项目", "检查名称", "检查日期", "检查时间", "临床诊断", "临床病史",
             "临床表现", "病史", "主诉", "报告医师", "报告医生", "报告日期", "报告时间", "审核医师", "审核医生",
             "审核日期", "审核时间", "诊断医师", "诊断医生", "备注")
_ZH_NAMES = "|".join(sorted((*_ZH_FINDINGS, *_ZH_IMPRESSION, *_ZH_OTHER), key=len, reverse=True))
_MAIN = r"(?:FINDINGS?\s*(?:AND|/|&)\s*IMPRESSIONS?|FINDINGS?|IMPRESSIONS?|CONCLUSIONS?)"
_TITLE = r"(?:Findings?\s*(?:and|/|&)\s*[Ii]mpressions?|Findings?|Impressions?|Conclusions?)"
# Any capitals begin a section at the start of a line; the main ones and the Chinese ones also within it, because a
# report that went through a table has lost its lines.  There a word that is not all capitals must follow a sentence.
_HEADING = re.compile(
    rf"(?:^[ \t]*|(?<=\s))(?P<main>{_MAIN})[ \t]*:(?=\s|$)"
    rf"|(?:^[ \t]*|(?<=[.;]\s)|(?<=[.;]\s\s))(?P<title>{_TITLE})[ \t]*:(?=\s|$)"
    r"|^[ \t]*(?P<line>[A-Z][A-Z0-9 ,/()&'-]{1,60}[A-Z)])[ \t]*:(?=\s|$)"
    rf"|(?:^[ \t]*|(?<=[\s。；])|【)(?P<zh>{_ZH_NAMES})[ \t]*(?:】[ \t]*[:：]?|[:：])")
_OTHER_MAIN = re.compile(r"HISTORY|INDICATION|COMPARISON|TECHNIQUE|EXAM|ADDENDUM|REASON|CLINICAL|WET ?READ|RECOMMEND")
_VIEW = re.compile(r"\b(?:CHEST|PORTABLE|VIEWS?|PA|AP|LATERAL|RADIOGRAPHS?|RIBS)\b")  # "CHEST, TWO VIEWS:"
_ORGAN = re.compile(r"\b(?:LUNGS?|AIRWAYS?|PLEURA[EL]?|HEART|CARDI\w+|MEDIASTIN\w+|HIL(?:A|AR|UM)|VASCUL\w+|"
                    r"DIAPHRAGMS?|BON(?:ES?|Y)|OSSEOUS|SOFT TISSUES?|ABDOMEN|LINES?|TUBES?|DEVICES?)\b")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")

# --- sentences

_LIST_NUMBER = (rf"(?:[{_DIGIT}]{{1,2}}(?:[.)](?![{_DIGIT}])|[、．）])|[(（][{_DIGIT}]{{1,2}}[)）]|[\u2460-\u2473])"
                rf"(?=\s|[A-Z{_HANZI}]|$)")
_LIST_MARK = re.compile(rf"\s*(?:[-*•·]\s+)?(?:{_LIST_NUMBER})?\s*")
_NEXT_ITEM = re.compile(rf"\n(?=[ \t]*(?:[-*•·]\s|{_LIST_NUMBER}))")
_CLOSING = "[\"'”’」』】）)\\]]*"
# Chinese needs no blank: not before an item ("1.双肺清晰2.心影增大", but "第2、3肋"), nor after a mark
# ("3.5cm;心影增大").
_BREAK = re.compile(
    rf"\n[ \t\r]*\n|{_NEXT_ITEM.pattern}|\s(?=(?P<item>[{_DIGIT}]{{1,2}})[.)、．）]\s*[A-Z{_HANZI}])"
    rf"|(?<=[{_HANZI}）)])(?<!第)(?=(?:(?P<close>[{_DIGIT}]{{1,2}})[.、．]|[(（](?P<within>[{_DIGIT}]{{1,2}})[)）]"
    rf"|[\u2460-\u2473])[{_HANZI}])"
    rf"|(?P<mark>[。！？；]+{_CLOSING}|(?<=[{_HANZI}])[.．;!?]+|(?<![{_DIGIT}.．\s])[.．](?=[{_HANZI}])"
    rf"|[;!?]+(?=[{_HANZI}])|(?<![.!?])[.!?]+{_CLOSING}(?=\s|$)|(?<=[a-z][a-z])[.!?](?=[A-Z][a-z]))")
_WORD_BEFORE = re.compile(rf"[^\s(\[\"“（，。；：、！？{_HANZI}]*\Z")
_NEXT = re.compile(r"\s*(\S)")
_ACRONYM = re.compile(r"(?:[a-z]\.)+[a-z]")
# Abbreviations after which a sentence never ends, and those (units too) after which it ends unless a small letter
# follows.
_NEVER_LAST = frozenset("dr drs mr mrs ms prof vs e.g i.e cf approx ca fig figs incl resp viz".split())
_SELDOM_LAST = frozenset("""al etc cm mm ml pt pts yr yrs hr hrs min max ant post lat temp neg pos prev ext sec wk wks
    mo mos inc""".split())
_WORD = re.compile(r"\w")


def split_sections(report: str) -> dict[str, str]:
    """A free-text report's sections, ``{"FINDINGS": …, "IMPRESSION": …, "INDICATION": …}``, in order.

    A heading is a line's first words in capitals with a colon; the main ones may be written ``Findings:`` too.
    IMPRESSION stands for CONCLUSION and FINDINGS AND IMPRESSION too, FINDINGS for a heading that names the films
    (``CHEST, TWO VIEWS:``), and both for their Chinese names (``影像所见：``, ``诊断意见：``) and near misspellings;
    other headings are kept as they are, what comes before the first as ``PREAMBLE``.  A section that comes twice (an
    addendum) is one, both parts in order; the authors of MIMIC-CXR keep the last.  The organs of a structured report
    (``LUNGS: Clear.``) are no sections but part of FINDINGS.

    Where there is neither FINDINGS nor IMPRESSION, the report stands below the last heading, after a blank line: as the
    authors of MIMIC-CXR do, what follows the first paragraph of the last section is taken, here for FINDINGS.  Of a
    text with no heading at all and one paragraph, that is all of it.

    Returns:
        Sections that have text, wrapped lines joined, paragraphs kept apart by blank lines and list items by line ends.
    """
    sections: dict[str, list[str]] = {}
    for name, body in _headed(report):
        if body.strip():
            sections.setdefault(name, []).extend(_paragraphs(body))
    if FINDINGS not in sections and IMPRESSION not in sections and sections:
        last = next(reversed(sections))
        first, rest = sections[last][:1], sections[last][1:]
        if rest:
            sections[last], sections[FINDINGS] = first, rest
        elif list(sections) == [PREAMBLE]:
            sections = {FINDINGS: first}
    return {name: "\n\n".join(paragraphs) for name, paragraphs in sections.items()}


def _headed(report: str) -> Iterator[tuple[str, str]]:
    """``(name, body)`` of each section, PREAMBLE first."""
    name, start = PREAMBLE, 0
    for begin, end, heading in _headings(report):
        if name == FINDINGS and heading not in (FINDINGS, IMPRESSION) and _ORGAN.search(heading):
            continue
        yield name, report[start:begin]
        name, start = heading, end
    yield name, report[start:]


def _headings(report: str) -> Iterator[tuple[int, int, str]]:
    """``(start, end, name)`` of each heading.  Only lines with a colon are looked at: there are 227,835 reports."""
    offset = 0
    for line in report.split("\n"):
        if ":" in line or "：" in line or "】" in line:
            for match in _HEADING.finditer(line):
                heading = _name(match["main"] or (match["title"] or "").upper() or match["line"] or match["zh"])
                yield offset + match.start(), offset + match.end(), heading
        offset += len(line) + 1


@lru_cache(maxsize=4096)
def _name(heading: str) -> str:
    """The heading that stands for ``heading``."""
    name = " ".join(heading.split())
    if name in _ZH_FINDINGS or name in _ZH_IMPRESSION:
        return FINDINGS if name in _ZH_FINDINGS else IMPRESSION
    if "IMPRESSION" in name or "CONCLUSION" in name:
        return IMPRESSION
    if "FINDING" in name:
        return FINDINGS
    near = difflib.get_close_matches(name, (FINDINGS, IMPRESSION), n=1, cutoff=0.8)
    if near:
        return near[0]
    return FINDINGS if _VIEW.search(name) and not _OTHER_MAIN.search(name) else name


def _paragraphs(body: str) -> list[str]:
    """Paragraphs with wrapped lines joined; a list's items stay on lines of their own."""
    return ["\n".join(" ".join(item.split()) for item in _NEXT_ITEM.split(paragraph))
            for paragraph in _BLANK_LINE.split(body.strip())]


def sentences(text: str) -> list[str]:
    """The sentences of a text, blanks normalised, list numbers and bullets left out; nothing else is lost.

    A sentence ends at ``.``, ``!`` or ``?`` before a blank, at a Chinese full stop, exclamation or question mark or
    semicolon (beside Chinese characters at Latin ones too), at a blank line and before the next item of a list
    ("1. Stable nodule 2. No effusion", "1.双肺清晰2.心影增大"), not at decimals ("3.5 cm"), abbreviations ("Dr. ___",
    "e.g.", "vs.") and list numbers.  De-identified words ("XXXX.", "___") are words.  A blank forgotten between
    sentences ("left apex.There") is put there.  Marks without any word belong to the sentence before them.
    """
    found: list[str] = []
    loose = ""  # marks before the first word
    for start, end in _spans(text):
        piece = " ".join(text[start:end].split())
        if not piece:
            continue
        if _WORD.search(piece):
            found.append(f"{loose} {piece}".lstrip())
            loose = ""
        elif found:
            found[-1] += f" {piece}"
        else:
            loose = f"{loose} {piece}".lstrip()
    return found if not loose else [loose]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence in ``text``."""
    start, number = _begin(text, 0, 0)
    for match in _BREAK.finditer(text):
        if match.start() < start:
            continue  # within the list number
        if match["mark"] and not _ends(text, match):
            continue
        item = match["item"] or match["close"] or match["within"]
        if item and int(item) != number + 1:
            continue
        yield start, match.end()
        start, number = _begin(text, match.end(), number)
    yield start, len(text)


def _begin(text: str, at: int, number: int) -> tuple[int, int]:
    """Where a sentence's words begin after its list number, and that number (the one before where it has none)."""
    mark = _LIST_MARK.match(text, at)
    digits = re.search(f"[{_DIGIT}]+", mark.group())
    return mark.end(), int(digits.group()) if digits else number


def _ends(text: str, match: re.Match[str]) -> bool:
    """Whether a mark ends a sentence."""
    if match["mark"] != ".":
        return True
    word = _WORD_BEFORE.search(text, max(0, match.start() - 20), match.start()).group().lower()
    if word in _NEVER_LAST:
        return False
    after = _NEXT.match(text, match.end())
    following = after.group(1) if after else ""
    if word == "no":
        return not following.isdigit()  # "series no. 2"
    if word in _SELDOM_LAST or _ACRONYM.fullmatch(word):
        return not following.islower()
    return True
