"""The classifier behind the label agreement, opened from what a training or an export left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.inference.folder import INFO
from paddle_cxr.pdparams import one_line
from paddle_cxr.quiet import import_paddle
from paddle_cxr.registry import build
from paddle_cxr.weights import apply_weights, load_weights


@dataclass(frozen=True)
class Classifier:
    """Turns images into class probabilities.

    Attributes:
        title: what tables name it; demo: it was trained on phantoms.
        classes: in label order.
        preprocess: what it was trained with.
        predict: float32 ``[N, C, H, W]`` → float32 ``[N, K]``.
    """

    title: str
    demo: bool
    classes: tuple[ClassInfo, ...]
    preprocess: Preprocess
    predict: Callable[[np.ndarray], np.ndarray]

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, uint8 ``[H, W]`` of any size → float32 ``[N, K]``."""
        return self.predict(self.preprocess.normalize(np.stack([self.preprocess.geometry(one) for one in images])))


def open_classifier(path: str | Path, aliases: Mapping[str, Sequence[str]]) -> Classifier:
    """A training's output folder (its best weights are taken), a checkpoint, or an exported folder.

    Args:
        path: where it is.
        aliases: class → other words for it in the labels of images.

    Raises:
        UserError: nothing of the kind, damaged, weights that do not fit, aliases of a class that is not there.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"Agreement.classifier：找不到 {path}；先用 tools/train.py 训练一个分类器，写它的输出目录")
    opened = _exported(path) if (path / INFO).is_file() else _trained(path)
    names = [info.name for info in opened.classes]
    for name in aliases:
        if name not in names:
            raise UserError(f"Agreement.aliases：分类器没有类别 {name!r}{did_you_mean(name, names)}"
                            f"（有：{'、'.join(names)}）")
    return replace(opened, classes=tuple(
        replace(info, aliases=(*info.aliases, *aliases.get(info.name, ()))) for info in opened.classes))


def _exported(path: Path) -> Classifier:
    from paddle_cxr.inference import open_engine
    from paddle_cxr.inference.folder import ONNX, read_info

    info = read_info(path)
    engine = open_engine(path, "onnx" if set(info["files"]) == {ONNX} else "inference")
    classes = tuple(ClassInfo(one["name"], one["zh"], one["en"]) for one in info["classes"])
    title = _title(info.get("architecture") or path.name, info["demo_data"])
    return Classifier(title, info["demo_data"], classes, Preprocess.from_dict(info["preprocess"]), engine.predict)


def _trained(path: Path) -> Classifier:
    import_paddle()
    import paddle

    weights = path
    if (path / "checkpoints").is_dir():
        from paddle_cxr.engine.run import kept_weights

        weights = kept_weights(path, "best")
    state, meta = load_weights(weights)
    classes, preprocess = _recorded(meta, weights)
    arguments = meta.get("arguments")
    model = build("arch", {**(arguments if isinstance(arguments, dict) else {}), "name": meta.get("architecture")},
                  f"{weights} 的 architecture", class_num=len(classes), in_channels=preprocess.image_shape[0])
    apply_weights(model, state, meta, path=weights)
    model.eval()

    def predict(batch: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return paddle.nn.functional.softmax(model(paddle.to_tensor(batch))).numpy()

    demo = bool(meta.get("demo_data"))
    return Classifier(_title(meta["architecture"], demo), demo, classes, preprocess, predict)


def _title(architecture: str, demo: bool) -> str:
    return architecture + ("（phantom）" if demo else "")


def _recorded(meta: dict[str, Any], weights: Path) -> tuple[tuple[ClassInfo, ...], Preprocess]:
    """Classes and pre-processing from the JSON beside the weights, an untrusted file."""
    try:
        classes = tuple(ClassInfo(*(str(one[key]) for key in ("name", "zh", "en")),
                                  tuple(map(str, one.get("aliases", ())))) for one in meta["classes"])
        if len(classes) < 2:
            raise ValueError(f"classes: {len(classes)}")
        return classes, Preprocess.from_dict(meta["preprocess"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{weights} 的 model.json 没有可用的 classes 和 preprocess（{one_line(error)}）；"
                        "请换一个本项目训练的检查点（checkpoint）") from None
