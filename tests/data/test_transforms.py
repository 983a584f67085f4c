"""The augmentations of one picture: against PIL, in their ranges, at their rate, in random order."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from paddle_cxr.data import transforms as T
from paddle_cxr.errors import UserError
from paddle_cxr.registry import components

FACTORS = (0.5, 0.8, 1.0, 1.2, 1.5)
ENHANCERS = {T.RandomBrightness: ImageEnhance.Brightness, T.RandomContrast: ImageEnhance.Contrast,
             T.RandomColor: ImageEnhance.Color, T.RandomSharpness: ImageEnhance.Sharpness}
SEVEN = [{"name": kind.__name__} for kind in (*ENHANCERS, T.RandomHorizontalFlip, T.RandomRotation, T.GaussianNoise)]


def picture(height=61, width=47, color=False, seed=0):
    """Smooth structure with some noise, all grey levels present."""
    rng = np.random.default_rng(seed)
    shape = (height, width, 3) if color else (height, width)
    coarse = rng.integers(0, 256, (9, 7, *shape[2:]), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return np.clip(smooth + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("kind", ENHANCERS)
def test_enhancements_equal_pil_within_one_grey_level(kind, color):
    image = picture(color=color)
    for factor in FACTORS:
        expected = ENHANCERS[kind](Image.fromarray(image)).enhance(factor)
        assert difference(kind().apply(image, factor), expected) <= 1


def test_colour_leaves_a_grey_picture_alone():
    image = picture()
    assert np.array_equal(T.RandomColor(prob=1.0)(image, np.random.default_rng(0)), image)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("angle", [-30, -7, 0, 12.5, 30])
def test_rotation_equals_pil(angle, color):
    image = picture(color=color)
    expected = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR)
    fixed = T.RandomRotation(degrees=0)
    fixed.degrees = 30
    matrix = fixed.sample(FixedDraws(angle), 1, image.shape[:2])[0]
    assert difference(fixed.apply(image, matrix), expected) <= 1


class FixedDraws:
    """A generator whose every uniform number is ``value`` where the range allows it."""

    def __init__(self, value):
        self.value = value

    def uniform(self, low, high, count):
        return np.full(count, np.clip(self.value, low, high))


def test_flip_mirrors_left_and_right():
    image = picture()
    assert np.array_equal(T.RandomHorizontalFlip(prob=1.0)(image, np.random.default_rng(0)), image[:, ::-1])


def test_noise_has_its_sigma_and_never_wraps_around():
    rng = np.random.default_rng(0)
    noise = T.GaussianNoise(low=10, high=10, prob=1.0)
    grey = noise(np.full((200, 200), 128, np.uint8), rng).astype(float)
    assert abs(grey.mean() - 128) < 0.3 and abs(grey.std() - 10) < 0.2
    assert noise(np.zeros((200, 200), np.uint8), rng).max() < 80
    assert noise(np.full((200, 200), 255, np.uint8), rng).min() > 175


def test_gamma_keeps_black_and_white_and_bends_the_rest():
    levels = np.arange(256, dtype=np.uint8)[None]
    bent = T.RandomGamma().apply(levels, 2.0)[0]
    assert bent[0] == 0 and bent[255] == 255
    assert difference(bent, np.rint(255 * (np.arange(256) / 255) ** 2)) == 0


def test_resized_crop_shows_a_rectangle_of_the_asked_area():
    crop = T.RandomResizedCrop(scale=(0.3, 0.5), ratio=(0.8, 1.25))
    matrices = crop.sample(np.random.default_rng(0), 500, (60, 60))
    area = matrices[:, 0, 0] * matrices[:, 1, 1]
    assert area.min() >= 0.3 - 1e-9 and area.max() <= 0.5 + 1e-9
    corner = matrices[:, :, 2]
    assert corner.min() >= 0 and (corner + 60 * matrices[:, [0, 1], [0, 1]]).max() <= 60 + 1e-9
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (60, 1))
    shown = crop.apply(ramp, matrices[0])[30]
    left, right = corner[0, 0], corner[0, 0] + 60 * matrices[0, 0, 0]
    assert abs(shown[0] - 4 * left) < 5 and abs(shown[-1] - 4 * (right - 1)) < 5


@pytest.mark.parametrize("name", [spec["name"] for spec in SEVEN])
def test_applied_at_the_rate_of_prob_and_within_the_range(name):
    kind = components("transform")[name]
    amounts = kind().sample(np.random.default_rng(1), 2000, (40, 40))
    if isinstance(kind(), T._Factor):
        assert 0.5 <= amounts.min() < 0.52 and 1.48 < amounts.max() <= 1.5
    elif kind is T.RandomRotation:
        angles = np.degrees(np.arctan2(amounts[:, 1, 0], amounts[:, 0, 0]))
        assert -30 <= angles.min() < -29 and 29 < angles.max() <= 30
    elif kind is T.GaussianNoise:
        assert 0 <= amounts.min() < 0.2 and 9.8 < amounts.max() <= 10
    image = picture(12, 10, color=True)
    rng, never, always = np.random.default_rng(0), kind(prob=0.0), kind(prob=1.0)
    assert all(np.array_equal(never(image, rng), image) for _ in range(20))
    changed = [not np.array_equal(kind(prob=0.5)(image, rng), image) for _ in range(400)]
    every = np.mean([not np.array_equal(always(image, rng), image) for _ in range(100)])  # 1.001 may not show
    assert every > 0.9
    assert 0.5 * every - 0.1 < np.mean(changed) < 0.5 + 0.1


def test_random_order_meets_every_order():
    seen = collections.Counter()
    order = T.RandomOrder([])
    order.transforms = [lambda image, rng, mark=mark: image + [mark] for mark in "abc"]
    rng = np.random.default_rng(0)
    for _ in range(600):
        seen["".join(order([], rng))] += 1
    assert len(seen) == 6 and min(seen.values()) > 60


def test_same_seed_same_picture_and_the_original_is_left_alone():
    transform = T.build_transforms([{"name": "RandomOrder", "transforms": SEVEN}], "ops")
    image = picture()
    image.flags.writeable = False  # as a memory map is
    results = [transform(image, np.random.default_rng((7, turn))) for turn in (0, 0, 1, 2, 3)]
    assert np.array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0], other) for other in results[2:])
    assert np.array_equal(image, picture())


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 40), width=st.integers(1, 40), color=st.booleans(), seed=st.integers(0, 10**6))
def test_any_shape_comes_back_as_it_went_in(height, width, color, seed):
    transform = T.build_transforms([[spec | {"prob": 1.0} for spec in SEVEN], {"name": "RandomAffine"},
                                    {"name": "RandomResizedCrop"}, {"name": "RandomGamma"}], "ops")
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3) if color else (height, width), np.uint8)
    result = transform(image, np.random.default_rng(seed))
    assert result.shape == image.shape and result.dtype == np.uint8


def test_lists_nest_and_none_means_none():
    image = picture()
    assert T.build_transforms(None, "ops")(image, np.random.default_rng(0)) is image
    nested = T.build_transforms([{"name": "RandomOrder", "transforms": [SEVEN[:2], SEVEN[4]]}], "ops")
    assert nested(image, np.random.default_rng(0)).shape == image.shape


@pytest.mark.parametrize("specs, words", [
    ([{"name": "RandomBrigtness"}], r"ops\.0\.name.*RandomBrightness"),
    ([{"name": "RandomFlip"}], r"ops\.0\.name"),
    ([{"name": "RandomOrder", "transforms": [{"name": "RandomContrast", "lo": 1}]}], r"ops\.0\.transforms\.0\.lo.*low"),
    ([{"name": "RandomContrast", "low": 2.0, "high": 1.0}], r"ops\.0.*RandomContrast.*low"),
    ([{"name": "RandomContrast", "prob": 1.5}], r"ops\.0.*prob"),
    ([[{"name": "GaussianNoise", "low": -1.0}]], r"ops\.0\.0.*low"),
    ([{"name": "RandomRotation", "degrees": "x"}], r"ops\.0\.degrees"),
    ([{"name": "RandomAffine", "scale": [0.0, 1.0]}], r"ops\.0.*scale"),
    ([{"name": "RandomResizedCrop", "scale": [0.5, 2.0]}], r"ops\.0.*scale"),
    ([{"name": "RandomOrder", "yaml_path": "x", "transforms": []}], r"ops\.0\.yaml_path"),
    ({"name": "RandomContrast"}, "ops.*列表"),
])
def test_a_mistake_in_the_recipe_names_its_place(specs, words):
    with pytest.raises(UserError, match=words) as error:
        T.build_transforms(specs, "ops")
    assert "\n" not in str(error.value)
