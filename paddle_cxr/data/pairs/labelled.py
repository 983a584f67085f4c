"""A labelled data set as pairs: labels instead of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paddle_cxr.data.pairs.record import PairRecord, PairSource, fingerprint_of
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build, find, register


@register("pairs")
class LabelledPairs(PairSource):
    """A labelled data set as pairs: every image gets its class's text.

    What a generator learns from it is the classes, not how reports describe them; it serves data sets without reports.

    Args:
        source: a component of the kind ``source``, e.g. ``{name: ListFile, root: data/cxr}``.
        prompts: class name → the text of its images, e.g. ``{NORMAL: No acute cardiopulmonary abnormality.}``.
        aliases: class name → other spellings of it in folders and label columns.
        text_column: a column of the source's list (a clinical note, say) whose text is the impression where there is
            any.  Notes may say more than the image shows.

    Raises:
        UserError: what the source has to say; an empty or missing prompt, no image with text in ``text_column``.
    """

    def __init__(self, source: dict[str, Any], prompts: dict[str, str], aliases: dict[str, list[str]] | None = None,
                 text_column: str | None = None) -> None:
        silent = [name for name, text in prompts.items() if not text.strip()]
        if silent or not prompts:
            raise UserError(f"LabelledPairs.prompts：{'、'.join(silent) or '类别'} 没有文字；每一类写一句，"
                            "例如 {NORMAL: No acute cardiopulmonary abnormality.}")
        for name in aliases or {}:
            if name not in prompts:
                raise UserError(f"LabelledPairs.aliases：{name!r} 不在 prompts 的类别中{did_you_mean(name, prompts)}")
        classes = tuple(ClassInfo(name, name, name, tuple((aliases or {}).get(name, ()))) for name in prompts)
        self._source: Source = build("source", source, "LabelledPairs.source", classes=classes)
        self.notices: list[str] = list(getattr(self._source, "notices", ()))
        self.demo = self._source.demo
        records = [_labelled_pair(record, classes, prompts, text_column) for record in self._source.records]
        if text_column is not None and not any(text_column in record.extra for record in records):
            columns = {name for record in records for name in record.extra}
            raise UserError(f"LabelledPairs.text_column：没有图像在 {text_column!r} 列有文字"
                            f"{did_you_mean(text_column, columns)}（有：{'、'.join(sorted(columns)) or '没有其他列'}）")
        super().__init__(self._source.name, self._source.root, records)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        source = arguments.get("source")
        spec = source if isinstance(source, Mapping) else {}
        component = find("source", spec.get("name"), "LabelledPairs.source")
        return component.missing(**{key: value for key, value in spec.items() if key != "name"})

    def read(self, index: int) -> np.ndarray:
        return self._source.read(index)

    def locate(self, index: int) -> str:
        return self._source.locate(index)

    def fingerprint(self) -> str:
        """The source's, and the texts."""
        return fingerprint_of(self._source.fingerprint(), self.records)


def _labelled_pair(record: Record, classes: Sequence[ClassInfo], prompts: Mapping[str, str],
                   text_column: str | None) -> PairRecord:
    name = classes[record.label].name
    text = record.extra.get(text_column or "", "").strip() or prompts[name].strip()
    return PairRecord(record.path, 0, record.patient_id, record.split, record.fold, record.extra, id=record.path,
                      impression=text, labels={info.name: int(info.name == name) for info in classes},
                      view=record.extra.get("view", ""))
