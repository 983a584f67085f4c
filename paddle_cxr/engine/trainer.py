"""The one training loop.

    for epoch:  for step:  for micro-batch:  forward, backward
                           sum gradients over ranks → optimizer step
                validate → keep the best → checkpoint

What a batch is, what its loss is and what validation means belongs to the *task* (:mod:`paddle_cxr.tasks`).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from paddle_cxr.engine import checkpoint
from paddle_cxr.engine.average import BatchStatistics, WeightAverage
from paddle_cxr.engine.distributed import World, sum_over_ranks, wait_for_all
from paddle_cxr.engine.optimizer import build_optimizer
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.precision import Precision
from paddle_cxr.engine.state import RunState, seed_paddle
from paddle_cxr.errors import UserError
from paddle_cxr.schema import TrainGlobal
from paddle_cxr.weights import apply_weights, load_weights, save_weights


class Interrupted(Exception):
    """Training was asked to stop (Ctrl-C or SIGTERM) and has saved itself."""


class Task(Protocol):
    """What the loop needs to know about the work.

    A task whose loss is not a mean over micro-batches also has ``begin_step(batches, seeds, sizes)``: it gets this
    rank's micro-batches of the step, the seeds that :meth:`loss` will get with them, and the sizes of all ranks'.
    """

    model: paddle.nn.Layer

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """The epoch's steps; each is a list of micro-batches; each is an array of positions in the training set."""

    def batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """This rank's micro-batches, in the order of the plan, from ``start_step`` on."""

    def loss(self, batch: Any, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """Mean loss of one micro-batch, and sums to report (``count``, ``correct`` …)."""

    def validate(self) -> dict[str, Any] | None:
        """Metrics on the validation set (the same on every rank), or None where there is none."""

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether ``new`` validation metrics beat ``old``."""

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of training positions, for messages."""

    def meta(self) -> dict[str, Any]:
        """What is recorded beside the weights."""


class Trainer:
    """Runs a task to the end, resumably.

    Args:
        task: model, data and loss.
        settings: the recipe's ``Global``.
        optimizer: the recipe's ``Optimizer``.
        folder: where the run writes.
        world: the ranks.
    """

    def __init__(self, task: Task, settings: TrainGlobal, optimizer: dict[str, Any], folder: RunFolder,
                 world: World) -> None:
        self.task, self.settings, self.folder, self.world = task, settings, folder, world
        self.optimizer, self.schedule = build_optimizer(optimizer, task.model, settings.epochs)
        self.precision = Precision(settings.amp, folder.say)
        self.statistics = BatchStatistics(task.model)
        self.average = WeightAverage(task.model, settings.ema) if settings.ema else None
        self.state = RunState()
        self._stop_asked = False  # by a signal to this rank, at any moment
        self._stop_agreed = False  # by all ranks, after the same step
        self._save_agreed = False
        self._restored: dict[str, np.ndarray] = {}  # the optimizer's state between resuming and the next step
        self._saved_at = time.monotonic()

    # ------------------------------------------------------------------ the loop

    def fit(self) -> RunState:
        """Train to the last epoch (or early stop); returns the final state.

        Raises:
            Interrupted: asked to stop; ``checkpoints/latest`` is up to date.
            UserError: loss became NaN or infinite, a file could not be read or written.
        """
        state, settings = self.state, self.settings
        if state.finished:  # resumed after the last save: there is nothing to do or to save
            return state
        handlers = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while state.epoch < settings.epochs and not state.finished:
                self._train_epoch()
                self._end_epoch()
                if state.epoch < settings.epochs and not state.finished and self._asked_on_any_rank():
                    raise self._interrupted()
            state.finished = True
            self._save()
            if self._asked_on_any_rank():
                raise self._interrupted()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return state

    def _train_epoch(self) -> None:
        state, settings = self.state, self.settings
        plan = self.task.plan(state.epoch)
        batches = self.task.batches(state.epoch, state.step)
        self._set_mode()
        bar = self.folder.progress(len(plan), state.step, f"第 {state.epoch + 1}/{settings.epochs} 轮")
        start_step, started = state.step, time.monotonic()
        for step in range(state.step, len(plan)):
            begun = time.monotonic()
            rate = self._rate(state.epoch + step / len(plan))
            self.optimizer.set_lr(rate)
            sums = self._step(plan[step], batches)
            state.step += 1
            state.global_step += 1
            state.seconds += time.monotonic() - begun
            for name, value in sums.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            self._report(bar, step, len(plan), rate, (time.monotonic() - started) / (step + 1 - start_step))
            if self._stop_agreed:
                bar.close()
                self._save()
                raise self._interrupted()
            if (self._save_agreed or self._step_due()) and state.step < len(plan):
                self._save()
        bar.close()

    def _rate(self, epoch: float) -> float:
        return self.schedule(epoch) * self.schedule.factor ** self.state.rate_drops

    def _step(self, micro_batches: Sequence[np.ndarray], batches: Iterator[Any]) -> dict[str, float]:
        """One optimizer step over the global batch; returns sums over it (all ranks)."""
        total = sum(len(part) for part in micro_batches)
        mine = micro_batches[self.world.rank::self.world.size]
        shared = len(micro_batches) > 1
        sums: dict[str, float] = {}
        if shared:
            self.statistics.begin_step()
        # Random draws of a step depend on where it is, not on what ran before: see RunState.
        seeds = [(self.settings.seed, self.state.global_step, self.world.rank + number * self.world.size)
                 for number in range(len(mine))]
        if begin := getattr(self.task, "begin_step", None):
            together = [next(batches) for _ in mine]
            batches = iter(together)
            with self.precision.context():
                begin(together, seeds, [len(part) for part in micro_batches])
        for positions, seed in zip(mine, seeds, strict=True):
            seed_paddle(seed)
            with self.precision.context():
                loss, reported = self.task.loss(next(batches), seed)
            value = float(loss)
            if not math.isfinite(value):
                self._refuse(value, positions)
            share = len(positions) / total
            self.precision.scale(loss * share).backward()
            if shared:
                self.statistics.end_micro_batch(share)
            for name, amount in ({"loss": value * len(positions)} | reported).items():
                sums[name] = sums.get(name, 0.0) + amount
        # Signals and clocks differ between ranks: what one of them wants, all do after the same step.
        sums["stop"], sums["save"] = float(self._stop_asked), float(self._minutes_due())
        if shared:
            sums = self._exchange(sums)
        self._stop_agreed, self._save_agreed = sums.pop("stop") > 0, sums.pop("save") > 0
        self._check_gradients(micro_batches)
        self.precision.step(self.optimizer)
        self.optimizer.clear_grad()
        if self.average:
            self.average.update(self.state.global_step + 1)
        return sums

    def _exchange(self, sums: dict[str, float]) -> dict[str, float]:
        """Sum gradients, BatchNorm statistics and reports over the ranks in one message."""
        means = self.statistics.weighted()
        names = sorted(sums)  # the same on every rank, as each has at least one micro-batch of every step
        if self.world.size > 1:
            gradients = [self._gradient(p) for p in self.task.model.parameters() if not p.stop_gradient]
            numbers = paddle.to_tensor([sums[name] for name in names], "float32")
            parts = [*gradients, *means, numbers]
            flat = sum_over_ranks(paddle.concat([part.flatten() for part in parts]), self.world)
            pieces = flat.split([int(part.size) for part in parts])
            for gradient, piece in zip(gradients, pieces, strict=False):
                gradient.set_value(piece.reshape(gradient.shape))
            means = [piece.reshape(mean.shape)
                     for piece, mean in zip(pieces[len(gradients):], means, strict=False)]
            sums = dict(zip(names, pieces[-1].numpy().tolist(), strict=True))
        self.statistics.end_step(means)
        return sums

    @staticmethod
    def _gradient(parameter: paddle.Tensor) -> paddle.Tensor:
        if parameter.grad is None:
            parameter.grad = paddle.zeros_like(parameter)
        return parameter.grad

    def _set_mode(self) -> None:
        """Training mode, except frozen layers, whose BatchNorm keeps its statistics."""
        self.task.model.train()
        for name, layer in self.task.model.named_sublayers():
            if any(name == prefix or name.startswith(prefix + ".") for prefix in self.settings.freeze):
                layer.eval()

    # ------------------------------------------------------------------ between epochs

    def _end_epoch(self) -> None:
        state = self.state
        count = max(state.sums.get("count", 0.0), 1.0)
        row: dict[str, Any] = {"epoch": state.epoch + 1, "step": state.global_step,
                               "lr": self._rate(state.epoch), "seconds": round(state.seconds, 2),
                               "train_loss": state.sums.get("loss", 0.0) / count}
        if "correct" in state.sums:
            row["train_accuracy"] = state.sums["correct"] / count
        every = self.settings.eval_every
        last = state.epoch + 1 == self.settings.epochs
        metrics = None
        if every and ((state.epoch + 1) % every == 0 or last):
            metrics = self.evaluate()
        state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
        if metrics:
            self._take_metrics(metrics, row)
        state.history.append(row)
        self.folder.write_history(state.history)
        self._log_row(row)
        self.folder.say(_epoch_line(row, self.settings.epochs))
        if state.epoch < self.settings.epochs and not state.finished:
            self._save()

    def _log_row(self, row: dict[str, Any]) -> None:
        self.folder.scalars({f"epoch/{k}": v for k, v in row.items() if isinstance(v, float)}, row["epoch"])

    def evaluate(self) -> dict[str, Any] | None:
        """Validation metrics with the weights that would be kept (the averaged ones under EMA)."""
        self.task.model.eval()
        if self.average:
            with self.average:
                return self.task.validate()
        return self.task.validate()

    def _take_metrics(self, metrics: dict[str, Any], row: dict[str, Any]) -> None:
        state = self.state
        numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
        row.update({f"val_{key}": value for key, value in numbers.items()})
        if state.best is None or self.task.better(numbers, state.best):
            state.best = numbers | {"epoch": state.epoch}
            state.evaluations_without_gain = 0
            if self.settings.keep == "best":
                self._save_weights(self.folder.checkpoints / "best")
        else:
            state.evaluations_without_gain += 1
            if self.schedule.patience and state.evaluations_without_gain % self.schedule.patience == 0:
                state.rate_drops += 1
            patience = self.settings.early_stop
            if patience and state.evaluations_without_gain >= patience:
                self.folder.say(f"连续 {patience} 次验证没有进步，早停（early stopping）")
                state.finished = True

    def _report(self, bar: Any, step: int, steps: int, rate: float, seconds: float) -> None:
        state = self.state
        count = max(state.sums.get("count", 0.0), 1.0)
        loss = state.sums["loss"] / count
        bar.update(1)
        bar.set_postfix_str(f"损失 {loss:.4f} 学习率 {rate:.2e}")
        if (step + 1) % self.settings.log_every == 0 or step + 1 == steps:
            left = seconds * (steps - step - 1 + steps * (self.settings.epochs - state.epoch - 1))
            self.folder.note(f"第 {state.epoch + 1}/{self.settings.epochs} 轮 {step + 1}/{steps} 步 损失 {loss:.4f} "
                             f"学习率 {rate:.3e} {seconds:.3f} 秒/步 剩余约 {_duration(left)}")
            self.folder.scalars({"step/train_loss": loss, "step/lr": rate}, state.global_step)

    # ------------------------------------------------------------------ stopping and saving

    def _check_gradients(self, micro_batches: Sequence[np.ndarray]) -> None:
        """Refuse a gradient that is not finite before it reaches the weights (fp16's scaler skips such steps)."""
        if self.precision.skips_infinite:
            return
        gradients = [p.grad for p in self.task.model.parameters() if p.grad is not None]
        value = float(paddle.add_n([(gradient * 0).sum().astype("float32") for gradient in gradients]))
        if value != 0:
            self._refuse(value, np.concatenate(micro_batches), "梯度（gradient）")

    def _refuse(self, value: float, positions: np.ndarray, what: str = "损失（loss）") -> None:
        names = "、".join(self.task.files(positions))
        raise UserError(f"第 {self.state.epoch + 1} 轮第 {self.state.step + 1} 步的{what}是 {value}，训练停止；"
                        f"检查点未被覆盖。这一批的文件：{names}。可减小学习率、加 Optimizer.clip_norm，或检查这些图")

    def _ask_to_stop(self, *_: object) -> None:
        if self._stop_asked:  # asked twice: the user does not want to wait for the step to end
            if self.world.is_main:  # which takes the others along
                raise KeyboardInterrupt
            return
        self._stop_asked = True
        self.folder.say("收到中断信号，正在完成这一步并保存（再按一次 Ctrl-C 立即退出，不保存）……")

    def _interrupted(self) -> Interrupted:
        return Interrupted(f"已中断并保存到 {self.folder.checkpoints / 'latest'}；重新运行同一命令即可续训（resume）")

    def _asked_on_any_rank(self) -> bool:
        """Between epochs: a signal may have come during validation or saving."""
        return float(sum_over_ranks(paddle.to_tensor([float(self._stop_asked)]), self.world).sum()) > 0

    def _step_due(self) -> bool:
        every = self.settings.save_every_steps
        return bool(every) and self.state.step % every == 0

    def _minutes_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.settings.save_every_minutes

    def _save(self) -> None:
        """Write ``checkpoints/latest`` (rank 0); every rank holds the same state, so one copy is enough."""
        self._saved_at = time.monotonic()
        if self.world.is_main:
            checkpoint.replace_folder(self.folder.checkpoints / "latest", self._write_latest)
        wait_for_all(self.world)

    def _write_latest(self, folder: Path) -> None:
        self._write_weights(folder)
        # Paddle takes up a restored state at its next step only; before that it would report none.
        tensors = checkpoint.optimizer_tensors(self.optimizer, self.task.model) or dict(self._restored)
        if self.average:
            tensors |= {f"raw|{name}": tensor.numpy() for name, tensor in self.task.model.state_dict().items()}
        checkpoint.write_state(folder, tensors, self.state.to_dict() | {"scaler": self.precision.state()})

    def _write_weights(self, folder: Path) -> None:
        source = self.average.shadow if self.average else self.task.model.state_dict()
        save_weights(folder, {name: tensor.numpy() for name, tensor in source.items()},
                     self.task.meta() | {"epoch": self.state.epoch, "global_step": self.state.global_step})

    def _save_weights(self, folder: Path) -> None:
        if self.world.is_main:
            checkpoint.replace_folder(folder, self._write_weights)
        wait_for_all(self.world)

    def resume(self, folder: Path) -> None:
        """Continue from a checkpoint folder; raises :class:`UserError` if it is damaged or of another model."""
        weights, meta = load_weights(folder)
        tensors, numbers = checkpoint.read_state(folder)
        raw = {key.removeprefix("raw|"): tensors.pop(key) for key in list(tensors) if key.startswith("raw|")}
        apply_weights(self.task.model, weights, meta, path=folder)
        if self.average:
            for name, tensor in self.average.shadow.items():
                tensor.set_value(paddle.to_tensor(weights[name]))
            apply_weights(self.task.model, raw or weights, meta, path=folder)
        checkpoint.restore_optimizer(self.optimizer, self.task.model, tensors)
        self._restored = tensors
        self.precision.restore(numbers.pop("scaler", None))
        try:
            self.state = RunState.from_dict(numbers)
        except TypeError as error:
            raise UserError(f"检查点损坏或来自别的版本：{folder / checkpoint.STATE_JSON}（{error}）；"
                            "用 -o Global.resume=false 从头训练（旧结果会改名保留）") from None
        for row in self.state.history:  # VisualDL shows a folder's newest log only
            self._log_row(row)
        self.folder.say(f"从 {folder} 续训：第 {self.state.epoch + 1} 轮，第 {self.state.step + 1} 步")


def _epoch_line(row: dict[str, Any], epochs: int) -> str:
    names = {"train_loss": "训练损失", "train_accuracy": "训练准确率", "val_loss": "验证损失",
             "val_accuracy": "验证准确率", "val_balanced_accuracy": "平衡准确率", "val_macro_auc": "宏平均 AUC",
             "val_dice": "Dice", "val_iou": "IoU"}
    parts = [f"{text} {row[key]:.4f}" for key, text in names.items() if isinstance(row.get(key), float)]
    return f"第 {row['epoch']}/{epochs} 轮 {' '.join(parts)} 已用 {_duration(row['seconds'])}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
