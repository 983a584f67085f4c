"""A tiny recipe and the images it trains on, for tests that run the tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def make_class_folders(folder: Path) -> Path:
    """Three folders of 12 small JPEGs each under ``folder/chest3``, a class told by the place of a bright disc."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:48, :48]
    for label, name in enumerate(("NORMAL", "Viral Pneumonia", "COVID")):
        place = folder / "chest3" / name
        place.mkdir(parents=True)
        for i in range(12):
            disc = (rows - 12 - 12 * label) ** 2 + (columns - 24) ** 2 < 60
            image = np.clip(rng.normal(90, 20, (48, 48)) + 90 * disc, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(place / f"{i:02d}.jpg", quality=95)
    return folder / "chest3"


def write_tiny_recipe(folder: Path) -> Path:
    """A recipe that trains a ResNet-18 on :func:`make_class_folders` in seconds, into ``folder/out``."""
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(output=folder / "out", data=make_class_folders(folder)), encoding="utf-8")
    return file


TINY = """
Global:
  output_dir: {output}
  device: cpu
  seed: 1
  epochs: 3
  image_shape: [1, 32, 32]
  classes:
    - {{name: NORMAL, zh: 正常, en: Normal}}
    - {{name: Viral Pneumonia, zh: 病毒性肺炎, en: Viral pneumonia}}
    - {{name: COVID, zh: 新冠肺炎, en: COVID-19}}
  micro_batches: 2
  ranks: 1
Arch: {{name: ResNet18}}
Optimizer: {{name: Adam, lr: {{name: Cosine, learning_rate: 1e-3}}}}
DataLoader:
  Source: {{name: ImageFolder, root: {data}}}
  Split: {{name: BlogSplit}}
  cache: {{mode: memory}}
  Train:
    transform_ops: [{{name: RandomHorizontalFlip, prob: 0.5}}, {{name: GaussianNoise, low: 0, high: 10, prob: 0.5}}]
    sampler: {{batch_size: 8}}
  Eval: {{sampler: {{batch_size: 8}}}}
Metric: {{name: ClassificationMetrics, bootstrap: 50}}
"""
