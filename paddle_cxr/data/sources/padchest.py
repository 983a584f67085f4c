"""PadChest (Bustos et al., Medical Image Analysis 66, 2020, arXiv:1901.07441)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.findings_layout import Absent, choose_findings, images_below, usable_records
from paddle_cxr.data.sources.layout import known_patient, open_root, why_missing
from paddle_cxr.data.sources.padchest_labels import EXCLUDE, FINDINGS, SUBOPTIMAL, SUBSETS, UNCHANGED
from paddle_cxr.data.sources.tables import find_table, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

_NAME, _DATASET = "PadChest", "PadChest"
_TABLE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
_MARKS = tuple(f"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv{end}" for end in ("", ".gz"))
_COLUMNS = ("ImageID", "PatientID", "Projection", "MethodLabel", "Labels")
_KEPT = {"PatientSex_DICOM": "sex", "PhotometricInterpretation_DICOM": "photometric"}  # column → key of extra
_PHYSICIAN = "physician"
_PROJECTIONS = ("PA", "AP", "AP_horizontal", "L", "COSTAL", "UNK", "EXCLUDE")
_CANONICAL = {name.lower(): name for name in (*(info.name for info in FINDINGS), EXCLUDE, SUBOPTIMAL, UNCHANGED)}
_BETWEEN = re.compile(r"[\[\],'\"]+")
_DEPTH = 2  # 0/x.png, images/0/x.png
_SHOWN = 5  # unknown labels named in a notice


@register("findings")
class PadChest(FindingsSource):
    """160,868 films of 67,000 patients at San Juan (Alicante); 193 labels, 27 % of the reports labelled by physicians.

    Published by BIMCV (bimcv.cipf.es/bimcv-projects/padchest); research use, on request, not to be passed on.  Below
    ``root`` lie::

        PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv     (or .csv.gz)
        0/20536686640136348236148679891455886468_k6ga29.png …    16-bit PNG in folders 0 … 54; images/ is read too

    A cell of ``Labels`` is a Python list written out, with labels that begin or end with blanks, are empty, double or
    ``nan``; it is taken apart here without running it.  A label counts as written: ``rib fracture`` does not make
    ``fracture`` present, though the publisher orders them in trees.  Findings that a report does not name are absent,
    but:

    - without any label, and with ``exclude`` or ``suboptimal study``, the image is left out;
    - ``unchanged`` (compared with an earlier film) leaves what is not named unknown, and where it stands alone the
      image is left out.

    All that is left out is counted.  There is no published division; ``PatientSplit`` divides by patient.

    Args:
        root: the folder, or an archive of it.
        subset: the findings: ``all`` 190; or those by which MAVL (arXiv:2403.07636) and SynCXR (arXiv:2410.13523)
            report: ``seen`` (14 common ones that the label set of the pre-training reports names), ``unseen`` (60 that
            it does not) or ``rare`` (39 of those 60).  ``padchest_labels.py`` has the lists.
        fewer_than: of these, the findings that at least one and fewer than so many images show; CARZero's PadChest20
            (Lai et al., CVPR 2024, arXiv:2402.17417) are those below 10.  Counted over the images that are used.
        findings: use these only; instead of ``subset``.
        physician_only: use only films whose report a physician labelled, as those papers do; False adds what a network
            labelled.
        projections: the views used.
        absent: what to do about images that the table names and the disk lacks: ``error`` or ``skip``.

    Raises:
        UserError: no table, a column missing, an unknown finding or projection, ``findings`` beside ``subset``, an
            absent image, nothing left.
    """

    def __init__(self, root: str, subset: Literal["all", "seen", "unseen", "rare"] = "all",
                 fewer_than: int | None = None, findings: tuple[str, ...] | None = None, physician_only: bool = True,
                 projections: tuple[str, ...] = ("PA", "AP", "AP_horizontal"), absent: Absent = "error") -> None:
        notices: list[str] = []
        if findings is not None and subset != "all":
            raise UserError(f"{_NAME}：findings 和 subset 只能写一个；subset 现在是 {subset}")
        for name in projections:
            if name not in _PROJECTIONS:
                raise UserError(f"{_NAME}.projections：没有体位 {name!r}（有：{'、'.join(_PROJECTIONS)}）")
        chosen = choose_findings(FINDINGS, findings if findings is not None else SUBSETS[subset], _NAME)
        folder = open_root(root, notices, *_MARKS)
        table = find_table(folder, (_TABLE,), _DATASET, _NAME)
        places = images_below(folder, _DEPTH)
        left_out: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        found: list[tuple[FindingsRecord, frozenset[str]]] = []
        for _, (image, patient, projection, method, cell, *kept) in read_rows(table, _COLUMNS, _DATASET, tuple(_KEPT)):
            labels = _labels(cell, unknown)
            reason = _why_not(projection, method, labels, projections, physician_only)
            if reason:
                left_out[reason] += 1
                continue
            extra = {name: text for name, text in zip(_KEPT.values(), kept, strict=True) if text}
            found.append((FindingsRecord(places.get(image, image), 0, known_patient(patient), extra=extra,
                                         view=projection), labels))
        if left_out:
            counts = "、".join(f"{reason} {number}" for reason, number in left_out.most_common())
            notices.append(f"{table}：略过 {sum(left_out.values())} 行（{counts}）")
        if unknown:
            notices.append(f"{table}：{len(unknown)} 种不认识的标签没有使用（例如 "
                           f"{'、'.join(name for name, _ in unknown.most_common(_SHOWN))}）")
        there = [record.path.rpartition("/")[2] in places for record, _ in found]
        usable = usable_records([record for record, _ in found], there, absent, folder, _NAME, notices)
        usable_labels = [labels for (_, labels), one in zip(found, there, strict=True) if one]
        if fewer_than is not None:
            chosen = _uncommon(chosen, usable_labels, fewer_than)
        super().__init__("padchest", folder, chosen, _labelled(usable, usable_labels, chosen), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _labels(cell: str, unknown: Counter[str]) -> frozenset[str]:
    """``"['pleural effusion', ' nodule ', nan, '']"`` → the labels, in the publisher's spelling.

    No label has a comma, a bracket or a quotation mark in it, so any of them ends one: cells that lack a bracket, a
    quotation mark or a comma are read too.
    """
    found = set()
    for part in _BETWEEN.split(cell):
        name = " ".join(part.split())
        if name.lower() in ("", "nan", "none"):
            continue
        if name.lower() in _CANONICAL:
            found.add(_CANONICAL[name.lower()])
        else:
            unknown[name] += 1
    return frozenset(found)


def _why_not(projection: str, method: str, labels: frozenset[str], projections: Sequence[str],
             physician_only: bool) -> str:
    """Why a row is left out, or an empty string."""
    if physician_only and method.lower() != _PHYSICIAN:
        return "不是医生标注（MethodLabel）"
    if projection not in projections:
        return f"体位 {projection or '空'}"
    if not labels:
        return "没有标签"
    for bad in (EXCLUDE, SUBOPTIMAL):
        if bad in labels:
            return bad
    return f"只有 {UNCHANGED}" if labels == {UNCHANGED} else ""


def _uncommon(findings: Sequence[ClassInfo], labels: Sequence[frozenset[str]], fewer_than: int
              ) -> tuple[ClassInfo, ...]:
    number = Counter(name for some in labels for name in some)
    chosen = tuple(info for info in findings if 0 < number[info.name] < fewer_than)
    if not chosen:
        raise UserError(f"{_NAME}.fewer_than={fewer_than}：没有一个征象的阳性图少于这个数（且至少 1 张）；请改大")
    return chosen


def _labelled(records: Sequence[FindingsRecord], labels: Sequence[frozenset[str]], findings: Sequence[ClassInfo]
              ) -> list[FindingsRecord]:
    known: dict[frozenset[str], dict[str, int | None]] = {}  # one for all that say the same: one each took 700 MB
    for some in labels:
        if some not in known:
            absent = None if UNCHANGED in some else 0
            known[some] = {info.name: 1 if info.name in some else absent for info in findings}
    return [replace(record, labels=known[some]) for record, some in zip(records, labels, strict=True)]
