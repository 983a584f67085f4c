"""ResNet: deep networks that train, because every block only has to learn a *correction* to its input.

    y = relu(F(x) + x)

`F` is two or three convolutions.  If the best thing a block can do is nothing, it has to push `F` to zero, which is
easy; a plain stack would have to learn the identity, which is hard.  The addition also gives the gradient a road
around every block, so 152 layers still learn.

The parts, from small to large:

    BasicBlock        3x3, 3x3                ResNet-18 and -34
    BottleneckBlock   1x1, 3x3, 1x1           ResNet-50, -101 and -152
    ResNet            stem, four stages of blocks, average pooling, one linear layer

Reference: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), arXiv:1512.03385, table 1.
Parameter names and results equal ``paddle.vision.models.resnet*`` so that Paddle's ImageNet weights load.  Like there,
a bottleneck halves the resolution in its 3x3 and not in its first 1x1 convolution as the paper does ("v1.5": a
strided 1x1 never looks at three quarters of its input).

Shapes in the comments are ``[batch, channels, height, width]`` of a 224 x 224 image, ``N`` = batch.
"""

from __future__ import annotations

from typing import Literal

from paddle import Tensor, in_dynamic_mode, nn
from paddle.jit import not_to_static
from paddle.nn import functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register


class Convolution(nn.Conv2D):
    """A ``size x size`` convolution that keeps height and width (divided by ``stride``), without bias.

    The bias would do nothing: the batch normalisation that follows subtracts the mean, and any constant with it.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        size: 1, 3 or 7.
        stride: 2 halves height and width (rounded up), 1 keeps them.
    """

    # Output maps of at most so many pixels an image (7 x 7) are computed by one_product when training on a CPU.
    SMALL_MAP = 49

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride=stride, padding=size // 2, bias_attr=False)
        self.size = size
        self.stride = stride

    @not_to_static  # exporting traces this function as it is: the branch is Python's, not part of the saved graph
    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        if self.training and in_dynamic_mode() and x.place.is_cpu_place():
            height, width = (-(-side // self.stride) for side in x.shape[2:])  # divided, rounded up
            if height * width <= self.SMALL_MAP:
                return self.one_product(x, height, width)
        return super().forward(x)

    def one_product(self, x: Tensor, height: int, width: int) -> Tensor:
        """The same convolution as one matrix product over the whole batch: on a small map 1.2 to 3 times as fast.

        Every window the kernel sees becomes a column, and each output channel's weights a row:
        ``[outputs, inputs * size²] @ [inputs * size², N * H * W]``.  That is what a convolution is.  Paddle's own makes
        one such product an image, which wastes a CPU where ``H * W`` is small: a whole step of ResNet-50 (batch 32,
        64²) is 1.3 times as fast this way, of ResNet-18 (batch 32, 96²) 1.15 times.
        """
        windows = F.unfold(x, self.size, self.stride, self.size // 2)  # [N, inputs * size², H * W]
        columns = windows.transpose([1, 0, 2]).flatten(1)  # [inputs * size², N * H * W]
        y = self.weight.flatten(1) @ columns  # [outputs, N * H * W]
        return y.reshape([y.shape[0], -1, height, width]).transpose([1, 0, 2, 3])  # [N, outputs, H, W]


class BasicBlock(nn.Layer):
    """``relu(F(x) + x)`` with ``F`` = 3x3, 3x3 (paper, figure 5 left).

    Args:
        inputs: channels of the input.
        width: channels inside the block, and of the output.
        stride: 2 halves height and width, 1 keeps them.
    """

    expansion = 1  # output channels / width

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = Convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2D(width)
        self.downsample = shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, width, H / stride, W / stride]``."""
        y = F.relu(self.bn1(self.conv1(x)))  # [N, width, H/s, W/s]
        y = self.bn2(self.conv2(y))  # no relu yet: a correction may be negative
        x = x if self.downsample is None else self.downsample(x)
        return F.relu(y + x)


class BottleneckBlock(nn.Layer):
    """``relu(F(x) + x)`` with ``F`` = 1x1, 3x3, 1x1 (paper, figure 5 right).

    The first 1x1 narrows four times, so that the expensive 3x3 works on few channels; the last 1x1 widens again.

    Args:
        inputs: channels of the input.
        width: channels of the narrow middle; the output has ``4 * width``.
        stride: 2 halves height and width (in the 3x3), 1 keeps them.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = Convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2D(width)
        self.conv2 = Convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2D(width)
        self.conv3 = Convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2D(outputs)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` → ``[N, 4 * width, H / stride, W / stride]``."""
        y = F.relu(self.bn1(self.conv1(x)))  # [N, width, H, W]
        y = F.relu(self.bn2(self.conv2(y)))  # [N, width, H/s, W/s]
        y = self.bn3(self.conv3(y))  # [N, 4 width, H/s, W/s]
        x = x if self.downsample is None else self.downsample(x)
        return F.relu(y + x)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """The way around a block: None (the input itself) where the shapes agree, else a strided 1x1 convolution."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(Convolution(inputs, outputs, 1, stride), nn.BatchNorm2D(outputs))


class ResNet(nn.Layer):
    """An image classifier.

    Args:
        arch: the name this network is saved under, e.g. ``ResNet50``.
        block: :class:`BasicBlock` or :class:`BottleneckBlock`.
        depths: number of blocks in each of the four stages.
        class_num: number of classes; 0 leaves the last layer out, and :meth:`forward` returns pooled features.
        in_channels: 1 (grey, as a radiograph is) or 3.

    Attributes:
        arch, class_num, in_channels: as given.
        feature_dim: channels of ``layer4``, length of the pooled feature vector.
        stage_dims: channels of each stage, by name.
        stem, head: names of the first convolution and of the last layer, for :mod:`paddle_cxr.weights`.

    Raises:
        UserError: ``class_num`` is negative.
    """

    stem = "conv1"
    head = "fc"

    def __init__(self, arch: str, block: type[BasicBlock] | type[BottleneckBlock], depths: tuple[int, int, int, int],
                 class_num: int, in_channels: int) -> None:
        super().__init__()
        if class_num < 0:
            raise UserError(f"Arch.class_num：类别数应 ≥ 0（0 表示不要分类头 head），现在是 {class_num}")
        self.arch = arch
        self.class_num = class_num
        self.in_channels = in_channels
        self.stage_dims = {f"layer{i + 1}": 64 * 2**i * block.expansion for i in range(4)}
        self.feature_dim = self.stage_dims["layer4"]

        # Stem: a large window and two halvings, before anything gets expensive.
        self.conv1 = Convolution(in_channels, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2D(64)
        self.maxpool = nn.MaxPool2D(3, stride=2, padding=1)

        # Stages: each but the first halves the resolution and doubles the channels.
        self.layer1 = stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = stage(block, self.stage_dims["layer1"], 128, depths[1], stride=2)
        self.layer3 = stage(block, self.stage_dims["layer2"], 256, depths[2], stride=2)
        self.layer4 = stage(block, self.stage_dims["layer3"], 512, depths[3], stride=2)

        if class_num > 0:
            self.fc = nn.Linear(self.feature_dim, class_num)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[N, in_channels, H, W]``, float32, normalised → logits ``[N, class_num]`` (any real number).

        Softmax of the logits gives probabilities.  With ``class_num`` 0: pooled features ``[N, feature_dim]``.
        """
        return self.forward_head(self.forward_features(x)["layer4"])

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """The maps of all four stages, for Grad-CAM, pretraining and segmentation.

        Returns ``layer1`` … ``layer4``: ``[N, stage_dims[name], H / r, W / r]``, r = 4, 8, 16, 32, values ≥ 0.
        """
        x = F.relu(self.bn1(self.conv1(x)))  # [N, 64, 112, 112]
        x = self.maxpool(x)  # [N, 64, 56, 56]
        maps = {}  # channels: basic / bottleneck
        maps["layer1"] = x = self.layer1(x)  # [N, 64 / 256, 56, 56]
        maps["layer2"] = x = self.layer2(x)  # [N, 128 / 512, 28, 28]
        maps["layer3"] = x = self.layer3(x)  # [N, 256 / 1024, 14, 14]
        maps["layer4"] = x = self.layer4(x)  # [N, 512 / 2048, 7, 7]
        return maps

    def forward_head(self, layer4: Tensor) -> Tensor:
        """Last map ``[N, feature_dim, h, w]`` → logits ``[N, class_num]``, or ``[N, feature_dim]`` without a head."""
        pooled = F.adaptive_avg_pool2d(layer4, 1).flatten(1)  # [N, 512 / 2048]: any image size ends in one vector
        return self.fc(pooled) if self.class_num > 0 else pooled


def stage(block: type[BasicBlock] | type[BottleneckBlock], inputs: int, width: int, depth: int, stride: int
          ) -> nn.Sequential:
    """``depth`` blocks in a row; the first changes resolution and channels, the others keep them."""
    outputs = width * block.expansion
    return nn.Sequential(block(inputs, width, stride), *[block(outputs, width, 1) for _ in range(depth - 1)])


@register("arch")
def ResNet18(class_num: int = 1000, in_channels: Literal[1, 3] = 3) -> ResNet:
    """11.7 million parameters with 1000 classes, 1.8 GFLOPs (multiply-adds) at 224²."""
    return ResNet("ResNet18", BasicBlock, (2, 2, 2, 2), class_num, in_channels)


@register("arch")
def ResNet34(class_num: int = 1000, in_channels: Literal[1, 3] = 3) -> ResNet:
    """21.8 million parameters, 3.6 GFLOPs."""
    return ResNet("ResNet34", BasicBlock, (3, 4, 6, 3), class_num, in_channels)


@register("arch")
def ResNet50(class_num: int = 1000, in_channels: Literal[1, 3] = 3) -> ResNet:
    """25.6 million parameters, 4.1 GFLOPs."""
    return ResNet("ResNet50", BottleneckBlock, (3, 4, 6, 3), class_num, in_channels)


@register("arch")
def ResNet101(class_num: int = 1000, in_channels: Literal[1, 3] = 3) -> ResNet:
    """44.5 million parameters, 7.8 GFLOPs."""
    return ResNet("ResNet101", BottleneckBlock, (3, 4, 23, 3), class_num, in_channels)


@register("arch")
def ResNet152(class_num: int = 1000, in_channels: Literal[1, 3] = 3) -> ResNet:
    """60.2 million parameters, 11.5 GFLOPs."""
    return ResNet("ResNet152", BottleneckBlock, (3, 8, 36, 3), class_num, in_channels)
