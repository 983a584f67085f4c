"""Augmentations that blend the pictures of a batch with one another, after normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

if TYPE_CHECKING:
    import paddle


@register("batch_transform")
class Mixup:
    """Blend every picture, and its label, with another one of the batch (Zhang et al. 2018, arXiv 1710.09412).

    Args:
        alpha: the share λ of the first picture is drawn from Beta(alpha, alpha), one λ a batch as in the authors' code;
            small alpha means mostly λ near 0 or 1.
        prob: how often a batch is blended at all.
    """

    def __init__(self, alpha: float = 0.2, prob: float = 1.0) -> None:
        if alpha <= 0:
            raise UserError(f"Mixup 的 alpha 应大于 0，现在是 {alpha}")
        if not 0 <= prob <= 1:
            raise UserError(f"Mixup 的 prob 应在 0 到 1 之间，现在是 {prob}")
        self.alpha, self.prob = alpha, prob

    def __call__(self, images: paddle.Tensor, targets: paddle.Tensor, rng: np.random.Generator
                 ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Blend.

        Args:
            images: float ``[N, C, H, W]``.
            targets: float ``[N, K]``, one-hot or soft labels; NaN (unknown) in either of a pair stays NaN.
            rng: decides λ and who is blended with whom.

        Returns:
            images and targets of the same shapes.
        """
        import paddle

        if rng.random() >= self.prob:
            return images, targets
        share = float(rng.beta(self.alpha, self.alpha))
        other = paddle.to_tensor(rng.permutation(images.shape[0]), place=images.place)
        return (images * share + images.index_select(other) * (1 - share),
                targets * share + targets.index_select(other) * (1 - share))
