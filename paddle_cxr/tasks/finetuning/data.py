"""The images and labels of a fine-tuning run, and which of them are trained on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from tqdm import tqdm

from paddle_cxr.data.findings import load_findings
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.splits import patients_of
from paddle_cxr.engine.distributed import World, wait_for_all
from paddle_cxr.engine.run import progress_of
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.finetuning.fraction import label_subset
from paddle_cxr.tasks.finetuning.schema import FinetuneSection

_NAMED = 5


def read_data(loaded: Loaded, say: Callable[[str], None], world: World, only: str | None = None) -> LabelledData:
    """Decode the recipe's images; ranks that start together decode once: a disk cache has a lock."""
    with tqdm(desc="读图", disable=not (world.is_main and sys.stderr.isatty()), leave=False) as bar:
        data = load_findings(loaded, say if world.is_main else (lambda _: None), progress_of(bar), only)
    wait_for_all(world)
    return data


def training_positions(data: LabelledData, subset: str, section: FinetuneSection, findings: Sequence[ClassInfo],
                       labels: np.ndarray, say: Callable[[str], None]) -> np.ndarray:
    """The images to train on: the fraction of the subset that the recipe asks for, those without any label left out.

    Args:
        labels: float ``[len(data.images), K]``.

    Raises:
        UserError: nothing to learn: no label, or no finding both present and absent.
    """
    whole = data.positions(subset)
    labelled = whole[(~np.isnan(labels[whole])).any(axis=1)]
    if len(labelled) < len(whole):
        say(f"{len(whole) - len(labelled)} 张训练图的征象全部未知，略去")
    if not len(labelled):
        raise UserError(f"子集 {subset} 的 {len(whole)} 张图没有一个征象（finding）的标签；请检查 DataLoader.Source")
    patients = patients_of([data.source.records[position] for position in labelled])
    chosen = labelled[label_subset(patients, labels[labelled], section.fraction, section.subset_seed)]
    owners = dict(zip(labelled.tolist(), patients, strict=True))
    positives = zip(findings, (labels[chosen] == 1).sum(axis=0), strict=True)
    say(f"训练 {len(chosen)} 张（{len({owners[position] for position in chosen.tolist()})} 位患者），"
        f"是 {len(labelled)} 张的 {len(chosen) / len(labelled):.1%}（Finetune.fraction: {section.fraction:g}）；"
        f"各征象阳性：{'，'.join(f'{one.zh} {number}' for one, number in positives)}")
    _check_both_kinds(findings, labels[chosen], say)
    return chosen


def _check_both_kinds(findings: Sequence[ClassInfo], labels: np.ndarray, say: Callable[[str], None]) -> None:
    both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    one_sided = [one.zh for one, fine in zip(findings, both, strict=True) if not fine]
    named = "、".join(one_sided[:_NAMED]) + (" …" if len(one_sided) > _NAMED else "")
    if not both.any():
        raise UserError(f"训练图里没有一个征象（finding）既有阳性又有阴性（{named}），没有可学的；请检查数据，"
                        "或加大 Finetune.fraction")
    if one_sided:
        say(f"!! 训练图里 {len(one_sided)} 种征象只有阳性或只有阴性，学不到：{named}")


def check_validation(data: LabelledData, subset: str, labels: np.ndarray) -> None:
    """Refuse a validation subset that cannot choose an epoch; raises :class:`UserError`."""
    answers = labels[data.positions(subset)]
    if not ((answers == 1).any(axis=0) & (answers == 0).any(axis=0)).any():
        raise UserError(f"验证子集 {subset} 的 {len(answers)} 张图里，没有一个征象（finding）既有阳性又有阴性，"
                        "算不出 AUC，选不出最好的一轮；请改 DataLoader.Split，"
                        "或设 Global.keep: last 且不用早停（early_stop）")
