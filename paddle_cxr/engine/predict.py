"""Predicting images from anywhere: what ``tools/predict.py`` does."""

from __future__ import annotations

import argparse
import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_cxr import cpu, plots
from paddle_cxr.config import explained
from paddle_cxr.data.archive import is_archive, unpack
from paddle_cxr.data.image import EXTENSIONS, MissingReader, read_image
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import CLASSIFICATION, Loaded, load, task_of

FINETUNING, SEGMENTATION = "finetuning", "segmentation"
NOTHING = "未见"
NOTICE = "仅供教学与研究，不能用于临床诊断（not for clinical use）"


@dataclass
class Predictor:
    """Something that turns normalised inputs into probabilities.

    Attributes:
        probabilities: float32 [N, C, H, W] → float32 [N, K].
        heat: (inputs, class numbers) → Grad-CAM float32 [N, H, W] in 0…1, or None where there are no gradients.
        preprocess: what the model was trained with.
        classes: the classes, in label order.
        weights: where it came from.
        demo: whether it was trained on phantoms.
        thresholds: where the classes are findings, of which a film may show several or none: the probabilities [K] from
            which on each counts as present.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    heat: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    preprocess: Preprocess
    classes: tuple[ClassInfo, ...]
    weights: Path
    demo: bool
    thresholds: np.ndarray | None = None


def predict(arguments: argparse.Namespace) -> int:
    """Predict a file, folder or zip; returns the exit code (1 when every image was unreadable)."""
    task = task_of(arguments.config, arguments.override)
    if task == SEGMENTATION:
        from paddle_cxr.tasks.segmentation.predict import predict as predict_masks

        return predict_masks(arguments)
    if task not in (CLASSIFICATION, FINETUNING):
        raise UserError(f"Global.task：tools/predict.py 不用 {task} 的模型预测"
                        f"（可用：{CLASSIFICATION}、{FINETUNING}、{SEGMENTATION}）")
    if task == FINETUNING:
        from paddle_cxr.tasks.finetuning.predict import open_predictor
        from paddle_cxr.tasks.finetuning.recipe import load as load_recipe
    else:
        load_recipe, open_predictor = load, open_checkpoint if arguments.engine == "paddle" else open_export
    loaded = load_recipe(arguments.config, arguments.override, for_data=False)
    for line in loaded.notices:
        print(line)
    output = Path(arguments.output or Path(loaded.recipe.Global.output_dir) / "predict")
    with explained(loaded.origins), image_files(Path(arguments.input)) as (files, root):
        predictor = open_predictor(loaded, arguments.engine)
        print(f"权重：{predictor.weights}")
        if predictor.demo:
            print("!! 这份权重是用内置模体（phantom）训练的，对真实胸片的预测没有意义")
        rows, broken = _predict_files(predictor, files, root, output, arguments.figures,
                                      loaded.recipe.DataLoader.Eval.sampler.batch_size)
    _write_tables(output, rows, predictor)
    for name, reason in broken:
        print(f"跳过：{name}：{reason}")
    for row in rows[:20]:
        print(f"{row['file']}  {row['label_zh']} {row['probability']:.3f}")
    print(f"{len(rows)} 张的预测写在 {output}{f'，{len(broken)} 张读不了' if broken else ''}。{NOTICE}")
    return 0 if rows else 1


@contextmanager
def image_files(given: Path) -> Iterator[tuple[list[Path], Path]]:
    """The image files of a file, folder or archive, with the folder their names are shown relative to."""
    if not os.path.exists(given):
        raise UserError(f"--input：找不到 {given}")
    if given.is_file() and not is_archive(given):
        yield [given], given.parent
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = given
        if given.is_file():
            root = Path(temporary) / "unpacked"
            unpack(given, root)
        files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix.lower() in EXTENSIONS)
        if not files:
            raise UserError(f"--input：{given} 里没有图像（支持 {'、'.join(sorted(EXTENSIONS))}）")
        yield files, root


def open_checkpoint(loaded: Loaded, engine: str = "paddle") -> Predictor:
    """The trained classifier of a recipe, with Grad-CAM; raises :class:`UserError`."""
    from paddle_cxr.engine.distributed import World, select_device
    from paddle_cxr.engine.evaluate import checkpoint_path, load_trained
    from paddle_cxr.evaluation.gradcam import grad_cam
    from paddle_cxr.tasks.classification import probabilities_of

    for notice in [*select_device(loaded.recipe.Global.device, World())[1], cpu.describe()]:
        print(notice)
    weights = checkpoint_path(loaded)
    model, meta, notices = load_trained(loaded, weights)
    for line in notices:
        print(line)
    import paddle

    recipe = loaded.recipe
    preprocess = Preprocess(image_shape=recipe.Global.image_shape, **recipe.DataLoader.preprocess.model_dump())
    return Predictor(
        lambda x: probabilities_of(model, paddle.to_tensor(x), recipe.DataLoader.Eval.views),
        lambda x, targets: grad_cam(model, x, targets), preprocess, loaded.classes, weights,
        bool(meta.get("demo_data")))


def open_export(loaded: Loaded, engine: str) -> Predictor:
    """The exported classifier of a recipe, which has no gradients; raises :class:`UserError`."""
    from paddle_cxr.inference import open_engine

    folder = Path(loaded.recipe.Global.checkpoint or Path(loaded.recipe.Global.output_dir) / "export")
    opened = open_engine(folder, engine)
    print(cpu.describe())
    info = opened.info
    classes = tuple(ClassInfo(c["name"], c["zh"], c["en"]) for c in info["classes"])
    return Predictor(opened.predict, None, Preprocess.from_dict(info["preprocess"]), classes, folder,
                     bool(info.get("demo_data")))


def _predict_files(predictor: Predictor, files: list[Path], root: Path, output: Path, figures: int, batch_size: int
                   ) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    rows: list[dict[str, Any]] = []
    broken: list[tuple[str, str]] = []
    for start in tqdm(range(0, len(files), batch_size), desc="预测", disable=len(files) <= batch_size):
        names, images = [], []
        for file in files[start:start + batch_size]:
            name = file.relative_to(root).as_posix()
            try:
                images.append(predictor.preprocess.geometry(read_image(file)))
                names.append(name)
            except MissingReader:  # every film of this kind would be "broken"
                raise
            except UserError as error:
                broken.append((name, str(error)))
        if images:
            rows.extend(_predict_batch(predictor, names, np.stack(images), output, figures - len(rows)))
    return rows, broken


def _predict_batch(predictor: Predictor, names: list[str], images: np.ndarray, output: Path, figures: int
                   ) -> list[dict[str, Any]]:
    inputs = predictor.preprocess.normalize(images)
    probabilities = predictor.probabilities(inputs)
    best = probabilities.argmax(axis=1)
    drawn = max(0, min(figures, len(names)))
    heat = predictor.heat(inputs[:drawn], best[:drawn]) if predictor.heat and drawn else None
    rows = []
    for i, (name, row) in enumerate(zip(names, probabilities, strict=True)):
        shown = _shown(predictor, row)
        rows.append({"file": name, "label": "|".join(one.name for one in shown),
                     "label_zh": "、".join(one.zh for one in shown) or NOTHING, "probability": float(row[best[i]]),
                     "probabilities": {c.name: float(p) for c, p in zip(predictor.classes, row, strict=True)}})
        if i < drawn:
            file = output / "figures" / f"{name}.png"
            found = "" if predictor.thresholds is None else f"预测：{rows[-1]['label_zh']}"
            plots.plot_prediction(images[i], None if heat is None else heat[i], row, predictor.classes, name, file,
                                  title=found, demo=predictor.demo)
    return rows


def _shown(predictor: Predictor, probabilities: np.ndarray) -> list[ClassInfo]:
    """What a film is taken to show: the most probable class, or every finding that reaches its threshold."""
    if predictor.thresholds is None:
        return [predictor.classes[probabilities.argmax()]]
    return [one for one, enough in zip(predictor.classes, probabilities >= predictor.thresholds, strict=True) if enough]


def _write_tables(output: Path, rows: list[dict[str, Any]], predictor: Predictor) -> None:
    names = [info.name for info in predictor.classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "label_zh", "probability", *[f"p_{name}" for name in names], "demo_data"])
    for row in rows:
        writer.writerow([row["file"], row["label"], row["label_zh"], f"{row['probability']:.6f}",
                         *[f"{row['probabilities'][name]:.6f}" for name in names], int(predictor.demo)])
    # The byte-order mark lets spreadsheet programs show the Chinese column.
    write_text(output / "predictions.csv", "\ufeff" + text.getvalue())
    write_json(output / "predictions.json", {"weights": str(predictor.weights), "demo_data": predictor.demo,
                                             "notice": NOTICE, "predictions": rows})
