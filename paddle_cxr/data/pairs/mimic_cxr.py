"""MIMIC-CXR-JPG (Johnson et al. 2019, arXiv:1901.07042) with the reports of MIMIC-CXR."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from paddle_cxr.data.pairs.mimic_reports import TABLE, ZIP, ReportText, Study, read_columns, read_reports
from paddle_cxr.data.pairs.record import PairRecord, PairSource
from paddle_cxr.data.pairs.views import FrontalViews
from paddle_cxr.data.sources.layout import why_missing
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

CHEXPERT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
            "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
            "Pneumothorax", "Support Devices")
"""The labels of ``mimic-cxr-2.0.0-chexpert.csv``."""

_SPLITS = {"train": "train", "validate": "val", "test": "test"}
_LABELS = {"1.0": 1, "1": 1, "0.0": 0, "0": 0}  # -1.0 is uncertain, an empty cell not mentioned: both unknown


class _Image(NamedTuple):
    dicom: str
    study: Study
    view: str
    path: str  # below the root


@register("pairs")
class MimicCxrPairs(PairSource):
    """MIMIC-CXR-JPG: one pair an image, all images of a study with the study's report.

    Below ``root`` lie ``files/p10/p10000032/s50414267/<dicom_id>.jpg`` and, plain or as ``.gz``,
    ``mimic-cxr-2.0.0-metadata.csv``, ``-split.csv`` (the publisher's split, for ``Split: {name: Published}``) and
    ``-chexpert.csv`` (labels; uncertain and not mentioned are unknown).  The last two may be absent, which is said.

    Images that are not on disk (few have room for all 377,110) and images of studies without FINDINGS and IMPRESSION
    are left out and counted.  No image is opened, and every report is read once.

    Args:
        root: the folder.
        reports: MIMIC-CXR's reports: their folder, ``mimic-cxr-reports.zip`` as published (which spares opening
            227,835 files), or ``mimic_cxr_sectioned.csv``, made by the publisher's own script (the fastest).  Without,
            one of these in ``root``.
        frontal_only: use frontal views (PA, AP) only; images of another or no known view are counted.

    Raises:
        UserError: no such folder, no metadata, no reports, a broken file, nothing left.
    """

    def __init__(self, root: str, reports: str | None = None, frontal_only: bool = False) -> None:
        self.notices: list[str] = []
        reason = why_missing(root)
        if reason:
            raise UserError(f"{reason}；请检查 MimicCxrPairs.root，数据申请和下载方法见 docs/data.md")
        folder, views = Path(root), FrontalViews(frontal_only)
        metadata = self._table(folder, "metadata")
        if metadata is None:
            raise UserError(f"{folder} 里没有 mimic-cxr-2.0.0-metadata.csv(.gz)；请从 MIMIC-CXR-JPG 下载")
        images = self._on_disk(folder, [image for image in images_of(metadata) if views.keeps(image.view)])
        views.note(metadata, self.notices)
        texts = self._reports(_find_reports(folder, reports), list(dict.fromkeys(image.study for image in images)))
        records = self._records(images, texts, self._splits(folder), self._labels(folder))
        if not records:
            raise UserError(f"{folder} 里没有一张图既在磁盘上又有报告（{'；'.join(self.notices)}）；"
                            "请检查 root 和 reports")
        super().__init__("mimic-cxr-jpg", folder, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def _table(self, folder: Path, kind: str) -> Path | None:
        """A table of the data set, the newest version; None where there is none."""
        found = sorted((*folder.glob(f"mimic-cxr-2.*-{kind}.csv"), *folder.glob(f"mimic-cxr-2.*-{kind}.csv.gz")))
        return found[-1] if found else None

    def _on_disk(self, folder: Path, images: list[_Image]) -> list[_Image]:
        base = f"{folder}/"
        there = [image for image in _bar(images, "找图像") if os.path.isfile(base + image.path)]
        if len(there) < len(images):
            self.notices.append(f"{folder}：{len(images) - len(there)} 张图不在磁盘上，略过")
        return there

    def _reports(self, place: Path, studies: list[Study]) -> dict[str, ReportText]:
        with _bar(studies, "读报告") as bar:
            return read_reports(place, studies, bar.update)

    def _splits(self, folder: Path) -> dict[str, str]:
        table = self._table(folder, "split")
        if table is None:
            self.notices.append(f"{folder} 里没有 mimic-cxr-2.0.0-split.csv(.gz)：没有发布者的划分")
            return {}
        return {dicom: _SPLITS[split] for dicom, split in read_columns(table, ("dicom_id", "split"))
                if split in _SPLITS}

    def _labels(self, folder: Path) -> dict[str, dict[str, int | None]]:
        table = self._table(folder, "chexpert")
        if table is None:
            self.notices.append(f"{folder} 里没有 mimic-cxr-2.0.0-chexpert.csv(.gz)：没有标签（labels）")
            return {}
        return {study: {name: _LABELS.get(cell) for name, cell in zip(CHEXPERT, cells, strict=True)}
                for study, *cells in read_columns(table, ("study_id", *CHEXPERT))}

    def _records(self, images: list[_Image], texts: dict[str, ReportText], splits: dict[str, str],
                 labels: dict[str, dict[str, int | None]]) -> list[PairRecord]:
        records, none = [], {}
        extras = {study: {"study_id": study} for study in texts}  # one for all images of a study: there are many
        for image in images:
            study = image.study.study
            text = texts.get(study)
            if text is not None and any(text):
                records.append(PairRecord(
                    image.path, 0, image.study.subject, splits.get(image.dicom), extra=extras[study], id=image.dicom,
                    findings=text.findings, impression=text.impression, labels=labels.get(study, none),
                    view=image.view))
        if len(records) < len(images):
            unread = sum(image.study.study not in texts for image in images)
            self.notices.append(f"MIMIC-CXR：略过 {len(images) - len(records)} 张图，其中 {unread} 张找不到报告，"
                                f"{len(images) - len(records) - unread} 张的报告没有 FINDINGS 和 IMPRESSION")
        return records


def _bar(items: list, what: str) -> tqdm:
    return tqdm(items, desc=f"MIMIC-CXR {what}", disable=None, leave=False, mininterval=0.5)


def images_of(metadata: Path) -> Iterator[_Image]:
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    study, folder = Study("", ""), ""
    for dicom, subject, number, view in read_columns(metadata, columns):
        # They become a path.
        if not (subject.isdecimal() and number.isdecimal() and dicom.replace("-", "").isalnum()):
            raise UserError(f"{metadata}：编号 {dicom!r}、{subject!r}、{number!r} 不像 MIMIC-CXR 的编号")
        if study != (subject, number):
            study = Study(subject, number)
            folder = study.folder
        yield _Image(dicom, study, view.strip(), f"{folder}/{dicom}.jpg")


def _find_reports(root: Path, reports: str | None) -> Path:
    if reports is not None:
        if not os.path.exists(reports):
            raise UserError(f"MimicCxrPairs.reports：找不到 {reports}（报告在 MIMIC-CXR，不在 MIMIC-CXR-JPG 里）")
        return Path(reports)
    return next((root / name for name in (TABLE, f"{TABLE}.gz", ZIP) if (root / name).is_file()), root)
