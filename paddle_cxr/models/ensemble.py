"""Deep ensemble: several networks that start differently and learn alone, and answer together.

On a few hundred films with doubtful labels one network trained twice disagrees with itself on many of them; the mean of
a few is steadier than any (Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", NeurIPS 2017).  It costs as many times the time and memory as it has members.
"""

from __future__ import annotations

from typing import Any, Literal

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, register

_SMALLEST = 1e-12  # keeps the logarithm of a probability that rounds to 0 finite


@register("arch")
class Ensemble(nn.Layer):
    """``members`` networks of one kind with the same classes and channels.

    Args:
        member: the network, as ``Arch`` would be written: ``{name: ResNet18}``.
        members: how many, at least 2.
        class_num: number of classes.
        in_channels: 1 (grey) or 3.

    Raises:
        UserError: fewer than two members, unknown network.
    """

    def __init__(self, member: dict[str, Any], members: int = 3, class_num: int = 1000,
                 in_channels: Literal[1, 3] = 3) -> None:
        super().__init__()
        if members < 2:
            raise UserError(f"Arch.members：集成（ensemble）至少 2 个网络，现在是 {members}；只要一个就直接写它")
        spec = {**member, "class_num": class_num, "in_channels": in_channels}
        self.members = nn.LayerList([build("arch", spec, "Arch.member") for _ in range(members)])
        self.arch = "Ensemble"

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] → logits.

        In training [N, members, class_num]: each member has a loss of its own, or they would only learn to make up for
        each other.  In evaluation [N, class_num], whose softmax is the mean of the members' probabilities.
        """
        if self.training:
            return paddle.stack([member(x) for member in self.members], axis=1)
        return self.forward_head(self.forward_features(x)["layer4"])

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """The members' maps side by side: name → [N, members · channels, h, w]."""
        maps = [member.forward_features(x) for member in self.members]
        return {name: paddle.concat([each[name] for each in maps], axis=1) for name in maps[0]}

    def forward_head(self, layer4: Tensor) -> Tensor:
        """The last maps side by side → logits [N, class_num]: the logarithm of the mean probability."""
        parts = paddle.chunk(layer4, len(self.members), axis=1)
        probabilities = [F.softmax(member.forward_head(part), axis=1)
                         for member, part in zip(self.members, parts)]  # noqa: B905 - Paddle's export knows no strict
        return paddle.log(sum(probabilities[1:], probabilities[0]) / len(parts) + _SMALLEST)
