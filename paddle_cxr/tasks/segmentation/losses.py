"""Loss functions of a segmentation recipe.

Each takes logits ``[N, K, H, W]``, masks (0 or 1) of the same shape, and ``annotated`` ``[N, K]``: where nobody marked
finding k on an image, that map teaches nothing.  The mean divides by N · K, not by the number of annotations, so that
the loss of a batch is the exact mean of its micro-batches' losses.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.models.paddleseg_model import build_component
from paddle_cxr.pdparams import one_line
from paddle_cxr.registry import register


@register("segmentation_loss")
class BCEDiceLoss:
    """Binary cross entropy plus soft Dice, of every image and finding by itself.

    Cross entropy has a gradient everywhere but lets a small finding drown among the pixels without it; soft Dice
    (Milletari et al. 2016, arXiv:1606.04797, with probabilities not squared) weighs a small one like a large one.

    Args:
        bce: weight of the cross entropy (mean over pixels).
        dice: weight of 1 - (2 Σ p·y + smooth) / (Σ p + Σ y + smooth).
        smooth: in pixels; keeps the fraction defined, and makes an empty prediction of an empty mask perfect.

    Raises:
        UserError: a negative weight, both 0, or ``smooth`` not above 0.
    """

    def __init__(self, bce: float = 1.0, dice: float = 1.0, smooth: float = 1.0) -> None:
        if min(bce, dice) < 0 or bce + dice == 0 or smooth <= 0:
            raise UserError(f"Loss：bce（{bce}）和 dice（{dice}）不小于 0 且不都是 0，smooth（{smooth}）应大于 0")
        self.bce, self.dice, self.smooth = bce, dice, smooth

    def __call__(self, logits: paddle.Tensor, masks: paddle.Tensor, annotated: paddle.Tensor) -> paddle.Tensor:
        """See the module's text; a scalar."""
        logits, masks = logits.astype("float32"), masks.astype("float32")
        entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(axis=[2, 3])
        p = F.sigmoid(logits)
        overlap, sizes = (p * masks).sum(axis=[2, 3]), p.sum(axis=[2, 3]) + masks.sum(axis=[2, 3])
        dice = 1 - (2 * overlap + self.smooth) / (sizes + self.smooth)
        return ((self.bce * entropy + self.dice * dice) * annotated.astype("float32")).mean()


@register("segmentation_loss")
class PaddleSegLoss:
    """A loss of PaddleSeg, applied to every finding as a problem of two classes: not there, there.

    Its losses are softmax losses over classes that exclude each other; the logits (0, z) have the probabilities
    1 - sigmoid(z) and sigmoid(z), so nothing is lost.  Most are computed over the whole micro-batch at once.

    Args:
        loss: its name in ``paddleseg.models.losses``: ``DiceLoss``, ``LovaszHingeLoss``, ``MixedLoss`` …
        arguments: its arguments; the parts of a ``MixedLoss`` are written
            ``{losses: [{type: DiceLoss}, {type: LovaszSoftmaxLoss}], coef: [1, 1]}``.

    Raises:
        UserError: no PaddleSeg, no such loss, arguments it does not take, a loss that this Paddle cannot compute.
    """

    def __init__(self, loss: str, arguments: dict[str, Any] | None = None) -> None:
        self.loss = build_component("LOSSES", loss, arguments or {}, "Loss.loss")
        try:  # some of PaddleSeg's losses were written for an older Paddle: better now than in the first step
            self(paddle.zeros([2, 1, 4, 4]), paddle.ones([2, 1, 4, 4]), paddle.ones([2, 1]))
        except Exception as error:
            raise UserError(f"Loss.loss：PaddleSeg 的 {loss} 在飞桨 {paddle.__version__} 上不能用"
                            f"（{one_line(error)[:80]}）；"
                            "请换 DiceLoss、LovaszSoftmaxLoss 等，或 Loss.name: BCEDiceLoss（含交叉熵）") from None

    def __call__(self, logits: paddle.Tensor, masks: paddle.Tensor, annotated: paddle.Tensor) -> paddle.Tensor:
        """See the module's text; a scalar."""
        images, findings = logits.shape[:2]
        total = 0.0 * logits.sum()
        for finding in range(findings):
            known = paddle.nonzero(annotated[:, finding] > 0).flatten()
            if not len(known):
                continue
            there = paddle.index_select(logits[:, finding], known).astype("float32")
            truth = paddle.index_select(masks[:, finding], known).astype("int64")
            found = self.loss(paddle.stack([paddle.zeros_like(there), there], axis=1), truth)
            found = sum(found) if isinstance(found, list | tuple) else found  # MixedLoss returns its parts
            total = total + found * (len(known) / (images * findings))
        return total
