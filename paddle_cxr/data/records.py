"""What a data set is to the rest of the toolkit: classes, records, and a source that reads them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from paddle_cxr.errors import UserError


@dataclass(frozen=True)
class ClassInfo:
    """One class of a classifier.

    Attributes:
        name: the name used in folders and label columns, e.g. ``COVID``.
        zh: Chinese display name; en: English display name.
        aliases: other spellings accepted in folders and label columns (compared case-insensitively).
    """

    name: str
    zh: str
    en: str
    aliases: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """Whether ``text`` (a folder name or a label cell) means this class."""
        return text.strip().lower() in {self.name.lower(), *(alias.lower() for alias in self.aliases)}


@dataclass(frozen=True)
class Record:
    """One labelled image, before it is read.

    Attributes:
        path: path relative to the source's root, with forward slashes (for phantoms: a made-up name).
        label: class number, 0 … len(classes) - 1.
        patient_id: patient the image belongs to, or None where the data set does not say.
        split: the publisher's own split (``train`` / ``val`` / ``test``), or None.
        fold: the publisher's own fold number, or None.
        extra: further columns kept as text (view, sex, age, mask, note …).
    """

    path: str
    label: int
    patient_id: str | None = None
    split: str | None = None
    fold: int | None = None
    extra: dict[str, str] = field(default_factory=dict)


class Source:
    """A data set on disk (or made up): its records, and how to read one.

    A concrete source lists its records in ``__init__`` and raises :class:`UserError` naming the file and the way out
    when the layout is not what its publisher ships.  Listing must not open the images.

    Attributes:
        name: the data set's name, written into ``metrics.json``.
        root: the folder the record paths are relative to.
        classes: the classes, in label order.
        records: the records, in a fixed order that does not depend on the file system.
        demo: True for the built-in phantoms, so that no figure made of them passes for a clinical one.
        cohort: whose patient ids the records have: data sets made of the same films have the same.  Empty: the data
            set's own, told from others by its name.
    """

    demo: bool = False
    cohort: str = ""

    def __init__(self, name: str, root: str | Path, classes: Sequence[ClassInfo], records: Sequence[Record]) -> None:
        self.name = name
        self.root = Path(root)
        self.classes = tuple(classes)
        self.records = list(records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Say in a few Chinese words why the data set is not on disk, or None when it is.

        Receives the component's YAML arguments.  Used to decide on the recipe's ``fallback``: only a data set that is
        absent may fall back; one that is there and broken is an error.
        """
        root = Path(str(arguments.get("root", "")))
        return None if os.path.exists(root) else f"找不到数据 {root}"

    def read(self, index: int) -> np.ndarray:
        """Read image ``index`` as uint8, ``[H, W]`` (grey) or ``[H, W, 3]`` (RGB); raises :class:`UserError`."""
        from paddle_cxr.data.image import read_image

        return read_image(self.root / self.records[index].path)

    def locate(self, index: int) -> str:
        """The image's path as a person would look for it (used in messages and error lists)."""
        return str(self.root / self.records[index].path)

    def origin(self, index: int) -> tuple[str, str]:
        """The record's cohort, and its path in the data set it comes from, whatever a mixture of them calls it."""
        return self.cohort or self.name, self.records[index].path

    def counts(self) -> dict[str, int]:
        """Number of images per class name, in class order, zeros included."""
        number = Counter(record.label for record in self.records)
        return {info.name: number.get(label, 0) for label, info in enumerate(self.classes)}

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over every record's path, label and file size: names this very data set."""
        digest = hashlib.sha256()
        for record in self.records:
            size = file_size(os.path.join(self.root, record.path))
            digest.update(f"{record.path}\t{record.label}\t{size}\n".encode())
        return digest.hexdigest()[:16]


def file_size(file: str) -> int:
    """In bytes, -1 for what is no file; asks the disk once, which may be a slow one with 100,000 files."""
    try:
        state = os.stat(file)
    except (OSError, ValueError):
        return -1
    return state.st_size if stat.S_ISREG(state.st_mode) else -1


def label_of(text: str, classes: Sequence[ClassInfo], where: str) -> int:
    """Class number of a label cell or folder name; ``where`` names file and line for the error."""
    for label, info in enumerate(classes):
        if info.matches(text):
            return label
    accepted = "、".join(info.name for info in classes)
    raise UserError(f"{where}：标签 {text!r} 不在 Global.classes 中（有 {accepted}）；"
                    "请改标签，或把它写进某一类的 aliases")
