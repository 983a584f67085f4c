"""A model of PaddleSeg behind this project's interface: images in, one logit map a finding out.

PaddleSeg (Apache 2.0) is an optional package and only imported here and by :mod:`paddle_cxr.tasks.segmentation.losses`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from paddle import Tensor, nn
from paddle.nn import functional as F

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.quiet import importing, without_noise


def import_paddleseg() -> ModuleType:
    """The package ``paddleseg`` with its models and losses registered.

    Raises:
        UserError: it is not installed, or does not work with what else is.
    """
    with importing("Arch.name: PaddleSegModel 和 Loss.name: PaddleSegLoss 要用 paddleseg",
                   "请运行 python -m pip install -e \".[seg]\"（它要 numpy<2），或改用 UNet 和 BCEDiceLoss"):
        import paddleseg
        import paddleseg.models  # registers models, backbones and losses
    return paddleseg


def build_component(kind: str, name: str, arguments: Mapping[str, Any], path: str) -> Any:
    """A component of PaddleSeg; an argument ``{type: X, ...}`` is built first (a backbone, one of several losses).

    Args:
        kind: ``MODELS``, ``BACKBONES`` or ``LOSSES``, as PaddleSeg's ``manager`` calls them.
        path: where the recipe names it, for errors.

    Raises:
        UserError: no PaddleSeg, no such component, arguments it does not take.
    """
    import_paddleseg()
    from paddleseg.cvlibs import manager

    known = getattr(manager, kind).components_dict
    if name not in known:
        raise UserError(f"{path}：PaddleSeg 没有 {name}{did_you_mean(name, known)}（有：{'、'.join(sorted(known))}）")
    built = {key: _nested(kind, value, f"{path}.{key}") for key, value in arguments.items()}
    try:
        return known[name](**built)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}：{name} 不接受这些参数（{str(error).splitlines()[0]}）") from None


def _nested(kind: str, value: Any, path: str) -> Any:
    if isinstance(value, list):
        return [_nested(kind, one, path) for one in value]
    if isinstance(value, Mapping) and "type" in value:
        inner = "BACKBONES" if kind == "MODELS" else kind
        return build_component(inner, value["type"], {key: one for key, one in value.items() if key != "type"}, path)
    return value


class PaddleSegModel(nn.Layer):
    """A segmentation network of PaddleSeg.

    Args:
        model: its name in ``paddleseg.models``.
        outputs: K, one logit map each (PaddleSeg's ``num_classes``; they are no exclusive classes here).
        in_channels: of the images; a network that only takes 3 gets a grey image three times.
        arguments: the network's further arguments.

    Raises:
        UserError: as :func:`build_component`.
    """

    arch = "PaddleSegModel"

    def __init__(self, model: str, outputs: int, in_channels: int, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        import_paddleseg()
        from paddleseg.cvlibs import manager

        given = dict(arguments) | {"num_classes": outputs}
        known = manager.MODELS.components_dict
        takes = inspect.signature(known[model]).parameters if model in known else {}
        if "in_channels" in takes:
            given["in_channels"] = in_channels
        self._repeat = 3 if in_channels == 1 and "in_channels" not in takes else 1
        with without_noise():
            self.network = build_component("MODELS", model, given, "Arch.model")

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[N, C, H, W]`` → logits ``[N, K, H, W]``; auxiliary outputs are left aside."""
        size = x.shape[2:]
        if self._repeat > 1:
            x = x.expand([-1, self._repeat, -1, -1])
        logits = self.network(x)
        logits = logits[0] if isinstance(logits, list | tuple) else logits
        if logits.shape[2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear")
        return logits
