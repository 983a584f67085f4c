"""The tabs with models of this project: a classifier that was trained, a ConVIRT and a GLoRIA."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import run_tool
from recipes import write_tiny_recipe
from untrained import untrained

from paddle_cxr.app.classify import Classifier
from paddle_cxr.app.find import PhraseFinder
from paddle_cxr.app.images import PHANTOMS
from paddle_cxr.app.schema import FindSection
from paddle_cxr.app.texts import Refusal
from paddle_cxr.data.phantom import draw_image
from paddle_cxr.errors import UserError


@pytest.mark.slow
def test_a_trained_classifier_is_opened_where_it_lies_now(tmp_path):
    assert run_tool("train", write_tiny_recipe(tmp_path)).returncode == 0
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere, with: 名字")
    classifier = Classifier(moved, "cpu")
    for kind in PHANTOMS[:3]:
        found = classifier(draw_image(kind, seed=1, index=0, size=100))
        assert found.heat.shape == found.seen.shape == (32, 32) and found.heat.max() <= 1
        assert found.probabilities.sum() == pytest.approx(1, abs=1e-4) and found.present is None
        assert found.best.zh in ("正常", "病毒性肺炎", "新冠肺炎")
    assert not classifier.demo
    films = [draw_image(kind, seed=1, index=0, size=100) for kind in PHANTOMS]
    for together, film in zip(classifier.many(films), films, strict=True):
        alone = classifier(film)
        np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(together.heat, alone.heat, atol=1e-4)
        assert (together.seen == alone.seen).all()


@pytest.mark.parametrize(("method", "kind"), [("ConVIRT", "similarity"), ("GLoRIA", "attention"),
                                              ("GLoRIA", "gradcam")])
def test_a_phrase_is_looked_for(tmp_path, method, kind):
    finder = PhraseFinder(FindSection(folder=str(untrained(tmp_path, method)), map=kind), "cpu")
    assert finder.demo
    found = finder(draw_image("effusion", seed=1, index=0, size=120), "There is a pleural effusion.")
    assert found.seen.shape == (96, 96) and np.isfinite(found.map).all() and found.map.ndim == 2
    side, zone = found.hottest
    assert side in ("left", "right") and zone in ("upper", "middle", "lower")
    with pytest.raises(Refusal) as refused:
        finder(found.seen, "胸腔积液")
    assert refused.value.key == "unknown_words"


def test_a_map_that_the_model_lacks_is_refused_before_anybody_asks(tmp_path):
    with pytest.raises(UserError, match="Grounding.map"):
        PhraseFinder(FindSection(folder=str(untrained(tmp_path, "ConVIRT")), map="attention"), "cpu")


def test_a_folder_that_holds_no_classifier_is_refused(tmp_path):
    with pytest.raises(UserError, match="config.yaml"):
        Classifier(tmp_path)
    (tmp_path / "config.yaml").write_text("Global: {task: diffusion}\n", "utf-8")
    with pytest.raises(UserError, match="diffusion"):
        Classifier(tmp_path)
