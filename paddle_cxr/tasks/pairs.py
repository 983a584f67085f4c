"""Image–text pairs for training: what diffusion and vision–language pre-training begin with."""

from __future__ import annotations

from collections.abc import Callable

from paddle_cxr.data.labelled import LabelledData, divide_and_decode
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.recipe import Loaded
from paddle_cxr.registry import build


def load_pairs(loaded: Loaded, say: Callable[[str], None], progress: Callable[[int, int], None] | None = None,
               only: str | None = None) -> LabelledData:
    """Open the recipe's pairs, divide them and decode the images; ``data.source.records`` hold the texts.

    Args:
        loaded: the recipe.
        say: receives notices.
        progress: receives (done, total) while decoding.
        only: decode just this subset (None: every pair).

    Raises:
        UserError: what the source, the split or a broken image has to say.
    """
    section = loaded.recipe.DataLoader
    # An image that is not there is treated as one that cannot be read.
    source = build("pairs", section.Source, "DataLoader.Source", on_error=section.on_error)
    preprocess = Preprocess(image_shape=loaded.recipe.Global.image_shape, **section.preprocess.model_dump())
    return divide_and_decode(source, section, preprocess, only=only, say=say, progress=progress)
