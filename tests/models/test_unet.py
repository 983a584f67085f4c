"""The U-Net: its shapes, what a frozen encoder is, and that every part it should train learns."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr import models
from paddle_cxr.errors import UserError
from paddle_cxr.models.unet import UNet

NARROW = (8, 8, 8, 8, 8)


def unet(depth=18, channels=1, outputs=2, **arguments):
    paddle.seed(0)
    return UNet(getattr(models, f"ResNet{depth}")(class_num=0, in_channels=channels), outputs, NARROW, **arguments)


@pytest.mark.parametrize(("depth", "channels"), [(18, 1), (34, 3), (50, 1), (101, 1), (152, 3)])
def test_every_encoder_gives_a_map_of_the_images_size(depth, channels):
    model = unet(depth, channels, 3)
    model.eval()
    images = paddle.rand([1, channels, 64, 96])
    assert model(images).shape == [1, 3, 64, 96]
    stages = model.image_encoder.forward_features(images)
    for mine, name in zip(model.encode(images)[1:], ("layer1", "layer2", "layer3", "layer4"), strict=True):
        assert np.array_equal(mine.numpy(), stages[name].numpy())


@settings(max_examples=8)
@given(height=st.integers(32, 100), width=st.integers(32, 100))
def test_any_size_is_padded_and_cut_back(height, width):
    model = unet()
    model.eval()
    images = paddle.rand([1, 1, height, width])
    found = model(images).numpy()
    assert found.shape == (1, 2, height, width)
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (0, -height % 32), (0, -width % 32)], mode="edge")
    assert np.allclose(found, model(paddle.to_tensor(padded)).numpy()[:, :, :height, :width], atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_stays_to_the_bit_and_all_else_learns(frozen):
    model = unet(freeze_encoder=frozen)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    model.train()
    trained = [p for p in model.parameters() if not p.stop_gradient]
    optimizer = paddle.optimizer.AdamW(1e-2, parameters=trained)
    for _ in range(2):
        loss = (model(paddle.rand([4, 1, 32, 32])) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
    moved = {name for name, value in model.state_dict().items() if not np.array_equal(value.numpy(), before[name])}
    encoder = {name for name in before if name.startswith("image_encoder.")}
    assert not (moved & encoder) if frozen else len(moved & encoder) > 0.9 * len(encoder)
    assert moved >= {name for name in before if name.startswith(("decoder.", "head."))}
    assert model.training and model.decoder[0].bn1.training and model.image_encoder.bn1.training is not frozen


def test_a_frozen_encoder_uses_the_statistics_it_came_with():
    """In training as in evaluation: otherwise the decoder learns from maps it will never see again."""
    model = unet()
    images = paddle.rand([4, 1, 32, 32])
    model.train()
    training = [one.numpy() for one in model.encode(images)]
    model.eval()
    for seen, wanted in zip(training, model.encode(images), strict=True):
        assert np.allclose(seen, wanted.numpy(), atol=1e-6)


def test_skip_connections_are_joined_where_they_belong():
    """Where only one map of the encoder is not zero, the output still depends on it."""
    model = unet()
    model.eval()
    for number in range(5):
        maps = [paddle.zeros_like(one) for one in model.encode(paddle.rand([1, 1, 32, 32]))]
        model.encode = lambda _, maps=maps: list(maps)
        empty = model(paddle.rand([1, 1, 32, 32])).numpy()
        maps[number] = maps[number] + paddle.rand(maps[number].shape)
        assert not np.allclose(model(paddle.rand([1, 1, 32, 32])).numpy(), empty), number
        del model.encode


def test_wrong_parts_are_refused():
    with pytest.raises(UserError, match="编码器（encoder）应为 ResNet18"):
        UNet(paddle.nn.Linear(2, 2), 1)
    for widths in ((8, 8), (8, 8, 8, 8, 0)):
        with pytest.raises(UserError, match="Arch.widths：应为 5 个正整数"):
            UNet(models.ResNet18(class_num=0, in_channels=1), 1, widths)
