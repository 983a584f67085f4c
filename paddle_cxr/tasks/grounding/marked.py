"""The images on which somebody marked a finding, and the maps of a model laid over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from paddle_cxr.data.labelled import ALL, LabelledData, View, divide_and_decode
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import Source
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.overlap import stretched
from paddle_cxr.evaluation.prompts import FindingPrompts, named_prompts
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build
from paddle_cxr.tasks.grounding.maps import Maps
from paddle_cxr.tasks.zero_shot.prompts import asked_findings, known_as, read_section


class Marked(NamedTuple):
    """A finding that somebody marked on an image: place of the image in the data, number of the finding."""

    position: int
    finding: int


class Located(NamedTuple):
    """A marked finding, what the model shows of it, and where it is.

    Attributes:
        marked: which.
        heat: float64 ``[h, w]`` over the image as published; NaN where the model was not shown it.
        truth: bool ``[h, w]``, nowhere empty.
    """

    marked: Marked
    heat: np.ndarray
    truth: np.ndarray


def load_marked(loaded: Loaded, subsets: Sequence[str], say: Callable[[str], None]
                ) -> tuple[LabelledData, tuple[FindingPrompts, ...], dict[str, list[Marked]]]:
    """Open the data set and decode only the images on which a finding with a prompt is marked as present.

    Args:
        loaded: the recipe.
        subsets: the subsets that are wanted.
        say: receives notices.

    Returns:
        The data, the prompts of its findings, and what is marked in each of ``subsets``.

    Raises:
        UserError: what the source has to say; a finding without prompts; a subset without any marked finding.
    """
    recipe, section = loaded.recipe, loaded.recipe.DataLoader
    source = build("findings", section.Source, "DataLoader.Source")
    for notice in source.notices:
        say(notice)
    subset_of = [ALL] * len(source.records) if ALL in subsets else (
        build("split", section.Split, "DataLoader.Split")(source.records))
    findings = asked_findings(recipe.Metric.findings, source)
    names = {index: [name for name in findings if _is_marked(source, index, name)]
             for index, subset in enumerate(subset_of) if subset in subsets}
    drawn = [name for name in findings if any(name in row for row in names.values())]
    if recipe.Metric.findings and len(drawn) < len(findings):
        say(f"!! 征象 {'、'.join(name for name in findings if name not in drawn)} 没有一张标出位置的图像，略去不评估")
    written = read_section(recipe.Prompts, recipe.Global.seed, source.findings, classifying=False)
    prompts = named_prompts(drawn, written, known_as(recipe.Prompts), recipe.Prompts.missing == "skip", say)
    marked = {index: numbers for index, row in names.items()
              if (numbers := [number for number, one in enumerate(prompts) if one.name in row])}
    for subset in subsets:
        if not any(subset_of[index] == subset for index in marked):
            raise UserError(f"子集 {subset!r} 里没有一张标出了征象位置（框或掩膜）的图像（现有子集："
                            f"{'、'.join(sorted(set(subset_of)))}）；请改 DataLoader.Split，使它也分到有标注的图像，"
                            "或改 DataLoader.Eval 的 subset 和 threshold_subset")
    preprocess = Preprocess(image_shape=recipe.Global.image_shape, **section.preprocess.model_dump())
    data = divide_and_decode(View(source, list(marked)), section, preprocess, [subset_of[index] for index in marked],
                             say=say)
    # Broken images may have been left out: what is left is found by its path.
    found = {source.records[index].path: numbers for index, numbers in marked.items()}
    by_subset: dict[str, list[Marked]] = {subset: [] for subset in subsets}
    for position, (record, subset) in enumerate(zip(data.source.records, data.subsets, strict=True)):
        by_subset[subset] += [Marked(position, number) for number in found[record.path]]
    for subset, rows in by_subset.items():
        if not rows:
            raise UserError(f"子集 {subset!r} 里标出了征象位置的图像都读不了（见上面跳过的坏图）；请修复或重新下载")
    return data, prompts, by_subset


def _is_marked(source: Source, index: int, finding: str) -> bool:
    return source.records[index].labels.get(finding) != 0 and source.annotated(index, finding)


def locate(data: LabelledData, maps: Maps, prompts: Sequence[FindingPrompts], marked: Sequence[Marked], scale: str,
           batch_size: int, skipped: list[str] | None = None) -> Iterator[Located]:
    """Lay the maps over the images as published, one after another, so that memory holds a batch and no more.

    Args:
        data: pre-processed images; maps: of the model; prompts: the findings; marked: which of them where.
        scale: ``none``, or ``image``: each map is stretched to 0 … 1 by itself.
        batch_size: images at a time.
        skipped: receives the names of what was marked with a mask that is empty; such are left out.

    Raises:
        UserError: a mask that cannot be read or is of another size, a model that gives NaN.
    """
    for start in range(0, len(marked), batch_size):
        part = marked[start:start + batch_size]
        pixels = np.stack([data.images[one.position] for one in part])
        for one, heat in zip(part, maps(pixels, np.array([one.finding for one in part])), strict=True):
            shape = data.source.read(one.position).shape[:2]
            truth = data.source.mask(one.position, prompts[one.finding].name, shape)
            if not truth.any():
                if skipped is not None:
                    skipped.append(f"{data.source.locate(one.position)}（{prompts[one.finding].name}）")
                continue
            over = data.preprocess.undo_geometry(heat, shape)
            yield Located(one, stretched(over) if scale == "image" else over, truth)
