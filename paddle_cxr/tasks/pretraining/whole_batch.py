"""The contrastive loss over a whole global batch that no single forward pass holds.

Every pair is compared with all others, but the images and texts are encoded in parts: one a rank, or several in turn
where memory is short (``Global.micro_batches``).  The loss only needs the *features*, which are small, so

    1. encode every part; with several parts a rank, without keeping what a backward pass needs
    2. gather all images' features over the ranks; each rank compares them with its own texts
    3. gather the columns of similarities: the loss of the whole batch, and its gradient for every similarity
    4. back from the similarities to the features; the images' gradients are summed over the ranks
    5. encode every part again, and go on backwards from its features' gradients

which is the very gradient of one forward pass over everything.  Texts are never sent, as they differ in length.

Reference for the two passes: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
(GradCache, 2021), arXiv:2101.06983.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import paddle
from paddle import Tensor

from paddle_cxr.engine.distributed import World, gather_rows, sum_over_ranks

Features = dict[str, Tensor]
# Numbers of one image–text–word–region table, some ten of which are in memory at a time.  Where a comparison would make
# a larger one, it is made a few texts at a time.
TABLE = 50_000_000


class Part:
    """Features of one micro-batch, and the gradient of the whole batch's loss for them."""

    def __init__(self, images: Features, texts: Features, keep_graph: bool) -> None:
        self.encoded = (images, texts) if keep_graph else None
        self.images, self.texts = _leaves(images), _leaves(texts)
        self.gradients: tuple[Features, Features] = ({}, {})

    def surrogate(self, images: Features, texts: Features) -> Tensor:
        """A number whose gradient for the encoders is that of the whole batch's loss."""
        return sum((features[name].astype(gradient.dtype) * gradient).sum()
                   for features, gradients in zip((images, texts), self.gradients, strict=True)
                   for name, gradient in gradients.items())


def _leaves(features: Features) -> Features:
    """The same numbers, from which gradients can be asked; masks stay as they are."""
    return {name: _leaf(tensor) if tensor.is_floating_point() else tensor for name, tensor in features.items()}


def _leaf(tensor: Tensor) -> Tensor:
    leaf = tensor.detach().astype("float32")
    leaf.stop_gradient = False
    return leaf


def backward_from_loss(parts: Sequence[Part], sizes: Sequence[int], texts: Tensor, world: World,
                       compare: Callable[[Features, Features], Features],
                       loss_of: Callable[[Features, Tensor], Tensor]) -> float:
    """Give every part the gradient of the whole batch's loss for its features.

    Args:
        parts: this rank's, in turn: numbers rank, rank + ranks, … of the global batch.
        sizes: pairs of every part of the global batch.
        texts: int64 [own pairs]; equal where texts are.
        world: the ranks.
        compare: features of images and of texts → matrices of similarities.
        loss_of: matrices [B, B] and ``texts`` [B] → loss.

    Returns:
        The loss, the same on every rank.
    """
    order = _Order(sizes, world)
    images = {name: order.gather([part.images[name] for part in parts]) for name in parts[0].images}
    everyone = _leaves(images)
    fits = sum(_table(everyone, part.texts) for part in parts) <= TABLE
    columns = [_Columns(everyone, part.texts, compare, keep_graph=fits) for part in parts]
    whole = {name: _leaf(order.gather([own.found[name].T for own in columns]).T)
             for name in columns[0].found}
    loss = loss_of(whole, order.gather([texts]))
    loss.backward()
    for number, own in enumerate(columns):
        place = order.place(number)
        own.backward({name: matrix.grad[:, place] for name, matrix in whole.items()})
    summed = {name: sum_over_ranks(leaf.grad, world) for name, leaf in everyone.items() if leaf.grad is not None}
    for number, part in enumerate(parts):
        place = order.place(number)
        part.gradients = ({name: gradient[place] for name, gradient in summed.items()},
                          {name: leaf.grad for name, leaf in part.texts.items() if leaf.grad is not None})
    return float(loss)


class _Order:
    """Where each rank's parts stand in the global batch."""

    def __init__(self, sizes: Sequence[int], world: World) -> None:
        self._starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
        self._world = world
        self._sizes = [sum(sizes[rank::world.size]) for rank in range(world.size)]
        by_rank = [number for rank in range(world.size) for number in range(rank, len(sizes), world.size)]
        positions = [place for number in by_rank for place in range(self._starts[number], self._starts[number + 1])]
        self._sorted = paddle.argsort(paddle.to_tensor(positions))

    def gather(self, own: Sequence[Tensor]) -> Tensor:
        """All ranks' rows in the order of the global batch."""
        rows = paddle.concat([part.detach() for part in own]) if len(own) > 1 else own[0].detach()
        if self._world.size == 1:
            return rows
        return gather_rows(rows, self._sizes, self._world)[self._sorted]

    def place(self, number: int) -> slice:
        """Of this rank's part ``number``."""
        part = self._world.rank + number * self._world.size
        return slice(self._starts[part], self._starts[part + 1])


class _Columns:
    """Similarities of all images with some texts, ``found``: matrices [B, n] by name.

    The graph of the comparison is kept where it is small; else they are compared a few texts at a time, and once more
    on the way back.
    """

    def __init__(self, images: Features, texts: Features, compare: Callable[[Features, Features], Features],
                 keep_graph: bool) -> None:
        self._images, self._texts, self._compare = images, texts, compare
        self._graph = compare(images, texts) if keep_graph else None
        self._slices = [slice(0, len(texts["global"]))] if keep_graph else text_slices(images, texts)
        if self._graph is not None:
            self.found = self._graph
            return
        with paddle.no_grad():
            found = [compare(images, some_of(texts, chosen)) for chosen in self._slices]
        self.found = {name: paddle.concat([one[name] for one in found], axis=1) for name in found[0]}

    def backward(self, gradient: Features) -> None:
        """Accumulate the gradients of the images' and texts' features from those of ``found``."""
        for chosen in self._slices:
            found = self._graph or self._compare(self._images, some_of(self._texts, chosen))
            paddle.autograd.backward([found[name] for name in found], [gradient[name][:, chosen] for name in found])


def text_slices(images: Features, texts: Features) -> list[slice]:
    """Few enough texts at a time to compare with all images: tables of at most ``TABLE`` numbers, or of one text."""
    count = len(texts["global"])
    each = max(1, TABLE * count // max(1, _table(images, texts)))
    return [slice(start, min(start + each, count)) for start in range(0, count, each)]


def some_of(texts: Features, chosen: slice) -> Features:
    """The features of some texts."""
    return {name: tensor[chosen] for name, tensor in texts.items()}


def _table(images: Features, texts: Features) -> int:
    """Numbers of the largest table that comparing all of them makes."""
    numbers = len(images["global"]) * len(texts["global"])
    return numbers * texts["words"].shape[1] * images["regions"].shape[1] if "words" in texts else numbers
