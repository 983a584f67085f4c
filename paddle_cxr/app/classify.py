"""A trained classifier by the folder of its run, and where its score comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.config import explained
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import CLASSIFICATION, task_of

CONFIG, FINETUNING = "config.yaml", "finetuning"


@dataclass(frozen=True)
class Classified:
    """What a classifier says of one image.

    Attributes:
        seen: uint8 ``[H, W]`` or ``[H, W, 3]``, the image as the model sees it.
        heat: float32 ``[H, W]``, 0 … 1: Grad-CAM of the most probable class.
        probabilities: of each class, in the order of ``classes``.
        present: where classes are findings, whether each reaches its threshold; None where one class is right.
    """

    seen: np.ndarray
    heat: np.ndarray
    classes: tuple[ClassInfo, ...]
    probabilities: np.ndarray
    present: np.ndarray | None

    @property
    def best(self) -> ClassInfo:
        return self.classes[int(self.probabilities.argmax())]


class Classifier:
    """A classifier, or a network fine-tuned on findings.

    Args:
        folder: the run's output folder, with ``config.yaml`` and its weights.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        demo: whether it was trained on phantoms.

    Raises:
        UserError: no such folder, another kind of model, damaged weights.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        self._predictor = _open(Path(folder), device)
        self.demo = self._predictor.demo

    def __call__(self, image: np.ndarray) -> Classified:
        """Classify an image as :func:`~paddle_cxr.data.image.read_image` gives it."""
        return self.many([image])[0]

    def many(self, images: Sequence[np.ndarray]) -> list[Classified]:
        """Classify several images in one pass, which costs less than one after another."""
        predictor = self._predictor
        seen = np.stack([predictor.preprocess.geometry(image) for image in images])
        inputs = predictor.preprocess.normalize(seen)
        probabilities = predictor.probabilities(inputs)
        if not np.isfinite(probabilities).all():
            raise UserError("模型输出 NaN 或 Inf；请换用训练正常的检查点（checkpoint）")
        heat = predictor.heat(inputs, probabilities.argmax(axis=1))
        return [self._classified(*one) for one in zip(seen, heat, probabilities, strict=True)]

    def _classified(self, seen: np.ndarray, heat: np.ndarray, probabilities: np.ndarray) -> Classified:
        cuts = self._predictor.thresholds
        return Classified(seen, heat, self._predictor.classes, probabilities,
                          None if cuts is None else probabilities >= cuts)


def _open(folder: Path, device: str):  # noqa: ANN202 - Predictor, whose module loads heavy things
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(f"Classify.folder：{folder} 里没有 {CONFIG}，不是训练的输出目录")
    # The run may have been moved since: its folder is where it is now.  JSON is YAML, whatever the name holds.
    overrides = [f"Global.output_dir={json.dumps(str(folder))}", "Global.checkpoint=null", f"Global.device={device}"]
    task = task_of(config, overrides)
    if task == FINETUNING:
        from paddle_cxr.tasks.finetuning.predict import open_predictor
        from paddle_cxr.tasks.finetuning.recipe import load
    elif task == CLASSIFICATION:
        from paddle_cxr.engine.predict import open_checkpoint as open_predictor
        from paddle_cxr.recipe import load
    else:
        raise UserError(f"Classify.folder：{folder} 是 {task} 的结果，这里要分类（{CLASSIFICATION}）"
                        f"或微调（{FINETUNING}）的输出目录")
    loaded = load(config, overrides, for_data=False)
    with explained(loaded.origins):
        return open_predictor(loaded, "paddle")
