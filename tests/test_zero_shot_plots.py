"""Figures of zero-shot classification: every glyph shows, and what is drawn is what was measured."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.plots.findings import MOST_CURVES, plot_findings_roc
from paddle_cxr.plots.zero_shot import MOST_BARS, plot_findings_auc, plot_findings_scores


def case(findings: int, images: int = 60) -> tuple[np.ndarray, np.ndarray, list[ClassInfo]]:
    random = np.random.default_rng(0)
    labels = (random.random((images, findings)) < 0.3).astype(float)
    labels[random.random(labels.shape) < 0.1] = np.nan
    labels[:, -1] = np.nan if findings % 2 else 0  # the last has no AUC
    scores = random.normal(size=labels.shape) + np.nan_to_num(labels)
    names = [("胸腔积液", "Pleural effusion"), ("气胸", "Pneumothorax"), ("心影增大", "Cardiomegaly")]
    return labels, scores, [ClassInfo(f"finding{k}", *names[k % 3]) for k in range(findings)]


@pytest.mark.parametrize(("findings", "n"), [(1, 0), (5, 20), (MOST_BARS + 10, 0)])
def test_any_number_of_findings(tmp_path: Path, findings: int, n: int) -> None:
    labels, scores, infos = case(findings)
    names = [one.name for one in infos]
    groups = {"seen": names[::2], "unseen": names[1::2]}
    metrics = multilabel_metrics(labels, scores, names, n=n, averages=groups)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that no font has is a warning
        first = plot_findings_auc(metrics, infos, tmp_path / "auc.png", groups=groups, demo=True)
        second = plot_findings_scores(labels, scores, infos, tmp_path / "scores.png",
                                      thresholds=np.r_[np.nan, np.zeros(findings - 1)], demo=bool(n))
    for file in (first, second):
        with Image.open(file) as picture:
            assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 5


def test_without_groups_and_thresholds(tmp_path: Path) -> None:
    labels, scores, infos = case(4)
    metrics = multilabel_metrics(labels, scores, [one.name for one in infos], n=0)
    plain = plot_findings_auc(metrics, infos, tmp_path / "plain.png").read_bytes()
    shifted = multilabel_metrics(labels, np.sign(scores), [one.name for one in infos], n=0)
    assert plot_findings_auc(shifted, infos, tmp_path / "other.png").read_bytes() != plain
    assert plot_findings_scores(labels, scores, infos, tmp_path / "scores.png").is_file()


def test_roc_curves_of_any_number_of_findings(tmp_path: Path) -> None:
    """Of PadChest's 190 the most frequent are drawn: a figure of 190 curves is metres high, and nobody reads it."""
    sizes = []
    for findings in (1, MOST_CURVES, MOST_CURVES + 40):
        labels, scores, infos = case(findings)
        metrics = multilabel_metrics(labels, scores, [one.name for one in infos], n=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            file = plot_findings_roc(labels, scores, metrics, infos, tmp_path / f"{findings}.png")
        with Image.open(file) as picture:
            sizes.append(picture.size)
    assert sizes[2] == sizes[1] and sizes[1][1] < 1500


def test_nothing_is_cut_beside_long_names(tmp_path: Path) -> None:
    """The border of a figure is empty, however long its labels."""
    labels, scores, _ = case(30)
    infos = [ClassInfo(f"finding{k}", "经脐静脉中心静脉导管", "central venous catheter via umbilical vein"[k:])
             for k in range(30)]
    names = [one.name for one in infos]
    groups = {"seen": names[::2], "unseen": names[1::2]}
    metrics = multilabel_metrics(labels, scores, names, n=20, averages=groups)
    for file in (plot_findings_auc(metrics, infos, tmp_path / "auc.png", groups=groups, demo=True),
                 plot_findings_roc(labels, scores, metrics, infos, tmp_path / "roc.png", demo=True),
                 plot_findings_scores(labels, scores, infos, tmp_path / "scores.png", demo=True)):
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(edge.min() for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])) > 250, file.name
