"""Which pictures make up which batch, and which process gets which part of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from paddle_cxr.data.dataset import SHUFFLE_STREAM, Key
from paddle_cxr.errors import UserError


class MicroBatchSampler:
    """Training batches, decided by ``seed`` and epoch alone and cut into parts that ranks share out.

    Every global batch is cut into exactly ``micro_batches`` contiguous parts of nearly equal size; rank r computes
    parts r, r + world_size, …  As the parts do not depend on ``world_size``, neither does the result.

    A part of one picture would break batch normalisation where its maps shrink to one value, so a last batch of fewer
    than 2 · micro_batches pictures is left out (its pictures are others the next epoch).

    Args:
        n: number of pictures.
        batch_size: pictures of a global batch, over all ranks.
        micro_batches: parts a batch is cut into.
        rank, world_size: this process, and how many there are.
        shuffle: a new random order every epoch.
        drop_last: leave out the last batch of an epoch whenever it is smaller than the others.
        seed: of the order.
        weights: ``[n]``, draw n pictures with replacement in proportion to these (see :func:`balanced_weights`);
            ``shuffle`` then has nothing to add.
        samples_per_epoch: pictures an epoch; None: n.  Where there are fewer, the next epoch goes on with those that
            are left; where there are more, they come again.  So data sets of any size get the same number of steps.

    Attributes:
        steps_per_epoch: global batches an epoch.
        epoch, start_step: what the next iteration yields, see :meth:`set_epoch`.

    Raises:
        UserError: too few pictures, or too small a batch, for the parts.
    """

    def __init__(self, n: int, batch_size: int, micro_batches: int = 1, rank: int = 0, world_size: int = 1,
                 shuffle: bool = True, drop_last: bool = False, seed: int = 0,
                 weights: Sequence[float] | np.ndarray | None = None, samples_per_epoch: int | None = None) -> None:
        if micro_batches < world_size:
            raise UserError(f"Global.micro_batches：每批（batch）切成 {micro_batches} 份，不够 {world_size} 个进程分；"
                            f"请用 -o Global.micro_batches={world_size}")
        if batch_size < 2 * micro_batches:
            raise UserError(f"batch_size={batch_size} 太小：每批（batch）切成 {micro_batches} 份，每份至少 2 张图像"
                            f"（批归一化需要），请设为至少 {2 * micro_batches}")
        if weights is not None and len(weights) != n:
            raise ValueError(f"{len(weights)} weights for {n} pictures")
        drawn = n if samples_per_epoch is None else samples_per_epoch
        full, rest = divmod(drawn, batch_size)
        self.steps_per_epoch = full + (not drop_last and rest >= 2 * micro_batches)
        if self.steps_per_epoch == 0:
            needed = batch_size if drop_last else 2 * micro_batches
            few = f"训练图像{'只有' if drawn == n else '每轮只取'} {drawn} 张"
            raise UserError(f"{few}，凑不满一批（batch，至少需要 {needed} 张）；"
                            "请增加数据，或减小 batch_size" + ("，或设 drop_last: false" if drop_last else ""))
        self.n, self.drawn, self.batch_size, self.micro_batches = n, drawn, batch_size, micro_batches
        self.rank, self.world_size = rank, world_size
        self.shuffle, self.seed = shuffle, seed
        self.weights = None if weights is None else np.asarray(weights, np.float64) / np.sum(weights)
        self.epoch, self.start_step = 0, 0

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Make the next iteration yield ``epoch`` from global batch ``start_step`` on (as after an interruption)."""
        self.epoch, self.start_step = epoch, start_step

    def plan(self, epoch: int) -> list[list[np.ndarray]]:
        """The whole epoch, for all ranks: per global batch, per part, the positions of its pictures (int64)."""
        order = self._order(epoch)
        return [[order[part] for part in step] for step in self._parts()]

    def __iter__(self) -> Iterator[list[Key]]:
        """This rank's parts, one at a time, from ``start_step`` of ``epoch`` on."""
        epoch, order = self.epoch, self._order(self.epoch)
        once = self.weights is None and self.drawn == self.n
        repeats = np.zeros_like(order) if once else _repeats(order)
        for step in self._parts()[self.start_step:]:
            for part in step[self.rank::self.world_size]:
                yield [Key(epoch, int(order[place]), int(repeats[place])) for place in part]

    def __len__(self) -> int:
        """Parts this rank still gets this epoch."""
        parts = len(range(self.rank, self.micro_batches, self.world_size))
        return (self.steps_per_epoch - self.start_step) * parts

    def _order(self, epoch: int) -> np.ndarray:
        if self.weights is not None:
            rng = np.random.default_rng((SHUFFLE_STREAM, self.seed, epoch))
            return rng.choice(self.n, self.drawn, p=self.weights)
        # An epoch is a piece of an endless row of passes through all pictures, each pass in an order of its own.
        first, last = epoch * self.drawn, (epoch + 1) * self.drawn
        passes = range(first // self.n, -(-last // self.n))
        row = np.concatenate([self._pass(number) for number in passes])
        return row[first - passes.start * self.n:last - passes.start * self.n]

    def _pass(self, number: int) -> np.ndarray:
        """Every picture once."""
        if not self.shuffle:
            return np.arange(self.n)
        return np.random.default_rng((SHUFFLE_STREAM, self.seed, number)).permutation(self.n)

    def _parts(self) -> list[list[np.ndarray]]:
        """Per global batch, per part, places in the epoch's order."""
        starts = range(0, self.steps_per_epoch * self.batch_size, self.batch_size)
        return [np.array_split(np.arange(start, min(start + self.batch_size, self.drawn)), self.micro_batches)
                for start in starts]


class EvalSampler:
    """Every picture once, in order; rank r takes r, r + world_size, … so that none is counted twice.

    Args:
        n: number of pictures.
        batch_size: pictures this rank reads at a time.
        rank, world_size: this process, and how many there are.
    """

    def __init__(self, n: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._positions = range(rank, n, world_size)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        for start in range(0, len(self._positions), self.batch_size):
            yield [Key(0, position) for position in self._positions[start:start + self.batch_size]]

    def __len__(self) -> int:
        return -(-len(self._positions) // self.batch_size)


def balanced_weights(labels: Sequence[int] | np.ndarray) -> np.ndarray:
    """Weights ``[n]`` that draw every class equally often: one over the size of the picture's class."""
    labels = np.asarray(labels)
    return 1 / np.bincount(labels)[labels]


def _repeats(order: np.ndarray) -> np.ndarray:
    """For each entry of ``order`` how often the same value came before it."""
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]
    places = np.arange(len(order))
    first = np.maximum.accumulate(np.where(is_first, places, 0))
    repeats = np.empty_like(places)
    repeats[by_value] = places - first
    return repeats
