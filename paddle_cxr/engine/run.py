"""One training run from a recipe to a finished output folder, and the dry run that foretells it."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from tqdm import tqdm

from paddle_cxr import __version__, cpu, plots
from paddle_cxr.data.labelled import LabelledData, load_labelled
from paddle_cxr.engine import checkpoint
from paddle_cxr.engine.continuing import differences, dump, rename_aside
from paddle_cxr.engine.distributed import World, bound_to_cores, wait_for_all
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import write_trained_on
from paddle_cxr.engine.state import RunState
from paddle_cxr.engine.trainer import Task, Trainer
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import say_summary, write_report
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.classification import ClassificationTask
from paddle_cxr.weights import apply_weights, load_weights


def open_folder(loaded: Loaded, path: str | Path, world: World) -> RunFolder:
    """Open the output folder: to continue the same unfinished recipe, or empty, with what was there renamed.

    Raises:
        UserError: ``Global.resume=true`` and there is nothing to continue, or it was another recipe.
    """
    path = Path(path)
    notice = _set_aside(loaded, path) if world.is_main else None
    wait_for_all(world)
    folder = RunFolder(path, world.is_main)
    for line in [*loaded.notices, *([notice] if notice else []), cpu.describe()]:
        folder.say(line)
    if world.is_main:
        write_text(path / "config.yaml", dump(loaded.recipe))
    return folder


def _set_aside(loaded: Loaded, path: Path) -> str | None:
    """Rename an old run that this one does not continue; returns what to tell the user."""
    resume = loaded.recipe.Global.resume
    if not (path / "config.yaml").is_file():
        if resume is True:
            raise UserError(f"Global.resume=true，但 {path} 里没有可续训的结果；请检查 Global.output_dir")
        return None
    different = differences(path, loaded.recipe)
    latest = checkpoint.find(path / "checkpoints" / "latest")
    if resume is True and (different or latest is None):
        reason = f"配方与那次不同（{'、'.join(different[:5])}）" if different else "没有检查点 checkpoints/latest"
        raise UserError(f"Global.resume=true，但 {path} 不能续训：{reason}")
    finished = (path / "metrics.json").is_file()
    if any(path.glob("fold[0-9]*")):
        return rename_aside(path, "交叉验证")
    if latest is None and not finished:
        return None  # it failed before its first checkpoint: there is nothing to keep
    if resume is not False and latest is not None and not different and (resume is True or not finished):
        return None
    return rename_aside(path, "已完成" if finished else "未完成，配方不同")


def load_data(loaded: Loaded, say: Callable[[str], None], world: World, subsets: list[str] | None = None,
              only: str | None = None) -> LabelledData:
    """Decode the recipe's images.  Ranks that start together decode once: a disk cache has a lock."""
    started = time.monotonic()
    if not world.is_main:
        data = load_labelled(loaded, subsets, only, lambda _: None)
    else:
        with tqdm(desc="读图", disable=not sys.stderr.isatty(), leave=False) as bar:
            data = load_labelled(loaded, subsets, only, say, progress_of(bar))
        say(f"数据：{data.source.name}，{len(data.labels)} 张，{data.counts(np.arange(len(data.labels)))}，"
        f"读入用时 {time.monotonic() - started:.1f} 秒")
    wait_for_all(world)
    return data


def progress_of(bar: tqdm) -> Callable[[int, int], None]:
    """What tells a bar how far decoding is."""

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return update


def train_run(loaded: Loaded, data: LabelledData, folder: RunFolder, world: World) -> dict[str, Any]:
    """Train (or continue), evaluate the kept weights, write every artefact; returns what ``metrics.json`` holds."""
    task = ClassificationTask(loaded, data, world)
    for notice in task.notices:
        folder.say(notice)
    if world.is_main:
        write_trained_on(folder.path, data, task.train)
        _show_samples(task, folder)
    state, kept = fit(task, loaded.recipe, folder, world)
    results = {"history": {"epochs": state.epoch, "seconds": round(state.seconds, 1), "best": state.best,
                           "images_per_second": _images_per_second(state.history, task)},
               "weights": str(kept.relative_to(folder.path))}
    results |= describe_run(loaded, data, {"train": task.train})
    if _has(data, loaded.recipe.DataLoader.Eval.subset):
        results |= evaluate_run(task, folder, world)
    if world.is_main:
        plots.plot_training_curves(state.history, folder.path / "curves.png", demo=data.source.demo)
        folder.image("curves", folder.path / "curves.png", state.epoch)
        write_json(folder.path / "metrics.json", results)
        folder.say(f"全部结果写在 {folder.path}")
    return results


def fit(task: Task, recipe: Any, folder: RunFolder, world: World) -> tuple[RunState, Path]:
    """Train ``task`` to the end, from where an earlier session left off, and load the weights that are kept into it.

    Args:
        recipe: with the sections ``Global`` and ``Optimizer``.

    Returns:
        The final state, and the checkpoint that was kept.
    """
    trainer = Trainer(task, recipe.Global, recipe.Optimizer, folder, world)
    latest = checkpoint.find(folder.checkpoints / "latest")
    if latest is not None:
        trainer.resume(latest)
    wait_for_all(world)  # gloo itself would wait only 30 s for the rank that has just written and drawn
    with bound_to_cores(world):
        state = trainer.fit()
    kept = kept_weights(folder.path, recipe.Global.keep)
    weights, meta = load_weights(kept)
    apply_weights(task.model, weights, meta, path=kept)
    return state, kept


def _has(data: LabelledData, subset: str) -> bool:
    """Whether there is anything to evaluate: a run without validation may train on everything."""
    try:
        data.positions(subset)
    except UserError:
        return False
    return True


def _show_samples(task: ClassificationTask, folder: RunFolder) -> None:
    """Draw the first images as the model will see them in the first epoch, augmented on the CPU."""
    spread = np.linspace(0, len(task.train) - 1, min(12, len(task.train))).astype(int)
    samples = [task.dataset[(0, int(position))] for position in spread]
    file = folder.path / "samples.png"
    plots.plot_samples([image for image, _, _ in samples], [int(label) for _, label, _ in samples],
                       task.data.classes, file, demo=task.data.source.demo)
    folder.image("samples", file, 0)


def evaluate_run(task: ClassificationTask, folder: RunFolder, world: World) -> dict[str, Any]:
    """Evaluate the task's model on the recipe's evaluation subset and write the report (rank 0)."""
    subset = task.recipe.DataLoader.Eval.subset
    positions = task.data.positions(subset)
    labels, probabilities = task.predict(positions)
    if not world.is_main:
        return {}
    metrics = write_report(folder.path, task.data, positions, labels, probabilities, task.metric)
    folder.say(f"在子集 {subset}（{len(positions)} 张）上：")
    say_summary(metrics, folder.say)
    for number, info in enumerate(task.data.classes):
        folder.pr_curve(f"pr/{info.name}", (labels == number).astype(int), probabilities[:, number], 0)
    overlap = len(np.intersect1d(positions, task.train))
    if overlap:
        folder.say(f"!! 评估的 {len(positions)} 张里有 {overlap} 张用于训练：这个结果不代表在新数据上的表现")
    return {"evaluation": {"subset": subset, "images": len(positions), "also_trained_on": overlap,
                           "counts": task.data.counts(positions)} | metrics}


def kept_weights(run: Path, keep: str) -> Path:
    """The checkpoint a finished run stands for."""
    found = checkpoint.find(run / "checkpoints" / ("best" if keep == "best" else "latest"))
    found = found or checkpoint.find(run / "checkpoints" / "latest")
    if found is None and any(run.glob("fold[0-9]*")):
        raise UserError(f"{run} 是交叉验证的结果，每折一个文件夹；请用 -o Global.fold=0 选一折，"
                        "或用 -o Global.checkpoint=… 指定权重")
    if found is None:
        raise UserError(f"{run}/checkpoints 下没有检查点（checkpoint）；请先训练，或用 -o Global.checkpoint=… 指定")
    return found


def describe_run(loaded: Loaded, data: LabelledData, subsets: dict[str, np.ndarray]) -> dict[str, Any]:
    """What every classifier's ``metrics.json`` says of its circumstances."""
    return {
        "demo_data": data.source.demo,
        "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint(),
                    "counts": {name: data.counts(positions) for name, positions in subsets.items()}},
        "architecture": loaded.recipe.Arch["name"],
    } | circumstances(loaded.recipe.Global.seed)


def circumstances(seed: int) -> dict[str, Any]:
    """Seed, device and versions of a run."""
    return {
        "seed": seed,
        "device": paddle.get_device(),
        "versions": {"paddle_cxr": __version__, "paddle": paddle.__version__, "numpy": np.__version__,
                     "python": platform.python_version()},
    }


def _images_per_second(history: list[dict[str, Any]], task: ClassificationTask) -> float | None:
    seconds = history[-1]["seconds"] if history else 0
    return round(len(task.train) * len(history) / seconds, 2) if seconds else None


def foretell(task: Task, loaded: Loaded, world: World, say: Callable[[str], None], what: str, images: int) -> None:
    """Run two steps of a task and say what a whole run would take.  Nothing is written.

    Args:
        what: name of the network; images: number of training images.
    """
    trainer = Trainer(task, loaded.recipe.Global, loaded.recipe.Optimizer, _Silent(say), world)
    plan = task.plan(0)
    batches = task.batches(0, 0)
    trainer._set_mode()
    trainer.optimizer.set_lr(trainer.schedule(0.0))
    seconds = []
    for step in range(min(2, len(plan))):  # the first step also allocates memory and is slower
        started = time.monotonic()
        sums = trainer._step(plan[step], batches)
        seconds.append(time.monotonic() - started)
    number = sum(int(p.size) for p in task.model.parameters() if not p.stop_gradient)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if paddle.get_device().startswith("gpu"):
        peak = paddle.device.cuda.max_memory_allocated() / 2**20
    epoch = seconds[-1] * len(plan)
    epochs = loaded.recipe.Global.epochs
    say(f"试运行（dry run）：{what}，{number:,} 个可训练参数，训练集 {images} 张，"
        f"每轮 {len(plan)} 步，第一批损失 {sums['loss'] / sums['count']:.4f}")
    say(f"每步 {seconds[-1]:.3f} 秒（第一步 {seconds[0]:.3f} 秒），每轮约 {epoch:.0f} 秒，"
        f"{epochs} 轮约 {epoch * epochs / 60:.1f} 分钟（不含验证），每个进程峰值内存 {peak:.0f} MiB，"
        f"{world.size} 个进程，设备 {paddle.get_device()}")


class _Silent(RunFolder):
    """A run folder that writes nothing: what a dry run trains into."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.path = Path(".")
        self.is_main = False
        self.say = say
