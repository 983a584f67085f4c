"""Grad-CAM: where in the picture a class's score comes from (Selvaraju et al., ICCV 2017).

The gradient of the class score says how much each channel of a feature map matters; the map's channels, summed with
these weights and cut at zero, are a coarse heat map.  It explains the model, not the disease: a heat map on the
corner marker means that the model looked at the corner marker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.errors import UserError

LAST = "layer4"


def grad_cam(model: paddle.nn.Layer, images: paddle.Tensor | np.ndarray, targets: Any = None,
             layer: str = LAST) -> np.ndarray:
    """Grad-CAM heat maps of a batch.

    Args:
        model: a classifier with ``forward_features(images) -> {layer name: map [N, C', H', W']}`` and
            ``forward_head(map of layer4) -> logits [N, K]``.  It is run in evaluation mode; its mode, its parameters'
            gradients and everything else of it are afterwards as before.
        images: float ``[N, C, H, W]``, normalised as for the model.
        targets: int ``[N]``, the class to explain for each image; None explains the predicted class.
        layer: the feature map to use.  A late one (the default) knows classes, an early one shows finer detail.

    Returns:
        float32 ``[N, H, W]`` in 0 … 1, the largest value of each map being 1; all 0 where nothing speaks for the class.

    Raises:
        UserError: the model has no feature map called ``layer``.
    """
    images = _tensor(images, "float32")
    with _evaluating(model), paddle.enable_grad():
        activation, logits = _forward(model, images, layer)
        chosen = logits.argmax(axis=1) if targets is None else _tensor(targets, "int64").flatten()
        # Each image's score depends on its own map only, so the gradient of the sum holds all of them.
        score = paddle.take_along_axis(logits, chosen.unsqueeze(1), axis=1).sum()
        # paddle.grad, not backward(): nothing is added to the parameters' .grad.
        (gradient,) = paddle.grad(score, activation)
    with paddle.no_grad():
        weights = gradient.mean(axis=[2, 3], keepdim=True)
        maps = F.relu((weights * activation).sum(axis=1, keepdim=True))
        maps = F.interpolate(maps.astype("float32"), size=images.shape[2:], mode="bilinear", align_corners=False)
        maps = maps.squeeze(1)
        peaks = maps.max(axis=[1, 2], keepdim=True)
        return (maps / paddle.where(peaks > 0, peaks, paddle.ones_like(peaks))).numpy()


def _tensor(value: Any, dtype: str) -> paddle.Tensor:
    """``value`` as a tensor of its own, without history: marking it below does not touch the caller's."""
    value = value.detach() if isinstance(value, paddle.Tensor) else paddle.to_tensor(value)
    return value.astype(dtype)


def _forward(model: paddle.nn.Layer, images: paddle.Tensor, layer: str) -> tuple[paddle.Tensor, paddle.Tensor]:
    """The map of ``layer`` and the logits computed from it, connected for differentiation."""
    # After the last map comes only the head, so the trunk needs no graph, which saves memory and time.  For an
    # earlier map the images must ask for a gradient, or a fully frozen model would record none.
    images.stop_gradient = layer == LAST
    with paddle.set_grad_enabled(layer != LAST):
        features = dict(model.forward_features(images))
    if layer not in features:
        raise UserError(f"Grad-CAM：模型没有特征层 {layer!r}（可用：{'、'.join(features)}）")
    if layer == LAST:
        features[LAST] = features[LAST].detach()
        features[LAST].stop_gradient = False
    return features[layer], model.forward_head(features[LAST])


@contextlib.contextmanager
def _evaluating(model: paddle.nn.Layer) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every sublayer is in the mode it was in.

    ``model.eval()`` and ``model.train()`` would not do: the latter also wakes batch normalisation layers that
    fine-tuning keeps frozen.
    """
    modes = [(sublayer, sublayer.training) for sublayer in model.sublayers(include_self=True)]
    try:
        for sublayer, _ in modes:
            sublayer.training = False
        yield
    finally:
        for sublayer, training in modes:
            sublayer.training = training
