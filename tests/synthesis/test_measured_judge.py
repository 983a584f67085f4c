"""The judge without weights: what it keeps, what it rejects, and by which of the six questions."""

from __future__ import annotations

import csv
import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from paddle_cxr.data.phantom import draw_image
from paddle_cxr.data.spoil import SPOILINGS
from paddle_cxr.registry import build
from paddle_cxr.synthesis.quality.base import QUESTIONS
from paddle_cxr.synthesis.quality.layout import find_layouts
from paddle_cxr.synthesis.quality.measured import MeasuredJudge
from paddle_cxr.synthesis.quality.measures import measure, shrink

JUDGE = MeasuredJudge()
WHOLE = (0.0, 0.0, 1.0, 1.0)
# The question that must catch each kind, whatever else fails besides.
CAUGHT_BY = {"blurred": "sharp", "inverted": "good_quality", "rotated": "frontal", "cropped": "frontal",
             "overexposed": "good_quality", "posterised": "artefact_free", "collage": "artefact_free",
             "noise": "good_quality", "text": "artefact_free", "scene": "frontal", "lateral": "frontal"}


def failed(verdict):
    return [question for question in QUESTIONS if verdict[question].passed is False]


def kept(images):
    return np.array([not failed(verdict) for verdict in JUDGE.judge(images)])


def spoiled(kind, films):
    rng = np.random.default_rng(7)
    return [SPOILINGS[kind](film, films[i - 1], rng) for i, film in enumerate(films)]


@pytest.fixture(scope="module")
def phantoms():
    return [draw_image(label, seed=9, index=i, size=384) for i, label in enumerate(("normal", "viral", "covid") * 4)]


@pytest.mark.parametrize("size", [64, 128, 224, 512])
def test_phantoms_of_every_size_are_kept(size):
    films = [draw_image(label, seed=4, index=i, size=size) for i, label in enumerate(("normal", "covid") * 6)]
    assert kept(films).mean() >= 0.9


@pytest.mark.parametrize("kind", SPOILINGS)
def test_spoiled_phantoms_are_rejected_by_the_right_question(kind, phantoms):
    assert kept(phantoms).mean() >= 0.9
    verdicts = JUDGE.judge(spoiled(kind, phantoms))
    assert np.mean([bool(failed(verdict)) for verdict in verdicts]) >= 0.9
    assert np.mean([CAUGHT_BY[kind] in failed(verdict) for verdict in verdicts]) >= 0.75


def photographs():
    """Grey crops of the two photographs that scikit-learn ships."""
    pictures = pytest.importorskip("sklearn.datasets").load_sample_images().images
    rng = np.random.default_rng(3)
    for number in range(60):
        picture = pictures[number % 2]
        side = rng.integers(180, 400)
        top, left = rng.integers(picture.shape[0] - side), rng.integers(picture.shape[1] - side)
        yield np.ascontiguousarray(picture[top:top + side, left:left + side])


def test_photographs_are_no_chest_xrays():
    colour = list(photographs())
    grey = [np.asarray(Image.fromarray(picture).convert("L")) for picture in colour]
    assert np.mean([verdict["chest_xray"].passed for verdict in JUDGE.judge(colour)]) == 0
    assert kept(grey).mean() <= 0.05


def drawings():
    """Pictures that nobody chose a limit on."""
    rows, columns = np.mgrid[:256, :256]
    yield "checkerboard", ((rows // 16 + columns // 16) % 2 * 200 + 20)
    yield "gradient", rows // 2 + columns // 2
    yield "disc", np.where(np.hypot(rows - 128, columns - 128) < 90, 160, 5)
    bars = np.sin(columns / 13.0) * 60 + 120
    yield "bars", bars
    yield "fingers", np.where((np.abs(np.sin(columns / 25)) > 0.5) & (rows < 180) | (rows > 150), 190, 20)
    yield "knee", np.where((np.abs(columns - 128) < 50 + np.abs(rows - 128) / 6), 170, 15)
    ring = np.hypot((rows - 128) / 0.7, columns - 128)
    yield "CT", np.where(ring < 120, np.where((np.abs(columns - 75) < 30) & (ring < 95), 20, 140), 0)
    page = np.full((256, 256), 245)
    page[20:240:12, 20:236] = 20
    yield "page", page
    yield "black", np.zeros((256, 256))
    yield "white", np.full((256, 256), 255)
    yield "static", np.random.default_rng(0).integers(0, 256, (256, 256))


@pytest.mark.parametrize(("name", "picture"), drawings(), ids=lambda value: value if isinstance(value, str) else "")
def test_drawings_are_rejected(name, picture):
    assert not kept([picture.astype(np.uint8)])[0]


def compressed(film, quality=6):
    file = io.BytesIO()
    Image.fromarray(film).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def blurred(film):
    return np.asarray(Image.fromarray(film).filter(ImageFilter.GaussianBlur(4)))


def noisy_blur(film):
    """Grain over a blurred film is no detail."""
    return (blurred(film) + np.random.default_rng(1).normal(0, 2, film.shape)).clip(0, 255).astype(np.uint8)


def compressed_blur(film):
    """Nor is what JPEG leaves."""
    return compressed(blurred(film), 60)


def captioned(film):
    """Two lines of small grey letters, mostly over the lungs."""
    picture, height = Image.fromarray(film), len(film)
    for line, words in enumerate(("Hospital No. 0012345", "not for diagnosis")):
        ImageDraw.Draw(picture).text((0.2 * film.shape[1], (0.3 + 0.2 * line) * height), words, fill=225,
                                     font=ImageFont.load_default(height / 22))
    return np.asarray(picture)


def test_other_ways_to_spoil_a_film(phantoms):
    def mirrored(film):
        return np.concatenate([film[:, :192], film[:, :192][:, ::-1]], axis=1)

    def moved(film):  # motion blur in one direction
        return np.mean([np.roll(film, shift, axis=1) for shift in range(12)], axis=0).astype(np.uint8)

    def upside_down(film):
        return np.ascontiguousarray(film[::-1, ::-1])

    def dim(film):
        return (255 * (film / 255) ** 3.5).astype(np.uint8)

    def glaring(film):
        return (255 * (film / 255) ** 0.2).astype(np.uint8)

    for spoil, question in ((mirrored, "artefact_free"), (compressed, "artefact_free"), (moved, "sharp"),
                            (upside_down, "frontal"), (blurred, "sharp"), (noisy_blur, "sharp"),
                            (compressed_blur, "sharp"), (dim, "good_quality"), (glaring, "good_quality")):
        verdicts = JUDGE.judge([spoil(film) for film in phantoms])
        assert np.mean([question in failed(verdict) for verdict in verdicts]) >= 0.9, spoil.__name__


def test_every_answer_has_its_number_and_reason(phantoms):
    verdict = JUDGE.judge(spoiled("noise", phantoms[:1]))[0]
    assert tuple(verdict) == QUESTIONS
    assert verdict["human"].passed is None and verdict["human"].value is None
    for question in set(QUESTIONS) - {"human"}:
        assert isinstance(verdict[question].value, float) and verdict[question].reason
    assert "noise" in verdict["good_quality"].reason or "impulses" in verdict["good_quality"].reason


def test_coloured_marks_are_an_artefact_and_not_a_photograph(phantoms):
    film = np.repeat(phantoms[0][..., None], 3, axis=2)
    marked = film.copy()
    marked[100:130, 100:130] = (255, 0, 0)
    grey, red = JUDGE.judge([film, marked])
    assert failed(grey) == failed(JUDGE.judge(phantoms[:1])[0])
    assert red["chest_xray"].passed and red["artefact_free"].passed is False
    assert "annotation" in red["artefact_free"].reason


def test_verdicts_do_not_depend_on_the_batch(phantoms):
    together = JUDGE.judge(phantoms)
    for film, verdict in zip(phantoms, together, strict=True):
        alone = JUDGE.judge([film])[0]
        assert failed(alone) == failed(verdict)
        assert all(alone[q].value == pytest.approx(verdict[q].value, abs=1e-5) for q in QUESTIONS if q != "human")


def test_the_recipe_can_name_it_and_no_image_is_no_verdict():
    assert build("judge", {"name": "MeasuredJudge"}, "Quality.judge").judge([]) == []


@settings(max_examples=40)
@given(hnp.arrays(np.uint8, st.one_of(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=80),
                                      st.tuples(st.integers(1, 80), st.integers(1, 80), st.just(3)))))
def test_any_picture_gets_a_verdict(image):
    verdict = JUDGE.judge([image])[0]
    assert tuple(verdict) == QUESTIONS
    assert all(answer.value is None or np.isfinite(answer.value) for answer in verdict.values())
    if min(image.shape[:2]) < 32:
        assert verdict["good_quality"].passed is False and verdict["sharp"].passed is None


@pytest.mark.parametrize("shape", [(2000, 40), (40, 3000), (2048, 1700)])
def test_strips_and_large_pictures(shape):
    image = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    assert failed(JUDGE.judge([image])[0])


def test_measured_noise_is_the_noise_that_was_added():
    rows, columns = np.mgrid[:300, :300]
    for sigma in (3, 10, 20):
        image = 60 + rows / 4 + columns / 8 + np.random.default_rng(sigma).normal(0, sigma, rows.shape)
        assert measure(image.astype(np.uint8), WHOLE).noise == pytest.approx(sigma, rel=0.05)


def test_noise_is_no_detail():
    rows, columns = np.mgrid[:512, :512]
    waves = 128 + 50 * np.sin(rows / 9) * np.sin(columns / 9)
    noisy = (waves + np.random.default_rng(2).normal(0, 4, waves.shape)).astype(np.uint8)
    blurred, grainy = measure(waves.astype(np.uint8), WHOLE), measure(noisy, WHOLE)
    assert max(blurred.sharpness, blurred.detail, grainy.detail) < 0.2 < 0.4 < grainy.sharpness


def test_only_strokes_of_one_grey_level_are_ink():
    rng = np.random.default_rng(3)
    ruled = np.full((512, 512), 90)
    places = np.arange(20, 490, 9)
    ruled[:, places] = 200
    assert measure(ruled.astype(np.uint8), WHOLE).ink == pytest.approx(len(places) / 512, rel=0.05)
    ruled[:, places] = rng.integers(140, 255, (512, len(places)))
    assert measure(ruled.astype(np.uint8), WHOLE).ink < 0.15 * len(places) / 512


def test_missing_grey_levels_are_counted_in_bits():
    smooth = np.random.default_rng(5).normal(128, 40, (256, 256)).clip(4, 250)
    assert measure(smooth.astype(np.uint8), WHOLE).comb == pytest.approx(0, abs=0.1)
    for spacing in (2, 4, 8):
        comb = (smooth // spacing * spacing).astype(np.uint8)
        assert measure(comb, WHOLE).comb == pytest.approx(np.log2(spacing), abs=0.1)


def test_layout_score_is_the_correlation_of_a_picture_with_its_best_template():
    """Against numpy.corrcoef over every template, one at a time."""
    from paddle_cxr.synthesis.quality.layout import _bank, _thumbnail

    image = draw_image("normal", seed=2, index=5, size=200)
    picture, bank = _thumbnail(shrink(image)).ravel(), _bank()
    cares = bank.support > 0
    direct = [np.corrcoef(picture[c], pattern[c])[0, 1] for pattern, c in zip(bank.pattern, cares, strict=True)]
    found = find_layouts([image])[0]
    assert found.upright == pytest.approx(max(direct), abs=1e-4)
    assert found.box == tuple(bank.boxes[int(np.argmax(direct))])


def test_real_films_are_kept_and_their_spoiled_copies_rejected(real_data):
    """A fixed subset: every second COVID film, and every eighth of the other classes."""
    with open(real_data / "cxr" / "index.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["label"] == "COVID"][::2] + [r for r in rows if r["label"] != "COVID"][::8]
    films = [np.asarray(Image.open(real_data / "cxr" / row["file"]).convert("L")) for row in chosen]
    started = time.process_time()
    passed = kept(films)
    rate = len(films) / (time.process_time() - started)
    assert rate >= 25, f"{rate:.0f} images/s"  # half of what a quiet machine must reach
    assert len(films) >= 140 and passed.mean() >= 0.95
    for label in ("COVID", "NORMAL", "PNEUMONIA"):
        assert passed[[row["label"] == label for row in chosen]].mean() >= 0.93, label
    rejected = {kind: 1 - kept(spoiled(kind, films[::3])).mean() for kind in SPOILINGS}
    rejected |= {spoil.__name__: 1 - kept([spoil(film) for film in films[::3]]).mean()
                 for spoil in (noisy_blur, compressed_blur, captioned)}
    assert min(rejected.values()) >= 0.9, rejected
