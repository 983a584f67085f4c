"""COVIDx (Wang, Lin and Wong 2020; Pavlova et al. 2022): list files beside ``train/`` and ``test/``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from paddle_cxr.data.records import ClassInfo, Record, Source, label_of
from paddle_cxr.data.sources.findings_layout import Absent, usable_records
from paddle_cxr.data.sources.layout import inside, open_root, read_text, why_missing, without_repeats
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

_LABELS = ("positive", "negative", "normal", "pneumonia", "covid-19")


@register("source")
class COVIDxCXR2(Source):
    """COVIDx CXR-2 and its relatives: lines of ``patient_id filename class [source]``, images in ``train/``, ``test/``.

    The class is ``positive`` / ``negative`` (CXR-2 and the "B" lists) or ``normal`` / ``pneumonia`` / ``COVID-19`` (the
    older and the "A" lists); write these words as aliases of your classes.  The publisher's split is kept
    (``split: {name: Published}``), ``val.txt`` is used where there is one (CXR-4), and the hospital the image came from
    is in ``extra["source"]``.  In version 7 a patient id contains a blank and the first lists repeat lines; both are
    handled.

    Args:
        root: the folder with the lists and the image folders, or an archive of it.
        lists: other list names, e.g. ``{train: train_COVIDx9A.txt, test: test_COVIDx9A.txt}``.
        absent: what to do about images that a list names and the disk lacks: ``error`` or ``skip``.
        classes: the classes (supplied by the program).

    Raises:
        UserError: naming file and line: not such a line, a class outside ``classes``, a path leading out of ``root``;
            an absent image; or no list.
    """

    cohort = "covid-chestxray-dataset"  # whose images keep their ids here; other hospitals' ids look otherwise

    def __init__(self, root: str, lists: dict[str, str] | None = None, absent: Absent = "error", *,
                 classes: tuple[ClassInfo, ...]) -> None:
        self.notices: list[str] = []
        folder = open_root(root, self.notices, *(lists or {}).values(), "train.txt", "test.txt")
        records: list[Record] = []
        for split, file in _lists(folder, lists).items():
            path = folder / file
            records += without_repeats(_read_list(folder, split, path, classes), path, classes, self.notices)
        there = [os.path.isfile(folder / record.path) for record in records]
        super().__init__("COVIDx CXR-2", folder, classes,
                         usable_records(records, there, absent, folder, type(self).__name__, self.notices))

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))


def _lists(root: Path, chosen: dict[str, str] | None) -> dict[str, str]:
    if chosen is not None:
        unknown = [split for split in chosen if split not in ("train", "val", "test")]
        if unknown:
            raise UserError(f"DataLoader.Source.lists：{unknown[0]!r} 应为 train、val 或 test")
        return chosen
    found = {split: f"{split}.txt" for split in ("train", "val", "test") if os.path.isfile(root / f"{split}.txt")}
    if not found:
        raise UserError(f"{root} 中没有 train.txt / test.txt；COVIDx 的列表可用 lists: {{train: …, test: …}} 指定")
    return found


def _read_list(root: Path, split: str, path: Path, classes: Sequence[ClassInfo]) -> Iterator[tuple[str, Record]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        patient, file, label, origin = _parse(root / split, line, where)
        yield where, Record(f"{split}/{file}", label_of(label, classes, where), patient, split,
                            extra={"source": origin} if origin else {})


def _parse(folder: Path, line: str, where: str) -> tuple[str, str, str, str]:
    """``patient_id filename class [source]`` → those four; ids and file names may contain blanks."""
    words = line.split()
    places = [place for place in (len(words) - 1, len(words) - 2) if place >= 2 and words[place].lower() in _LABELS]
    if not places:
        raise UserError(f"{where}：应为“患者编号 文件名 类别 [来源]”，现在是 {line.strip()!r}")
    label = places[0]
    # Usually the file name is one word; take more of them only where such a file exists.
    starts = range(label - 1, 0, -1)
    start = next((one for one in starts if os.path.isfile(folder / inside(" ".join(words[one:label]), where))),
                 label - 1)
    return (" ".join(words[:start]), inside(" ".join(words[start:label]), where), words[label],
            " ".join(words[label + 1:]))
