"""Figures of findings that are each present, absent or unknown by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.metrics import roc_curve
from paddle_cxr.plots.style import DEMO_LINE, GREY, drawing, line_style

MOST_CURVES = 24  # as many as there are pairs of colour and dashes


def plot_findings_roc(labels: np.ndarray, scores: np.ndarray, metrics: Mapping[str, Any],
                      findings: Sequence[ClassInfo], path: str | Path, *, title: str = "各征象的 ROC 曲线",
                      demo: bool = False, line: str = DEMO_LINE) -> Path:
    """ROC curve of every finding that has both kinds of images, with its AUC and 95 % interval.

    Args:
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown (left out); scores: float ``[N, K]``.
        metrics: what :func:`paddle_cxr.evaluation.multilabel.multilabel_metrics` returned for them.
        findings: the K findings; of more than 24 those with the most positives are drawn.
        path: PNG to write; title, demo, line: as in every figure.

    Raises:
        UserError: the file cannot be written.
    """
    mean = _value(metrics["macro_auc"], metrics.get("macro_auc_ci95"))
    chosen = np.sort(np.argsort(-(labels == 1).sum(axis=0), kind="stable")[:MOST_CURVES])
    if len(chosen) < len(findings):
        title += f"（{len(findings)} 种里阳性最多的 {len(chosen)} 种）"
    with drawing(path, 9.6, max(5.2, 0.2 * len(chosen) + 1.6), title=title, demo=demo, line=line) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="随机猜测 0.500")
        for number, k in enumerate(chosen):
            info, known = findings[k], ~np.isnan(labels[:, k])
            found = metrics["per_finding"][info.name]
            curve = roc_curve(labels[known, k] == 1, scores[known, k]) if found["auc"] is not None else ([], [])
            value = _value(found["auc"], found.get("auc_ci95"))
            axes.plot(*curve, label=f"{info.zh} {value}（阳性 {found['positives']}）", **line_style(number))
        axes.set_xlabel("假阳性率 = 1 − 特异度（false positive rate）")
        axes.set_ylabel("真阳性率 = 灵敏度（true positive rate）")
        # A little beyond 0 and 1, or a perfect curve would hide under the frame.
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_aspect("equal")
        figure.legend(loc="outside right center", fontsize=9, title_fontsize=9, alignment="left",
                      title=f"AUC，各征象平均 {mean}\n方括号：95 % 置信区间（bootstrap）")
        figure.draw_without_rendering()  # a square beside a wide legend: laid out once, it cuts the label of its y axis
    return Path(path)


def _value(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return "无定义（缺阳性或阴性）"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
