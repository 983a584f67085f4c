"""ResNet against Paddle's own, and the small-map convolution against Paddle's convolution."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle.nn import functional as F
from paddle.vision import models as reference

from paddle_cxr import models
from paddle_cxr.errors import UserError
from paddle_cxr.models.resnet import Convolution
from paddle_cxr.registry import build


@pytest.fixture(autouse=True)
def _seed():
    paddle.seed(0)


# Millions of parameters, batch-norm statistics left out, as torchvision's table of models gives them.
@pytest.mark.parametrize(("depth", "millions"), [(18, 11.69), (34, 21.80), (50, 25.56), (101, 44.55), (152, 60.19)])
def test_names_shapes_and_outputs_equal_paddles(depth, millions):
    ours = getattr(models, f"ResNet{depth}")()
    theirs = getattr(reference, f"resnet{depth}")()
    weights = theirs.state_dict()
    assert [(name, value.shape) for name, value in ours.state_dict().items()] == \
           [(name, value.shape) for name, value in weights.items()]
    count = sum(p.size for name, p in ours.named_parameters() if not name.endswith(("_mean", "_variance")))
    assert round(count / 1e6, 2) == millions
    ours.set_state_dict(weights)
    ours.eval()
    theirs.eval()
    images = paddle.rand([1, 3, 32, 64])
    assert np.abs((ours(images) - theirs(images)).numpy()).max() <= 1e-5


def test_training_step_equals_paddles():
    ours, theirs = models.ResNet18(class_num=5), reference.resnet18(num_classes=5)
    ours.set_state_dict(theirs.state_dict())
    images, labels = paddle.rand([8, 3, 64, 64]), paddle.arange(8) % 5
    for model in (ours, theirs):
        model.train()
        F.cross_entropy(model(images), labels).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        if a.grad is not None:
            difference = (a.grad - b.grad).norm() / b.grad.norm().clip(1e-6)
            assert float(difference) < 1e-3, name  # batch normalisation of four-pixel maps magnifies rounding
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 4), channels=st.sampled_from([(1, 3), (5, 2), (8, 8)]), size=st.sampled_from([1, 3, 7]),
       stride=st.sampled_from([1, 2]), height=st.integers(1, 14), width=st.integers(1, 14))
def test_one_product_is_the_same_convolution(batch, channels, size, stride, height, width):
    layer = Convolution(*channels, size, stride)
    layer.train()
    x = paddle.randn([batch, channels[0], height, width])
    x.stop_gradient = False
    expected = F.conv2d(x, layer.weight, stride=stride, padding=size // 2)
    direction = paddle.randn(expected.shape)
    wanted = paddle.grad((expected * direction).sum(), [x, layer.weight])
    y = layer(x)
    got = paddle.grad((y * direction).sum(), [x, layer.weight])
    assert y.shape == expected.shape
    for a, b in zip([y, *got], [expected, *wanted], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "channels"), [("ResNet34", [64, 128, 256, 512]),
                                                ("ResNet50", [256, 512, 1024, 2048])])
def test_feature_maps_and_head(name, channels):
    model = getattr(models, name)(class_num=4, in_channels=1)
    model.eval()
    images = paddle.rand([2, 1, 64, 96])
    maps = model.forward_features(images)
    assert [maps[f"layer{i}"].shape for i in (1, 2, 3, 4)] == [
        [2, c, 64 // r, 96 // r] for c, r in zip(channels, (4, 8, 16, 32), strict=True)]
    assert list(model.stage_dims.values()) == channels and model.feature_dim == channels[-1]
    np.testing.assert_array_equal(model.forward_head(maps["layer4"]).numpy(), model(images).numpy())
    assert all(float(value.min()) >= 0 for value in maps.values())


def test_without_head_it_returns_pooled_features():
    model = models.ResNet18(class_num=0, in_channels=1)
    images = paddle.rand([3, 1, 32, 32])
    model.eval()
    features = model(images)
    assert features.shape == [3, model.feature_dim]
    assert not [name for name in model.state_dict() if name.startswith("fc")]
    np.testing.assert_allclose(
        features.numpy(), model.forward_features(images)["layer4"].numpy().mean(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize(("arguments", "word"), [({"in_channels": 2}, "in_channels"), ({"class_num": -1}, "class_num"),
                                                 ({"class_num": "3"}, "class_num"), ({"depth": 3}, "depth")])
def test_bad_arguments_name_the_key(arguments, word):
    with pytest.raises(UserError, match=word):
        build("arch", {"name": "ResNet18", **arguments}, "Arch")
