"""What zero-shot classification is worth: metrics at thresholds from validation images, figures, a row an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.evaluation.bootstrap import with_intervals
from paddle_cxr.evaluation.metrics import classification_metrics
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.evaluation.per_image import PER_IMAGE, write_per_image
from paddle_cxr.evaluation.prompts import FindingPrompts
from paddle_cxr.evaluation.thresholds import f1_thresholds
from paddle_cxr.evaluation.zero_shot import probabilities_of
from paddle_cxr.plots.findings import plot_findings_roc
from paddle_cxr.plots.style import DEMO_LINE, DEMO_MODEL_LINE
from paddle_cxr.plots.zero_shot import plot_findings_auc, plot_findings_scores
from paddle_cxr.tasks.pretrained import Pretrained
from paddle_cxr.tasks.zero_shot.schema import ZeroShotRecipe

WRITTEN = (PER_IMAGE, "roc.png", "auc.png", "scores.png")
"""The files of a report."""
OPTIMISTIC = "阈值在测试集上取 F1 最高的（早期论文的做法），偏乐观，只供与那些论文对照"


@dataclass(frozen=True)
class Scored:
    """N images and what the model said of their K findings.

    Attributes:
        data: the images.
        labels: float64 ``[N, K]``: 1 present, 0 absent, NaN unknown.
        margins: float32 ``[N, K]``, higher means more positive; log-odds, their zero means nothing.
        groups: N patient ids, or None.
    """

    data: LabelledData
    labels: np.ndarray
    margins: np.ndarray
    groups: list[str] | None


def write_report(recipe: ZeroShotRecipe, prompts: Sequence[FindingPrompts], scored: Scored, validation: Scored | None,
                 averages: Mapping[str, Sequence[str]] | None, pretrained: Pretrained, folder: RunFolder
                 ) -> dict[str, Any]:
    """Compute everything and write figures and ``per_image.csv``; returns what ``metrics.json`` holds.

    Args:
        prompts: of the K findings.
        scored: the images evaluated; validation: those that the thresholds are chosen on, or None.
        averages: findings of further means.
    """
    names = [one.name for one in prompts]
    thresholds = None if validation is None else f1_thresholds(validation.labels, validation.margins)
    n, seed = recipe.Metric.resamples, recipe.Global.seed
    found = multilabel_metrics(scored.labels, scored.margins, names, thresholds, scored.groups, n, seed, averages)
    section = recipe.DataLoader.Eval
    result = {"subset": section.subset, "threshold_subset": section.threshold_subset,
              **{key: value for key, value in found.items() if key != "averages"}, **found.get("averages", {}),
              "best_on_test": _optimistic(scored, names)}
    if not prompts[0].negative:
        result["multiclass"] = _multiclass(scored, names, n, seed)
    _say(result, thresholds is not None, folder)
    if thresholds is not None and np.isnan(thresholds).any():
        folder.say("!! 子集 {} 里没有阳性和阴性都有的征象，选不出阈值：{}".format(section.threshold_subset, "、".join(
            name for name, value in zip(names, thresholds, strict=True) if np.isnan(value))))
    _draw(prompts, scored, found, thresholds, averages, pretrained, folder)
    write_per_image(folder.path / PER_IMAGE, scored.data.source.records, names, scored.labels, scored.margins)
    return result


def _optimistic(scored: Scored, names: Sequence[str]) -> dict[str, Any]:
    """F1 and accuracy as earlier papers report them; without intervals, which could not make up for the choice."""
    thresholds = f1_thresholds(scored.labels, scored.margins)
    found = multilabel_metrics(scored.labels, scored.margins, names, thresholds, n=0)
    return {"note": OPTIMISTIC, "macro_f1": found["macro_f1"], "macro_accuracy": found["macro_accuracy"],
            "per_finding": {name: {key: one[key] for key in ("threshold", "f1", "accuracy")}
                            for name, one in found["per_finding"].items()}}


def _multiclass(scored: Scored, names: Sequence[str], n: int, seed: int) -> dict[str, Any] | None:
    """The findings as classes, on the images that are known to show just one of them; None without any.

    The softmax over an image's own scores decides, so no statistic of other images takes part.
    """
    single = ~np.isnan(scored.labels).any(axis=1) & (np.nansum(scored.labels, axis=1) == 1)
    if not single.any():
        return None
    probabilities = probabilities_of(scored.margins[single].astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)  # float32 margins: the sum is 1 but for rounding
    labels = scored.labels[single].argmax(axis=1)
    groups = None if scored.groups is None else [scored.groups[place] for place in np.flatnonzero(single)]
    if n:
        return with_intervals(labels, probabilities, names, groups, n, seed)
    return classification_metrics(labels, probabilities, names)


def _say(result: Mapping[str, Any], cut: bool, folder: RunFolder) -> None:
    folder.say(f"零样本分类（zero-shot），{result['samples']} 张图，各征象平均：AUC {_text(result, 'macro_auc')}，"
               f"平均精确率（AP）{_text(result, 'macro_average_precision')}")
    if cut:
        folder.say(f"  阈值取自子集 {result['threshold_subset']}：F1 {_text(result, 'macro_f1')}，"
                   f"准确率（accuracy）{_text(result, 'macro_accuracy')}")
    for name, one in result["per_finding"].items():
        folder.say(f"  {name}（阳性 {one['positives']}，阴性 {one['negatives']}，未知 {one['unknown']}）："
                   f"AUC {_text(one, 'auc')}")
    for key, title in (("seen", "见过的"), ("unseen", "没见过的")):
        if key in result and result[key]["findings"]:
            folder.say(f"  预训练{title} {len(result[key]['findings'])} 种征象：AUC {_text(result[key], 'macro_auc')}")
    if result.get("multiclass"):
        folder.say(f"  只有一种征象的 {result['multiclass']['samples']} 张图，各征象互相比较："
                   f"准确率（accuracy）{result['multiclass']['accuracy']:.3f}")
    optimistic = result["best_on_test"]
    folder.say(f"  对照：{OPTIMISTIC}：F1 {_text(optimistic, 'macro_f1')}，"
               f"准确率 {_text(optimistic, 'macro_accuracy')}")


def _text(values: Mapping[str, Any], key: str) -> str:
    value, between = values[key], values.get(f"{key}_ci95")
    if value is None:
        return "无定义"
    return f"{value:.3f}" + (f" [{between[0]:.3f}, {between[1]:.3f}]" if between else "")


def _draw(prompts: Sequence[FindingPrompts], scored: Scored, found: Mapping[str, Any], thresholds: np.ndarray | None,
          averages: Mapping[str, Sequence[str]] | None, pretrained: Pretrained, folder: RunFolder) -> None:
    findings = [ClassInfo(one.name, one.zh, one.en) for one in prompts]
    phantoms = scored.data.source.demo
    mark = {"demo": phantoms or bool(pretrained.meta.get("demo_data")),
            "line": DEMO_LINE if phantoms else DEMO_MODEL_LINE}
    plot_findings_roc(scored.labels, scored.margins, found, findings, folder.path / "roc.png",
                      title="零样本分类（zero-shot）：各征象的 ROC 曲线", **mark)
    plot_findings_auc(found, findings, folder.path / "auc.png", groups=averages, **mark)
    plot_findings_scores(scored.labels, scored.margins, findings, folder.path / "scores.png", thresholds=thresholds,
                         **mark)
