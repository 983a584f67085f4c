"""What one training step and one validation of vision–language pre-training are.

    step:        images and texts → features → similarities over the whole global batch → loss   (whole_batch.py)
    validation:  every image's own text among all texts, and back                                 (retrieval)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_cxr import __version__
from paddle_cxr.data.dataset import LabelledImages
from paddle_cxr.data.device_augment import device_augment_from
from paddle_cxr.data.labelled import ChosenImages, LabelledData
from paddle_cxr.data.loader import Batch, make_loader
from paddle_cxr.data.pairs.mixed import part_weights
from paddle_cxr.data.sampler import MicroBatchSampler
from paddle_cxr.data.transforms import build_transforms
from paddle_cxr.engine.average import BatchStatistics
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.state import seed_paddle
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.retrieval import retrieval, unique_texts
from paddle_cxr.models.text_encoder import ReportTokenizer
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.models import freeze
from paddle_cxr.tasks.pretraining.schema import PretrainingRecipe
from paddle_cxr.tasks.pretraining.scoring import scores_of
from paddle_cxr.tasks.pretraining.texts import Texts, count_cut, numbers_of
from paddle_cxr.tasks.pretraining.towers import vocabulary_of
from paddle_cxr.tasks.pretraining.whole_batch import Features, Part, backward_from_loss

_TEXT_STREAM = 8  # keeps the choice of sentences apart from other draws of the same step


class PretrainingTask:
    """Trains and validates one model; see :class:`paddle_cxr.engine.trainer.Task`.

    Args:
        loaded: the recipe.
        data: decoded images with their subsets; its records are pairs.
        texts: of the same pairs.
        model: see :mod:`paddle_cxr.tasks.pretraining.towers`; trained in place.
        tokenizer: the model's.
        world: the ranks.

    Attributes:
        train, validation: positions of the pairs with a text; ``validation`` is None where none is asked for.
        cut: how many training texts are longer than the text tower reads.

    Raises:
        UserError: a subset without a text, what a component has to say.
    """

    def __init__(self, loaded: Loaded, data: LabelledData, texts: Texts, model: paddle.nn.Layer,
                 tokenizer: ReportTokenizer, world: World) -> None:
        recipe = loaded.recipe
        self.recipe, self.data, self.texts, self.world = recipe, data, texts, world
        self.model, self.tokenizer = model, tokenizer
        section = recipe.DataLoader
        self.train = with_text(texts, data.positions(section.Train.subset), recipe, section.Train.subset)
        wanted = section.Eval.subset if recipe.Global.eval_every else None
        self.validation = with_text(texts, data.positions(wanted), recipe, wanted) if wanted else None
        self.cut = count_cut([texts.whole[position] for position in self.train], tokenizer)
        freeze(model, recipe.Global.freeze)
        self.contrast = build("vision_language_loss", recipe.Loss, "Loss")
        self._statistics = BatchStatistics(model)
        self._waiting: Iterator[tuple[Part, tuple[Any, ...], float]] = iter(())
        self._loss = 0.0
        self._build_batches()

    def _build_batches(self) -> None:
        recipe, section = self.recipe, self.recipe.DataLoader.Train
        path = "DataLoader.Train.transform_ops"
        on_device = section.augment_on == "device"
        self._augment = device_augment_from(section.transform_ops, path) if on_device else None
        transform = None if on_device else build_transforms(section.transform_ops, path)
        # In place of a label: where the pair is in the data set.
        self._dataset = LabelledImages(ChosenImages(self.data.images, self.train), self.train, transform,
                                       recipe.Global.seed)
        parts, shares = recipe.Global.micro_batches, getattr(self.data.source, "shares", {})
        weights = part_weights([self.data.source.records[i] for i in self.train], shares) if shares else None
        self.sampler = MicroBatchSampler(
            len(self.train), batch_size=section.sampler.batch_size,
            micro_batches=self.world.size if parts == "auto" else parts, rank=self.world.rank,
            world_size=self.world.size, shuffle=section.sampler.shuffle, drop_last=section.sampler.drop_last,
            seed=recipe.Global.seed, weights=weights, samples_per_epoch=section.sampler.samples_per_epoch)

    def plan(self, epoch: int) -> Sequence[Sequence[np.ndarray]]:
        """See :class:`paddle_cxr.engine.trainer.Task`."""
        return self.sampler.plan(epoch)

    def batches(self, epoch: int, start_step: int) -> Iterator[Batch]:
        """This rank's micro-batches; ``labels`` are positions in the data set."""
        self.sampler.set_epoch(epoch, start_step)
        return iter(make_loader(self._dataset, self.sampler, self.recipe.DataLoader.Train.loader.num_workers))

    def begin_step(self, batches: Sequence[Batch], seeds: Sequence[Sequence[int]], sizes: Sequence[int]) -> None:
        """Encode this rank's micro-batches and find the whole batch's loss and its gradients for their features."""
        once = len(batches) == 1  # then the graph of this forward pass serves for the backward pass too
        chosen = [self._texts_of(batch, seed) for batch, seed in zip(batches, seeds, strict=True)]
        inputs = [self._inputs(batch, texts, seed) for batch, texts, seed in zip(batches, chosen, seeds, strict=True)]
        parts = []
        if not once:
            self._statistics.begin_step()
        for one, seed in zip(inputs, seeds, strict=True):
            seed_paddle(seed)
            with contextlib.nullcontext() if once else paddle.no_grad():
                parts.append(Part(*self._encode(one), keep_graph=once))
            if not once:
                self._statistics.end_micro_batch(0.0)  # the second pass counts
        with paddle.amp.auto_cast(enable=False):
            numbers = paddle.to_tensor(numbers_of([text for texts in chosen for text in texts]))
            self._loss = backward_from_loss(parts, sizes, numbers, self.world, self.model.similarities, self.contrast)
        shares = [len(texts) / sum(sizes) for texts in chosen]
        self._waiting = iter(list(zip(parts, inputs, shares, strict=True)))

    def loss(self, batch: Batch, seed: Sequence[int]) -> tuple[paddle.Tensor, dict[str, float]]:
        """The whole batch's loss, whose gradient is this micro-batch's part of it."""
        part, inputs, share = next(self._waiting)
        images, texts = part.encoded or self._encode(inputs)
        surrogate = part.surrogate(images, texts)
        # The engine multiplies by the micro-batch's share of the batch; this gradient is a part of the sum already.
        return (surrogate - surrogate.detach()) / share + self._loss, {"count": float(len(batch.labels))}

    def _texts_of(self, batch: Batch, seed: Sequence[int]) -> list[str]:
        rng = np.random.default_rng((*seed, _TEXT_STREAM))
        return [self.texts.training(int(position), rng) for position in batch.labels.numpy()]

    def _inputs(self, batch: Batch, texts: Sequence[str], seed: Sequence[int]) -> tuple[Any, ...]:
        pixels = batch.images
        if self._augment is not None:
            pixels = self._augment(pixels, int(np.random.SeedSequence(tuple(seed)).generate_state(1)[0]))
        return self.data.preprocess.normalize_tensor(pixels), self.tokenizer.batch(texts)

    def _encode(self, inputs: tuple[Any, ...]) -> tuple[Features, Features]:
        images, tokens = inputs
        return self.model.encode_image(images), self.model.encode_text(*map(paddle.to_tensor, tokens))

    def validate(self) -> dict[str, Any] | None:
        """Retrieval on the validation subset: every image's whole text among all different ones, and back."""
        if self.validation is None:
            return None
        texts, own = unique_texts([self.texts.whole[position] for position in self.validation])
        scores = scores_of(self.model, self.tokenizer, self.data, self.validation, texts,
                           self.recipe.DataLoader.Eval.sampler.batch_size, self.world)
        found = retrieval(scores, own, n=0)
        recalls = {f"{way}_{name}": found[way][name]["value"] for way in ("image_to_text", "text_to_image")
                   for name in ("R@1", "R@5", "R@10")}
        return {"mean_recall": found["mean_recall"], **recalls, "images": len(self.validation)}

    def better(self, new: dict[str, Any], old: dict[str, Any]) -> bool:
        """Whether the mean recall rose."""
        return new["mean_recall"] > old["mean_recall"]

    def files(self, positions: np.ndarray) -> list[str]:
        """File names of positions in the training set."""
        return self.data.files(self.train[positions])

    def meta(self) -> dict[str, Any]:
        """What model.json records beside the weights."""
        return {"architecture": self.model.arch, "image_encoder": self.recipe.Arch.image["name"],
                "arguments": self.recipe.Arch.model_dump(exclude={"name"}, mode="json"),
                "vocabulary": vocabulary_of(self.tokenizer), "image_shape": list(self.recipe.Global.image_shape),
                "preprocess": self.recipe.DataLoader.preprocess.model_dump(mode="json"), "version": __version__,
                "demo_data": self.data.source.demo}


def with_text(texts: Texts, positions: np.ndarray, recipe: PretrainingRecipe, subset: str) -> np.ndarray:
    """Those of a subset's positions whose pairs have a text; raises :class:`UserError` when there are none."""
    found = texts.with_text(positions)
    if not len(found):
        sections = "、".join(recipe.DataLoader.Text.sections)
        raise UserError(f"子集 {subset} 的 {len(positions)} 对都没有 {sections} 文字；请改 DataLoader.Text.sections")
    return found
