"""Exporting a trained classifier: what ``tools/export.py`` does."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from paddle_cxr import cpu
from paddle_cxr.config import explained
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.evaluate import checkpoint_path, load_trained
from paddle_cxr.engine.run import load_data
from paddle_cxr.inference import FORMATS, export_model
from paddle_cxr.recipe import Loaded, load

CHECKED_ON = 8  # images the exported models are compared on


def export(arguments: argparse.Namespace) -> int:
    """Export to ``<output_dir>/export`` and compare with the trained model on real inputs; returns the exit code."""
    loaded = load(arguments.config, arguments.override)
    with explained(loaded.origins):
        _export(loaded, arguments.output, arguments.formats)
    return 0


def _export(loaded: Loaded, output: str | None, formats: list[str] | None) -> None:
    select_device("cpu", World())  # as the exported models, which are compared with this one, run there
    for line in [*loaded.notices, cpu.describe()]:
        print(line)
    weights = checkpoint_path(loaded)
    model, meta, notices = load_trained(loaded, weights)
    for line in notices:
        print(line)
    data = load_data(loaded, print, World(), only=loaded.recipe.DataLoader.Eval.subset)
    report = export_model(
        model, data.preprocess.to_dict(), [{"name": c.name, "zh": c.zh, "en": c.en} for c in loaded.classes],
        loaded.recipe.Global.image_shape, output or Path(loaded.recipe.Global.output_dir) / "export",
        formats or _installed_formats(), sample_inputs=data.preprocess.normalize(data.images[:CHECKED_ON]),
        views=loaded.recipe.DataLoader.Eval.views, source=weights, demo_data=bool(meta.get("demo_data")))
    checked = report["checked"]
    differences = "，".join(f"{kind} {value:.1e}" for kind, value in checked["max_difference"].items())
    print(f"已导出到 {report['folder']}；在 {checked['images']} 张图像上与训练的模型核对，概率最大相差：{differences}")


def _installed_formats() -> list[str]:
    """Every format, or all but ONNX with a notice where its converter is not installed."""
    missing = [name for name in ("paddle2onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if not missing:
        return list(FORMATS)
    print(f'没有安装 {"、".join(missing)}，略过 ONNX 格式；需要时运行 python -m pip install -e ".[onnx]" 再导出')
    return [name for name in FORMATS if name != "onnx"]
