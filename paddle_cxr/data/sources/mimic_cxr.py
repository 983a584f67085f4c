"""MIMIC-CXR-JPG (Johnson et al. 2019, arXiv:1901.07042) for its labels; its reports are read in data/pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.pairs.mimic_cxr import CHEXPERT, images_of
from paddle_cxr.data.pairs.views import FrontalViews
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.chexpert_labels import COMPETITION, OBSERVATIONS, Blank, LabelPolicy, Uncertain
from paddle_cxr.data.sources.findings_layout import Absent, SharedLabels, choose_findings, files_there, usable_records
from paddle_cxr.data.sources.layout import open_root, why_missing
from paddle_cxr.data.sources.tables import find_table, read_rows
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

_NAME, _DATASET = "MimicCxr", "MIMIC-CXR-JPG"
_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_OBSERVATIONS = tuple(sorted(OBSERVATIONS, key=lambda info: CHEXPERT.index(info.name)))  # in the order of its tables


@register("findings")
class MimicCxr(FindingsSource):
    """377,110 films of 65,379 patients in Boston; 14 observations mined from reports, those of a study for its images.

    Published on PhysioNet (physionet.org/content/mimic-cxr-jpg); credentialed health data license, not to be passed on
    nor sent to online services.  Below ``root`` lie, the tables plain or as ``.gz``::

        mimic-cxr-2.0.0-metadata.csv.gz  mimic-cxr-2.0.0-split.csv.gz  mimic-cxr-2.0.0-chexpert.csv.gz  (or -negbio)
        files/p10/p10000032/s50414267/<dicom_id>.jpg …

    ``validate`` of the published division is ``val``.  Studies that the table of labels lacks are left out and counted.

    Args:
        root: the folder.
        labels: whose table: that of the CheXpert labeller or of NegBio.
        findings: ``all`` 14, ``competition`` (Atelectasis, Cardiomegaly, Consolidation, Edema, Pleural Effusion), or a
            list.
        uncertain: what -1 means: ``unknown`` (U-Ignore), ``positive`` (U-Ones) or ``negative`` (U-Zeros).
        uncertain_of: finding → what -1 means for it, e.g. ``{Atelectasis: positive, Edema: positive}``.
        blank: what an empty cell means: ``negative``, as in the CheXpert paper, or ``unknown``.
        frontal_only: leave out films of another or no known view; they are counted.
        absent: what to do about images that the tables name and the disk lacks: ``error`` or ``skip`` (few have room
            for all).

    Raises:
        UserError: no such folder or table, a column missing, an unknown finding, an id or a cell of another kind, an
            absent image.
    """

    def __init__(self, root: str, labels: Literal["chexpert", "negbio"] = "chexpert",
                 findings: Literal["all", "competition"] | tuple[str, ...] = "all",
                 uncertain: Uncertain = "unknown", uncertain_of: dict[str, Uncertain] | None = None,
                 blank: Blank = "negative", frontal_only: bool = True, absent: Absent = "error") -> None:
        notices: list[str] = []
        folder, views = open_root(root, notices, "files"), FrontalViews(frontal_only)
        metadata, table = (find_table(folder, (f"mimic-cxr-2.*-{kind}.csv",), _DATASET, _NAME)
                           for kind in ("metadata", labels))
        wanted = {"all": None, "competition": COMPETITION}[findings] if isinstance(findings, str) else findings
        chosen = choose_findings(_OBSERVATIONS, wanted, _NAME)
        by_study = _labels(table, chosen, LabelPolicy(uncertain, uncertain_of, blank, _NAME))
        splits = _splits(folder, notices)
        films = [film for film in images_of(metadata) if views.keeps(film.view)]
        views.note(metadata, notices)
        records = [FindingsRecord(film.path, 0, film.study.subject, splits.get(film.dicom),
                                  labels=by_study[film.study.study], view=film.view)
                   for film in films if film.study.study in by_study]
        if len(records) < len(films):
            notices.append(f"{table}：略过 {len(films) - len(records)} 张图，它们的检查（study）不在表里")
        there = files_there(folder, (record.path for record in records), _DATASET)
        super().__init__("mimic-cxr-jpg", folder, chosen,
                         usable_records(records, there, absent, folder, _NAME, notices), notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _labels(table: Path, findings: Sequence[ClassInfo], policy: LabelPolicy) -> dict[str, dict[str, int | None]]:
    """Study → labels."""
    names, shared = [info.name for info in findings], SharedLabels(findings)
    return {study: shared.of([policy.label(name, cell, where) for name, cell in zip(names, cells, strict=True)])
            for where, (study, *cells) in read_rows(table, ("study_id", *names), _DATASET)}


def _splits(folder: Path, notices: list[str]) -> dict[str, str]:
    """Image → split of the publisher's; said where there is none."""
    try:
        table = find_table(folder, ("mimic-cxr-2.*-split.csv",), _DATASET, _NAME)
    except UserError:
        notices.append(f"{folder} 里没有 mimic-cxr-2.0.0-split.csv(.gz)：没有发布者的划分")
        return {}
    return {dicom: _SPLITS[split] for _, (dicom, split) in read_rows(table, ("dicom_id", "split"), _DATASET)
            if split in _SPLITS}
