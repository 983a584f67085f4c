"""Run-length encoding (RLE) of binary masks as the SIIM-ACR challenge writes it.

A mask is read column by column, each from top to bottom, and written as pairs ``offset length``: ``length`` pixels of
the finding, ``offset`` pixels after the end of the run before (for the first: after the image's first pixel).  That
relative form is this challenge's own; most others on Kaggle give each run's absolute position, counted from 1.
"""

from __future__ import annotations

import re

import numpy as np

from paddle_cxr.errors import UserError

_NUMBERS = re.compile(r"[0-9]{1,9}(\s+[0-9]{1,9})*")


def read_runs(text: str, pixels: int, where: str) -> np.ndarray:
    """Runs of one mask, checked: int64 ``[R, 2]``, offset and length.

    Args:
        text: the pairs, separated by blanks.
        pixels: number of pixels of the image.
        where: file and line, for errors.

    Raises:
        UserError: not whole numbers, an odd number of them, a run of no pixels, a run past the image's end.
    """
    if not _NUMBERS.fullmatch(text):
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise UserError(f"{where}：游程编码（RLE）应是以空格分隔的非负整数，现在是 {shown!r}")
    numbers = np.array(text.split(), np.int64)
    if len(numbers) % 2:
        raise UserError(f"{where}：游程编码（RLE）应是成对的“间隔 长度”，现在有 {len(numbers)} 个数；这一行可能不完整")
    runs = numbers.reshape(-1, 2)
    if not runs[:, 1].all():
        raise UserError(f"{where}：游程编码（RLE）中有长度为 0 的一段")
    if int(numbers.sum()) > pixels:
        raise UserError(f"{where}：游程编码（RLE）到第 {int(numbers.sum())} 个像素，而图像只有 {pixels} 个；"
                        "应为相对编码（每段从上一段的末尾数起），不是绝对位置")
    return runs


def draw_runs(runs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask of ``[R, 2]`` runs from :func:`read_runs`, bool ``[H, W]`` of ``shape``."""
    # +1 where a run begins and -1 where it ends: their running sum is 1 inside.
    edges = np.cumsum(runs)
    steps = np.zeros(shape[0] * shape[1] + 1, np.int8)
    np.add.at(steps, edges[0::2], 1)
    np.add.at(steps, edges[1::2], -1)
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(shape[1], shape[0]).T
