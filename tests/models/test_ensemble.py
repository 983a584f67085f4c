"""An ensemble: members that learn alone and answer together."""

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.gradcam import grad_cam
from paddle_cxr.models import Ensemble
from paddle_cxr.registry import build
from paddle_cxr.tasks.losses import CrossEntropy


@pytest.fixture
def ensemble():
    paddle.seed(0)
    return Ensemble({"name": "ResNet18"}, members=3, class_num=4, in_channels=1)


def test_it_answers_with_the_mean_probability(ensemble):
    ensemble.eval()
    images = paddle.rand([5, 1, 64, 64])
    alone = [F.softmax(member(images), axis=1).numpy() for member in ensemble.members]
    np.testing.assert_allclose(F.softmax(ensemble(images), axis=1).numpy(), np.mean(alone, axis=0), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3  # they start differently


def test_each_member_learns_as_it_would_alone(ensemble):
    ensemble.train()
    images, labels = paddle.rand([6, 1, 64, 64]), paddle.to_tensor([0, 1, 2, 3, 0, 1])
    targets = F.one_hot(labels, 4)
    loss = CrossEntropy((1, 1, 1, 1), label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5, 1.0])
    whole = loss(ensemble(images), targets)
    whole.backward()
    together = [member.conv1.weight.grad.numpy() for member in ensemble.members]
    alone = []
    for member in ensemble.members:
        ensemble.clear_gradients()
        one = loss(member(images), targets)
        one.backward()
        alone.append((float(one), member.conv1.weight.grad.numpy()))
    assert float(whole) == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-5)
    for got, (_, wanted) in zip(together, alone, strict=True):
        np.testing.assert_allclose(got * 3, wanted, rtol=1e-3, atol=1e-5)


def test_grad_cam_sees_all_members(ensemble):
    images = paddle.rand([2, 1, 64, 64])
    heat = grad_cam(ensemble, images)
    assert heat.shape == (2, 64, 64) and heat.max() == pytest.approx(1)
    assert ensemble.training


def test_mistakes_name_the_key():
    with pytest.raises(UserError, match=r"Arch.members：.*至少 2"):
        build("arch", {"name": "Ensemble", "member": {"name": "ResNet18"}, "members": 1}, "Arch")
    with pytest.raises(UserError, match=r"Arch.member.name：.*ResNet17.*ResNet18"):
        build("arch", {"name": "Ensemble", "member": {"name": "ResNet17"}}, "Arch")
