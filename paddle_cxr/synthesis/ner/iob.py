"""Labels of words → spans: the IOB and BIOES notations (Ramshaw and Marcus, 1995, arXiv:cmp-lg/9505040).

``B-DISEASE I-DISEASE O`` says that two words make one disease: B begins an entity, I goes on with it, O is outside.
BIOES adds E for an entity's last word and S for the only one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import TYPES

Tag = tuple[str, str]  # ("B", "disease"), or ("O", "")


def read_labels(id2label: Any, file: Path) -> list[Tag]:
    """The tag of each output of a model, from the ``id2label`` of its ``config.json``.

    Args:
        id2label: ``{"0": "B-ABNORMALITY", "1": "I-ABNORMALITY", …, "10": "O"}``.
        file: where it stands, for errors.

    Raises:
        UserError: numbers missing, labels that are not IOB or BIOES, or types other than the five.
    """
    if not isinstance(id2label, Mapping) or set(id2label) != {str(number) for number in range(len(id2label))}:
        raise UserError(f"{file}：id2label 应为 {{\"0\": 标签, \"1\": 标签, …}}，编号从 0 开始、不缺不重；"
                        "请换成做命名实体识别（NER）的模型")
    labels = [str(id2label[str(number)]) for number in range(len(id2label))]
    tags = [_tag(label) for label in labels]
    if None in tags or ("O", "") not in tags or len(tags) < 2:
        wrong = next((label for label, tag in zip(labels, tags, strict=True) if tag is None), "缺少 O")
        raise UserError(f"{file}：id2label 不是 IOB 标签（{wrong!r}）；应为 O 和 B-类型、I-类型（或 BIOES），"
                        f"类型是 {'、'.join(one.upper() for one in TYPES)}")
    return tags


def _tag(label: str) -> Tag | None:
    if label.upper() == "O":
        return "O", ""
    found = re.fullmatch("([BIES])-(.+)", label, re.IGNORECASE)
    return (found[1].upper(), found[2].lower()) if found and found[2].lower() in TYPES else None


def entities(tags: Sequence[Tag]) -> Iterator[tuple[int, int, str]]:
    """(first, last + 1, type) of each entity in a row of tags.

    A model may write what the notation forbids.  As everywhere in the field (conlleval), I or E then begins an entity
    where there is none of its type to go on with.
    """
    first, open_type = 0, ""
    for number, (prefix, type_) in enumerate([*tags, ("O", "")]):
        if open_type and (prefix in "BSO" or type_ != open_type):
            yield first, number, open_type
            open_type = ""
        if prefix != "O" and not open_type:
            first, open_type = number, type_
        if prefix in "ES":
            yield first, number + 1, open_type
            open_type = ""
