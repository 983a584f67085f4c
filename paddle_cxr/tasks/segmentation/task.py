"""What one training step and one validation of segmentation are.

    step:        images and masks, moved together → logits → loss where somebody marked the finding
    validation:  mean Dice at the model's own size, quick and good enough to choose an epoch by
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_cxr import __version__
from paddle_cxr.data.dataset import LabelledImages
from paddle_cxr.data.loader import Batch, make_loader
from paddle_cxr.data.sampler import EvalSampler, MicroBatchSampler
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.evaluation.overlap import dice, iou
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.models import freeze
from paddle_cxr.tasks.segmentation import losses  # noqa: F401  registers them
from paddle_cxr.tasks.segmentation.augment import build_joint
from paddle_cxr.tasks.segmentation.data import BITS, ImagesWithMasks, SegmentationData
from paddle_cxr.tasks.segmentation.models import TASK, build_segmenter, sigmoid_of

_PATH = "DataLoader.Train.transform_ops"


class SegmentationTask:
    """Trains and validates one model; see :class:`paddle_cxr.engine.trainer.Task`.

    Args:
        loaded: the recipe, settled.
        data: decoded images and masks with their subsets.
        world: the ranks.

    Attributes:
        notices: lines for the user, of the starting weights.
    """

    def __init__(self, loaded: Loaded, data: SegmentationData, world: World) -> None:
        recipe = loaded.recipe
        self.recipe, self.data, self.world = recipe, data, world
        self.train = data.images.positions(recipe.DataLoader.Train.subset)
        self.validation = data.images.positions(recipe.DataLoader.Eval.subset) if recipe.Global.eval_every else None
        paddle.seed(recipe.Global.seed)  # a fresh model is the same on every rank and in every run with this seed
        self.model, self.notices = build_segmenter(recipe)
        freeze(self.model, recipe.Global.freeze)
        self.loss_function = build("segmentation_loss", recipe.Loss, "Loss")
        section, parts = recipe.DataLoader.Train, recipe.Global.micro_batches
        pictures = ImagesWithMasks(data, self.train)
        # In place of a label: where the image is in the data set.
        self.dataset = LabelledImages(pictures, self.train, build_joint(section.transform_ops, _PATH, data.planes),
                                      recipe.Global.seed)
        self.sampler = MicroBatchSampler(
            len(self.train), batch_size=section.sampler.batch_size,
            micro_batches=world.size if parts == "auto" else parts, rank=world.rank, world_size=world.size,
            shuffle=section.sampler.shuffle, drop_last=section.sampler.drop_last, seed=recipe.Global.seed,
            samples_per_epoch=section.sampler.samples_per_epoch)

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """See :class:`paddle_cxr.engine.trainer.Task`."""
        return self.sampler.plan(epoch)

    def batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """This rank's micro-batches; ``labels`` are positions in the data set, the last channels masks."""
        self.sampler.set_epoch(epoch, start_step)
        return iter(make_loader(self.dataset, self.sampler, self.recipe.DataLoader.Train.loader.num_workers))

    def loss(self, batch: Batch, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """The recipe's loss over one micro-batch."""
        images, masks = self._split(batch.images)
        found = self._loss(self._logits(images), masks, batch.labels.numpy())
        return found, {"count": float(len(batch.labels))}

    def _logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.model(self.data.images.preprocess.normalize_tensor(images))

    def _loss(self, logits: paddle.Tensor, masks: paddle.Tensor, positions: np.ndarray) -> paddle.Tensor:
        return self.loss_function(logits, masks, paddle.to_tensor(self.data.annotated[positions].astype(np.float32)))

    def _split(self, stack: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """uint8 ``[n, H, W, C + planes]`` → images ``[n, H, W(, 3)]`` and masks float32 ``[n, K, H, W]``."""
        planes = self.data.planes
        images, bits = stack[..., :-planes], stack[..., -planes:].astype("int32")
        masks = [bits[..., k // BITS] // 2 ** (k % BITS) % 2 for k in range(len(self.data.findings))]
        return (images[..., 0] if images.shape[3] == 1 else images), paddle.stack(masks, axis=1).astype("float32")

    @paddle.no_grad()
    def validate(self) -> dict[str, Any] | None:
        """Mean Dice and IoU over annotated findings of the validation subset, at the model's size, and the loss."""
        if self.validation is None:
            return None
        pictures = ImagesWithMasks(self.data, self.validation)
        size = self.recipe.DataLoader.Eval.sampler.batch_size
        rows = [np.zeros((0, 4))]
        for keys in EvalSampler(len(self.validation), size, self.world.rank, self.world.size):
            places = [key.position for key in keys]
            rows += self._rows(np.stack([pictures[place] for place in places]), self.validation[places])
        wait_for_all(self.world)  # the exchange itself waits half a minute only for a slower rank
        found = gather_arrays({"rows": np.concatenate(rows)}, self.world)["rows"]
        loss = found[found[:, 0] < 0]
        scores = found[found[:, 0] >= 0]
        by_finding = [scores[scores[:, 0] == k] for k in np.unique(scores[:, 0])]
        return {"dice": float(np.mean([one[:, 1].mean() for one in by_finding])),
                "iou": float(np.mean([one[:, 2].mean() for one in by_finding])),
                "loss": float((loss[:, 1] * loss[:, 3]).sum() / loss[:, 3].sum()), "images": len(self.validation)}

    def _rows(self, stack: np.ndarray, positions: np.ndarray) -> list[np.ndarray]:
        """(finding, Dice, IoU, 1) of every annotated finding, and (-1, loss, 0, images) of the batch."""
        images, masks = self._split(paddle.to_tensor(stack))
        logits = self._logits(images)
        found, truth = sigmoid_of(logits) > self.recipe.Metric.threshold, masks.numpy() > 0
        rows = [(k, dice(found[i, k], truth[i, k]), iou(found[i, k], truth[i, k]), 1)
                for i, k in np.argwhere(self.data.annotated[positions])]
        return [np.array([*rows, (-1, float(self._loss(logits, masks, positions)), 0, len(positions))])]

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the Dice rose."""
        return new["dice"] > old["dice"]

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of positions in the training set."""
        return self.data.images.files(self.train[positions])

    def meta(self) -> dict[str, Any]:
        """What model.json records beside the weights."""
        recipe, source = self.recipe, self.data.images.source
        return {"task": TASK, "architecture": self.model.arch, "image_encoder": recipe.Arch.encoder,
                "arguments": recipe.Arch.model_dump(exclude={"name"}, mode="json"),
                "findings": list(self.data.findings), "threshold": recipe.Metric.threshold,
                "preprocess": self.data.images.preprocess.to_dict(), "image_shape": list(recipe.Global.image_shape),
                "version": __version__, "parent": recipe.Model.checkpoint or None, "demo_data": source.demo}
