"""A labelled data set as pairs: labels instead of reports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paddle_cxr.data.pairs.nested import PairsOfOther, why_missing_inside
from paddle_cxr.data.pairs.record import PairRecord, fingerprint_of
from paddle_cxr.data.pairs.template import Template
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build, register

TEXT_FROM = "text_from"
"""Key of ``Record.extra``: ``note`` where a person wrote the text, ``label`` where it was made of labels."""


@register("pairs")
class LabelledPairs(PairsOfOther):
    """A labelled data set as pairs: every image gets a text made of its class, or of its labels and other columns.

    What a model learns from it is the classes, not how reports describe them; it serves data sets without reports.
    ``Record.extra["text_from"]`` is ``note`` for a text out of ``text_column`` and ``label`` for one that was made, so
    that figures for the two can be told apart.

    Args:
        source: a component of the kind ``source``, e.g. ``{name: ListFile, root: data/cxr}``.
        prompts: class name → the text of its images, e.g. ``{NORMAL: No acute cardiopulmonary abnormality.}``.
        aliases: class name → other spellings of it in folders and label columns.
        text_column: a column of the source's list (a clinical note, say) whose text is the impression where there is
            any.  Notes may say more than the image shows.
        label_column: a column of several labels, ``Effusion|Pneumonia`` or with ``;``.  Where it is not empty the text
            is a sentence a label, in their order, instead of the class's; the pair's labels then hold each of them too
            (0 where another is listed, unknown where the column is empty), but for those that name a class.
        label_texts: label → its sentence; without one, its name (``Pleural_Thickening`` → "Pleural thickening.").
        template: a longer text for images without a note: ``{text}`` is the text above, ``{view}`` and so on are
            columns; what stands in square brackets is left out where a column in it is empty, e.g.
            ``"{text}[ {view} view.][ {age}-year-old {sex} patient.]"``.
        values: column → cell → what to write for it, e.g. ``{sex: {F: female, M: male}}``.

    Raises:
        UserError: what the source has to say; an empty or missing prompt, no image with text in ``text_column``, a
            column that is not there, a column that is empty where the template needs it.
    """

    def __init__(self, source: dict[str, Any], prompts: dict[str, str], aliases: dict[str, list[str]] | None = None,
                 text_column: str | None = None, label_column: str | None = None,
                 label_texts: dict[str, str] | None = None, template: str | None = None,
                 values: dict[str, dict[str, str]] | None = None) -> None:
        silent = [name for name, text in prompts.items() if not text.strip()]
        if silent or not prompts:
            raise UserError(f"LabelledPairs.prompts：{'、'.join(silent) or '类别'} 没有文字；每一类写一句，"
                            "例如 {NORMAL: No acute cardiopulmonary abnormality.}")
        for name in aliases or {}:
            if name not in prompts:
                raise UserError(f"LabelledPairs.aliases：{name!r} 不在 prompts 的类别中{did_you_mean(name, prompts)}")
        if label_texts and label_column is None:
            raise UserError("LabelledPairs.label_texts：写了它就要写 label_column（哪一列是多个标签）")
        if values and template is None:
            raise UserError("LabelledPairs.values：写了它就要写 template（values 只用来填模板）")
        classes = tuple(ClassInfo(name, name, name, tuple((aliases or {}).get(name, ()))) for name in prompts)
        labelled: Source = build("source", source, "LabelledPairs.source", classes=classes)
        _check_columns(labelled.records, text_column=text_column, label_column=label_column)
        labels = _Labels(labelled.records, label_column, label_texts or {}, classes)
        texts = [labels.text(record) or prompts[classes[record.label].name].strip() for record in labelled.records]
        if template is not None:
            texts = _filled(Template(template, "LabelledPairs.template", values), labelled.records, texts)
        super().__init__(labelled, [
            _pair(record, text, record.extra.get(text_column or "", "").strip(), labels.of(record))
            for record, text in zip(labelled.records, texts, strict=True)])

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("source", arguments.get("source"), "LabelledPairs.source")

    def fingerprint(self) -> str:
        """The source's, and the texts."""
        return fingerprint_of(self._source.fingerprint(), self.records)


class _Labels:
    """What a column of several labels says of each record."""

    def __init__(self, records: Iterable[Record], column: str | None, texts: Mapping[str, str],
                 classes: Sequence[ClassInfo]) -> None:
        self._column, self._texts, self._classes = column, texts, classes
        self._all = sorted({label for record in records for label in self._listed(record)
                            if not any(info.matches(label) for info in classes)})
        for name in texts:
            if not any(name in self._listed(record) for record in records):
                raise UserError(f"LabelledPairs.label_texts：没有图像有标签 {name!r}{did_you_mean(name, self._all)}"
                                f"（{column} 列有：{'、'.join(self._all)}）")

    def _listed(self, record: Record) -> list[str]:
        cell = record.extra.get(self._column or "", "")
        return [label.strip() for label in re.split("[|;]", cell) if label.strip()]

    def text(self, record: Record) -> str:
        """A sentence for each label; empty without any."""
        return " ".join(self._texts.get(label, f"{label.replace('_', ' ').capitalize()}.")
                        for label in self._listed(record))

    def of(self, record: Record) -> dict[str, int | None]:
        """The record's labels: the classes, and those of the column."""
        listed = self._listed(record)
        classes = {info.name: int(number == record.label) for number, info in enumerate(self._classes)}
        return classes | {label: int(label in listed) if listed else None for label in self._all}


def _check_columns(records: Sequence[Record], **columns: str | None) -> None:
    there = {name for record in records for name in record.extra}
    for argument, column in columns.items():
        if column is not None and column not in there:
            raise UserError(f"LabelledPairs.{argument}：没有图像在 {column!r} 列有文字{did_you_mean(column, there)}"
                            f"（有：{'、'.join(sorted(there)) or '没有其他列'}）")


def _filled(template: Template, records: Sequence[Record], texts: Sequence[str]) -> list[str]:
    """The template for each record, with its text as ``{text}``."""
    rows = [{**record.extra, "patient_id": record.patient_id or "", "text": text}
            for record, text in zip(records, texts, strict=True)]
    template.check(rows)
    return [template.fill(row) for row in rows]


def _pair(record: Record, made: str, note: str, labels: dict[str, int | None]) -> PairRecord:
    return PairRecord(record.path, 0, record.patient_id, record.split, record.fold,
                      {**record.extra, TEXT_FROM: "note" if note else "label"}, id=record.path,
                      impression=note or made, labels=labels, view=record.extra.get("view", ""))
