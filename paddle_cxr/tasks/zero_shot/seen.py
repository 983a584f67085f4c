"""Which findings a pre-training saw: the paper's split of findings into seen and unseen.

A finding is *seen* when some training pair is labelled with it.  Labels are what the pairs' source knows; a report may
mention a finding that nobody labelled, so a list of one's own (``Metric.seen``) says more than ``auto`` can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.registry import build
from paddle_cxr.tasks.pretraining.recipe import load
from paddle_cxr.tasks.zero_shot.schema import ZeroShotMetric

_WAY_OUT = "请直接列出，如 seen: [Effusion, Edema]"


def averages_of(metric: ZeroShotMetric, findings: Sequence[str], run: Path) -> dict[str, list[str]] | None:
    """The findings of the means ``seen`` and ``unseen``; None where the recipe asks for none.

    Args:
        metric: the recipe's.
        findings: those that are evaluated.
        run: output folder of the pre-training, whose recipe ``auto`` reads.

    Raises:
        UserError: a finding that is not evaluated; ``auto`` and the pre-training's pairs are not there or not labelled.
    """
    if metric.seen is None:
        return None
    seen = sorted(labelled_in(run)) if metric.seen == "auto" else metric.seen
    unseen = [name for name in findings if name not in seen] if metric.unseen is None else metric.unseen
    if metric.seen == "auto":
        seen = [name for name in findings if name in seen]
    for key, names in (("seen", seen), ("unseen", unseen)):
        for name in names:
            if name not in findings:
                raise UserError(f"Metric.{key}：{name} 不在评估的征象里{did_you_mean(name, findings)}"
                                f"（有：{'、'.join(findings)}）")
    return {"seen": list(seen), "unseen": list(unseen)}


def labelled_in(run: Path) -> set[str]:
    """The findings that some training pair of a pre-training run shows, by the labels of its pairs.

    Raises:
        UserError: no recipe in the folder, its pairs are not there, or carry no labels.
    """
    recipe_file = run / "config.yaml"
    if not recipe_file.is_file():
        raise UserError(f"Metric.seen：auto 要读预训练的配方 {recipe_file}，它不在；{_WAY_OUT}")
    try:
        section = load(recipe_file).recipe.DataLoader
        source = build("pairs", section.Source, "DataLoader.Source")
        subsets = build("split", section.Split, "DataLoader.Split")(source.records)
    except UserError as error:
        raise UserError(f"Metric.seen：auto 打不开预训练的图文对（{error}）；{_WAY_OUT}") from None
    wanted = section.Train.subset
    rows: list[Mapping[str, int | None]] = [
        record.labels for record, subset in zip(source.records, subsets, strict=True) if wanted in (subset, "all")]
    found = {name for row in rows for name, value in row.items() if value == 1}
    if not found:
        raise UserError(f"Metric.seen：预训练的图文对没有标签，auto 不知道见过哪些征象；{_WAY_OUT}")
    return found
