"""What fine-tuning and segmentation may choose, and on which images."""

from __future__ import annotations

from paddle_cxr.data.labelled import ALL
from paddle_cxr.errors import UserError
from paddle_cxr.schema import TrainGlobal


def chooses_epoch(settings: TrainGlobal) -> bool:
    """Whether validation decides which epoch's weights are kept, or when training ends."""
    return settings.keep == "best" or settings.early_stop is not None


def check_test_subset(chosen_on: str, tested: str | None, what: str) -> None:
    """Refuse a test subset that has images on which something is chosen; raises :class:`UserError`.

    Args:
        chosen_on: ``DataLoader.Eval.subset``; tested: ``DataLoader.Test.subset``, or None where there is no such key.
        what: is chosen there, for the message.
    """
    if tested is not None and (tested == chosen_on or ALL in (tested, chosen_on)):
        raise UserError(f"DataLoader.Eval.subset：{chosen_on} 含有 DataLoader.Test 要评估的图像（subset: {tested}），"
                        f"在它上面选的{what}偏乐观；请用两个不同的子集，例如 val 和 test，或写 DataLoader.Test: null")
