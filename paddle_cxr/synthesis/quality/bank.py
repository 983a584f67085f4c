"""The bank: features of known-bad images in a folder, with which new images are compared.

    bank/features.npy   float32 [M, D]
         images.csv     what each row is the features of
         bank.json      {encoder, dim, images, demo, probe}

Cosines mean something only between features of one encoder.  Its title alone does not tell two trainings of one
network apart, so a bank also keeps the features of a fixed picture, the *probe*: another encoder sees it differently.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_atomic, write_json
from paddle_cxr.synthesis.similarity import Bank, read_features

if TYPE_CHECKING:
    from paddle_cxr.synthesis.encoders import Encoder

FEATURES, IMAGES, ABOUT = "features.npy", "images.csv", "bank.json"
_SAME = 1e-3  # 1 − cosine of two probes: rounding on another machine makes 1e-6, other weights much more
_WAY_OUT = "；坏图库由 tools/analyze.py quality 写出"


@dataclass(frozen=True)
class BankFolder:
    """What a bank's folder holds.

    Attributes:
        features: float32 ``[M, D]``, M ≥ 1, memory-mapped.
        files: the M images.
        demo: phantoms are among them.
    """

    features: np.ndarray
    files: list[str]
    demo: bool


def write_bank(folder: str | Path, features: np.ndarray, encoder_title: str, files: Sequence[str], demo: bool,
               probe: np.ndarray | None = None) -> None:
    """Write a bank.

    Args:
        folder: made where it is missing; a bank that it holds is replaced.
        features: ``[M, D]``, M ≥ 1.
        encoder_title: ``title`` of the encoder.
        files: names of the M images.
        demo: phantoms are among them.
        probe: see :func:`probe_of`.

    Raises:
        UserError: no features, as many names as features are not given, or the folder cannot be written.
    """
    folder = Path(folder)
    features = np.ascontiguousarray(features, np.float32)
    if features.ndim != 2 or len(features) == 0:
        raise UserError(f"坏图库（bank）{folder}：没有坏图的特征可写（形状 {list(features.shape)}）")
    if len(files) != len(features):
        raise UserError(f"坏图库（bank）{folder}：{len(features)} 行特征，而有 {len(files)} 个文件名")
    # Last written, first removed: a folder with bank.json is whole.
    (folder / ABOUT).unlink(missing_ok=True)
    write_atomic(folder / FEATURES, lambda temporary: np.save(temporary, features))
    write_table(folder / IMAGES, ["file"], ([file] for file in files))
    write_json(folder / ABOUT, {"encoder": encoder_title, "dim": features.shape[1], "images": len(features),
                                "demo": demo, "probe": None if probe is None else [float(x) for x in probe]})


def read_bank(folder: str | Path, encoder_title: str, dim: int, probe: np.ndarray | None = None) -> Bank:
    """The bank in ``folder``, ready to compare features of the encoder ``encoder_title`` with.

    Raises:
        UserError: no such folder, nothing in it, damaged, or of another encoder.
    """
    found = load_bank(folder, encoder_title, dim, probe)
    try:
        return Bank(found.features)
    except UserError as error:
        raise UserError(f"{folder}：{error}") from None


def load_bank(folder: str | Path, encoder_title: str, dim: int, probe: np.ndarray | None = None) -> BankFolder:
    """What :func:`read_bank` makes the bank of; raises the same."""
    folder = Path(folder)
    about = check_bank(folder)
    mine = (encoder_title, dim)
    if (about["encoder"], about["dim"]) != mine:
        raise UserError(f"坏图库（bank）{folder} 是编码器（encoder）{about['encoder']}（{about['dim']} 维）的，"
                        f"现在用的是 {encoder_title}（{dim} 维）；"
                        "两者要相同：请换回那个编码器，或用现在的重做一个坏图库")
    if probe is not None and about["probe"] is not None and not same_probe(probe, np.array(about["probe"])):
        raise UserError(f"坏图库（bank）{folder} 的编码器（encoder）也叫 {encoder_title}，但权重不同"
                        "（同一张测试图算出的特征不一样）；请换回那份权重，或用现在的重做一个坏图库")
    features = read_features(folder / FEATURES)
    files = _read_names(folder / IMAGES)
    if features.shape != (about["images"], dim) or len(files) != len(features):
        raise UserError(f"坏图库（bank）{folder} 不完整：{ABOUT} 说 {about['images']} 张 × {dim} 维，{FEATURES} 是 "
                        f"{list(features.shape)}，{IMAGES} 有 {len(files)} 行；请重做{_WAY_OUT}")
    if len(features) == 0:
        raise UserError(f"坏图库（bank）{folder} 是空的：没有可比较的坏图；请检查路径，"
                        "或跳过相似度（similarity）这一步")
    return BankFolder(features, files, about["demo"])


def check_bank(folder: str | Path) -> dict[str, Any]:
    """What ``bank.json`` says; raises :class:`UserError` where it is missing or no bank's, without reading features."""
    file = Path(folder) / ABOUT
    if not file.is_file():
        what = "里没有 bank.json" if Path(folder).is_dir() else "不存在"
        raise UserError(f"坏图库（bank）文件夹 {folder} {what}；请检查路径{_WAY_OUT}")
    try:
        about = json.loads(file.read_text("utf-8"))
        probe = about["probe"] = about.get("probe")
        whole = (isinstance(about["encoder"], str) and isinstance(about["demo"], bool)
                 and all(type(about[key]) is int and about[key] >= 0 for key in ("dim", "images"))
                 and (probe is None or np.isfinite(np.array(probe, float).reshape(about["dim"])).all()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(f"坏图库（bank）的 {file} 损坏，或不是本程序写的；请重做{_WAY_OUT}")
    return about


def probe_of(encoder: Encoder) -> np.ndarray:
    """float32 ``[dim]``: features of a fixed picture, by which two encoders of one title can be told apart."""
    rows, columns = np.mgrid[:224, :224] / 224
    rings = np.sin(40 * np.hypot(rows - 0.4, columns - 0.55)) + np.cos(9 * rows * columns)
    return encoder.encode([np.rint(127.5 + 60 * rings).astype(np.uint8)])[0]


def same_probe(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two probes are those of one encoder, but for rounding."""
    if one.shape != other.shape:
        return False
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return bool(1 - one @ other / lengths < _SAME) if lengths > 0 else bool(np.array_equal(one, other))


def _read_names(file: Path) -> list[str]:
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            rows = list(csv.reader(lines, strict=True))
    except (OSError, ValueError, csv.Error):
        rows = []
    if not rows or rows[0][:1] != ["file"] or not all(rows):
        raise UserError(f"坏图库（bank）的 {file} 缺失或损坏；请重做{_WAY_OUT}")
    return [row[0] for row in rows[1:]]
