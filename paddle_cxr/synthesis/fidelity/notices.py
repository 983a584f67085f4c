"""What spoils a comparison of images without a single wrong number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.fidelity.images import ImageSet

_LOOKED_AT = 8  # images of a set, evenly spread, whose size is taken


def compare_sets(sets: Sequence[ImageSet]) -> Iterator[str]:
    """Lines about sets that differ in more than their generators; the first is the real one.

    Resizing leaves traces that distances see (Parmar et al. 2022, arXiv:2104.11222), and a set with other shares of
    the classes is another distribution however well it is drawn.
    """
    real = sets[0]
    sizes = {one.name: _usual_side(one) for one in sets}
    for one in sets[1:]:
        if real.phantom != one.phantom:
            yield (f"{real.name} 是{real.mark}，{one.name} 是{one.mark}：不是同一种图像，距离大是当然的，"
                   "也说明不了像不像真实胸片")
        mine, theirs = sizes[real.name], sizes[one.name]
        if mine and theirs and max(mine, theirs) / min(mine, theirs) >= 1.5:
            yield (f"{one.name} 的图边长约 {theirs:.0f} 像素，{real.name} 约 {mine:.0f}：缩放的痕迹也会算进距离，"
                   "请先把真实图缩放到同样大小")
        if (difference := _label_difference(real, one)) and difference > 0.1:
            yield (f"{one.name} 与 {real.name} 的类别比例不同（相差 {difference:.0%}）：距离里有一部分只是比例；"
                   "请用 only 或抽样使比例一致")


def few_images(count: int, dim: int) -> str | None:
    """A line where the covariances of ``count`` images with ``dim`` features are poorly estimated."""
    if count <= dim:
        return (f"每组 {count} 张，不多于特征的 {dim} 维：协方差不满秩（rank-deficient），Fréchet 距离偏大得多，"
                "只能与同一张表里张数相同的行比较；KID 没有这种偏差")
    if count < 2 * dim:
        return f"每组 {count} 张，不到特征维数 {dim} 的两倍：Fréchet 距离明显偏大，只能与同一张表里的行比较"
    return None


def _usual_side(images: ImageSet) -> float | None:
    """Median of the shorter sides, in pixels; None where no image can be read."""
    sides = []
    for position in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(int)):
        try:
            sides.append(min(images.images[position].read().shape))
        except UserError:
            continue
    return float(np.median(sides)) if sides else None


def _label_difference(one: ImageSet, other: ImageSet) -> float | None:
    """Half the sum of the differences of the shares of the kinds, 0 … 1.

    None where a label is not known, or the sets have none in common: most likely they only spell them differently.
    """
    counts = [Counter(images.groups) for images in (one, other)]
    if None in counts[0].keys() | counts[1].keys() or not counts[0].keys() & counts[1].keys():
        return None
    return sum(abs(counts[0][kind] / len(one) - counts[1][kind] / len(other)) for kind in counts[0] | counts[1]) / 2
