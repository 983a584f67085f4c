"""Small parts for the tests of image–report pairs: reports, a generator, judges and an encoder that need nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from paddle_cxr.registry import register
from paddle_cxr.synthesis.generators.base import Drawn
from paddle_cxr.synthesis.pairs import summary
from paddle_cxr.synthesis.pairs.run import synthesize_pairs
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer

FIGURES = ("accepted.png", "rejected.png", "waterfall.png")
FINAL = ("pairs.jsonl", "rejected.jsonl", "metrics.json", "summary.md")


def picture(seed: int) -> np.ndarray:
    """The image of :class:`TinyGenerator` for a seed, uint8 [16, 16]."""
    return np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)


@register("generator", "TinyGenerator")
class TinyGenerator:
    """Noise from the seed.  ``hopeless``: ids it can never draw; ``moody``: it fails for every other seed.

    ``folder`` of weights is taken and never opened.
    """

    title = "tiny"
    calls = 0  # images drawn in this process

    def __init__(self, hopeless: list[str] | None = None, moody: bool = False, cut: int = 0,
                 folder: str | None = None) -> None:
        self.hopeless, self.moody, self.cut = hopeless or [], moody, cut

    def draw(self, requests):
        TinyGenerator.calls += len(requests)
        return [Drawn(error="out of paint") if request.id in self.hopeless or (self.moody and request.seed % 2)
                else Drawn(picture(request.seed), tokens_cut=self.cut) for request in requests]


@register("judge", "PickyJudge")
class PickyJudge:
    """Refuses images whose first pixel is below ``floor``; knows no answer while ``broken`` is set."""

    title = "picky"
    broken = False
    calls = 0

    def __init__(self, floor: int = 100) -> None:
        self.floor = floor
        self.errors: dict[str, int] = {}

    def judge(self, images):
        PickyJudge.calls += len(images)
        return [self._judge(image) for image in images]

    def _judge(self, image):
        if PickyJudge.broken:
            self.errors["答非是否"] = self.errors.get("答非是否", 0) + len(QUESTIONS)
            return dict.fromkeys(QUESTIONS, Answer(None, reason="banana"))
        first = int(image[0, 0])
        sharp = Answer(first >= self.floor, first, f"first pixel {first}")
        return dict.fromkeys(QUESTIONS, Answer(True)) | {"sharp": sharp, "human": Answer(None, reason="cannot tell")}


@register("encoder", "CornerEncoder")
class CornerEncoder:
    """Four pixels of the image."""

    title, dim = "corners", 4

    def encode(self, images):
        return np.stack([image[:2, :2].ravel() for image in images]).astype(np.float32)


def reports(count: int) -> str:
    """Lines of reports.jsonl."""
    rows = [{"id": f"r{number:07d}", "findings": f"Finding {number}.", "impression": f"Effusion, case {number}.",
             "entities": [{"id": "pleural_effusion", "type": "disease"}, {"id": "nodule", "type": "non-abnormality"},
                          {"id": "left_lung", "type": "anatomy"}], "writer": "grammar"} for number in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows)


class Pairs:
    """A recipe in a folder, run in this process."""

    def __init__(self, folder: Path, count: int = 40, **sections) -> None:
        self.folder = folder
        (folder / "reports.jsonl").write_text(reports(count), encoding="utf-8")
        recipe = {"Global": {"task": "pairs", "output_dir": str(folder / "out"), "seed": 3, "chunk": 7,
                             "stages": ["reports", "draw", "judge"]},
                  "Reports": {"file": str(folder / "reports.jsonl")},
                  "Generator": {"name": "TinyGenerator"}, "Judge": {"name": "PickyJudge"}} | sections
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def __call__(self, *overrides: str, out: str = "out", figures: bool = False) -> tuple[list[dict], list[dict]]:
        """Run; returns the records of pairs.jsonl and rejected.jsonl.  Figures take seconds: few tests want them."""
        with pytest.MonkeyPatch.context() as patch:
            if not figures:
                patch.setattr(summary, "draw_figures", lambda *_, **__: None)
            synthesize_pairs(argparse.Namespace(config=self.recipe, debug=False,
                                                override=[f"Global.output_dir={self.folder / out}", *overrides]))
        return self.records(out)

    def records(self, out: str = "out") -> tuple[list[dict], list[dict]]:
        return records(self.folder / out / "pairs.jsonl"), records(self.folder / out / "rejected.jsonl")

    def metrics(self, out: str = "out") -> dict:
        return json.loads((self.folder / out / "metrics.json").read_text(encoding="utf-8"))


def records(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def final_files(folder: Path, figures: bool = False) -> dict[str, bytes]:
    """Name → bytes of what a finished run leaves: the final files, and the images that pairs.jsonl names."""
    images = [pair["image"] for pair in records(folder / "pairs.jsonl")]
    return {name: (folder / name).read_bytes() for name in (*FINAL, *(FIGURES if figures else ()), *images)}
