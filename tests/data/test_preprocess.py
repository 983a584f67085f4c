"""Geometry and grey levels: against PIL, against the formula, and the same on numpy and on tensors."""

import json

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from paddle_cxr.data.preprocess import Preprocess, clahe
from paddle_cxr.errors import UserError


def picture(height, width, color=False, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3) if color else (height, width), dtype=np.uint8)


def test_squash_is_antialiased_bilinear_of_the_grey_picture():
    image = picture(90, 70, color=True)
    expected = Image.fromarray(image).convert("L").resize((40, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(Preprocess((1, 30, 40)).geometry(image), np.asarray(expected))


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (256, 128))
    assert np.ptp(Preprocess((1, 32, 32)).geometry(stripes)[:, 1:-1].astype(int)) < 40


@settings(deadline=None, max_examples=60)
@given(height=st.integers(1, 120), width=st.integers(1, 120), source_color=st.booleans(), color=st.booleans(),
       resize=st.sampled_from(["squash", "letterbox", "crop"]))
def test_any_picture_gets_the_cached_shape(height, width, source_color, color, resize):
    preprocess = Preprocess((3, 24, 32), resize=resize, color=color)
    result = preprocess.geometry(picture(height, width, source_color))
    assert result.shape == preprocess.cached_shape == ((24, 32, 3) if color else (24, 32))
    assert result.dtype == np.uint8


def test_letterbox_keeps_proportions_and_pads_with_black():
    result = Preprocess((1, 40, 40), resize="letterbox").geometry(np.full((50, 100), 200, np.uint8))
    assert (result[10:30] == 200).all() and not result[:10].any() and not result[30:].any()


def test_crop_keeps_proportions_and_the_middle():
    image = np.zeros((50, 100), np.uint8)
    image[:, 25:75] = 200
    assert (Preprocess((1, 50, 50), resize="crop").geometry(image) == 200).all()


def test_letterbox_equalises_before_padding():
    image = picture(50, 100)
    equalised = np.asarray(ImageOps.equalize(Image.fromarray(image)))
    result = Preprocess((1, 100, 100), resize="letterbox", equalize="hist").geometry(image)
    assert np.array_equal(result[25:75], equalised)


def test_normalise_is_the_formula_per_channel():
    batch = np.stack([picture(8, 9, seed=i) for i in range(4)])
    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    result = Preprocess((3, 8, 9), mean=mean, std=std).normalize(batch)
    expected = np.stack([(batch / 255 - m) / s for m, s in zip(mean, std, strict=True)], axis=1)
    assert result.shape == (4, 3, 8, 9) and result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_color_goes_to_channels_first():
    batch = picture(8, 9, color=True)[None]
    result = Preprocess((3, 8, 9), mean=[0.0], std=[1.0], color=True).normalize(batch)
    np.testing.assert_allclose(result, batch.transpose(0, 3, 1, 2) / 255, atol=1e-6)


def test_per_image_gives_mean_0_and_sd_1_whatever_the_exposure():
    image = picture(16, 16).astype(np.float32) / 2
    result = Preprocess((3, 16, 16), normalize="per_image").normalize(np.stack([image, image * 0.5 + 60]))
    np.testing.assert_allclose(result.mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std((2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(result[0], result[1], atol=1e-4)


def test_per_image_of_a_blank_film_is_zero_and_not_nan():
    assert not Preprocess((1, 8, 8), normalize="per_image").normalize(np.full((2, 8, 8), 77, np.uint8)).any()


@pytest.mark.parametrize("arguments", [
    {"image_shape": (1, 20, 24)}, {"image_shape": (3, 20, 24)}, {"image_shape": (3, 20, 24), "color": True},
    {"image_shape": (3, 20, 24), "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    {"image_shape": (1, 20, 24), "normalize": "per_image"},
    {"image_shape": (3, 20, 24), "normalize": "per_image", "color": True},
    {"image_shape": (3, 20, 24), "normalize": "per_image"},
])
def test_tensors_are_normalised_as_arrays(arguments):
    preprocess = Preprocess(**arguments)
    batch = np.stack([picture(20, 24, preprocess.color, seed=i) for i in range(3)])
    batch[1] = batch[1] // 8 + 100
    for values in (batch, batch.astype(np.float32)):
        on_device = preprocess.normalize_tensor(paddle.to_tensor(values)).numpy()
        np.testing.assert_allclose(on_device, preprocess.normalize(values), atol=1e-6, rtol=1e-6)


def test_settings_survive_json():
    preprocess = Preprocess((3, 64, 48), resize="letterbox", mean=[0.5], std=[0.2], equalize="clahe")
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again.to_dict() == preprocess.to_dict()
    image = picture(100, 80)
    assert np.array_equal(again.geometry(image), preprocess.geometry(image))


def test_an_unknown_recorded_key_is_named():
    with pytest.raises(UserError, match="'resise'.*resize"):
        Preprocess.from_dict({"image_shape": [1, 8, 8], "resise": "crop"})


@pytest.mark.parametrize("arguments, words", [
    ({"image_shape": (2, 8, 8)}, "image_shape"), ({"image_shape": (1, 0, 8)}, "image_shape"),
    ({"image_shape": (1, 8, 8), "color": True}, "color"),
    ({"image_shape": (3, 8, 8), "color": True, "equalize": "clahe"}, "equalize"),
    ({"image_shape": (3, 8, 8), "mean": [0.1, 0.2]}, "mean"), ({"image_shape": (3, 8, 8), "std": [0.0]}, "std"),
    ({"image_shape": (3, 8, 8), "resize": "stretch"}, "resize.*squash"),
])
def test_settings_that_do_not_fit_are_one_clear_line(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        Preprocess(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("height, width", [(32, 32), (24, 40), (21, 33)])
def test_clahe_pixel_by_pixel(height, width):
    rows, columns = np.mgrid[:height, :width]
    image = np.clip(40 + 3 * rows + 2 * columns + np.random.default_rng(1).normal(0, 9, rows.shape), 0, 255)
    image = image.astype(np.uint8)
    assert np.abs(clahe(image, tiles=4).astype(int) - slow_clahe(image, 4, 2.0)).max() <= 1


def slow_clahe(image, tiles, clip_limit):
    """The definition, with loops."""
    height, width = image.shape
    tile_h, tile_w = -(-height // tiles), -(-width // tiles)
    mirrored = np.pad(image, ((0, tile_h * tiles - height), (0, tile_w * tiles - width)), "reflect")
    tables = {}
    for i in range(tiles):
        for j in range(tiles):
            block = mirrored[i * tile_h:(i + 1) * tile_h, j * tile_w:(j + 1) * tile_w]
            counts = [int((block == level).sum()) for level in range(256)]
            limit = max(int(clip_limit * block.size / 256), 1)
            excess = sum(max(count - limit, 0) for count in counts)
            counts = [min(count, limit) + excess // 256 for count in counts]
            step = max(256 // (excess % 256), 1) if excess % 256 else 0
            for turn in range(excess % 256):
                counts[turn * step] += 1
            tables[i, j] = [min(255, sum(counts[:level + 1]) * 255 / block.size) for level in range(256)]
    result = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            i, j = y / tile_h - 0.5, x / tile_w - 0.5
            down, right = i - np.floor(i), j - np.floor(j)
            level, value = image[y, x], 0.0
            for di, weight_i in ((0, 1 - down), (1, down)):
                for dj, weight_j in ((0, 1 - right), (1, right)):
                    tile = np.clip((int(np.floor(i)) + di, int(np.floor(j)) + dj), 0, tiles - 1)
                    value += weight_i * weight_j * tables[tuple(tile)][level]
            result[y, x] = value
    return np.rint(result)
