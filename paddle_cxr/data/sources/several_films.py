"""Several films of every phantom: what a split by image lets through."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from paddle_cxr.data.pairs.nested import why_missing_inside
from paddle_cxr.data.records import ClassInfo, Source
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, register

_LABEL_STREAM, _FILM_STREAM = 31, 37  # keep these random numbers apart from others of the same seed (data/dataset.py)


@register("source")
class SeveralFilms(Source):
    """Every phantom several times, each time a little shifted and exposed anew: films of one patient.

    With ``labels: random`` the classes are dealt out to the patients at random.  Then there is nothing to learn about
    other patients: a score above chance on a test set is a leak.

    Args:
        source: a component of the kind ``source`` that draws phantoms, one image a patient.
        films: of every patient.
        labels: ``own``, or ``random``: the same labels, dealt out to other patients.
        seed: of labels, shifts and exposures.
        classes: the classes (supplied by the program).

    Raises:
        UserError: what the source has to say; real images (nobody took these films of them), or several of a patient;
            fewer than one film, or a negative seed.
    """

    def __init__(self, source: dict[str, Any], films: int = 5, labels: Literal["own", "random"] = "own",
                 seed: int = 0, *, classes: tuple[ClassInfo, ...]) -> None:
        if films < 1 or seed < 0:
            raise UserError(f"SeveralFilms：films（{films}）至少为 1，seed（{seed}）至少为 0")
        self._source: Source = build("source", source, "SeveralFilms.source", classes=classes)
        inner = self._source.records
        if not self._source.demo or len({record.patient_id for record in inner}) < len(inner):
            raise UserError("SeveralFilms.source：只能是内置模体，而且每位患者一张，例如 Phantoms")
        given = [record.label for record in inner]
        if labels == "random":
            given = np.random.default_rng((_LABEL_STREAM, seed)).permutation(given).tolist()
        super().__init__(f"{self._source.name}-films", self._source.root, classes, [
            replace(record, path=f"{record.path}/{film}", label=label)
            for record, label in zip(inner, given, strict=True) for film in range(films)])
        self.demo, self.cohort = True, self._source.name
        self._films, self._labels, self._seed = films, labels, seed
        self.notices = list(getattr(self._source, "notices", ()))
        if labels == "random":
            self.notices.append("!! 标签已随机分给患者：在没见过的患者上只应得到猜测的水平")

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """What the source says."""
        return why_missing_inside("source", arguments.get("source"), "SeveralFilms.source")

    def read(self, index: int) -> np.ndarray:
        """The patient's image, shifted by at most a thirty-second of its side and up to 5 % brighter or darker."""
        image = self._source.read(index // self._films)
        rng = np.random.default_rng((_FILM_STREAM, self._seed, index))
        most = max(1, min(image.shape[:2]) // 32)
        down, right = rng.integers(0, 2 * most + 1, 2)
        around = np.pad(image, most, mode="edge")
        moved = around[down:down + image.shape[0], right:right + image.shape[1]]
        return np.clip(np.rint(moved * rng.uniform(0.95, 1.05)), 0, 255).astype(np.uint8)

    def locate(self, index: int) -> str:
        """The made-up name."""
        return self.records[index].path

    def fingerprint(self) -> str:
        """The source's, and what is made of it."""
        text = f"films {self._source.fingerprint()} {self._films} {self._labels} {self._seed}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]
