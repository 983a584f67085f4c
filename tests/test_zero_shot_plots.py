"""Figures of zero-shot classification: every glyph shows, and what is drawn is what was measured."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.evaluation.multilabel import multilabel_metrics
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
