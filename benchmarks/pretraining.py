"""Pre-training: a whole step against the forward and backward passes of its two towers alone, and the loss by itself.

    python benchmarks/pretraining.py
    python benchmarks/pretraining.py --configs configs/convirt_phantom.yaml --batch-size 64

The limit is what the towers cost: images and texts through their encoders and back, one after the other.  A step adds
tokenising, comparing all pairs, the loss, and the optimizer.  Towers and steps take turns, and the ratio is taken
within a turn, so that a machine that slows down slows both.  Then the comparison and its gradient alone, as the batch
grows (features of the recipe's sizes, at random).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from machine import load, print_load

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.85
SIZES = (32, 64, 128, 256, 512)
RECIPES = [str(ROOT / "configs" / f"{name}_phantom.yaml") for name in ("convirt", "gloria")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=RECIPES)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7, help="轮流运行几遍，取中位数")
    arguments = parser.parse_args()
    from paddle_cxr.cpu import prepare

    prepare(arguments.threads)
    before = load()
    met = [measure(config, arguments) for config in arguments.configs]
    print(f"目标：整步的速度不低于两座塔之和的 {GOAL:.0%}：{'达到' if all(met) else '没有达到'}")
    print_load(before)


def measure(config: str, arguments: argparse.Namespace) -> bool:
    """Print the figures of one recipe; returns whether the goal is met."""
    import paddle

    task, optimizer = build(config, arguments.batch_size)
    batch = next(iter(task.batches(0, 0)))
    seed = (0, 0, 0)
    texts = task._texts_of(batch, seed)
    inputs = task._inputs(batch, texts, seed)

    def towers() -> None:
        both = task.model.encode_image(inputs[0]), task.model.encode_text(*map(paddle.to_tensor, inputs[1]))
        for features in both:
            sum(one.sum() for one in features.values() if one.is_floating_point()).backward()
        optimizer.clear_grad()

    def step() -> None:
        task.begin_step([batch], [seed], [len(texts)])
        task.loss(batch, seed)[0].backward()
        optimizer.clear_grad()

    def step_and_optimizer() -> None:
        task.begin_step([batch], [seed], [len(texts)])
        task.loss(batch, seed)[0].backward()
        optimizer.step()
        optimizer.clear_grad()

    seconds = take_turns([towers, step, step_and_optimizer], arguments.repeats)
    limit, *others = (len(texts) / statistics.median(times) for times in seconds)
    ratios = [statistics.median(a / b for a, b in zip(seconds[0], times, strict=True)) for times in seconds[1:]]
    name, height, width = task.model.arch, *batch.images.shape[1:3]
    print(f"{name}（{Path(config).stem}，{height}×{width}，一批 {len(texts)} 对，{inputs[1].ids.shape[1]} 个词元，"
          f"{arguments.repeats} 遍的中位数）")
    print(f"  两座塔：{limit:.1f} 对/秒；整步（含分词、比较、损失）：{others[0]:.1f}，{ratios[0]:.2f} 倍；"
          f"再加优化器：{others[1]:.1f}，{ratios[1]:.2f} 倍")
    loss_alone(task, inputs, arguments.repeats)
    return ratios[0] >= GOAL


def build(config: str, batch_size: int) -> tuple[Any, Any]:
    from paddle_cxr.engine.distributed import World
    from paddle_cxr.engine.optimizer import build_optimizer
    from paddle_cxr.tasks.pretraining.recipe import load as load_recipe
    from paddle_cxr.tasks.pretraining.run import prepare

    loaded = load_recipe(config, [
        "DataLoader.Source.count=800", "DataLoader.Split.val=0.1", "DataLoader.cache.mode=memory",
        f"DataLoader.Train.sampler.batch_size={batch_size}", "Global.micro_batches=1"])
    task = prepare(loaded, World(), lambda _: None)
    optimizer, _ = build_optimizer(loaded.recipe.Optimizer, task.model, 1)
    optimizer.set_lr(1e-5)
    task.model.train()
    return task, optimizer


def take_turns(contestants: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    """Seconds of each contestant in every turn; the first turn warms up and is not counted."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for turn in range(repeats + 1):
        for run, times in zip(contestants, seconds, strict=True):
            begun = time.perf_counter()
            run()
            if turn:
                times.append(time.perf_counter() - begun)
    return seconds


def loss_alone(task: Any, inputs: tuple[Any, Any], repeats: int) -> None:
    """Time of the comparison and its gradient for growing batches."""
    import paddle

    from paddle_cxr.engine.distributed import World
    from paddle_cxr.tasks.pretraining.whole_batch import Part, backward_from_loss

    with paddle.no_grad():
        images = task.model.encode_image(inputs[0][:2])
        texts = task.model.encode_text(*(paddle.to_tensor(one[:2]) for one in inputs[1]))

    def grown(features: dict[str, Any], count: int) -> dict[str, Any]:
        return {name: (paddle.randn([count, *tensor.shape[1:]]) if tensor.is_floating_point()
                       else paddle.ones([count, *tensor.shape[1:]], tensor.dtype))
                for name, tensor in features.items()}

    for count in SIZES:
        part = Part(grown(images, count), grown(texts, count), keep_graph=False)
        numbers = paddle.arange(count)
        times = take_turns([lambda part=part, numbers=numbers, count=count: backward_from_loss(
            [part], [count], numbers, World(), task.model.similarities, task.contrast)], min(repeats, 3))[0]
        median = statistics.median(times)
        print(f"  只算比较和损失（含梯度），一批 {count:4d} 对：{median * 1000:8.1f} 毫秒，"
              f"每对 {median / count * 1e3:.2f} 毫秒")


if __name__ == "__main__":
    main()
