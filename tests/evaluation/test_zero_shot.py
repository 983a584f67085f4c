"""Zero-shot classification against scikit-learn and a plain softmax; prompts from files and for phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_cxr.data.findings import FindingsRecord, label_matrix
from paddle_cxr.data.pairs import PhantomPairs
from paddle_cxr.data.phantom import DRAWERS
from paddle_cxr.data.phantom.findings import Finding, place
from paddle_cxr.data.phantom.report import write_report
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.bootstrap import resamples
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts, read_prompts
from paddle_cxr.evaluation.zero_shot import (
    margins,
    margins_of_sides,
    probabilities,
    probabilities_of,
    sides,
    zero_shot,
)

sklearn_metrics = pytest.importorskip("sklearn.metrics")

# "clear" is the negative of two findings: encoded once, used twice.
PROMPTS = (FindingPrompts("effusion", ("fluid", "blunt"), ("no fluid",), "积液", "Effusion"),
           FindingPrompts("nodule", ("nodule",), ("clear", "no nodule", "nothing"), "结节", "Nodule"),
           FindingPrompts("covid", ("glass",), ("clear",), "新冠", "COVID"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0, 1 and NaN, findings with one kind or none, scores with ties or without."""
    samples = draw(st.integers(1, 25))
    labels = draw(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=3 * samples, max_size=3 * samples))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = random.normal(size=(samples, len(prompt_texts(PROMPTS))))
    return np.array(labels).reshape(samples, 3), scores if draw(st.booleans()) else np.round(scores)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = case
    result, values = zero_shot(labels, scores, PROMPTS, n=0), margins(scores, PROMPTS)
    defined = {}
    for k, one in enumerate(PROMPTS):
        known, row = ~np.isnan(labels[:, k]), result["per_finding"][one.name]
        truth = labels[known, k]
        assert (row["positives"], row["negatives"], row["unknown"]) == (truth.sum(), (1 - truth).sum(), (~known).sum())
        if 0 < truth.sum() < len(truth):
            defined[one.name] = sklearn_metrics.roc_auc_score(truth, values[known, k])
            assert row["auc"] == pytest.approx(defined[one.name])
        else:
            assert row["auc"] is None
    assert result["left_out"] == [one.name for one in PROMPTS if one.name not in defined]
    if defined:
        assert result["macro_auc"] == pytest.approx(np.mean(list(defined.values())))
    else:
        assert result["macro_auc"] is None
    json.dumps(result, allow_nan=False)


def test_probability_is_the_softmax_of_mean_scores() -> None:
    texts = prompt_texts(PROMPTS)
    assert texts == ["fluid", "blunt", "no fluid", "nodule", "clear", "no nodule", "nothing", "glass"]
    scores = np.random.default_rng(0).normal(size=(5, len(texts)))
    of = probabilities(scores, PROMPTS)
    for i, k in np.ndindex(of.shape):
        positive, negative = (np.exp(np.mean([scores[i, texts.index(text)] for text in side]))
                              for side in (PROMPTS[k].positive, PROMPTS[k].negative))
        assert of[i, k] == pytest.approx(positive / (positive + negative))
    assert np.array_equal(probabilities(scores[2:3], PROMPTS)[0], of[2])  # nothing is taken from the other images
    with np.errstate(all="raise"):
        assert set(np.unique(probabilities(1e6 * scores, PROMPTS))) <= {0.0, 1.0}


def test_small_probabilities_keep_their_order() -> None:
    """Equal ones would be ties to AUC: tanh gave 0.0 for all margins below -37."""
    found = probabilities_of(np.array([-700.0, -45.0, -40.0, -38.0, -1.0, 0.0, 1.0, 36.0, 700.0]))
    assert (np.diff(found) > 0).all() and found[0] > 0 and found[5] == 0.5 and found[-1] == 1.0
    assert found[1] == pytest.approx(np.exp(-45.0), rel=1e-12)
    assert found[4] + found[6] == pytest.approx(1, abs=1e-15)


# Without negatives the findings compete.
COMPETING = tuple(FindingPrompts(one.name, one.positive, (), one.zh, one.en) for one in PROMPTS)


def test_findings_without_negatives_share_one_softmax() -> None:
    texts = prompt_texts(COMPETING)
    scores = np.random.default_rng(0).normal(size=(5, len(texts)))
    for ensemble, together in (("scores", np.mean), ("max", np.max)):
        of = probabilities(scores, COMPETING, ensemble)
        for i in range(5):
            odds = [np.exp(together([scores[i, texts.index(text)] for text in one.positive])) for one in COMPETING]
            assert of[i] == pytest.approx(np.divide(odds, np.sum(odds)))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(margins(1e6 * scores, COMPETING)).all()


def test_the_highest_score_of_a_side() -> None:
    texts = prompt_texts(PROMPTS)
    scores = np.random.default_rng(1).normal(size=(4, len(texts)))
    of = margins(scores, PROMPTS, "max")
    for i, k in np.ndindex(of.shape):
        positive, negative = (max(scores[i, texts.index(text)] for text in side)
                              for side in (PROMPTS[k].positive, PROMPTS[k].negative))
        assert of[i, k] == pytest.approx(positive - negative)


def test_one_score_a_side() -> None:
    """What the mean of embeddings gives: the positive sides, then the negative ones."""
    assert sides(PROMPTS) == [("fluid", "blunt"), ("nodule",), ("glass",), ("no fluid",),
                              ("clear", "no nodule", "nothing"), ("clear",)]
    assert margins_of_sides(np.array([[5, 1, 2, 4, 3, 0]]), 3).tolist() == [[1, -2, 2]]
    found = margins_of_sides(np.array([[3.0, 1.0, 2.0]]), 3)
    np.testing.assert_allclose(found, margins(np.array([[3.0, 3.0, 1.0, 2.0]]), COMPETING))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from(["scores", "max"]),
       st.sampled_from([PROMPTS, COMPETING, phantom_prompts()]))
def test_nothing_is_taken_from_the_other_images(images: int, seed: int, ensemble: str,
                                                prompts: tuple[FindingPrompts, ...]) -> None:
    scores = np.random.default_rng(seed).normal(size=(images, len(prompt_texts(prompts))))
    together = probabilities(scores, prompts, ensemble)
    for i in range(len(scores)):
        assert np.array_equal(probabilities(scores[i:i + 1], prompts, ensemble)[0], together[i])


def test_large_scores_do_not_tie() -> None:
    """Scores such as a sum over words make every probability 1.0; the order of the images is still there."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (60, 3)).astype(float)
    scores = random.normal(size=(60, 8))
    small, large = (zero_shot(labels, scale * scores, PROMPTS, n=0)["macro_auc"] for scale in (1, 1e4))
    assert small == pytest.approx(large)


def test_intervals_are_those_of_resampled_images() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (40, 3)).astype(float)
    labels[random.random((40, 3)) < 0.2] = np.nan
    labels[:, 2] = 1  # never a negative: null, and not in the mean of any resample
    scores = random.normal(size=(40, 8))
    scores[:, :2] += 1.5 * (labels[:, :1] == 1)
    result = zero_shot(labels, scores, PROMPTS, n=100, seed=5)
    values, single, macro = margins(scores, PROMPTS), [], []
    for weights in np.concatenate(list(resamples(np.arange(40), 100, 5))).astype(int):
        drawn = np.repeat(np.arange(40), weights)
        both = [sklearn_metrics.roc_auc_score(labels[of, k], values[of, k])
                for k in (0, 1) for of in [drawn[~np.isnan(labels[drawn, k])]]]
        single.append(both[0])
        macro.append(np.mean(both))
    assert result["per_finding"]["effusion"]["auc_ci95"] == pytest.approx(np.percentile(single, [2.5, 97.5]))
    assert result["macro_auc_ci95"] == pytest.approx(np.percentile(macro, [2.5, 97.5]))
    assert result["per_finding"]["covid"] == {"auc": None, "auc_ci95": None, "positives": 40, "negatives": 0,
                                              "unknown": 0}
    assert zero_shot(labels, scores, PROMPTS, [f"p{i // 4}" for i in range(40)], n=5)["bootstrap"]["unit"] == "patient"


def test_bad_input() -> None:
    scores, labels = np.zeros((2, 8)), np.zeros((2, 3))
    with pytest.raises(UserError, match="没有图像"):
        zero_shot(labels[:0], scores[:0], PROMPTS)
    with pytest.raises(UserError, match="1 张图像.*NaN 或 Inf"):
        zero_shot(labels, np.where(np.arange(16).reshape(2, 8) == 3, np.inf, scores), PROMPTS)
    with pytest.raises(UserError, match="现在有 -1"):
        zero_shot(labels - 1, scores, PROMPTS)
    for bad_labels, bad_scores in ((labels, scores[:, :7]), (labels[:1], scores), (labels[:, :2], scores)):
        with pytest.raises(ValueError, match="belong"):
            zero_shot(bad_labels, bad_scores, PROMPTS)


# --- prompts from files -------------------------------------------------------------------------------------------

def write(folder: Path, text: str) -> Path:
    file = folder / "prompts.yaml"
    file.write_text(text, "utf-8")
    return file


def test_prompts_from_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, """
effusion:
  zh: 胸腔积液
  en: Pleural effusion
  positive: ["There is a pleural effusion.", 见胸腔积液。]
  negative: >
    There is no
    pleural effusion.
纵隔增宽:
  positive: [a]
  negative: [b]
""")
    assert read_prompts(file) == (
        FindingPrompts("effusion", ("There is a pleural effusion.", "见胸腔积液。"), ("There is no pleural effusion.",),
                       "胸腔积液", "Pleural effusion"),
        FindingPrompts("纵隔增宽", ("a",), ("b",), "纵隔增宽", "纵隔增宽"))


@pytest.mark.parametrize(("text", "match"), [
    ("", "是空的"),
    ("effusion: {positive: [a], negative: [a, b]}", "prompts.yaml:1.*effusion.*同一句话 'a'"),
    ("x: {positive: [c], negative: [d]}\neffusion: {positive: [a]}", "prompts.yaml:2.*effusion.*negative：缺少"),
    ("effusion: {positive: [a], negative: []}", "negative：应为至少 1 项"),
    ("effusion: {positive: [a], negative: ' '}", "negative.0：应为不空的文字"),
    ("effusion: {positive: [a, 3], negative: [b]}", "positive.1：应为文字"),
    ("effusion: {positive: [a], negative: [b], zhh: c}", "zhh：没有这个键，是不是 zh"),
    ("effusion: [a, b]", "应写成 {positive"),
    ("- effusion", "最外层应是 键: 值"),
    ("effusion: {positive: [a], negative: [b]", "YAML 语法错误"),
    ("effusion: !!python/object/apply:os.system [ls]", "prompts.yaml"),
])
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        read_prompts(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="找不到提示词.*none.yaml"):
        read_prompts(tmp_path / "none.yaml")


# --- prompts for phantoms -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("language", ["en", "zh"])
def test_phantom_prompts_cover_what_can_be_drawn(language: str) -> None:
    prompts = phantom_prompts(language)
    assert [one.name for one in prompts] == list(DRAWERS)
    assert all(one.zh and one.en and not set(one.positive) & set(one.negative) for one in prompts)
    chinese = [any("\u4e00" <= char <= "\u9fff" for char in text) for text in prompt_texts(prompts)]
    assert all(chinese) if language == "zh" else not any(chinese)
    positives = [text for one in prompts for text in one.positive]
    assert len(positives) == len(set(positives))


def test_only_these_languages() -> None:
    with pytest.raises(UserError, match="只有 en 和 zh.*'ch'"):
        phantom_prompts("ch")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_phantom_prompts_tell_the_findings_apart(language: str) -> None:
    """To a reader of the reports' words alone, the prompts mean the findings they stand for; shuffled they do not."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    prompts, random = phantom_prompts(language), np.random.default_rng(0)
    names = [[], *([name] for name in DRAWERS)] * 30
    reports = [write_report([place(Finding(name), random) for name in one], random)[language == "zh"] for one in names]
    labels = label_matrix([FindingsRecord("", 0, labels={name: int(name in one) for name in DRAWERS})
                           for one in names], [one.name for one in prompts])
    reader = text.TfidfVectorizer(analyzer="char" if language == "zh" else "word", ngram_range=(1, 2))
    reader.fit([report["findings"] + report["impression"] for report in reports])
    of_prompts = reader.transform(prompt_texts(prompts))
    # The best of the report's sentences counts, as a model that has seen the film knows all of them.
    scores = (reader.transform([report["findings"] + report["impression"] for report in reports]) @ of_prompts.T)
    scores = scores.toarray()
    result = zero_shot(labels, scores, prompts, n=0)
    assert result["left_out"] == [] and result["macro_auc"] > 0.9, result["per_finding"]
    shuffled = zero_shot(labels, random.permutation(scores), prompts, n=0)
    assert abs(shuffled["macro_auc"] - 0.5) < 0.07


def test_pairs_go_straight_in() -> None:
    pairs = PhantomPairs(count=6, findings=("normal", "effusion", "nodule"))
    labels = label_matrix(pairs.records, [one.name for one in phantom_prompts()])
    known = [one.name for one, column in zip(phantom_prompts(), labels.T, strict=True) if not np.isnan(column).any()]
    assert known == ["effusion", "nodule"]
