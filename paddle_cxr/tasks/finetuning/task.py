"""What one training step and one validation of fine-tuning are; see :class:`paddle_cxr.engine.trainer.Task`.

    all            images → network → a logit a finding → masked binary cross-entropy
    linear_probe   features, computed once → last layer → the same
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_cxr import __version__
from paddle_cxr.data.dataset import LabelledImages
from paddle_cxr.data.device_augment import device_augment_from
from paddle_cxr.data.labelled import ChosenImages, LabelledData
from paddle_cxr.data.loader import Batch, make_loader
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler
from paddle_cxr.data.transforms import build_transforms
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.multilabel import multilabel_metrics
from paddle_cxr.evaluation.sigmoid import sigmoid
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.finetuning.features import TowerFeatures
from paddle_cxr.tasks.finetuning.loss import MaskedBCE
from paddle_cxr.tasks.finetuning.schema import FinetuningRecipe
from paddle_cxr.tasks.models import freeze


class FinetuningTask:
    """Trains and validates a whole network.

    Args:
        loaded: the recipe, settled.
        data: decoded images with their subsets.
        findings: what is learnt; labels: float ``[len(data.images), K]``, NaN where unknown.
        train: positions that are trained on.
        model: images → logits ``[N, K]``; trained in place.
        world: the ranks.
    """

    def __init__(self, loaded: Loaded, data: LabelledData, findings: Sequence[ClassInfo], labels: np.ndarray,
                 train: np.ndarray, model: paddle.nn.Layer, world: World) -> None:
        recipe = loaded.recipe
        self.recipe, self.data, self.world = recipe, data, world
        self.findings, self.labels, self.train = findings, labels, train
        self.model = self.network = model
        self.validation = data.positions(recipe.DataLoader.Eval.subset) if recipe.Global.eval_every else None
        freeze(model, recipe.Global.freeze)
        self.loss_function = MaskedBCE(labels[train], recipe.Loss.positive_weight)
        section, parts = recipe.DataLoader.Train, recipe.Global.micro_batches
        self.sampler = MicroBatchSampler(
            len(train), batch_size=section.sampler.batch_size,
            micro_batches=world.size if parts == "auto" else parts, rank=world.rank, world_size=world.size,
            shuffle=section.sampler.shuffle, drop_last=section.sampler.drop_last, seed=recipe.Global.seed,
            samples_per_epoch=section.sampler.samples_per_epoch)
        self._open_images()

    def _open_images(self) -> None:
        section = self.recipe.DataLoader.Train
        path = "DataLoader.Train.transform_ops"
        on_device = section.augment_on == "device"
        self._augment = device_augment_from(section.transform_ops, path) if on_device else None
        transform = None if on_device else build_transforms(section.transform_ops, path)
        # In place of a label: where the image is in the data set.
        self._dataset = LabelledImages(ChosenImages(self.data.images, self.train), self.train, transform,
                                       self.recipe.Global.seed)

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """See :class:`paddle_cxr.engine.trainer.Task`."""
        return self.sampler.plan(epoch)

    def batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """This rank's micro-batches; ``labels`` are positions in the data set."""
        self.sampler.set_epoch(epoch, start_step)
        return iter(make_loader(self._dataset, self.sampler, self.recipe.DataLoader.Train.loader.num_workers))

    def loss(self, batch: Batch, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """Mean loss over a micro-batch, and how many images it has."""
        pixels = batch.images
        if self._augment is not None:
            pixels = self._augment(pixels, int(np.random.SeedSequence(tuple(seed)).generate_state(1)[0]))
        logits = self.model(self.data.preprocess.normalize_tensor(pixels))
        return self.loss_function(logits, self.labels[batch.labels.numpy()]), {"count": float(len(batch.labels))}

    def scores(self, positions: np.ndarray) -> np.ndarray:
        """Probability of each finding on the images at ``positions``, float64 ``[n, K]``, the same on every rank."""
        return scores_of(self.network, self.data, positions, self.recipe, self.world)

    def validate(self) -> dict[str, Any] | None:
        """Loss and mean AUC over the findings that have both kinds of images in the validation subset."""
        if self.validation is None:
            return None
        labels, scores = self.labels[self.validation], self.scores(self.validation)
        found = multilabel_metrics(labels, scores, [one.name for one in self.findings], n=0)
        return {"loss": self.loss_function.of_scores(scores, labels), "macro_auc": found["macro_auc"],
                "images": len(self.validation)}

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the mean AUC rose."""
        return new.get("macro_auc", -1) > old.get("macro_auc", -1)  # left out where it is undefined

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of positions in the training set."""
        return self.data.files(self.train[positions])

    def meta(self) -> dict[str, Any]:
        """What is recorded beside a checkpoint of :attr:`model`."""
        return self.network_meta()

    def network_meta(self) -> dict[str, Any]:
        """What model.json records beside the whole network."""
        recipe: FinetuningRecipe = self.recipe
        return {"task": "finetuning", "architecture": recipe.Model.arch,
                "findings": [{"name": one.name, "zh": one.zh, "en": one.en} for one in self.findings],
                "preprocess": self.data.preprocess.to_dict(), "image_shape": list(recipe.Global.image_shape),
                "parent": recipe.Model.checkpoint, **recipe.Finetune.model_dump(),
                "version": __version__, "demo_data": self.data.source.demo}

    def finish(self) -> None:
        """Called when :attr:`model` has the weights that are kept: afterwards :attr:`network` has them too."""


class LinearProbeTask(FinetuningTask):
    """Trains the last layer on features of the frozen tower.

    Args:
        features: of the network's tower; further arguments as of :class:`FinetuningTask`.

    Attributes:
        model: the last layer alone, which is what the engine trains and checkpoints.
    """

    def __init__(self, *arguments: Any, features: TowerFeatures) -> None:
        self._features_of = features
        super().__init__(*arguments)
        self.tower = features.tower
        self.model = LastLayer(self.network)

    def _open_images(self) -> None:
        parts = [self.train] if self.validation is None else [self.train, self.validation]
        self._known = {position: row for part in parts
                       for position, row in zip(part.tolist(), self._features_of(part), strict=True)}

    def _rows(self, positions: np.ndarray) -> paddle.Tensor:
        return paddle.to_tensor(np.stack([self._known[position] for position in positions.tolist()]))

    def batches(self, epoch: int, start_step: int) -> Iterator[np.ndarray]:
        """This rank's micro-batches: positions in the data set."""
        self.sampler.set_epoch(epoch, start_step)
        return (self.train[[key.position for key in keys]] for keys in self.sampler)

    def loss(self, batch: np.ndarray, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """Mean loss over a micro-batch, and how many images it has."""
        return self.loss_function(self.model(self._rows(batch)), self.labels[batch]), {"count": float(len(batch))}

    @paddle.no_grad()
    def scores(self, positions: np.ndarray) -> np.ndarray:
        """As of :class:`FinetuningTask`; every rank computes all, which takes no time."""
        missing = [position for position in positions.tolist() if position not in self._known]
        if missing:
            rows = self._features_of(np.array(missing, np.int64))
            self._known |= dict(zip(missing, rows, strict=True))
        return probabilities(self.model(self._rows(positions)).numpy())

    def meta(self) -> dict[str, Any]:
        """As of a whole network, but for the last layer alone; ``tower`` says which one it belongs to."""
        return self.network_meta() | {"architecture": self.model.arch, "tower": self.tower}

    def finish(self) -> None:
        """Put the trained last layer into the network."""
        getattr(self.network, self.network.head).set_state_dict(self.model.fc.state_dict())


class LastLayer(paddle.nn.Layer):
    """A copy of a network's last layer: features ``[N, D]`` → logits ``[N, K]``."""

    arch = "LinearProbe"

    def __init__(self, network: paddle.nn.Layer) -> None:
        super().__init__()
        last = getattr(network, network.head)
        self.fc = paddle.nn.Linear(*last.weight.shape)
        self.fc.set_state_dict(last.state_dict())

    def forward(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features ``[N, D]`` → logits ``[N, K]``."""
        return self.fc(features)


@paddle.no_grad()
def scores_of(model: paddle.nn.Layer, data: LabelledData, positions: np.ndarray, recipe: FinetuningRecipe,
              world: World) -> np.ndarray:
    """Probability of each finding on the images at ``positions``, float64 ``[n, K]``, the same on every rank.

    Raises:
        UserError: the network gives NaN or infinity.
    """
    section = recipe.DataLoader.Eval
    sampler = EvalSampler(len(positions), section.sampler.batch_size, world.rank, world.size)
    images = LabelledImages(ChosenImages(data.images, positions), positions)
    model.eval()
    logits, places = [np.zeros((0, model.class_num), np.float32)], [np.zeros(0, np.int64)]
    for batch in make_loader(images, sampler, section.loader.num_workers):
        logits.append(model(data.preprocess.normalize_tensor(batch.images)).astype("float32").numpy())
        places.append(batch.positions.numpy())
    wait_for_all(world)  # the exchange itself waits half a minute only for a slower rank
    found = gather_arrays({"logits": np.concatenate(logits), "places": np.concatenate(places)}, world)
    return probabilities(found["logits"][np.argsort(found["places"])])


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float64, of logits of any shape; in float32 every logit above 17 would become the same 1.0.

    Raises:
        UserError: NaN or infinity.
    """
    if not np.isfinite(logits).all():
        raise UserError("模型输出 NaN 或 Inf：训练已发散，检查点未被覆盖。可减小学习率，或加 Optimizer.clip_norm")
    return sigmoid(logits)

