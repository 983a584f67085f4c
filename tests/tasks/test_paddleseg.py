"""PaddleSeg's models and losses behind this project's interface; without PaddleSeg, one clear line."""

import importlib.util
import sys

import numpy as np
import paddle
import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.models.paddleseg_model import PaddleSegModel, import_paddleseg
from paddle_cxr.tasks.segmentation.losses import PaddleSegLoss

installed = pytest.mark.skipif(importlib.util.find_spec("paddleseg") is None, reason="paddleseg is not installed")


def test_without_paddleseg_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddleseg", None)
    for build in (lambda: PaddleSegModel("UNet", 1, 1, {}), lambda: PaddleSegLoss("DiceLoss"), import_paddleseg):
        with pytest.raises(UserError, match=r'paddleseg.*导入失败.*pip install -e "\.\[seg\]"') as error:
            build()
        assert "\n" not in str(error.value)


@installed
@pytest.mark.parametrize(("model", "arguments"), [
    ("UNet", {}), ("AttentionUNet", {}), ("UNetPlusPlus", {"in_channels": 1}),
    ("FCN", {"backbone": {"type": "HRNet_W18_Small_V1"}, "backbone_indices": [-1]})])
@pytest.mark.parametrize("channels", [1, 3])
def test_models_give_a_logit_map_a_finding(model, arguments, channels):
    paddle.seed(0)
    arguments = {key: channels if key == "in_channels" else value for key, value in arguments.items()}
    arguments.pop("in_channels", None)
    network = PaddleSegModel(model, 3, channels, arguments)
    network.train()
    found = network(paddle.rand([2, channels, 64, 96]))
    assert found.shape == [2, 3, 64, 96]
    found.mean().backward()
    learned = [p.grad is not None for p in network.parameters() if not p.stop_gradient]
    assert np.mean(learned) > 0.9


@installed
def test_wrong_names_and_arguments_are_one_clear_line():
    for build, message in ((lambda: PaddleSegModel("Unet", 1, 1, {}), "PaddleSeg 没有 Unet，是不是 UNet？"),
                           (lambda: PaddleSegModel("UNet", 1, 1, {"depth": 3}), "Arch.model：UNet 不接受这些参数"),
                           (lambda: PaddleSegLoss("DiceLos"), "Loss.loss：PaddleSeg 没有 DiceLos"),
                           (lambda: PaddleSegLoss("DiceLoss", {"beta": 1}), "Loss.loss：DiceLoss 不接受这些参数")):
        with pytest.raises(UserError, match=message):
            build()


def inputs():
    rng = np.random.default_rng(0)
    logits = paddle.to_tensor(rng.standard_normal((3, 2, 8, 8)).astype(np.float32), stop_gradient=False)
    masks = paddle.to_tensor((rng.random((3, 2, 8, 8)) < 0.4).astype(np.float32))
    return logits, masks, paddle.to_tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])


@installed
def test_dice_loss_is_that_of_two_classes():
    logits, masks, annotated = inputs()
    found = PaddleSegLoss("DiceLoss", {"smooth": 1.0})(logits, masks, annotated)
    p, y = 1 / (1 + np.exp(-logits.numpy().astype(float))), masks.numpy()
    total = 0.0
    for k, rows in ((0, [0, 2]), (1, [0, 1])):
        for one, truth in zip(p[rows, k], y[rows, k], strict=True):
            both = [(2 * (a * b).sum() + 1) / ((a + b).sum() + 1) for a, b in ((1 - one, 1 - truth), (one, truth))]
            total += (1 - np.mean(both)) / 6
    assert float(found) == pytest.approx(total, rel=1e-4)


@installed
@pytest.mark.parametrize(("loss", "arguments"), [
    ("DiceLoss", {}), ("LovaszHingeLoss", {}), ("LovaszSoftmaxLoss", {}), ("FocalLoss", {}),
    ("MixedLoss", {"losses": [{"type": "DiceLoss"}, {"type": "LovaszSoftmaxLoss"}], "coef": [1.0, 0.5]})])
def test_losses_fall_where_the_prediction_is_right_and_leave_out_what_is_unknown(loss, arguments):
    logits, masks, annotated = inputs()
    function = PaddleSegLoss(loss, arguments)
    found = function(logits, masks, annotated)
    found.backward()
    learned = np.abs(logits.grad.numpy()).sum(axis=(2, 3)) > 0
    assert np.array_equal(learned, annotated.numpy() > 0)
    assert float(function((masks * 2 - 1) * 9, masks, annotated)) < float(found)
    assert float(function(logits, masks, paddle.zeros([3, 2]))) == 0


@installed
def test_a_loss_that_does_not_run_on_this_paddle_is_refused_before_training():
    """PaddleSeg 2.8.0 multiplies integers and floats, which Paddle 3 refuses; a later release may have mended it."""
    for loss, arguments in (("CrossEntropyLoss", {}),
                            ("MixedLoss", {"losses": [{"type": "CrossEntropyLoss"}], "coef": [1.0]})):
        try:
            PaddleSegLoss(loss, arguments)
        except UserError as error:
            assert f"Loss.loss：PaddleSeg 的 {loss} 在" in str(error) and "BCEDiceLoss" in str(error)
