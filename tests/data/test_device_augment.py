"""Batched augmentation on a device: the same operations, ranges and rates as one by one; and mixup."""

import numpy as np
import paddle
import pytest
from test_transforms import SEVEN, picture

from paddle_cxr.data import transforms as T
from paddle_cxr.data.device_augment import device_augment_from
from paddle_cxr.data.mixing import Mixup
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, register


def augment(specs, images, seed=0):
    return device_augment_from(specs, "ops")(paddle.to_tensor(images), seed).numpy()


class Recorded:
    """Stands for a transform's sample(): the same draws, remembered."""

    def __init__(self, kind, monkeypatch):
        original = kind.sample
        self.amounts = None

        def sample(transform, rng, count, size):
            self.amounts = original(transform, rng, count, size)
            return self.amounts

        monkeypatch.setattr(kind, "sample", sample)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("kind", [T.RandomBrightness, T.RandomContrast, T.RandomColor, T.RandomSharpness, T.RandomGamma,
                                  T.RandomHorizontalFlip, T.RandomRotation, T.RandomAffine, T.RandomResizedCrop])
def test_same_amount_same_picture_within_two_grey_levels(kind, color, monkeypatch):
    recorded = Recorded(kind, monkeypatch)
    images = np.stack([picture(color=color, seed=i) for i in range(6)])
    result = augment([{"name": kind.__name__, "prob": 1.0}], images, seed=3)
    expected = [kind().apply(image, amount) for image, amount in zip(images, recorded.amounts, strict=True)]
    assert result.shape == images.shape and result.dtype == np.float32
    assert np.abs(result - np.stack(expected)).max() <= 2


@pytest.mark.parametrize("name", [*(spec["name"] for spec in SEVEN), "RandomAffine", "RandomResizedCrop"])
def test_prob_0_changes_nothing(name):
    images = np.stack([picture(color=True, seed=i) for i in range(3)])
    np.testing.assert_allclose(augment([{"name": name, "prob": 0.0}], images), images, atol=2e-3)


@pytest.mark.parametrize("name", [spec["name"] for spec in SEVEN])
def test_prob_is_the_share_of_pictures_changed(name):
    images = np.broadcast_to(picture(16, 16, color=True), (400, 16, 16, 3)).copy()
    result = augment([{"name": name, "prob": 0.5}], images)
    changed = (np.abs(result - images).max((1, 2, 3)) > 0.01).mean()
    assert 0.42 < changed < 0.58


def test_factors_of_a_batch_are_independent_and_cover_the_range():
    images = np.full((500, 4, 4), 100, np.uint8)
    factors = augment([{"name": "RandomBrightness", "prob": 1.0}], images)[:, 0, 0] / 100
    assert 0.5 <= factors.min() < 0.52 and 1.48 < factors.max() <= 1.5
    assert abs(np.corrcoef(factors[:-1], factors[1:])[0, 1]) < 0.15


def test_noise_has_its_sigma_and_stays_in_range():
    noise = [{"name": "GaussianNoise", "low": 10, "high": 10, "prob": 1.0}]
    grey = augment(noise, np.full((4, 100, 100), 128, np.uint8))
    assert abs(grey.std() - 10) < 0.2 and abs(grey.mean() - 128) < 0.3
    assert np.abs(np.corrcoef(grey.reshape(4, -1)) - np.eye(4)).max() < 0.05
    assert augment(noise, np.zeros((4, 100, 100), np.uint8)).min() == 0


def test_seed_decides_everything_and_paddle_s_own_random_state_is_left_alone():
    specs = [{"name": "RandomOrder", "transforms": SEVEN}]
    images = np.stack([picture(seed=i) for i in range(4)])
    paddle.seed(5)
    expected = paddle.randn([3]).numpy(), paddle.randn([3]).numpy()
    paddle.seed(5)
    first = paddle.randn([3]).numpy()
    a, b, c = (augment(specs, images, seed) for seed in (1, 1, 2))
    second = paddle.randn([3]).numpy()
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert np.array_equal(first, expected[0]) and np.array_equal(second, expected[1])
    assert a.min() >= 0 and a.max() <= 255


def test_batches_meet_every_order():
    # Half the noise-free grey level and gamma 2 do not commute: 255 · (100/510)² against 255 · (100/255)² / 2.
    specs = [{"name": "RandomOrder", "transforms": [
        {"name": "RandomBrightness", "low": 0.5, "high": 0.5, "prob": 1.0},
        {"name": "RandomGamma", "low": 2.0, "high": 2.0, "prob": 1.0}]}]
    levels = {round(float(augment(specs, np.full((1, 3, 3), 100, np.uint8), seed)[0, 0, 0])) for seed in range(12)}
    assert levels == {round(255 * (50 / 255) ** 2), round(255 * (100 / 255) ** 2 / 2)}
    assert round(float(augment(specs[0]["transforms"], np.full((1, 3, 3), 100, np.uint8))[0, 0, 0])) == 10


def test_an_operation_without_a_device_version_is_named():
    @register("transform")
    class OnlyOnCpu(T.RandomTransform):
        def __init__(self) -> None:
            super().__init__(1.0)

    with pytest.raises(UserError, match="ops：OnlyOnCpu.*augment_on"):
        device_augment_from([{"name": "RandomOrder", "transforms": [{"name": "OnlyOnCpu"}]}], "ops")
    with pytest.raises(UserError, match=r"ops\.0\.name"):
        device_augment_from([{"name": "Nothing"}], "ops")


# --- mixup ----------------------------------------------------------------------------------------------------------

def test_mixup_blends_pictures_and_labels_with_the_same_share():
    images = paddle.arange(6, dtype="float32").reshape([6, 1, 1, 1]).expand([6, 2, 3, 3])
    targets = paddle.eye(6)
    mixed, soft = Mixup(alpha=1.0)(images, targets, np.random.default_rng(0))
    assert mixed.shape == images.shape
    np.testing.assert_allclose(soft.sum(axis=1).numpy(), 1, atol=1e-6)
    # A picture holds its number, a label its place: the label's mean place must be the picture's value.
    np.testing.assert_allclose(mixed[:, 0, 0, 0].numpy(), (soft @ paddle.arange(6, dtype="float32")).numpy(), atol=1e-5)


def test_mixup_share_follows_beta_and_prob():
    targets, rng = paddle.eye(2), np.random.default_rng(0)
    images = paddle.zeros([2, 1, 1, 1])
    shares = np.array([Mixup(alpha=0.2)(images, targets, rng)[1].numpy()[0].max() for _ in range(300)])
    assert (shares > 0.9).mean() > 0.5
    assert Mixup(prob=0.0)(images, targets, rng)[0] is images


def test_mixup_is_deterministic_and_checks_its_arguments():
    images, targets = paddle.randn([4, 1, 2, 2]), paddle.eye(4)
    first, second = (Mixup(alpha=1.0)(images, targets, np.random.default_rng(3))[0].numpy() for _ in range(2))
    assert np.array_equal(first, second)
    assert isinstance(build("batch_transform", {"name": "Mixup", "alpha": 0.4}, "ops"), Mixup)
    with pytest.raises(UserError, match="alpha"):
        Mixup(alpha=0.0)
    with pytest.raises(UserError, match="prob"):
        Mixup(prob=2.0)
