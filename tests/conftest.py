"""Shared fixtures: small real image files, the repository's root, and running the tools as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

import paddle_cxr  # noqa: F401  sets the processor's environment before any test imports Paddle

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite run in the background: its children would ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]

# Continuous integration tries the same examples every time, so that a red run is a change's fault; everyone else's runs
# keep looking for new ones. No deadline: two cores that are busy are slow, not wrong.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def real_data() -> Path:
    """The folder of real radiographs, or a skipped test."""
    folder = os.environ.get("PADDLE_CXR_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("PADDLE_CXR_REAL_DATA is not set: no real radiographs on this machine")
    return Path(folder)


@pytest.fixture
def tool() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``tools/NAME.py ARGS`` in a folder, as a user does."""

    def run(name: str, *arguments: object, cwd: Path, timeout: float = 240, env: dict | None = None
            ) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)], cwd=cwd,
                              capture_output=True, text=True, timeout=timeout, env=os.environ | (env or {}))

    return run


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


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """See :func:`make_class_folders`."""
    return make_class_folders(tmp_path)


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """See :func:`write_tiny_recipe`."""
    return write_tiny_recipe(tmp_path)
