"""The contrastive losses against slow, plain versions written from the papers' formulas."""

from __future__ import annotations

import math

import numpy as np
import paddle
import paper_formulas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.engine.distributed import World
from paddle_cxr.errors import UserError
from paddle_cxr.models.convirt import ConVIRT
from paddle_cxr.models.gloria import GLoRIA
from paddle_cxr.tasks.pretraining import whole_batch
from paddle_cxr.tasks.pretraining.losses import ContrastiveLoss
from paddle_cxr.tasks.pretraining.whole_batch import Part, backward_from_loss

LENGTHS = [1, 7, 3, 5, 2, 6]


def bare(method, **attributes):
    """The comparisons of a method without its towers."""
    model = method.__new__(method)
    paddle.nn.Layer.__init__(model)
    for name, value in attributes.items():
        setattr(model, name, value)
    return model


CONVIRT = bare(ConVIRT, temperature=0.1).similarities
GLORIA = bare(GLoRIA, temperatures=(4.0, 5.0, 10.0)).similarities
BOTH = [(CONVIRT, ContrastiveLoss()), (GLORIA, ContrastiveLoss(1.0, 1.0))]


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


ALL_DIFFERENT = paddle.arange(6)


@pytest.mark.parametrize("seed", range(3))
def test_convirt_equals_the_papers_formula(seed):
    images, texts = features(seed)
    loss = ContrastiveLoss(0.75, 0.25)(CONVIRT(images, texts), ALL_DIFFERENT)
    plain = paper_formulas.convirt(images["global"].numpy(), texts["global"].numpy(), 0.1, 0.75)
    assert float(loss) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_gloria_equals_the_papers_formulas(seed):
    images, texts = features(seed)
    loss = ContrastiveLoss(1.0, 1.0)(GLORIA(images, texts), ALL_DIFFERENT)
    words = [row[:length] for row, length in zip(texts["words"].numpy(), LENGTHS, strict=True)]
    plain = paper_formulas.gloria(images["regions"].numpy(), images["global"].numpy(), words, texts["global"].numpy(),
                                  (4.0, 5.0, 10.0))
    assert float(loss) == pytest.approx(plain, abs=1e-5)


def test_result_does_not_depend_on_padding_nor_on_the_other_samples_padding():
    images, texts = features(4)
    alone = [GLORIA(images, {k: v[i:i + 1, :LENGTHS[i]] if v.ndim > 1 and k != "global" else v[i:i + 1]
                            for k, v in texts.items()})["local"].numpy() for i in range(6)]
    _, longer = features(4, padding=11)
    together = GLORIA(images, longer)["local"].numpy()
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-5)


@pytest.mark.parametrize("compare, loss", BOTH)
def test_gradient_equals_finite_differences(compare, loss):
    """Every feature's gradient along a random direction, against differences in double precision."""
    images, texts = features(5, n=4)
    part = Part(images, texts, keep_graph=False)
    texts_of = ALL_DIFFERENT[:4]
    backward_from_loss([part], [4], texts_of, World(), compare, loss)
    rng = np.random.default_rng(7)
    sides = [{name: tensor.astype("float64") if tensor.is_floating_point() else tensor
              for name, tensor in side.items()} for side in (images, texts)]
    compared = 0
    for number, gradients in enumerate(part.gradients):
        for name, gradient in gradients.items():
            direction = paddle.to_tensor(rng.normal(0, 1, gradient.shape))
            direction /= direction.norm()
            values = []
            for step in (1e-4, -1e-4):
                moved = list(sides)
                moved[number] = sides[number] | {name: sides[number][name] + step * direction}
                found = compare(*moved)
                assert all(matrix.dtype == paddle.float64 for matrix in found.values())
                values.append(float(loss(found, texts_of)))
            along = float((gradient.astype("float64") * direction).sum())
            assert along == pytest.approx((values[0] - values[1]) / 2e-4, abs=1e-5), name
            compared += 1
    assert compared == (2 if compare == CONVIRT else 4)


@pytest.mark.parametrize("sizes", [[6], [3, 3], [2, 4], [2, 2, 2]])
@pytest.mark.parametrize("table", [10**9, 100])
def test_any_division_gives_the_gradients_of_one_pass(sizes, table, monkeypatch):
    monkeypatch.setattr(whole_batch, "TABLE", table)
    images, texts = features(6)
    compare, loss = GLORIA, ContrastiveLoss(1.0, 1.0)
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
    matrix = CONVIRT(images, texts)["global"].numpy().astype(np.float64)
    total = 0.0
    for i in range(6):
        others = [k for k in range(6) if k == i or numbers[k] != numbers[i]]
        total += 0.75 * (np.log(np.exp(matrix[i, others]).sum()) - matrix[i, i])
        total += 0.25 * (np.log(np.exp(matrix[others, i]).sum()) - matrix[i, i])
    loss = ContrastiveLoss()(CONVIRT(images, texts), numbers)
    assert float(loss) == pytest.approx(total / 6, abs=1e-5)
    as_published = ContrastiveLoss(same_text="negative")(CONVIRT(images, texts), numbers)
    assert float(as_published) == pytest.approx(
        paper_formulas.convirt(images["global"].numpy(), texts["global"].numpy(), 0.1, 0.75), abs=1e-5)


def test_a_batch_of_one_text_has_nothing_to_tell_apart():
    images, texts = features(9)
    part = Part(images, texts, keep_graph=False)
    value = backward_from_loss([part], [6], paddle.zeros([6], "int64"), World(), GLORIA,
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


def test_a_weight_that_is_no_number_is_refused():
    for bad in (math.nan, math.inf):
        with pytest.raises(UserError, match="Loss"):
            ContrastiveLoss(weights={"global": bad})


@pytest.mark.parametrize("weights, method, said", [
    ({"globl": 1.0}, GLoRIA, "Loss.weights.globl：GLoRIA 没有这一项（可用：global、local）"),
    ({"local": 1.0}, ConVIRT, "Loss.weights.local：ConVIRT 没有这一项（可用：global）"),
    ({"global": 0.0, "local": 0.0}, GLoRIA, "全为 0"),
    ({"global": 0.0}, ConVIRT, "全为 0"),
])
def test_weights_of_what_the_method_does_not_compare_are_refused(weights, method, said):
    with pytest.raises(UserError) as caught:
        ContrastiveLoss(weights=weights).check(method.compared, method.arch)
    assert said in str(caught.value)


def test_weights_of_what_it_compares_are_taken():
    images, texts = features(3)
    found = GLORIA(images, texts)
    assert set(found) == set(GLoRIA.compared) and set(CONVIRT(images, texts)) == set(ConVIRT.compared)
    only_local = ContrastiveLoss(1.0, 1.0, {"global": 0.0})
    only_local.check(GLoRIA.compared, "GLoRIA")
    assert float(only_local(found, ALL_DIFFERENT)) == pytest.approx(
        float(ContrastiveLoss(1.0, 1.0)({"local": found["local"]}, ALL_DIFFERENT)))


@pytest.mark.parametrize("compare, loss", BOTH)
def test_a_single_pair_has_nothing_to_be_told_apart_from(compare, loss):
    images, texts = features(2, n=1)
    part = Part(images, texts, keep_graph=False)
    assert backward_from_loss([part], [1], ALL_DIFFERENT[:1], World(), compare, loss) == 0
    assert all(float(g.abs().max()) == 0 for side in part.gradients for g in side.values())


def test_graphs_of_many_parts_are_not_all_kept_at_once(monkeypatch):
    """Each of three parts makes a table that fits, all of them together do not."""
    images, texts = features(6)
    recorded = []

    def compare(*sides):
        recorded.append(paddle.is_grad_enabled())
        return GLORIA(*sides)

    for table, expected in ((6 * 9 * 6 * 7, [True] * 3), (6 * 9 * 2 * 7, [False] * 3 + [True] * 3)):
        monkeypatch.setattr(whole_batch, "TABLE", table)
        recorded.clear()
        parts = [Part(*({k: v[a:a + 2] for k, v in side.items()} for side in (images, texts)), keep_graph=False)
                 for a in (0, 2, 4)]
        backward_from_loss(parts, [2, 2, 2], ALL_DIFFERENT, World(), compare, ContrastiveLoss(1.0, 1.0))
        assert recorded == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5000))
def test_slices_hold_every_text_once_and_fit(images, texts, words, regions, table):
    whole = {"global": paddle.zeros([images, 1]), "regions": paddle.zeros([images, regions, 1])}
    some = {"global": paddle.zeros([texts, 1]), "words": paddle.zeros([texts, words, 1])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_batch, "TABLE", table)
        slices = whole_batch.text_slices(whole, some)
    assert [place for one in slices for place in range(one.start, one.stop)] == list(range(texts))
    assert all((one.stop - one.start) == 1 or images * regions * words * (one.stop - one.start) <= table
               for one in slices)
