"""What a worker does: tools made once a process, then chunk after chunk of plain values to plain values.

Workers may be other processes or other machines: they get what they need and give back everything they made, PNG files
as bytes; none of them touches the output folder.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, find
from paddle_cxr.synthesis.encoders import Encoder
from paddle_cxr.synthesis.generators.base import Generator, ImageRequest
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.quality.bank import probe_of, read_bank
from paddle_cxr.synthesis.quality.base import Judge
from paddle_cxr.synthesis.similarity import Bank
from paddle_cxr.synthesis.vocabulary import load_vocabulary

Row = dict[str, Any]
Picture = tuple[str, bytes]  # a PNG file: its name, for messages, and what is in it


def prepare_draw(recipe: PairsRecipe, vocabulary: str | None) -> Generator:
    """The generator; ``vocabulary`` is the file that the reports' entities come from."""
    needed = PHANTOMS == recipe.Generator["name"]  # reading a large vocabulary takes seconds
    context = {"vocabulary": load_vocabulary(vocabulary)} if needed else {}
    return build("generator", recipe.Generator, "Generator", **context)


def draw(generator: Generator, requests: Sequence[ImageRequest]) -> list[Row]:
    """A row for each request: that of ``drawn.jsonl``, with the picture as ``png`` (bytes, or None) beside it."""
    return [{"seed": request.seed, "png": None if drawn.image is None else encode(drawn.image),
             "error": drawn.error or ("" if drawn.image is not None else "没有图像"), "tokens_cut": drawn.tokens_cut,
             "generator": generator.title}
            for request, drawn in zip(requests, generator.draw(requests), strict=True)]


def prepare_judge(recipe: PairsRecipe, _: str | None) -> Judge:
    """The judge."""
    return build("judge", recipe.Judge, "Judge")


def judge(judge_: Judge, files: Sequence[Picture]) -> list[Row]:
    """A row of ``judged.jsonl`` for each picture.

    What a judge counts as its errors in this chunk is noted in the chunk's first row.
    """
    before = dict(getattr(judge_, "errors", {}))
    rows: list[Row] = [{"judge": judge_.title, "answers": {name: asdict(answer) for name, answer in verdict.items()}}
                       for verdict in judge_.judge([decode(*file) for file in files])]
    errors = {kind: count - before.get(kind, 0) for kind, count in getattr(judge_, "errors", {}).items()}
    if any(errors.values()):
        rows[0]["errors"] = {kind: count for kind, count in errors.items() if count}
    return rows


def prepare_similarity(recipe: PairsRecipe, _: str | None) -> tuple[Encoder, Bank]:
    """The encoder, and the bank of known-bad images that it made the features of."""
    encoder = build("encoder", recipe.Similarity.encoder, "Similarity.encoder")
    return encoder, read_bank(recipe.Similarity.bank, encoder.title, encoder.dim, probe_of(encoder))


def compare(tools: tuple[Encoder, Bank], files: Sequence[Picture]) -> list[Row]:
    """A row of ``compared.jsonl`` for each picture."""
    encoder, bank = tools
    # One by one: in a batch the last digits depend on the neighbours, and with them what is kept on the chunks.
    # The time is in drawing, not here.
    features = np.concatenate([encoder.encode([decode(*file)]) for file in files])
    nearest = bank.nearest(features)
    return [{"similarity": round(float(value), 6), "nearest": int(index), "encoder": encoder.title}
            for value, index in zip(nearest.similarity, nearest.index, strict=True)]


@dataclass(frozen=True, slots=True)
class Task:
    """One stage as the engines run it; ``section`` is its component in the recipe, ``verb`` what the log says."""

    verb: str
    section: str
    prepare: Callable[[PairsRecipe, str | None], Any]
    work: Callable[[Any, Sequence[Any]], list[Row]]

    def many_processes(self, recipe: PairsRecipe) -> bool:
        """Whether the component is made to be made in each of several processes."""
        kind, spec = {"Generator": ("generator", recipe.Generator), "Judge": ("judge", recipe.Judge),
                      "Similarity": ("encoder", recipe.Similarity and recipe.Similarity.encoder)}[self.section]
        return bool(getattr(find(kind, spec.get("name"), self.section), "many_processes", False))


PHANTOMS = "PhantomGenerator"
TASKS = {"draw": Task("画图", "Generator", prepare_draw, draw), "judge": Task("六问", "Judge", prepare_judge, judge),
         "similarity": Task("与坏图比较", "Similarity", prepare_similarity, compare)}


def encode(image: np.ndarray) -> bytes:
    """uint8 ``[H, W]`` as a PNG file; the same image always gives the same bytes."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def decode(name: str, png: bytes) -> np.ndarray:
    """The inverse of :func:`encode`; raises :class:`UserError` for a file that is no whole picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
            return np.array(picture)
    except Exception as error:  # of many classes, as Pillow's readers raise them
        raise lost_image(name, f"文件损坏：{str(error)[:80]}") from None


def lost_image(name: str, why: str) -> UserError:
    """What to do about a drawing whose file is gone or broken."""
    return UserError(f"读不到画好的图 {name}（{why}）；请找回它，或用 -o Global.redo=[draw] 全部重画")
