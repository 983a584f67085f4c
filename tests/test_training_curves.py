"""Which lines the training curves show, whatever was trained."""

from __future__ import annotations

import contextlib

import pytest
from matplotlib.figure import Figure

from paddle_cxr.plots import curves


@pytest.mark.parametrize(("measured", "title", "lines"), [
    ({"val_macro_auc": 0.7, "val_images": 9}, "验证指标（validation metrics）", ["宏平均 AUC（macro AUC）"]),
    ({"val_dice": 0.7, "val_iou": 0.6}, "验证指标（validation metrics）", ["Dice", "IoU"]),
    ({"val_mean_recall": 0.3}, "验证指标（validation metrics）", ["平均召回率（mean recall）"]),
    ({"val_accuracy": 0.9, "val_macro_f1": 0.8}, "其他验证指标（validation metrics）", ["宏平均 F1（macro F1）"]),
])
def test_what_was_measured_on_validation_images_is_drawn(tmp_path, monkeypatch, measured, title, lines):
    figures = []

    @contextlib.contextmanager
    def drawing(*_, **__):
        figures.append(Figure())
        yield figures[-1]

    monkeypatch.setattr(curves, "drawing", drawing)
    history = [{"epoch": epoch, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.1} | (measured if epoch > 1 else {})
               for epoch in (1, 2, 3)]
    curves.plot_training_curves(history, tmp_path / "curves.png")
    axes = {one.get_title(): one for one in figures[0].axes}
    assert [line.get_label() for line in axes[title].lines] == lines
    assert all(list(line.get_xdata()) == [2, 3] for line in axes[title].lines)
