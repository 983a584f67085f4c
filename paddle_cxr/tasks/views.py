"""Test-time augmentation (TTA): a film judged by the mean over several looks at it."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


class AveragedProbabilities(paddle.nn.Layer):
    """A classifier's probabilities, averaged over views (Krizhevsky et al. 2012); what evaluation and export share.

    Args:
        model: normalised images [N, C, H, W] → logits [N, K].
        views: see :func:`looks`.
    """

    def __init__(self, model: paddle.nn.Layer, views: str = "one") -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, inputs: paddle.Tensor) -> paddle.Tensor:
        """Probabilities [N, K] of normalised inputs [N, C, H, W]."""
        seen = [F.softmax(self.model(view), axis=1) for view in looks(inputs, self.views)]
        return sum(seen[1:], seen[0]) / len(seen)


def looks(inputs: paddle.Tensor, views: str) -> list[paddle.Tensor]:
    """The same films [N, C, H, W] seen a little differently.

    Args:
        views: ``one``; ``flip``: also mirrored; ``crops``: also the four corners and the centre at 7/8 of the size,
            scaled back, each mirrored too (12 views in all).
    """
    if views == "one":
        return [inputs]
    whole = [inputs]
    if views == "crops":
        height, width = inputs.shape[2:]
        h, w = height * 7 // 8, width * 7 // 8
        corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w),
                   ((height - h) // 2, (width - w) // 2)]
        # Bicubic, because Paddle Inference 3.3 with oneDNN cannot run a bilinear resize that was exported.
        whole += [F.interpolate(inputs[:, :, y:y + h, x:x + w], size=[height, width], mode="bicubic")
                  for y, x in corners]
    return [view for one in whole for view in (one, one.flip(axis=[3]))]
