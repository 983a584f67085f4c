"""U-Net: outlines need both what is seen and where, and a classifier's network throws the "where" away.

A ResNet halves the picture five times; its last map knows there is a lung but only to 32 pixels.  The decoder goes the
same five steps back up.  At every step it gets the encoder's map of that size as well (the *skip connection*), which
still knows where the edges are::

    image    [N, C, H, W]       ───────────────────────────────────────┐
    stem     [N, 64, H/2, W/2]  ──────────────────────────→ join → up → logits [N, K, H, W]
    layer1   [N, 64 / 256, H/4, W/4]  ─────────────→ join → up
    layer2   [N, 128 / 512, H/8, W/8]  ─────→ join → up
    layer3   [N, 256 / 1024, H/16, W/16] → join → up
    layer4   [N, 512 / 2048, H/32, W/32] → up

Reference: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015),
arXiv:1505.04597.  As usual with a ResNet encoder the convolutions keep the size (padding), maps are enlarged by
repeating pixels, and batch normalisation follows every convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.models.resnet import Convolution, ResNet

STEPS = 5  # halvings of the encoder
_MULTIPLE = 2**STEPS


class UpBlock(nn.Layer):
    """Enlarge twice, join the encoder's map of that size, two 3x3 convolutions.

    Args:
        inputs: channels from below; skip: channels of the encoder's map, 0 for none; width: channels of the output.
    """

    def __init__(self, inputs: int, skip: int, width: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs + skip, width, 3)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = Convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """``[N, inputs, H, W]`` and ``[N, skip, 2H, 2W]`` → ``[N, width, 2H, 2W]``."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if skip is not None:
            x = paddle.concat([x, skip], axis=1)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class UNet(nn.Layer):
    """Where each of K things is, pixel by pixel; each by itself, so they may overlap.

    Args:
        encoder: any :class:`~paddle_cxr.models.resnet.ResNet`.
        outputs: K, how many things.
        widths: channels of the decoder's five steps, from the coarsest to the finest.
        freeze_encoder: train the decoder alone.  The encoder then stays as it is to the bit: its batch normalisation
            uses the statistics it came with, in training too.

    Attributes:
        image_encoder, decoder, head: the parts; tensors of a checkpoint are named after them.

    Raises:
        UserError: an encoder that is no ResNet, other than five widths, a width below 1.
    """

    arch = "UNet"
    head_name = "head"

    def __init__(self, encoder: nn.Layer, outputs: int, widths: Sequence[int] = (256, 128, 64, 32, 16),
                 freeze_encoder: bool = True) -> None:
        super().__init__()
        if not isinstance(encoder, ResNet):
            raise UserError(f"Arch.encoder.name：U-Net 的编码器（encoder）应为 ResNet18…ResNet152，"
                            f"现在是 {getattr(encoder, 'arch', type(encoder).__name__)}")
        if len(widths) != STEPS or min(widths) < 1:
            raise UserError(f"Arch.widths：应为 {STEPS} 个正整数（解码器由粗到细各步的通道数），现在是 {list(widths)}")
        self.image_encoder = encoder
        self.freeze_encoder = freeze_encoder
        for parameter in encoder.parameters() if freeze_encoder else []:
            parameter.stop_gradient = True
        dims = encoder.stage_dims
        skips = [dims["layer3"], dims["layer2"], dims["layer1"], encoder.conv1._out_channels, 0]
        inputs = [dims["layer4"], *widths[:-1]]
        self.decoder = nn.LayerList([UpBlock(*sizes) for sizes in zip(inputs, skips, widths, strict=True)])
        self.head = nn.Conv2D(widths[-1], outputs, 1)

    def train(self) -> None:
        """Training mode, but for a frozen encoder."""
        super().train()
        if self.freeze_encoder:
            self.image_encoder.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[N, C, H, W]`` of any size → logits ``[N, K, H, W]``; their sigmoid is a probability.

        A side that is no multiple of 32 is continued by its last row or column, which is cut off again.
        """
        height, width = x.shape[2:]
        below, right = -height % _MULTIPLE, -width % _MULTIPLE
        if below or right:
            x = F.pad(x, [0, right, 0, below], mode="replicate")
        *skips, x = self.encode(x)
        for block, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            x = block(x, skip)
        return self.head(x)[:, :, :height, :width]

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps, from the finest (the stem's, half the size) to the coarsest (``layer4``'s, 1/32)."""
        encoder = self.image_encoder
        stem = F.relu(encoder.bn1(encoder.conv1(x)))
        maps = [stem]
        x = encoder.maxpool(stem)
        for stage in (encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
            x = stage(x)
            maps.append(x)
        return maps
