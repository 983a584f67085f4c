"""Image classification: what a batch, a loss and a validation are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr import __version__
from paddle_cxr.data.dataset import LabelledImages
from paddle_cxr.data.device_augment import device_augment_from
from paddle_cxr.data.labelled import LabelledData, chosen
from paddle_cxr.data.loader import make_loader
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler, balanced_weights
from paddle_cxr.data.transforms import build_transforms
from paddle_cxr.engine.distributed import World, gather_arrays
from paddle_cxr.engine.optimizer import check_optimizer
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build, check_type
from paddle_cxr.schema import EvalSection, Recipe
from paddle_cxr.tasks.models import build_model, freeze
from paddle_cxr.tasks.views import AveragedProbabilities


class ClassificationTask:
    """Trains and validates one classifier.

    Args:
        loaded: the recipe.
        data: decoded images with their subsets.
        world: the ranks.
    """

    def __init__(self, loaded: Loaded, data: LabelledData, world: World) -> None:
        recipe = loaded.recipe
        self.recipe, self.data, self.world = recipe, data, world
        self.train = data.positions(recipe.DataLoader.Train.subset)
        counts = data.counts(self.train)
        _check_classes(counts)
        self.validation = data.positions(recipe.DataLoader.Eval.subset) if recipe.Global.eval_every else None
        # A fresh model is the same on every rank and in every run with this seed.
        paddle.seed(recipe.Global.seed)
        self.model, self.notices = build_model(recipe)
        freeze(self.model, recipe.Global.freeze)
        self.loss_function = build("loss", recipe.Loss, "Loss", class_counts=tuple(counts.values()))
        self.metric = build("metric", recipe.Metric, "Metric")
        self._build_batches(recipe)

    def _build_batches(self, recipe: Recipe) -> None:
        section = recipe.DataLoader.Train
        path = "DataLoader.Train.transform_ops"
        on_device = section.augment_on == "device"
        self.device_augment = device_augment_from(section.transform_ops, path) if on_device else None
        transform = None if on_device else build_transforms(section.transform_ops, path)
        self.mixing = [build("batch_transform", spec, f"DataLoader.Train.batch_transform_ops.{i}")
                       for i, spec in enumerate(section.batch_transform_ops)]
        self.dataset = LabelledImages(*chosen(self.data, self.train), transform, recipe.Global.seed)
        parts = recipe.Global.micro_batches
        sampling = section.sampler
        self.sampler = MicroBatchSampler(
            len(self.train), batch_size=sampling.batch_size,
            micro_batches=self.world.size if parts == "auto" else parts,
            rank=self.world.rank, world_size=self.world.size, shuffle=sampling.shuffle,
            drop_last=sampling.drop_last, seed=recipe.Global.seed,
            weights=balanced_weights(self.data.labels[self.train]) if sampling.balance else None,
            samples_per_epoch=sampling.samples_per_epoch)

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """See :class:`paddle_cxr.engine.trainer.Task`."""
        return self.sampler.plan(epoch)

    def batches(self, epoch: int, start_step: int) -> Iterator[Any]:
        """This rank's micro-batches, each a :class:`paddle_cxr.data.loader.Batch`."""
        self.sampler.set_epoch(epoch, start_step)
        return iter(make_loader(self.dataset, self.sampler, self.recipe.DataLoader.Train.loader.num_workers))

    def loss(self, batch: Any, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """Mean loss over a micro-batch; sums ``count`` and ``correct`` (against the hard label, also under mixup)."""
        pixels, labels, _ = batch
        if self.device_augment is not None:
            pixels = self.device_augment(pixels, int(np.random.SeedSequence(tuple(seed)).generate_state(1)[0]))
        inputs = self.data.preprocess.normalize_tensor(pixels)
        targets = F.one_hot(labels, len(self.data.classes))
        for number, mix in enumerate(self.mixing):
            inputs, targets = mix(inputs, targets, np.random.default_rng((*seed, number)))
        logits = self.model(inputs)
        votes = logits.mean(axis=1) if logits.ndim == 3 else logits  # [N, members, K] of an ensemble
        correct = (votes.argmax(axis=1) == labels).astype("float32").sum()
        return self.loss_function(logits, targets), {"count": float(len(labels)), "correct": float(correct)}

    def validate(self) -> dict[str, Any] | None:
        """Metrics over the validation subset (no intervals: they cost time and nobody reads them mid-training)."""
        if self.validation is None:
            return None
        labels, probabilities = self.predict(self.validation)
        if not np.isfinite(probabilities).all():
            raise UserError("验证时模型输出 NaN 或 Inf：训练已发散，检查点未被覆盖。"
                            "可减小学习率，或加 Optimizer.clip_norm")
        names = [info.name for info in self.data.classes]
        return self.metric(labels, probabilities, class_names=names, intervals=False)

    def predict(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 [N] and probabilities float32 [N, K] of ``positions``; see :func:`predict_all`."""
        return predict_all(self.model, self.data, positions, self.recipe.DataLoader.Eval, self.world)

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the main metric improved."""
        return self.metric.better(new.get(self.metric.main), old.get(self.metric.main))

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of positions in the training set."""
        return self.data.files(self.train[positions])

    def meta(self) -> dict[str, Any]:
        """What model.json records beside the weights."""
        recipe = self.recipe
        return {
            "architecture": recipe.Arch["name"],
            "arguments": {k: v for k, v in recipe.Arch.items() if k not in ("name", "pretrained")},
            "classes": [{"name": c.name, "zh": c.zh, "en": c.en} for c in self.data.classes],
            "preprocess": self.data.preprocess.to_dict(),
            "image_shape": list(recipe.Global.image_shape),
            "version": __version__,
            "parent": recipe.Arch.get("pretrained"),
            "demo_data": self.data.source.demo,
        }


def check_components(recipe: Recipe) -> None:
    """Check every component's name and arguments before the slow part, reading the images; raises UserError."""
    with paddle.LazyGuard():  # the layers without their weights: takes no time, and no random numbers
        model, _ = build_model(recipe, load_start=False)
    freeze(model, recipe.Global.freeze)
    check_type(recipe.Arch.get("pretrained", False), bool | str | dict | None, "Arch.pretrained")
    build("loss", recipe.Loss, "Loss", class_counts=(1,) * len(recipe.Global.classes))
    check_optimizer(recipe.Optimizer)
    build("metric", recipe.Metric, "Metric")
    build_transforms(recipe.DataLoader.Train.transform_ops, "DataLoader.Train.transform_ops")
    for i, spec in enumerate(recipe.DataLoader.Train.batch_transform_ops):
        build("batch_transform", spec, f"DataLoader.Train.batch_transform_ops.{i}")


def predict_all(model: paddle.nn.Layer, data: LabelledData, positions: np.ndarray, section: EvalSection,
                world: World) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [N] and probabilities float32 [N, K] of ``positions``, in order; the work is shared by the ranks."""
    sampler = EvalSampler(len(positions), section.sampler.batch_size, world.rank, world.size)
    dataset = LabelledImages(*chosen(data, positions))
    found: dict[str, list[np.ndarray]] = {
        "order": [np.zeros(0, np.int64)], "labels": [np.zeros(0, np.int64)],
        "probabilities": [np.zeros((0, len(data.classes)), np.float32)]}
    model.eval()
    for images, labels, order in make_loader(dataset, sampler, section.loader.num_workers):
        inputs = data.preprocess.normalize_tensor(hidden(images, section.hide))
        probabilities = probabilities_of(model, inputs, section.views)
        for name, value in (("order", order), ("labels", labels), ("probabilities", probabilities)):
            found[name].append(np.asarray(value))
    arrays = gather_arrays({name: np.concatenate(parts) for name, parts in found.items()}, world)
    in_order = np.argsort(arrays["order"])
    return arrays["labels"][in_order], arrays["probabilities"][in_order]


def hidden(images: paddle.Tensor, what: str) -> paddle.Tensor:
    """Cover part of uint8 images [N, H, W(, 3)] in black, to see what a model needs (DeGrave et al. 2021).

    ``centre`` leaves a frame of one eighth on each side, where there is no lung but much of the hospital: letters,
    collimation, exposure.  ``border`` covers that frame.
    """
    if what == "nothing":
        return images
    height, width = images.shape[1:3]
    inside = paddle.zeros([height, width], "int32")  # Paddle cannot multiply uint8
    inside[height // 8:height - height // 8, width // 8:width - width // 8] = 1
    keep = inside if what == "border" else 1 - inside
    return (images.astype("int32") * keep.reshape([1, height, width] + [1] * (images.ndim - 3))).astype("uint8")


@paddle.no_grad()
def probabilities_of(model: paddle.nn.Layer, inputs: paddle.Tensor, views: str = "one") -> np.ndarray:
    """Class probabilities float32 [N, K] of normalised inputs [N, C, H, W], averaged over the views."""
    return AveragedProbabilities(model, views)(inputs).astype("float32").numpy()


def _check_classes(counts: dict[str, int]) -> None:
    empty = [name for name, number in counts.items() if not number]
    if empty:
        present = {name: number for name, number in counts.items() if number}
        raise UserError(f"训练集里没有这些类的图像：{'、'.join(empty)}（有：{present}）；"
                        "请检查数据文件夹或划分，或从 Global.classes 去掉这些类")
