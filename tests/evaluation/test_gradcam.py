"""Grad-CAM against numpy, and the promise that the model is afterwards as it was."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn
from PIL import Image

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.gradcam import grad_cam


class SmallNet(nn.Layer):
    """Two stages, then a hidden layer, so that the gradient of the last map is not constant."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2D(1, 4, 3, stride=2, padding=1), nn.BatchNorm2D(4), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2D(4, 6, 3, stride=2, padding=1), nn.BatchNorm2D(6), nn.ReLU())
        self.hidden = nn.Linear(6, 5)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(5, 3)

    def forward_features(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
        early = self.early(x)
        return {"layer1": early, "layer4": self.late(early)}

    def forward_head(self, layer4: paddle.Tensor) -> paddle.Tensor:
        return self.out(self.drop(nn.functional.sigmoid(self.hidden(layer4.mean(axis=[2, 3])))))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.forward_head(self.forward_features(x)["layer4"])


@pytest.fixture
def model() -> SmallNet:
    paddle.seed(0)
    return SmallNet()


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 1, 32, 24)).astype(np.float32)


def by_hand(model: SmallNet, images: np.ndarray, targets: list[int]) -> np.ndarray:
    """Grad-CAM with the head's gradient derived on paper and PIL's bilinear upsampling."""
    model.eval()
    with paddle.no_grad():
        maps = model.forward_features(paddle.to_tensor(images))["layer4"].numpy().astype(np.float64)
    model.train()
    hidden, out = model.hidden, model.out
    pooled = maps.mean(axis=(2, 3))
    s = 1 / (1 + np.exp(-(pooled @ hidden.weight.numpy() + hidden.bias.numpy())))
    # d logit_t / d map[c, i, j] = 1/(h w) Σ_u W_hidden[c, u] s_u (1 - s_u) W_out[u, t]; its mean over i, j is itself.
    weights = np.stack([(hidden.weight.numpy() * (s[n] * (1 - s[n]))) @ out.weight.numpy()[:, t]
                        for n, t in enumerate(targets)]) / maps[0, 0].size
    coarse = np.maximum((weights[:, :, None, None] * maps).sum(axis=1), 0).astype(np.float32)
    size = images.shape[3], images.shape[2]
    fine = np.stack([np.asarray(Image.fromarray(one, "F").resize(size, Image.Resampling.BILINEAR)) for one in coarse])
    return fine / np.maximum(fine.max(axis=(1, 2), keepdims=True), 1e-30)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_equals_numpy(model: SmallNet, images: np.ndarray) -> None:
    targets = [0, 1, 2, 1]
    maps = grad_cam(model, images, np.array(targets))
    assert maps.shape == (4, 32, 24) and maps.dtype == np.float32
    np.testing.assert_allclose(maps, by_hand(model, images, targets), atol=2e-5)
    assert maps.min() >= 0 and np.isclose(maps.max(axis=(1, 2)), 1).any()


def test_default_target_is_the_prediction(model: SmallNet, images: np.ndarray) -> None:
    model.eval()
    predicted = model(paddle.to_tensor(images)).argmax(axis=1)
    np.testing.assert_array_equal(grad_cam(model, images), grad_cam(model, paddle.to_tensor(images), predicted))


def test_does_not_depend_on_the_batch(model: SmallNet, images: np.ndarray) -> None:
    together = grad_cam(model, images, [0, 1, 2, 0])
    alone = np.concatenate([grad_cam(model, images[i:i + 1], [t]) for i, t in enumerate([0, 1, 2, 0])])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("layer", ["layer1", "layer4"])
def test_leaves_the_model_as_it_was(model: SmallNet, images: np.ndarray, layer: str) -> None:
    model.train()
    model.late[1].eval()  # frozen batch normalisation, as in fine-tuning
    model(paddle.to_tensor(images)).sum().backward()
    state = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}
    assert "early.0.weight" in gradients
    modes = [sublayer.training for sublayer in model.sublayers(include_self=True)]
    with paddle.no_grad():  # as an evaluation loop would call it
        grad_cam(model, images, layer=layer)
    assert [sublayer.training for sublayer in model.sublayers(include_self=True)] == modes
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[key])
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            np.testing.assert_array_equal(parameter.grad.numpy(), gradients.pop(name))
    assert not gradients
    assert all(not sublayer._forward_post_hooks and not sublayer._forward_pre_hooks
               for sublayer in model.sublayers(include_self=True))


def test_restores_the_mode_after_an_error(model: SmallNet, images: np.ndarray) -> None:
    model.train()
    with pytest.raises(UserError, match="layer9.*layer1、layer4"):
        grad_cam(model, images, layer="layer9")
    assert model.training and model.drop.training


@pytest.mark.parametrize("layer", ["layer1", "layer4"])
def test_a_frozen_model_can_be_explained(model: SmallNet, images: np.ndarray, layer: str) -> None:
    free = grad_cam(model, images, [0, 1, 2, 1], layer)
    for parameter in model.parameters():
        parameter.stop_gradient = True
    np.testing.assert_array_equal(grad_cam(model, images, [0, 1, 2, 1], layer), free)


def test_randomised_weights_change_the_map(model: SmallNet, images: np.ndarray) -> None:
    """Sanity check of Adebayo et al. 2018: an explanation must depend on what the model has learned."""
    before = grad_cam(model, images, [0, 1, 2, 1])
    paddle.seed(1)
    model.hidden.weight.set_value(paddle.randn(model.hidden.weight.shape))
    after = grad_cam(model, images, [0, 1, 2, 1])
    assert np.abs(before - after).mean() > 0.05


def test_nothing_speaks_for_the_class(model: SmallNet, images: np.ndarray) -> None:
    model.out.weight.set_value(paddle.zeros_like(model.out.weight))
    assert (grad_cam(model, images, [0, 1, 2, 1]) == 0).all()


def test_finds_the_place_a_score_comes_from() -> None:
    """A net whose score is brightness: the map must peak on the bright square."""

    class Brightness(nn.Layer):
        def forward_features(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
            return {"layer4": nn.functional.avg_pool2d(x, 8)}

        def forward_head(self, layer4: paddle.Tensor) -> paddle.Tensor:
            bright = layer4.mean(axis=[2, 3])
            return paddle.concat([bright, -bright], axis=1)

    image = np.zeros((1, 1, 64, 64), np.float32)
    image[0, 0, 8:16, 40:48] = 1
    heat = grad_cam(Brightness(), image, [0])[0]
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 8 <= row < 16 and 40 <= column < 48
    assert heat[40:].max() == 0 and (grad_cam(Brightness(), image, [1]) == 0).all()


def test_on_the_resnet_of_this_project() -> None:
    resnet = pytest.importorskip("paddle_cxr.models.resnet")
    paddle.seed(0)
    maps = grad_cam(resnet.ResNet18(class_num=3, in_channels=1), np.zeros((2, 1, 64, 64), np.float32), [0, 2])
    assert maps.shape == (2, 64, 64) and np.isfinite(maps).all()
