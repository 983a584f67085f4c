"""Figures of zero-shot classification: AUC with intervals, and where the scores of the two kinds of images lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.plots.style import BLUE, DEMO_LINE, GREY, ORANGE, RED, bilingual, drawing, wrapped

MOST_BARS, MOST_HISTOGRAMS = 60, 24
_COLUMNS = 40  # of a title above a histogram
_GROUPS = {"seen": ("预训练见过（seen）", BLUE), "unseen": ("预训练没见过（unseen）", ORANGE)}


def plot_findings_auc(metrics: Mapping[str, Any], findings: Sequence[ClassInfo], path: str | Path, *,
                      groups: Mapping[str, Sequence[str]] | None = None, demo: bool = False, line: str = DEMO_LINE
                      ) -> Path:
    """AUC of every finding with its 95 % interval, the best first, and the means.

    Args:
        metrics: what :func:`paddle_cxr.evaluation.multilabel.multilabel_metrics` returned.
        findings: the K findings; of more than 60 those with the most positives are drawn.
        path: PNG to write; demo, line: as in every figure.
        groups: ``seen`` and ``unseen`` → findings, told apart by colour.

    Raises:
        UserError: the file cannot be written.
    """
    of = metrics["per_finding"]
    drawn = sorted((one for one in findings if of[one.name]["auc"] is not None),
                   key=lambda one: -of[one.name]["positives"])[:MOST_BARS]
    drawn.sort(key=lambda one: of[one.name]["auc"])
    left_out = len(findings) - len(drawn)
    title = "各征象的 AUC" + (f"（另有 {left_out} 种无定义或未画）" if left_out else "")
    with drawing(path, 8.4, max(2.6, 0.34 * len(drawn) + 1.8), title=title, demo=demo, line=line) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=1, label="随机猜测 0.500")
        axes.axvline(metrics["macro_auc"] if metrics["macro_auc"] is not None else np.nan, color=RED, linestyle="--",
                     linewidth=1, label=f"平均 {_value(metrics, 'macro_auc')}")
        named = {name: key for key, names in (groups or {}).items() for name in names}
        kinds = {**_GROUPS, None: ("其他征象", GREY)} if groups else {None: ("征象", BLUE)}
        for key, (label, colour) in kinds.items():
            places = [place for place, one in enumerate(drawn) if named.get(one.name) == key]
            values = np.array([of[drawn[place].name]["auc"] for place in places], float)
            between = np.array([of[drawn[place].name].get("auc_ci95") or [value, value]
                                for place, value in zip(places, values, strict=True)], float).reshape(-1, 2)
            if places:
                # A bootstrap interval need not contain the value itself.
                errors = np.maximum([values - between[:, 0], between[:, 1] - values], 0)
                axes.errorbar(values, places, xerr=errors, fmt="o", color=colour, markersize=5, capsize=3,
                              label=_group_label(metrics, key, label))
        axes.set_yticks(range(len(drawn)), [f"{bilingual(one)}  {of[one.name]['positives']}" for one in drawn],
                        fontsize=9)
        axes.set_ylim(-0.8, max(len(drawn), 1) - 0.2)
        axes.set_xlim(min([0.4, *(of[one.name]["auc"] - 0.05 for one in drawn)]), 1.02)
        axes.set_xlabel("AUC（横线：95 % 置信区间；征象后的数：阳性图像数）")
        # Above the axes: below, the figure's own line would lie under it.  To the right: long names leave the axes too
        # narrow for it, and it may reach over them.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=9, ncols=2, borderaxespad=0.3)
    return Path(path)


def _group_label(metrics: Mapping[str, Any], key: str | None, label: str) -> str:
    average = metrics.get("averages", {}).get(key)
    return f"{label}：平均 {_value(average, 'macro_auc')}" if average else label


def plot_findings_scores(labels: np.ndarray, scores: np.ndarray, findings: Sequence[ClassInfo], path: str | Path, *,
                         thresholds: Sequence[float] | np.ndarray | None = None, demo: bool = False,
                         line: str = DEMO_LINE) -> Path:
    """For every finding, how often each score occurs among images with it and without it, and the threshold.

    Args:
        labels: float ``[N, K]``: 1 present, 0 absent, NaN unknown (left out); scores: float ``[N, K]``.
        findings: the K findings; of more than 24 those with the most positives are drawn.
        path: PNG to write; demo, line: as in every figure.
        thresholds: K scores, NaN for none.

    Raises:
        UserError: the file cannot be written.
    """
    chosen = np.sort(np.argsort(-(labels == 1).sum(axis=0), kind="stable")[:MOST_HISTOGRAMS])
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    with drawing(path, 3.4 * columns + 1.8, 2.2 * rows + 1, title="分数的分布：有此征象与没有", demo=demo,
                 line=line) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(chosen):]:
            axes.set_axis_off()
        for axes, k in zip(grid.flat, chosen, strict=False):
            known = scores[~np.isnan(labels[:, k]), k]
            edges = np.histogram_bin_edges(known, 30) if len(known) else 30
            for kind, colour, name in ((0, BLUE, "没有"), (1, ORANGE, "有")):
                of_kind = scores[labels[:, k] == kind, k]
                if len(of_kind):  # as a share, or a rare finding would not be seen
                    axes.hist(of_kind, edges, weights=np.full(len(of_kind), 1 / len(of_kind)), color=colour, alpha=0.6,
                              label=name)
            if thresholds is not None and np.isfinite(thresholds[k]):
                axes.axvline(thresholds[k], color=RED, linestyle="--", linewidth=1, label="阈值")
            axes.set_title(wrapped(bilingual(findings[k]), _COLUMNS, 2), fontsize=9)
            axes.tick_params(labelsize=8)
            axes.set_yticks([])
        handles = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(),
                                                                                 strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=9, alignment="left",
                      title="横轴：正提示词的\n分数减去与之相比的\n纵轴：所占比例", title_fontsize=9)
    return Path(path)


def _value(values: Mapping[str, Any], key: str) -> str:
    value, between = values[key], values.get(f"{key}_ci95")
    if value is None:
        return "无定义"
    return f"{value:.3f}" + (f" [{between[0]:.3f}, {between[1]:.3f}]" if between else "")
