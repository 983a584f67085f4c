"""A data set of classes as one of findings: an image of a class shows that class's finding and no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.pairs.nested import why_missing_inside
from paddle_cxr.data.records import ClassInfo, Source
from paddle_cxr.data.sources.layout import inside
from paddle_cxr.data.sources.mask_file import read_mask
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build, register


@register("findings")
class ClassesAsFindings(FindingsSource):
    """Any source of classes (COVIDxCXR2, CovidRadiography, CovidChestXray, ListFile, ImageFolder …) as findings.

    Every class is a finding, but for the negative ones: 1 on its own images, 0 on all others.  So the findings exclude
    each other, which holds of the labels and not always of the patients.

    Args:
        source: a component of the kind ``source``, e.g. ``{name: COVIDxCXR2, root: data/covidx-cxr2}``.
        classes: class names, in order.
        negative: the class, or classes, that show none of the findings.
        aliases: class → other spellings of it in folders and label columns.
        names: class → Chinese name, for figures.
        mask_column: column of the source's list (``Record.extra``) → the finding whose mask it names, a file of its
            image's size below the source's root.

    Raises:
        UserError: what the source has to say; no class left that is not negative, a name that is no class, a mask of
            another size than its image.
    """

    def __init__(self, source: dict[str, Any], classes: tuple[str, ...], negative: str | tuple[str, ...] = (),
                 aliases: dict[str, list[str]] | None = None, names: dict[str, str] | None = None,
                 mask_column: dict[str, str] | None = None) -> None:
        infos = class_infos(type(self).__name__, classes, aliases or {}, names or {})
        # Not called _source: masks are asked of this object, images of that one.
        self._classes: Source = build("source", source, f"{type(self).__name__}.source", classes=infos)
        positive = positive_classes(type(self).__name__, infos, negative)
        self._mask_column = mask_column or {}
        records = [findings_record(record, infos, positive) for record in self._classes.records]
        super().__init__(self._classes.name, self._classes.root, positive, records,
                         getattr(self._classes, "notices", ()))
        self.demo = self._classes.demo
        self.regions = tuple(name for name in self._mask_column.values() if name not in {one.name for one in positive})

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("source", arguments.get("source"), f"{cls.__name__}.source")

    def read(self, index: int) -> np.ndarray:
        return self._classes.read(index)

    def locate(self, index: int) -> str:
        return self._classes.locate(index)

    def origin(self, index: int) -> tuple[str, str]:
        return self._classes.origin(index)

    def annotated(self, index: int, finding: str) -> bool:
        """It is absent, or a mask is listed."""
        return self.mask_file(index, finding) is not None or super().annotated(index, finding)

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The mask where one is listed, else nothing."""
        mask = self.mask_file(index, finding)
        return super().mask(index, finding, shape) if mask is None else read_mask(mask, shape)

    def mask_file(self, index: int, finding: str) -> Path | None:
        """The listed mask."""
        for column, named in self._mask_column.items():
            path = self.records[index].extra.get(column)
            if named == finding and path:
                return self.root / inside(path, self.locate(index))
        return None


def class_infos(component: str, classes: Sequence[str], aliases: Mapping[str, Sequence[str]], names: Mapping[str, str]
                ) -> tuple[ClassInfo, ...]:
    """The classes a source is opened with; raises :class:`UserError` for a name that is none of them."""
    if not classes:
        raise UserError(f"{component}.classes：至少写一个类别")
    for argument, mentioned in (("aliases", aliases), ("names", names)):
        for name in mentioned:
            _check_class(f"{component}.{argument}", name, classes)
    return tuple(ClassInfo(name, names.get(name, name), name.replace("_", " "), tuple(aliases.get(name, ())))
                 for name in classes)


def positive_classes(component: str, infos: Sequence[ClassInfo], negative: str | Sequence[str]
                     ) -> tuple[ClassInfo, ...]:
    """The classes that are findings; raises :class:`UserError` where there is none, or a negative one is no class."""
    without = (negative,) if isinstance(negative, str) else negative
    for name in without:
        _check_class(f"{component}.negative", name, [info.name for info in infos])
    positive = tuple(info for info in infos if info.name not in without)
    if not positive:
        raise UserError(f"{component}.negative：所有类别都是阴性，没有征象（finding）可评估")
    return positive


def findings_record(record: Any, infos: Sequence[ClassInfo], positive: Sequence[ClassInfo]) -> FindingsRecord:
    """A record of a class as one of findings."""
    shown = infos[record.label].name
    return FindingsRecord(record.path, 0, record.patient_id, record.split, record.fold, record.extra,
                          {info.name: int(info.name == shown) for info in positive}, view=record.extra.get("view", ""))


def _check_class(where: str, name: str, classes: Sequence[str]) -> None:
    if name not in classes:
        raise UserError(f"{where}：{name!r} 不在 classes 中{did_you_mean(name, classes)}（有：{'、'.join(classes)}）")
