"""Image and text embeddings in one space, for VisualDL's projector (the tab 数据降维, High Dimensional).

What to look for: do points of one finding lie together, whichever tower they come from?  Images and texts often form
two separate clouds all the same (the *modality gap*, Liang et al. 2022): the loss asks only that an image be nearer to
its own text than to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.errors import UserError

if TYPE_CHECKING:
    from visualdl import LogWriter

MAX_POINTS = 2000  # the projector runs in the browser
HEADER = ["kind", "label", "name"]
_NAME = 80  # characters: a report is no label


@dataclass(frozen=True)
class Embedded:
    """Embeddings from one tower.

    Attributes:
        vectors: float ``[N, D]``.
        labels: N short labels to colour the points by, e.g. the finding.
        names: N texts that say which point it is: the image's file, the text itself.
    """

    vectors: np.ndarray
    labels: Sequence[str]
    names: Sequence[str]


def write_embedding(writer: LogWriter, tag: str, images: Embedded, texts: Embedded, limit: int = MAX_POINTS,
                    seed: int = 0) -> int:
    """Write image and text embeddings together to VisualDL.

    VisualDL shows the *first* record of a tag: write once, at the end of a run, or under another tag.

    Args:
        writer: an open VisualDL log.
        tag: name in VisualDL, without ``%``.
        images, texts: what to write, of equal D.  Give each different text once, or its copies cover each other.
        limit: points in all, ≥ 2; of more a part is drawn by ``seed``: as many images as texts where there are enough.

    Returns:
        The number of points written.

    Raises:
        UserError: embeddings that are not finite; ValueError: shapes that do not belong together.
    """
    parts = {"图像 image": images, "文本 text": texts}
    width = images.vectors.shape[1]
    for part in parts.values():
        if not part.vectors.shape == (len(part.labels), width) == (len(part.names), width):
            raise ValueError(f"embeddings {part.vectors.shape}, {len(part.labels)} labels and {len(part.names)} names "
                             f"do not belong together (images have {width} numbers each)")
        if not np.isfinite(part.vectors).all():
            raise UserError("特征向量（embedding）含 NaN 或 Inf，不能写入 VisualDL；请换用训练正常的检查点")
    of_texts = min(len(texts.names), max(limit // 2, limit - len(images.names)))
    random = np.random.default_rng(seed)
    rows, columns = [], []
    for (kind, part), count in zip(parts.items(), (limit - of_texts, of_texts), strict=True):
        chosen = np.sort(random.permutation(len(part.names))[:count])
        rows.append(np.asarray(part.vectors, np.float32)[chosen])
        columns += [[kind, _cell(part.labels[i]), _cell(part.names[i])] for i in chosen]
    matrix = np.concatenate(rows)
    if len(matrix):
        # VisualDL wants the metadata column by column.
        writer.add_embeddings(tag=tag, mat=matrix, metadata=[list(column) for column in zip(*columns, strict=True)],
                              metadata_header=HEADER)
    return len(matrix)


def _cell(text: str) -> str:
    """``text`` as a cell of a table whose cells end with a tab and whose rows end with a line break."""
    text = " ".join(text.split())
    return text if len(text) <= _NAME else text[:_NAME - 1] + "…"
