"""The contrastive loss of a batch, from its matrices of similarities.

Row i of a matrix is image i, column j is text j, and pair i is (i, i).  Every image has to find its own text among all
texts of the batch, and every text its own image:

    image → text:  - log( exp(s_ii) / Σ_j exp(s_ij) )        text → image:  - log( exp(s_ii) / Σ_j exp(s_ji) )

Reports repeat: "No acute cardiopulmonary abnormality." stands under thousands of images.  A pair whose text is the
same is no example of what does *not* belong together, so it is left out of the sums Σ_j (``same_text: exclude``);
the published losses count it as wrong (``same_text: negative``).  In a batch where all texts are the same nothing is
left to tell apart, and the loss is 0.

References: ConVIRT, arXiv:2010.00747, equations 2–4 (λ = ``image_weight``, 1 - λ = ``text_weight``); GLoRIA (ICCV
2021), equations 4–9 (both weights 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from paddle_cxr.errors import UserError
from paddle_cxr.models.convirt import lowest_where
from paddle_cxr.registry import register


@register("vision_language_loss")
class ContrastiveLoss:
    """Weighted sum of the losses above over all matrices that the model compares.

    Args:
        image_weight: of image → text; text_weight: of text → image.
        weights: of each matrix by its name, e.g. ``{global: 1.0, local: 1.0}``; 1 where not given.
        same_text: what another pair with the same text is, see above.

    Raises:
        UserError: a weight that is below 0 or no number, or all of them 0.
    """

    def __init__(self, image_weight: float = 0.75, text_weight: float = 0.25, weights: dict[str, float] | None = None,
                 same_text: Literal["exclude", "negative"] = "exclude") -> None:
        given = [image_weight, text_weight, *(weights or {}).values()]
        if not all(0 <= one < math.inf for one in given) or image_weight + text_weight == 0:
            raise UserError(f"Loss：权重应不小于 0，image_weight 和 text_weight 不全为 0，现在是 {given}")
        self.image_weight, self.text_weight = image_weight, text_weight
        self.weights, self.same_text = dict(weights or {}), same_text

    def check(self, compared: Sequence[str], method: str) -> None:
        """Refuse weights of matrices that the model does not compare, or that leave none of them.

        Args:
            compared: names of the matrices; method: that compares them.

        Raises:
            UserError: the same.
        """
        for name in self.weights:
            if name not in compared:
                raise UserError(f"Loss.weights.{name}：{method} 没有这一项（可用：{'、'.join(compared)}）")
        if not any(self.weights.get(name, 1.0) for name in compared):
            raise UserError(f"Loss.weights：{method} 的 {'、'.join(compared)} 的权重全为 0，没有可学的；"
                            "请至少留一个大于 0")

    def __call__(self, similarities: dict[str, Tensor], texts: Tensor) -> Tensor:
        """The loss of a batch, averaged over its pairs.

        Args:
            similarities: matrices float32 [N, N] by name.
            texts: int64 [N]; equal where the texts are.
        """
        excluded = None
        if self.same_text == "exclude":
            count = len(texts)
            excluded = (texts.unsqueeze(0) == texts.unsqueeze(1)) & (paddle.eye(count) == 0)
        return sum(self.weights.get(name, 1.0) * self._of(matrix, excluded) for name, matrix in similarities.items())

    def _of(self, matrix: Tensor, excluded: Tensor | None) -> Tensor:
        if excluded is not None:
            matrix = matrix + lowest_where(excluded)
        own = paddle.arange(len(matrix))
        return (self.image_weight * F.cross_entropy(matrix, own)
                + self.text_weight * F.cross_entropy(matrix.T, own))
