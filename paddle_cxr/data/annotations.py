"""Looking at every box and mask of a data set once: whether it can be read, fits its image and marks anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from paddle_cxr.data.findings import FindingBox, FindingsSource
from paddle_cxr.errors import UserError

_MARGIN = 1.0  # pixels that a drawn box may stick out by


@dataclass
class Annotations:
    """What was seen.

    Attributes:
        errors: image number → why a mask of it cannot be used.
        boxes: finding → number of boxes. masks: finding (or region) → images with a mask or boxes of it.
        outside: images with a box that reaches out of them, by path.
        empty: images of which a finding is present and its mask marks nothing, by path.
    """

    errors: dict[int, str] = field(default_factory=dict)
    boxes: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)


def inspect_annotations(source: FindingsSource, shapes: Sequence[tuple[int, int] | None]) -> Annotations:
    """Read the masks of ``source`` and place its boxes.

    A mask of a finding that is absent is not asked for: it marks nothing.

    Args:
        shapes: (H, W) of each image, None for one that cannot be read, which is left out.
    """
    from tqdm import tqdm

    names = [*(info.name for info in source.findings), *source.regions]
    seen = Annotations()
    for index, shape in enumerate(tqdm(shapes, desc="检查标注", unit="张", disable=None, leave=False)):
        if shape is None:
            continue
        record = source.records[index]
        seen.boxes.update(box.finding for box in record.boxes)
        if any(_outside(box, shape) for box in record.boxes):
            seen.outside.append(record.path)
        asked = [name for name in names if record.labels.get(name) != 0 and source.annotated(index, name)]
        try:
            marked = {name: bool(source.mask(index, name, shape).any()) for name in asked}
        except UserError as error:
            seen.errors[index] = str(error)
            continue
        seen.masks.update(marked.keys())
        if not all(marked.values()):
            seen.empty.append(record.path)
    return seen


def _outside(box: FindingBox, shape: tuple[int, int]) -> bool:
    height, width = shape
    return (min(box.x, box.y) < -_MARGIN or box.x + box.width > width + _MARGIN
            or box.y + box.height > height + _MARGIN)
