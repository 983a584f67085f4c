"""The contrastive losses against slow, plain versions written from the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.engine.distributed import World
from paddle_cxr.errors import UserError
from paddle_cxr.models.gloria import GLoRIA
from paddle_cxr.tasks.pretraining import whole_batch
from paddle_cxr.tasks.pretraining.losses import ContrastiveLoss
from paddle_cxr.tasks.pretraining.whole_batch import Part, backward_from_loss

LENGTHS = [1, 7, 3, 5, 2, 6]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (
        math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def plain_convirt(v, u, tau, lam):
    """ConVIRT, equations 2-4."""
    n, total = len(v), 0.0
    for i in range(n):
        image_to_text = -math.log(math.exp(cosine(v[i], u[i]) / tau)
                                  / sum(math.exp(cosine(v[i], u[k]) / tau) for k in range(n)))
        text_to_image = -math.log(math.exp(cosine(v[i], u[i]) / tau)
                                  / sum(math.exp(cosine(v[k], u[i]) / tau) for k in range(n)))
        total += lam * image_to_text + (1 - lam) * text_to_image
    return total / n


def plain_matching(regions, words, g1, g2):
    """AttnGAN's equations 7-10, which GLoRIA takes over: one image, one text, its real words only."""
    s = [[float(np.dot(t, v)) for v in regions] for t in words]
    over_words = [[math.exp(s[i][j]) / sum(math.exp(s[k][j]) for k in range(len(words)))
                   for j in range(len(regions))] for i in range(len(words))]
    total = 0.0
    for i, t in enumerate(words):
        exponents = [math.exp(g1 * one) for one in over_words[i]]
        a = [one / sum(exponents) for one in exponents]
        c = sum(weight * v for weight, v in zip(a, regions, strict=True))
        total += math.exp(g2 * cosine(c, t))
    return math.log(total ** (1 / g2))


def plain_gloria(regions, image, words, text, gammas):
    """Global and local, both directions, weights 1."""
    n = len(image)
    tables = {
        "local": [[gammas[2] * plain_matching(regions[i], words[j], *gammas[:2]) for j in range(n)] for i in range(n)],
        "global": [[gammas[2] * cosine(image[i], text[j]) for j in range(n)] for i in range(n)]}
    total = 0.0
    for table in tables.values():
        for i in range(n):
            total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[i][k]) for k in range(n))) / n
            total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[k][i]) for k in range(n))) / n
    return total


class Bare(GLoRIA):
    """GLoRIA's comparisons without towers."""

    def __init__(self, temperatures=(4.0, 5.0, 10.0)):
        paddle.nn.Layer.__init__(self)
        self.temperatures = temperatures


def features(seed, n=6, dim=8, count=9, lengths=LENGTHS, padding=0):
    """Random features of n pairs with unequal text lengths; padded words hold rubbish."""
    rng = np.random.default_rng(seed)
    longest = max(lengths[:n]) + padding
    words = rng.normal(0, 50, (n, longest, dim))
    mask = np.zeros((n, longest), np.int64)
    rng = np.random.default_rng((seed, 1))
    for i, length in enumerate(lengths[:n]):
        words[i, :length] = rng.normal(0, 1, (length, dim))
        mask[i, :length] = 1

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    images = {"global": unit(rng.normal(0, 1, (n, dim))), "regions": rng.normal(0, 1, (n, count, dim))}
    texts = {"global": unit(rng.normal(0, 1, (n, dim))), "words": words}
    images, texts = ({k: paddle.to_tensor(v.astype(np.float32)) for k, v in one.items()} for one in (images, texts))
    return images, texts | {"word_mask": paddle.to_tensor(mask)}


def convirt_compare(images, texts):
    return {"global": images["global"] @ texts["global"].T / 0.1}


ALL_DIFFERENT = paddle.arange(6)


@pytest.mark.parametrize("seed", range(3))
def test_convirt_equals_the_papers_formula(seed):
    images, texts = features(seed)
    loss = ContrastiveLoss(0.75, 0.25)(convirt_compare(images, texts), ALL_DIFFERENT)
    assert float(loss) == pytest.approx(plain_convirt(images["global"].numpy(), texts["global"].numpy(), 0.1, 0.75),
                                        abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_gloria_equals_the_papers_formulas(seed):
    images, texts = features(seed)
    loss = ContrastiveLoss(1.0, 1.0)(Bare().similarities(images, texts), ALL_DIFFERENT)
    words = [row[:length] for row, length in zip(texts["words"].numpy(), LENGTHS, strict=True)]
    plain = plain_gloria(images["regions"].numpy(), images["global"].numpy(), words, texts["global"].numpy(),
                         (4.0, 5.0, 10.0))
    assert float(loss) == pytest.approx(plain, abs=1e-5 * plain)


def test_result_does_not_depend_on_padding_nor_on_the_other_samples_padding():
    images, texts = features(4)
    alone = [Bare().similarities(images, {k: v[i:i + 1, :LENGTHS[i]] if v.ndim > 1 and k != "global" else v[i:i + 1]
                                          for k, v in texts.items()})["local"].numpy() for i in range(6)]
    _, longer = features(4, padding=11)
    together = Bare().similarities(images, longer)["local"].numpy()
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-5)


@pytest.mark.parametrize("compare, loss", [(convirt_compare, ContrastiveLoss()),
                                           (Bare().similarities, ContrastiveLoss(1.0, 1.0))])
def test_gradient_equals_finite_differences(compare, loss):
    images, texts = features(5, n=4)
    part = Part(images, texts, keep_graph=False)
    texts_of = ALL_DIFFERENT[:4]
    backward_from_loss([part], [4], texts_of, World(), compare, loss)
    for side, gradients in zip((images, texts), part.gradients, strict=True):
        for name, gradient in gradients.items():
            rng = np.random.default_rng(7)
            direction = rng.normal(0, 1, side[name].shape).astype(np.float32)
            direction /= np.linalg.norm(direction)
            step = 1e-2
            values = []
            for sign in (1, -1):
                moved = side | {name: side[name] + paddle.to_tensor(sign * step * direction)}
                pair = (moved, texts) if side is images else (images, moved)
                values.append(float(loss(compare(*pair), texts_of)))
            expected = (values[0] - values[1]) / (2 * step)
            assert float((gradient * paddle.to_tensor(direction)).sum()) == pytest.approx(expected, abs=2e-3), name


@pytest.mark.parametrize("sizes", [[6], [3, 3], [2, 4], [2, 2, 2]])
@pytest.mark.parametrize("table", [10**9, 100])
def test_any_division_gives_the_gradients_of_one_pass(sizes, table, monkeypatch):
    monkeypatch.setattr(whole_batch, "TABLE", table)
    images, texts = features(6)
    compare, loss = Bare().similarities, ContrastiveLoss(1.0, 1.0)
    for side in (images, texts):
        for tensor in side.values():
            tensor.stop_gradient = not tensor.is_floating_point()
    value = loss(compare(images, texts), ALL_DIFFERENT)
    value.backward()
    starts = np.cumsum([0, *sizes])
    parts = [Part(*({k: v[a:b].detach() for k, v in side.items()} for side in (images, texts)), keep_graph=False)
             for a, b in zip(starts, starts[1:], strict=False)]
    found = backward_from_loss(parts, sizes, ALL_DIFFERENT, World(), compare, loss)
    assert found == pytest.approx(float(value), rel=1e-6)
    for number, side in enumerate((images, texts)):
        for name, tensor in side.items():
            if tensor.is_floating_point():
                whole = np.concatenate([part.gradients[number][name].numpy() for part in parts])
                np.testing.assert_allclose(whole, tensor.grad.numpy(), atol=1e-5, err_msg=name)


def test_pairs_with_the_same_text_are_no_negatives():
    images, texts = features(8)
    texts["global"][3] = texts["global"][0]
    numbers = paddle.to_tensor([5, 1, 2, 5, 4, 9])
    matrix = convirt_compare(images, texts)["global"].numpy().astype(np.float64)
    total = 0.0
    for i in range(6):
        others = [k for k in range(6) if k == i or numbers[k] != numbers[i]]
        total += 0.75 * (np.log(np.exp(matrix[i, others]).sum()) - matrix[i, i])
        total += 0.25 * (np.log(np.exp(matrix[others, i]).sum()) - matrix[i, i])
    loss = ContrastiveLoss()(convirt_compare(images, texts), numbers)
    assert float(loss) == pytest.approx(total / 6, abs=1e-5)
    as_published = ContrastiveLoss(same_text="negative")(convirt_compare(images, texts), numbers)
    assert float(as_published) == pytest.approx(
        plain_convirt(images["global"].numpy(), texts["global"].numpy(), 0.1, 0.75), abs=1e-5)


def test_a_batch_of_one_text_has_nothing_to_tell_apart():
    images, texts = features(9)
    part = Part(images, texts, keep_graph=False)
    value = backward_from_loss([part], [6], paddle.zeros([6], "int64"), World(), Bare().similarities,
                               ContrastiveLoss(1.0, 1.0))
    assert value == pytest.approx(0, abs=1e-6)
    assert all(float(g.abs().max()) < 1e-6 for side in part.gradients for g in side.values())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_perfect_match_is_best_and_a_constant_one_is_chance(seed, n, image_weight, text_weight):
    loss = ContrastiveLoss(image_weight, text_weight)
    different = paddle.arange(n)
    rng = np.random.default_rng(seed)
    perfect = float(loss({"global": paddle.eye(n) * 50}, different))
    constant = float(loss({"global": paddle.full([n, n], float(rng.normal()))}, different))
    assert perfect == pytest.approx(0, abs=1e-4)
    assert constant == pytest.approx((image_weight + text_weight) * math.log(n), rel=1e-5)


@pytest.mark.parametrize("arguments", [{"image_weight": -1.0}, {"image_weight": 0.0, "text_weight": 0.0},
                                       {"weights": {"local": -0.5}}])
def test_impossible_weights_are_refused(arguments):
    with pytest.raises(UserError, match="Loss"):
        ContrastiveLoss(**arguments)
