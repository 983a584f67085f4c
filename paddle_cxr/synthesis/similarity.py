"""Which known-bad image an image looks most like, and how much: the second filter of SynCXR (arXiv:2410.13523).

An image is dropped when the cosine between its features and those of any known-bad image is over a threshold (0.5 with
RAD-DINO, in the paper).  For N images and M bad ones of D features each that is one product of two matrices, [N, D] by
[D, M], and the largest number of every row.

The product is made in single precision, block by block: twice as fast as in double, and in bounded memory.  Single
precision errs in the fifth decimal at most, which is too much for an image so close to the threshold, or with two bad
images so close to each other.  So the winner's cosine is computed again in double precision, and where the winner is
not certain, the whole row.  The numbers, and with them the decisions at any threshold, are those of the plain
computation in double precision, for little more than the price of single.

    bank = Bank(bad_features)
    nearest = bank.nearest(features)                 # features: an array, or a memory-mapped .npy of any length
    keep = ~nearest.over(THRESHOLD)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line

THRESHOLD = 0.5  # the paper's, for RAD-DINO

# What is in memory at a time: with 768 features 9 MB of them and 16 MB of cosines (32 in double precision).
_ROWS, _COLUMNS = 1024, 4096

# A bank from this size on goes to Faiss where it is installed.  On one core the two are equally fast; with many cores
# Faiss finds the largest numbers on all of them, and NumPy, which shares out the product alone, on one.
_LARGE = 50_000

_Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The most similar member of a bank for each of N images.

    Attributes:
        similarity: float64 ``[N]``, cosine, -1 … 1; 0 for an image whose features are all 0.
        index: int64 ``[N]``, its row in the bank; of several equally similar ones the first.
    """

    similarity: np.ndarray
    index: np.ndarray

    def over(self, threshold: float = THRESHOLD) -> np.ndarray:
        """bool ``[N]``: more similar than the threshold, so to be dropped."""
        return self.similarity > threshold


class Bank:
    """The features of the known-bad images.

    Args:
        features: ``[M, D]``, M ≥ 1, any numbers; they are normalised here.  The bank has to fit into memory.
        engine: ``blas`` (NumPy), ``faiss``, or ``auto``: Faiss for a large bank where it is installed.  The results are
            the same.

    Raises:
        UserError: no features, NaN or infinity among them, or Faiss is asked for and not installed.  An empty bank is
            most likely a wrong path; whoever knows that there are no bad images leaves the comparison out.
    """

    def __init__(self, features: np.ndarray, engine: Literal["auto", "blas", "faiss"] = "auto") -> None:
        _check_features(features, "坏图库（bank）")
        if len(features) == 0:
            raise UserError("坏图库（bank）是空的：没有可比较的坏图特征；请检查路径，或跳过相似度（similarity）这一步")
        self._features = features
        self._norms = np.concatenate([_norms(block, start, "坏图库（bank）") for start, block in _blocks(features)])
        if engine == "auto":
            engine = "faiss" if len(self) >= _LARGE and importlib.util.find_spec("faiss") else "blas"
        units = np.empty(features.shape, np.float32)
        for start, _ in _blocks(features):
            rows = slice(start, start + _ROWS)
            units[rows] = self._units(rows)
        self._search: _Search = _faiss_search(units) if engine == "faiss" else _blas_search(units)

    def __len__(self) -> int:
        return len(self._features)

    @property
    def dim(self) -> int:
        """D, the number of features."""
        return self._features.shape[1]

    def nearest(self, features: np.ndarray) -> Nearest:
        """The bank's most similar member for each row of ``features``.

        Args:
            features: ``[N, D]``, any numbers, in memory or memory-mapped (:func:`read_features`).

        Raises:
            UserError: another D than the bank's, NaN or infinity.
        """
        self._check_width(features)
        similarity, index = np.zeros(len(features)), np.zeros(len(features), np.int64)
        unsure = np.zeros(len(features), bool)
        for start, block in _blocks(features):
            rows = slice(start, start + len(block))
            units = _unit(block, _norms(block, start, "特征（feature）"))
            best, second, index[rows] = self._search(units.astype(np.float32))
            unsure[rows] = second >= best - 2 * _error_of_single(self.dim)
            similarity[rows] = self._cosines(units, index[rows])
        # All unsure rows together: a few from every block would convert the bank to double precision as often.
        for _, rows in _blocks(np.flatnonzero(unsure)):
            units = _unit(features[rows], _norms(features[rows], 0, ""))
            index[rows] = self._winners_in_double(units)
            similarity[rows] = self._cosines(units, index[rows])
        return Nearest(similarity, index)

    def among_itself(self) -> Nearest:
        """For each member the most similar other one: how similar bad images are to each other, for calibration.

        Raises:
            UserError: the bank has one member only.
        """
        if len(self) < 2:
            raise UserError("坏图库（bank）只有 1 张图，无法统计坏图之间的相似度；请再加几张")
        similarity, index = np.zeros(len(self)), np.zeros(len(self), np.int64)
        for start, block in _blocks(self._features):
            rows = slice(start, start + len(block))
            units = self._units(rows)
            index[rows] = self._winners_in_double(units, np.arange(start, start + len(block)))
            similarity[rows] = self._cosines(units, index[rows])
        return Nearest(similarity, index)

    def _check_width(self, features: np.ndarray) -> None:
        _check_features(features, "特征（feature）")
        if features.shape[1] != self.dim:
            raise UserError(f"特征（feature）每张图 {features.shape[1]} 维，坏图库（bank）是 {self.dim} 维；"
                            "两者要用同一个编码器（encoder）算")

    def _units(self, rows: slice | np.ndarray) -> np.ndarray:
        """Members of the bank as unit vectors, float64."""
        return _unit(self._features[rows], self._norms[rows])

    def _cosines(self, units: np.ndarray, index: np.ndarray) -> np.ndarray:
        """float64 [r]: the cosine of each row with its member of the bank; the same however the rows are blocked."""
        return np.clip(np.einsum("ij,ij->i", units, self._units(index)), -1, 1)

    def _winners_in_double(self, units: np.ndarray, not_these: np.ndarray | None = None) -> np.ndarray:
        """int64 [r]: the first of the members that are the most similar to each row, as far as double precision tells.

        ``not_these``: one member for each row that does not count, namely the row itself.
        """
        tolerance = 4 * self.dim * 2.0**-53
        best, value = np.full((2, len(units)), -np.inf)
        index = np.zeros(len(units), np.int64)
        every = np.arange(len(units))
        for start in range(0, len(self), _COLUMNS):
            cosines = units @ self._units(slice(start, start + _COLUMNS)).T
            if not_these is not None:
                own = (not_these >= start) & (not_these < start + cosines.shape[1])
                cosines[every[own], not_these[own] - start] = -np.inf
            best = np.maximum(best, cosines.max(axis=1))
            first = (cosines >= (best - tolerance)[:, None]).argmax(axis=1)
            found = cosines[every, first]
            better = (value < best - tolerance) & (found >= best - tolerance)
            index[better], value[better] = start + first[better], found[better]
        return index


def suggest_threshold(good: np.ndarray, bad: np.ndarray) -> float:
    """The threshold that separates best: most bad images over it less good ones over it (Youden's index, Cancer 1950).

    For an encoder other than RAD-DINO, whose cosines lie elsewhere.

    Args:
        good: float ``[N]``, the similarity of good images to a bank (:meth:`Bank.nearest`).
        bad: float ``[M]``, that of the bank's members to the others (:meth:`Bank.among_itself`).

    Returns:
        Half-way between the two similarities that it separates.

    Raises:
        UserError: one of them is empty.
    """
    if len(good) == 0 or len(bad) == 0:
        raise UserError("校准阈值（threshold）需要好图和坏图各至少一张")
    values = np.unique(np.concatenate([good, bad]))
    caught, lost = (1 - np.searchsorted(np.sort(part), values, side="right") / len(part) for part in (bad, good))
    best = int(np.argmax(caught - lost))
    return float(values[best:best + 2].mean())


def read_features(file: str | Path) -> np.ndarray:
    """A ``.npy`` of features ``[N, D]``, memory-mapped: what is used of it is read when it is used.

    Raises:
        UserError: absent, damaged, pickled, or no matrix of numbers.
    """
    try:
        features = np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError:
        raise UserError(f"找不到特征文件 {file}；请检查路径") from None
    except Exception as error:  # a damaged header makes NumPy raise nearly anything
        raise UserError(f"特征文件损坏，或不是数值的 .npy：{file}（{one_line(error)}）；请重新计算") from None
    _check_features(features, str(file))
    return features


def _blas_search(bank: np.ndarray) -> _Search:
    """A function from unit vectors float32 [r, D] to best and second best cosine and the best's index, [r] each."""

    def search(units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        best, second = np.full((2, len(units)), -np.inf, np.float32)
        index, every = np.zeros(len(units), np.int64), np.arange(len(units))
        for start in range(0, len(bank), _COLUMNS):
            cosines = units @ bank[start:start + _COLUMNS].T
            place = cosines.argmax(axis=1)
            largest = cosines[every, place]
            cosines[every, place] = -np.inf
            second = np.maximum.reduce([second, cosines.max(axis=1), np.minimum(best, largest)])
            index = np.where(largest > best, start + place, index)
            best = np.maximum(best, largest)
        return best, second, index

    return search


def _faiss_search(bank: np.ndarray) -> _Search:
    """The same by Faiss (Douze et al., arXiv:2401.08281), with an index that leaves nothing out."""
    try:
        import faiss
    except ImportError:
        raise UserError("engine=faiss 需要 Faiss：请运行 pip install faiss-cpu，或改为 engine=blas") from None
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank)

    def search(units: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cosines, places = index.search(units, 2)
        # Where there is no second member, Faiss says -1 for its place.
        return cosines[:, 0], np.where(places[:, 1] < 0, -np.inf, cosines[:, 1]), places[:, 0]

    return search


def _error_of_single(dim: int) -> float:
    """How far the cosine of unit vectors in single precision can be from the true one, in whatever order it is summed.

    Every of ``dim`` products and sums rounds by a factor of at most 1 ± 2⁻²⁴ (Higham, "Accuracy and Stability of
    Numerical Algorithms", 2002, section 3.1), as do the vectors themselves; 8 covers these and the higher orders.
    """
    return (dim + 8) * 2.0**-24


def _check_features(features: np.ndarray, what: str) -> None:
    if features.ndim != 2 or features.dtype.kind not in "fiu" or features.shape[1] == 0:
        raise UserError(f"{what}：应为 [图像数, 特征数] 的数值矩阵，现在是 {features.dtype} {list(features.shape)}")


def _blocks(rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first row, some rows)."""
    for start in range(0, len(rows), _ROWS):
        yield start, rows[start:start + _ROWS]


def _norms(block: np.ndarray, start: int, what: str) -> np.ndarray:
    """Lengths of the rows, float64 [r]; ``start`` is the first row's number, for the error about NaN and infinity."""
    values = np.asarray(block, np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", values, values))
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        raise UserError(f"{what}：第 {start + broken[0]} 行（从 0 数起）含 NaN 或无穷大；请重新计算这张图的特征")
    return norms


def _unit(block: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Rows divided by their lengths, float64; rows of zeros stay as they are, so that nothing is similar to them."""
    return block / np.where(norms > 0, norms, 1.0)[:, None]
