"""The built-in phantoms: reproducible, anatomically placed, described truthfully, and not solvable by brightness."""

import hashlib
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paddle_cxr.data.phantom import CLASSES, DRAWERS, Finding, draw, draw_image
from paddle_cxr.data.phantom import generator as gen

LABELS = ("normal", *sorted(DRAWERS))
ONE_SIDED = sorted(name for name, d in DRAWERS.items() if "left" in d.sides)


def digest(label, index, size):
    film = draw(label, seed=5, index=index, size=size)
    parts = (film.image, film.lung_mask, film.lesion_mask, repr(film.findings), film.report, film.report_zh)
    return hashlib.sha256(
        b"".join(p.tobytes() if isinstance(p, np.ndarray) else str(p).encode() for p in parts)
    ).hexdigest()


JOBS = [(label, index, size) for label, (index, size) in itertools.product(CLASSES, ((0, 64), (3, 224)))]


def test_same_arguments_give_the_same_bits_in_any_order():
    assert [digest(*job) for job in JOBS] == [digest(*job) for job in reversed(JOBS)][::-1]


def test_same_arguments_give_the_same_bits_in_another_process():
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_phantom as t; [print(t.digest(*j)) for j in t.JOBS]"
    paths = [str(Path(__file__).parent), str(Path(gen.__file__).parents[3])]
    other = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert other.stdout.split() == [digest(*job) for job in JOBS]


def test_seed_and_index_both_change_the_picture():
    base = draw_image("normal", seed=0, index=1, size=64)
    assert not np.array_equal(base, draw_image("normal", seed=1, index=0, size=64))
    assert not np.array_equal(base, draw_image("normal", seed=0, index=2, size=64))


@pytest.mark.parametrize("size", [64, 96, 150, 224, 512])
@pytest.mark.parametrize("label", CLASSES)
def test_shapes_types_and_ranges(label, size):
    film = draw(label, seed=2, index=1, size=size)
    for array in (film.image, film.lung_mask, film.lesion_mask):
        assert array.shape == (size, size) and array.dtype == np.uint8
    assert set(np.unique(film.lung_mask)) == {0, 255}
    assert set(np.unique(film.lesion_mask)) <= {0, 255}
    assert 0.12 < (film.lung_mask > 0).mean() < 0.5
    assert film.image.std() > 15
    assert film.label == label
    assert np.array_equal(film.image, draw_image(label, seed=2, index=1, size=size))


def test_lungs_are_darker_than_what_lies_between_and_below_them():
    for index in range(8):
        film = draw("normal", seed=4, index=index, size=96)
        middle, lungs_there = film.image[48:90, 30:66], film.lung_mask[48:90, 30:66] > 0
        assert film.image[film.lung_mask > 0].mean() < middle[~lungs_there].mean()


def test_a_normal_film_has_nothing_to_find():
    film = draw("normal", seed=0, index=0, size=64)
    assert film.findings == () and film.boxes == () and not film.lesion_mask.any()
    assert "No acute" in film.report["impression"] and "未见" in film.report_zh["impression"]


@pytest.mark.parametrize("label", sorted(DRAWERS))
def test_findings_are_seen_and_boxes_are_tight(label):
    for index in range(6):
        film = draw(label, seed=3, index=index, size=128)
        (finding,) = film.findings
        mask = film.lesion_mask > 0
        assert mask.sum() >= 12
        if label != "cardiomegaly":
            assert not (mask & (film.lung_mask == 0)).any()
        x, y, w, h = finding.box
        inside = np.zeros_like(mask)
        inside[y : y + h, x : x + w] = True
        assert not (mask & ~inside).any()
        edges = mask[y, x : x + w], mask[y + h - 1, x : x + w], mask[y : y + h, x], mask[y : y + h, x + w - 1]
        assert all(edge.any() for edge in edges)
        union = np.zeros_like(mask)
        for bx, by, bw, bh in film.boxes:
            union[by : by + bh, bx : bx + bw] = True
        assert not (mask & ~union).any()
        assert len(film.boxes) == (2 if finding.side == "bilateral" and label != "cardiomegaly" else 1)
        changed = film.image.astype(int) - draw_image("normal", seed=3, index=index, size=128)
        assert np.abs(changed[mask]).mean() > 2


@pytest.mark.parametrize("label", ONE_SIDED)
def test_the_patients_left_is_on_the_right_of_the_picture(label):
    for index, side in itertools.product(range(4), ("left", "right")):
        film = draw([Finding(label, side=side)], seed=6, index=index, size=96)
        centre = np.nonzero(film.lesion_mask)[1].mean()
        assert (centre > 48) == (side == "left")
        assert film.findings[0].side == side
        text = film.report["findings"] + film.report["impression"]
        assert side in text and {"left": "right", "right": "left"}[side] not in text
        assert {"left": "左", "right": "右"}[side] in film.report_zh["impression"]


def test_zone_moves_a_finding_down_the_lung():
    rows = []
    for zone in ("upper", "middle", "lower"):
        films = [draw([Finding("nodule", "right", zone)], seed=1, index=i, size=96) for i in range(4)]
        rows.append(np.mean([np.nonzero(f.lesion_mask)[0].mean() for f in films]))
        assert all(zone in f.report["impression"] for f in films)
    assert rows[0] < rows[1] < rows[2]


def test_covid_is_peripheral_and_low_and_viral_is_central():
    def offset(label):
        films = [draw(label, seed=8, index=i, size=96) for i in range(12)]
        return np.mean([np.abs(np.nonzero(f.lesion_mask)[1] - 47.5).mean() for f in films]), np.mean(
            [np.nonzero(f.lesion_mask)[0].mean() for f in films]
        )

    (covid_x, covid_y), (viral_x, viral_y) = offset("covid"), offset("viral")
    assert covid_x > viral_x + 3 and covid_y > viral_y + 5


def test_disease_changes_nothing_but_itself():
    """Same patient, same technique, same noise: outside the lesion only the levelling may move grey levels."""
    healthy, ill = (gen._render(gen._requested(name)[1], 9, 4, 96) for name in ("normal", "covid"))
    assert healthy.scene.anatomy == ill.scene.anatomy
    assert np.array_equal(healthy.scene.healthy(), ill.scene.healthy())
    assert np.array_equal(healthy.scene.lung, ill.scene.lung)
    away = healthy.scene.lung == 0
    # The levelling is one monotonic table for the whole film, and the noise is the same.
    assert np.corrcoef(healthy.image[away], ill.image[away])[0, 1] > 0.995


def test_several_findings_in_one_film():
    wanted = [Finding("effusion", "left", severity=0.9), Finding("nodule", "right", "upper"), Finding("cardiomegaly")]
    film = draw(wanted, seed=0, index=3, size=128)
    assert [f.name for f in film.findings] == ["effusion", "nodule", "cardiomegaly"]
    assert film.label == "effusion+nodule+cardiomegaly"
    assert film.findings[0].severity == 0.9
    text = film.report["findings"]
    assert "left" in text and "nodule" in text and "cardiomegaly" in text.replace("heart is enlarged", "cardiomegaly")
    assert "no pleural effusion" not in text and "normal" not in text
    assert "no pneumothorax" in text
    assert len(film.boxes) == 3


@pytest.mark.parametrize("label", LABELS)
def test_reports_are_complete(label):
    film = draw(label, seed=0, index=0, size=64)
    for report in (film.report, film.report_zh):
        assert set(report) == {"findings", "impression"}
        assert all(text and "{" not in text for text in report.values())
    assert all(ord(c) < 128 for c in "".join(film.report.values()))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="accepted: normal, .*covid.*viral"):
        draw("flu", seed=0, index=0)
    with pytest.raises(ValueError, match="accepted: .*nodule"):
        draw([Finding("flu")], seed=0, index=0)
    with pytest.raises(ValueError, match="effusion cannot have zone 'upper'; accepted: lower"):
        draw([Finding("effusion", zone="upper")], seed=0, index=0)
    with pytest.raises(ValueError, match="severity"):
        draw([Finding("covid", severity=1.5)], seed=0, index=0)
    with pytest.raises(ValueError, match="size"):
        draw("covid", seed=0, index=0, size=8)
    with pytest.raises(ValueError, match="index"):
        draw("covid", seed=0, index=-1)


def softmax_regression(train_x, train_y, test_x, test_y, steps=300):
    """Test accuracy of multinomial logistic regression on standardised features (full-batch, with momentum)."""
    mean, std = train_x.mean(0), train_x.std(0) + 1e-9
    train_x, test_x = ((np.c_[(x - mean) / std, np.ones(len(x))]) for x in (train_x, test_x))
    target = np.eye(3)[train_y]
    weight = np.zeros((train_x.shape[1], 3))
    speed = np.zeros_like(weight)
    rate = 1.0 / np.linalg.norm(train_x, 2) ** 2 * len(train_x)
    for _ in range(steps):
        score = train_x @ weight
        p = np.exp(score - score.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        speed = 0.9 * speed - rate * (train_x.T @ (p - target)) / len(train_x)
        weight += speed
    return float(((test_x @ weight).argmax(1) == test_y).mean())


def test_grey_levels_alone_do_not_tell_the_classes_apart():
    def films(seed, count):
        y = np.arange(count) % 3
        images = (draw_image(CLASSES[k], seed=seed, index=i, size=64) for i, k in enumerate(y))
        return np.array([np.bincount(image.ravel() // 8, minlength=32) for image in images], float), y

    train, test = films(21, 480), films(22, 240)
    assert softmax_regression(*train, *test) <= 0.60
    # The check itself must be able to fail: let the classes differ in brightness and it does find them.
    for x, y in (train, test):
        x[y == 1] = np.roll(x[y == 1], 6, axis=1)
        x[y == 2] = np.roll(x[y == 2], -6, axis=1)
    assert softmax_regression(*train, *test) > 0.75
