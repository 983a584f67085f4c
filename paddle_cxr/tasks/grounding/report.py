"""What a pre-trained model's maps are worth on marked images: figures, a row a finding and image, and overlays."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.prompts import FindingPrompts
from paddle_cxr.files import write_text
from paddle_cxr.plots.grounding import MAX_EXAMPLES, Grounded, plot_grounding
from paddle_cxr.plots.style import DEMO_LINE, DEMO_MODEL_LINE, bilingual
from paddle_cxr.tasks.grounding.maps import Maps
from paddle_cxr.tasks.grounding.marked import Located, Marked, locate
from paddle_cxr.tasks.grounding.schema import GroundingRecipe
from paddle_cxr.tasks.grounding.scores import MEASURES, Score, Thresholds, choose_thresholds, score, summarise

WRITTEN = ("per_image.csv", "grounding_[0-9].png", "grounding_[0-9][0-9].png")
"""The files of a report, as patterns."""
_SHOWN = {"iou": "IoU", "dice": "Dice", "pointing": "指点", "cnr_signed": "CNR"}
_LARGEST = 600  # pixels along a side of an example: a figure shows some 260


class Report:
    """Evaluates one model's maps on marked images.

    Args:
        recipe: what is asked for.
        data: images with marked findings; prompts: the findings; marked: subset → what is marked in it.
        maps: of the model.
        folder: where the files and lines for the user go.
        demo: the images, or those the model learned from, are phantoms.
    """

    def __init__(self, recipe: GroundingRecipe, data: LabelledData, prompts: Sequence[FindingPrompts],
                 marked: dict[str, list[Marked]], maps: Maps, folder: RunFolder, demo: bool) -> None:
        self.recipe, self.data, self.prompts, self.marked, self.maps = recipe, data, prompts, marked, maps
        self.folder, self.say = folder.path, folder.say
        self.mark = {"demo": demo, "line": DEMO_LINE if data.source.demo else DEMO_MODEL_LINE}
        section = recipe.Grounding
        self.scale = section.scale if section.scale != "auto" else "none" if section.map == "similarity" else "image"
        self._empty: list[str] = []

    def write(self) -> dict[str, Any]:
        """Compute everything, write ``per_image.csv`` and the figures; returns what ``metrics.json`` holds."""
        section, subset = self.recipe.Grounding, self.recipe.DataLoader.Eval.subset
        thresholds = self._thresholds()
        shown = set(_spread(self.marked[subset], section.examples))
        scores, kept = [], []
        for one in self._located(subset):
            threshold = None if thresholds is None else thresholds[one.marked.finding]
            scores.append(score(one, threshold))
            if one.marked in shown:
                kept.append(self._example(one, scores[-1], threshold))
        if self._empty:
            self.say(f"!! {len(self._empty)} 处标注的掩膜是空的，略去，例如 {self._empty[0]}")
        if not scores:
            raise UserError(f"子集 {subset} 里标出的征象，掩膜（mask）全是空的，没有可评估的；请检查标注")
        found = self._summary(scores)
        self._say(found)
        write_text(self.folder / "per_image.csv", self._rows(scores))
        for number, start in enumerate(range(0, len(kept), MAX_EXAMPLES)):
            plot_grounding(kept[start:start + MAX_EXAMPLES], self.folder / f"grounding_{number}.png", **self.mark)
        settings = {"subset": subset, "map": section.map, "scale": self.scale, "empty_masks": len(self._empty)}
        if section.map == "gradcam":
            settings["layer"] = section.layer
        return settings | found | {"thresholds": self._describe(thresholds)}

    def _located(self, subset: str) -> Iterator[Located]:
        marked, batch_size = self.marked[subset], self.recipe.DataLoader.Eval.sampler.batch_size
        found = locate(self.data, self.maps, self.prompts, marked, self.scale, batch_size, self._empty)
        return iter(tqdm(found, total=len(marked), desc="定位", disable=not sys.stderr.isatty(), leave=False))

    def _thresholds(self) -> Thresholds | None:
        subset = self.recipe.DataLoader.Eval.threshold_subset
        if subset is None:
            self.say("没有定阈值（DataLoader.Eval.threshold_subset: null），不算 IoU 和 Dice")
            return None
        chosen = choose_thresholds(self._located(subset), self.scale,
                                   self.recipe.Grounding.thresholds == "per_finding")
        own = "，".join(f"{self.prompts[number].name} {value:.3f}" for number, value in chosen.of.items())
        self.say(f"阈值取自子集 {subset}（{sum(chosen.pairs.values())} 处标注，平均 Dice 最高）："
                 f"共同 {chosen.shared:.3f}" + (f"；{own}" if own else ""))
        return chosen

    def _describe(self, thresholds: Thresholds | None) -> dict[str, Any] | None:
        if thresholds is None:
            return None
        return {"chosen_on": self.recipe.DataLoader.Eval.threshold_subset, "shared": thresholds.shared,
                "per_finding": {self.prompts[number].name: value for number, value in thresholds.of.items()},
                "pairs": {self.prompts[number].name: count for number, count in thresholds.pairs.items()}}

    def _summary(self, scores: Sequence[Score]) -> dict[str, Any]:
        groups = self.data.groups(np.arange(len(self.data.images)))
        patients = None if groups is None else [groups[one.marked.position] for one in scores]
        return summarise(scores, self.prompts, patients, self.recipe.Metric.resamples, self.recipe.Global.seed)

    def _say(self, found: dict[str, Any]) -> None:
        whole = found["whole_image"]
        self.say(f"零样本定位（zero-shot grounding），{found['images']} 张图 {found['pairs']} 处标注，各征象的平均"
                 "（括号里：整张图都算找到）：" + "，".join(
                     f"{name} {_number(found[key])}（{_number(whole[key])}）"
                     for name, key in (("IoU", "mean_iou"), ("Dice", "mean_dice"), ("指点 pointing", "pointing"),
                                       ("|CNR|", "cnr"))))
        for name, one in found["per_finding"].items():
            self.say(f"  {name}（{one['pairs']}）：IoU {_number(one['iou'])}，Dice {_number(one['dice'])}，"
                     f"指点 {_number(one['pointing'])}，CNR {_number(one['cnr_signed'])}")
        if found["cut_by_crop"]:
            self.say(f"!! {found['cut_by_crop']} 处标注有一部分被裁掉了（preprocess.resize: crop），"
                     "裁掉的像素不参加评估")

    def _rows(self, scores: Sequence[Score]) -> str:
        """One line a marked finding, with every digit: the means are computed again; undefined values are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "patient_id", "finding", *MEASURES, "cnr_signed"])
        for one in scores:
            position = one.marked.position
            values = [getattr(one, name) for name in (*MEASURES, "cnr_signed")]
            writer.writerow([self.data.source.locate(position), self.data.source.records[position].patient_id or "",
                             self.prompts[one.marked.finding].name,
                             *("" if np.isnan(value) else repr(float(value)) for value in values)])
        return text.getvalue()

    def _example(self, one: Located, result: Score, threshold: float | None) -> Grounded:
        """What a figure shows, no larger than it can."""
        finding = self.prompts[one.marked.finding]
        values = {name: getattr(result, key) for key, name in _SHOWN.items()}
        factor = max(1, max(one.truth.shape) // _LARGEST)
        image = Image.fromarray(self.data.source.read(one.marked.position)).reduce(factor)
        return Grounded(np.asarray(image), one.heat[::factor, ::factor], one.truth[::factor, ::factor], threshold,
                        bilingual(ClassInfo(finding.name, finding.zh, finding.en)), finding.positive[0],
                        {name: value for name, value in values.items() if not np.isnan(value)})


def _number(value: float | None) -> str:
    return "无" if value is None else f"{value:.3f}"


def _spread(marked: Sequence[Marked], count: int) -> list[Marked]:
    """So many of what is marked, the findings in turn, each spread evenly over its images."""
    of: dict[int, list[Marked]] = {}
    for one in marked:
        of.setdefault(one.finding, []).append(one)
    each = -(-count // max(len(of), 1))
    even = [[rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, min(each, len(rows))).astype(int))]
            for rows in of.values()]
    turns = [rows[turn] for turn in range(each) for rows in even if turn < len(rows)]
    return turns[:count]
