"""What a click does: values of the page in, values of the page out.  Plain Python, so that it is tested as such.

The last input of every handler is the language, the last output a message.  A mistake of the user becomes the message,
and so does a fault of the program: whatever comes in, an answer goes out.
"""

from __future__ import annotations

import functools
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paddle_cxr.app import images
from paddle_cxr.app.classify import Classified
from paddle_cxr.app.find import Found, checked_text
from paddle_cxr.app.tabs import CLASSIFY, DRAW, FIND, WRITE, Tab
from paddle_cxr.app.texts import explain, harmless, say
from paddle_cxr.app.write import Checked, Report, segments
from paddle_cxr.data.image import ImageError
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.overlap import stretched
from paddle_cxr.synthesis.checking import Difference
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.reports import SECTIONS

_MOST_SEED = 999_999


def answering(blanks: int) -> Callable[[Callable[..., tuple]], Callable[..., tuple]]:
    """A handler that always answers: ``blanks`` empty outputs and a message where it raises."""

    def decorate(handler: Callable[..., tuple]) -> Callable[..., tuple]:
        @functools.wraps(handler)
        def answer(self: Handlers, *inputs: Any) -> tuple:
            language = inputs[-1]
            try:
                return handler(self, *inputs)
            except UserError as error:
                message = explain(error, language)
            except Exception:  # the page goes on; what went wrong is for whoever started it
                traceback.print_exc(file=sys.stderr)
                message = say("bug", language)
            return (*[None] * blanks, f"! {message}")

        return answer

    return decorate


class Handlers:
    """The clicks of the page.

    Args:
        tabs: see :func:`paddle_cxr.app.tabs.open_tabs`.
        folder: holds the uploads, and the phantoms that users click; no other file is read.
        max_mb: largest upload.
    """

    def __init__(self, tabs: dict[str, Tab], folder: Path, max_mb: int) -> None:
        self.tabs, self._folder, self._max_mb = tabs, folder.resolve(), max_mb

    # --- images ----------------------------------------------------------------------------------------------------

    @answering(2)
    def phantom(self, kind: str, language: str) -> tuple:
        """A new phantom: (file, picture, message)."""
        if kind not in images.PHANTOMS:
            raise UserError(f"没有这种示例：{harmless(str(kind))}")
        file = images.write_phantom(kind, random.randrange(_MOST_SEED), self._folder)
        return str(file), self._file(images.show(self._read(str(file)))), ""

    @answering(1)
    def preview(self, file: str | None, language: str) -> tuple:
        """An upload: (picture, message)."""
        return self._file(images.show(self._read(file))), ""

    @answering(3)
    def classify(self, file: str | None, language: str) -> tuple:
        """(what the model sees, heat map, class → probability, message)"""
        tab = self.tabs[CLASSIFY]
        result: Classified = tab(self._read(file))
        shares = {_class_name(one, language): float(value)
                  for one, value in zip(result.classes, result.probabilities, strict=True)}
        lines = [*_about_findings(result, language),
                 say("best", language, name=_class_name(result.best, language),
                     probability=float(result.probabilities.max()))]
        if tab.model.demo:
            lines.append(say("demo_model", language))
        coloured = images.overlay(result.seen, result.heat)
        return self._file(images.show(result.seen)), self._file(coloured), shares, _paragraphs(lines)

    @answering(2)
    def find(self, file: str | None, phrase: str, language: str) -> tuple:
        """(what the model sees, map over it, message)"""
        checked_text(phrase)  # before the picture is read: the quicker complaint first
        tab = self.tabs[FIND]
        found: Found = tab(self._read(file), phrase)
        side, zone = found.hottest
        lines = [say("hottest", language, side=say(side, language), zone=say(zone, language),
                     low=float(found.map.min()), high=float(found.map.max()))]
        if tab.model.demo:
            lines.append(say("demo_model", language))
        coloured = images.overlay(found.seen, stretched(found.map))
        return self._file(images.show(found.seen)), self._file(coloured), _paragraphs(lines)

    def _read(self, file: str | None) -> np.ndarray:
        """An upload.  A click may name any file of the machine: only uploads are read."""
        if file and not Path(file).resolve().is_relative_to(self._folder):
            raise ImageError(Path(file).name, "missing", "文件已经不在，请重新上传")
        return images.read_upload(file, self._max_mb)

    def _file(self, picture: Image.Image) -> str:
        return images.save(picture, self._folder)

    # --- texts -----------------------------------------------------------------------------------------------------

    @answering(4)
    def write(self, values: list[str] | None, seed: float, language: str) -> tuple:
        """(FINDINGS, IMPRESSION, FINDINGS marked, IMPRESSION marked, message)"""
        report: Report = self.tabs[WRITE](values, seed, method="write")
        verdict = (say("passed", language, attempts=report.attempts) if report.accepted
                   else say("failed", language, attempts=report.attempts, reason=harmless(report.reason, 400)))
        return (*(report.sections[section].text for section in SECTIONS),
                *_marked(report.sections, language), _paragraphs([verdict, *self._verdicts(report.sections, language)]))

    @answering(2)
    def recheck(self, values: list[str] | None, findings: str, impression: str, language: str) -> tuple:
        """The check of an edited text: (FINDINGS marked, IMPRESSION marked, message)"""
        texts = dict(zip(SECTIONS, (findings or "", impression or ""), strict=True))
        sections: dict[str, Checked] = self.tabs[WRITE](texts, values, method="check")
        return (*_marked(sections, language), _paragraphs(self._verdicts(sections, language)))

    @answering(1)
    def draw(self, impression: str, seed: float, language: str) -> tuple:
        """(image, message)"""
        from paddle_cxr.app.draw import EXAMPLES

        tab = self.tabs[DRAW]
        painted = tab(impression, seed)
        lines = [say("drawn", language), say("drawn_by", language, title=harmless(painted.title), seed=int(seed))]
        if painted.entities is not None:
            lines.append(say("drawn_from", language, names=_listed(painted.entities, language)) if painted.entities
                         else say("drawn_from_nothing", language, example=EXAMPLES[0]))
        if painted.tokens_cut:
            lines.append(say("cut", language, tokens=painted.tokens_cut))
        return self._file(images.show(painted.image)), _paragraphs(lines)

    def stand_in(self, language: str) -> str:
        """What the drawing tab says where the phantom generator stands in; else empty."""
        tab = self.tabs[DRAW]
        if not tab.opened or not tab.model.why_stand_in:
            return ""
        return say("stand_in", language, reason=tab.model.why_stand_in, command=tab.make)

    def _verdicts(self, sections: dict[str, Checked], language: str) -> list[str]:
        lines: list[str] = []
        for section, checked in sections.items():
            lines += _verdict(section.upper(), checked.wrong, language)
        return lines


def _verdict(section: str, wrong: Difference, language: str) -> list[str]:
    if not wrong:
        return [say("agrees", language, section=section)]
    lines = []
    if wrong.missing:
        names = _listed([_entity_name(entity, language) for entity in wrong.missing], language)
        lines.append(say("missing", language, section=section, names=names))
    if wrong.extra:
        names = _listed([f"{identity.replace('_', ' ')}（{type_}）" for identity, type_ in wrong.extra], language)
        lines.append(say("extra", language, section=section, names=names))
    return lines


def _marked(sections: dict[str, Checked], language: str) -> list[list[tuple[str, str | None]]]:
    names = say("asked_for", language), say("not_asked_for", language)
    return [segments(sections[section], *names) for section in SECTIONS]


def _about_findings(result: Classified, language: str) -> list[str]:
    if result.present is None:
        return []
    names = [_class_name(one, language) for one, there in zip(result.classes, result.present, strict=True) if there]
    return [say("present", language, names=_listed(names, language)) if names else say("none_present", language)]


def _class_name(info: Any, language: str) -> str:
    return (info.en or info.name) if language == "en" else info.zh


def _entity_name(entity: Entity, language: str) -> str:
    name = entity.en if language == "en" or not entity.zh else entity.zh
    return f"{name}（{entity.type}）"


def _listed(names: list[str] | tuple[str, ...], language: str) -> str:
    return (", " if language == "en" else "、").join(names)


def _paragraphs(lines: list[str]) -> str:
    return "\n\n".join(lines)
