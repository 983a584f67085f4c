"""Masks for images from anywhere: what ``tools/predict.py`` does with a trained segmenter."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from paddle_cxr import cpu
from paddle_cxr.config import explained
from paddle_cxr.data.image import MissingReader, read_image
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.predict import NOTICE, image_files
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_atomic
from paddle_cxr.plots.segmentation import Segmented, plot_segmentations
from paddle_cxr.tasks.segmentation.evaluate import trained_weights
from paddle_cxr.tasks.segmentation.models import Segmenter, open_segmenter, probabilities_of
from paddle_cxr.tasks.segmentation.recipe import load
from paddle_cxr.tasks.segmentation.scoring import masks_at_full_size


def predict(arguments: argparse.Namespace) -> int:
    """Predict a file, folder or zip into ``<output_dir>/predict``; returns the exit code (1: nothing was readable).

        masks/<file>.<finding>.png      0 and 255, of the image's size
        figures/<file>.png              outlines over the image
        predictions.csv                 each mask's pixels and share of the image
    """
    if arguments.engine != "paddle":
        raise UserError("--engine：分割只能用训练的权重（paddle），tools/export.py 不导出分割模型；请删去 --engine")
    loaded = load(arguments.config, arguments.override, for_data=False)
    output = Path(arguments.output or Path(loaded.recipe.Global.output_dir) / "predict")
    with explained(loaded.origins), image_files(Path(arguments.input)) as (files, root):
        for line in [*select_device(loaded.recipe.Global.device, World())[1], cpu.describe()]:
            print(line)
        segmenter, notices = open_segmenter(loaded.recipe, trained_weights(loaded))
        for line in [*notices, f"权重：{segmenter.weights}"]:
            print(line)
        if segmenter.meta.get("demo_data"):
            print("!! 这份权重是用内置模体（phantom）训练的，对真实胸片的预测没有意义")
        rows, broken = _predict_files(segmenter, loaded.recipe.Global.findings, loaded.recipe.Metric.threshold,
                                      files, root, output, arguments.figures)
    write_table(output / "predictions.csv", ["file", "finding", "pixels", "share", "demo_data"], rows)
    for name, reason in broken:
        print(f"跳过：{name}：{reason}")
    images = len(files) - len(broken)
    print(f"{images} 张的掩膜写在 {output}{f'，{len(broken)} 张读不了' if broken else ''}。{NOTICE}")
    return 0 if images else 1


def _predict_files(segmenter: Segmenter, findings: Sequence[str], threshold: float, files: Sequence[Path], root: Path,
                   output: Path, figures: int) -> tuple[list[list[Any]], list[tuple[str, str]]]:
    rows: list[list[Any]] = []
    broken: list[tuple[str, str]] = []
    demo = bool(segmenter.meta.get("demo_data"))
    drawn = 0
    for file in tqdm(files, desc="预测", disable=len(files) < 8):
        name = file.relative_to(root).as_posix()
        try:
            image = read_image(file)
        except MissingReader:  # every film of this kind would be "broken"
            raise
        except UserError as error:
            broken.append((name, str(error)))
            continue
        maps = probabilities_of(segmenter.model, segmenter.preprocess, segmenter.preprocess.geometry(image)[None])[0]
        examples = []
        for finding in findings:
            mask = masks_at_full_size(maps[segmenter.findings.index(finding)], segmenter.preprocess, image.shape[:2],
                                      threshold)
            picture = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
            write_atomic(output / "masks" / f"{name}.{finding}.png", picture.save)
            rows.append([name, finding, int(mask.sum()), f"{mask.mean():.6f}", int(demo)])
            examples.append(Segmented(image, None, mask, finding, name, {"占全图": float(mask.mean())}))
        if drawn < figures:
            plot_segmentations(examples, output / "figures" / f"{name}.png", title="预测的掩膜（prediction）",
                               demo=demo)
            drawn += 1
    return rows, broken
