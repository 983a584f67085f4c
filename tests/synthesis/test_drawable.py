"""Reports that a phantom can illustrate: what is sampled, what contradicts, and that the film shows what is said."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from paddle_cxr.data.phantom import DRAWERS, draw_image
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.acceptance import type_balance
from paddle_cxr.synthesis.drawable import drawable
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.generators import phantom as phantom_module
from paddle_cxr.synthesis.generators.base import ImageRequest
from paddle_cxr.synthesis.generators.phantom import PhantomGenerator
from paddle_cxr.synthesis.plan import Plan
from paddle_cxr.synthesis.reports import build_maker
from paddle_cxr.synthesis.run import check_recipe
from paddle_cxr.synthesis.sampling import BalancedSampler
from paddle_cxr.synthesis.schema import ReportsRecipe, load_recipe
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary

RECIPE = Path(__file__).parents[2] / "configs/synthesis/reports_phantom.yaml"
FINDINGS = ("abnormality", "disease")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return load_vocabulary()


@functools.cache
def reports() -> list[dict]:
    """The recipe's 1000 reports."""
    recipe, _ = load_recipe(RECIPE, [], ReportsRecipe)
    words, sampler = check_recipe(recipe)
    written = build_maker(recipe, words).make(Plan(sampler, words, recipe.Global).first())
    assert all(one.accepted for one in written)
    return [one.record for one in written]


def keys(report: dict) -> list[tuple[str, str]]:
    return [(one["id"], one["type"]) for one in report["entities"]]


def test_what_is_drawable(vocabulary):
    chosen = [vocabulary.entities[position] for position in drawable(vocabulary).positions]
    by_type = {type_: {one.id for one in chosen if one.type == type_} for type_ in {one.type for one in chosen}}
    for type_ in FINDINGS:
        assert by_type[type_] == {one.id for one in vocabulary if one.type == type_ and one.drawer in DRAWERS}
    assert {"clear_lungs", "nodule", "sharp_costophrenic_angles"} <= by_type["non-abnormality"]
    assert {"pleural_effusion", "cardiomegaly", "no_acute_disease"} <= by_type["non-disease"]
    # True of every phantom but about nothing it shows, or false of all.
    assert not {"intact_ribs", "normal_endotracheal_tube_position", "osteophytes"} & by_type["non-abnormality"]
    assert "rib_fracture" not in by_type["non-disease"]
    assert {"left_lower_lobe", "right_lung_apex", "perihilar_region"} <= by_type["anatomy"]
    assert not {"lungs", "left_clavicle", "liver", "left_lower_lobe_bronchus"} & by_type["anatomy"]


def test_the_picture_contradicts_more_than_the_words(vocabulary):
    conflicts = drawable(vocabulary).contradictions
    position = vocabulary.position
    no_pneumonia, opacity = position["lobar_pneumonia", "non-disease"], position["opacity", "abnormality"]
    assert opacity not in vocabulary.contradictions[no_pneumonia]
    assert opacity in conflicts[no_pneumonia] and no_pneumonia in conflicts[opacity]  # it is drawn as a consolidation
    effusion, oedema = position["pleural_effusion", "disease"], position["pulmonary_edema", "disease"]
    assert position["left_lung_apex", "anatomy"] in conflicts[effusion]
    assert position["left_lung_base", "anatomy"] not in conflicts[effusion]
    assert position["left_lung_apex", "anatomy"] not in conflicts[oedema]
    for one, others in vocabulary.contradictions.items():
        assert others <= conflicts[one]


def test_only_drawable_things_are_sampled_and_the_cap_holds(vocabulary):
    sampler = BalancedSampler(k=3, m=2, cap="auto", only="drawable")
    plan, choice = sampler.plan(vocabulary, 500, 0), drawable(vocabulary)
    assert set(plan.ravel().tolist()) <= set(choice.positions)
    assert not any(choice.contradictions.get(one, frozenset()) & set(row) for row in plan.tolist() for one in row)
    assert np.bincount(plan.ravel()).max() <= sampler.resolved_cap(vocabulary, 500, 0)
    assert np.array_equal(plan, sampler.plan(vocabulary, 500, 0))
    everything = BalancedSampler(k=3, m=2, cap="auto").plan(vocabulary, 500, 0)
    assert not set(everything.ravel().tolist()) <= set(choice.positions)


def test_the_balance_is_of_what_can_be_drawn_at_all(vocabulary):
    """Else thousands of entities that no phantom can show would make any sample look uneven."""
    sampler = BalancedSampler(k=3, m=2, cap="auto", only="drawable")
    drawn_from, positions = sampler.choice(vocabulary).positions, sampler.plan(vocabulary, 500, 0)
    own, whole = (type_balance(vocabulary, some, positions) for some in (drawn_from, range(len(vocabulary))))
    for name in own:
        assert own[name]["mentions"] == whole[name]["mentions"] > 0
        assert own[name]["entries"] < whole[name]["entries"] and own[name]["gini"] < 0.5 < whole[name]["gini"]
    assert sum(one["entries"] for one in own.values()) == len(drawn_from)


def test_a_vocabulary_without_drawers_is_refused_in_one_line():
    words = Vocabulary([Entity("a", "disease", "a"), Entity("b", "anatomy", "left lung", drawer="nodule")], "own")
    with pytest.raises(UserError, match="Sampler.only：词表（vocabulary）own.*drawer") as caught:
        BalancedSampler(k=1, m=0, only="drawable").resolved_cap(words, 1, 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="Sampler.k.*只有 1 个"):
        BalancedSampler(k=2, m=0, only="drawable").plan(
            Vocabulary([Entity("a", "disease", "a", drawer="nodule"), Entity("c", "disease", "c")], "own"), 1, 0)


def test_the_recipe_gives_films_with_few_findings():
    counts = Counter(sum(type_ in FINDINGS for _, type_ in keys(report)) for report in reports())
    assert len(reports()) == 1000 and max(counts) <= 3
    assert 200 < counts[0] < 450 and counts[1] + counts[2] > 500


@pytest.fixture
def drawn_findings(monkeypatch) -> list[list]:
    """What is asked of the phantoms, instead of drawing them."""
    asked: list[list] = []
    monkeypatch.setattr(phantom_module, "draw_image",
                        lambda findings, **_: asked.append(findings) or np.zeros((32, 32), np.uint8))
    return asked


def requests(section: str) -> list[ImageRequest]:
    return [ImageRequest(one["id"], one[section], one["seed"], tuple(one["entities"])) for one in reports()]


def claims(text: str, findings: list[Entity]) -> list[tuple[Entity, str]]:
    """The sides a text tells of findings, read as plainly as can be: "X in the … left …", "in the left …, there is X".

    Written apart from the generator's own reading.
    """
    owners = {name.lower(): finding for finding in findings for name in finding.names}
    name = "|".join(sorted(map(re.escape, owners), key=len, reverse=True))  # a bandlike opacity is not just an opacity
    told = []
    for sentence in re.split(r"[.;\n]+(?:\s|$)|\d\.\s", text):
        if not owners or re.search(r"\b(?:no|not|without|negative|absent|neither)\b", sentence, re.IGNORECASE):
            continue
        before = re.match(r"(?:in|at) the ([a-z ]*),", sentence.strip(), re.IGNORECASE)
        for found in re.finditer(rf"\b({name})s?\b", sentence, re.IGNORECASE):
            after = re.match(r" (?:is |are )?(?:seen |noted |present |identified )?(?:in|at) (?:the )?([a-z ]*)",
                             sentence[found.end():].split(" and ")[0], re.IGNORECASE)
            for part in filter(None, (before, after)):
                sides = re.findall(r"\b(?:left|right)\b", part[1].lower())
                told += [(owners[found[1].lower()], side) for side in sides]
    return told


def present(report: dict, vocabulary: Vocabulary) -> list[Entity]:
    return [vocabulary[key] for key in keys(report) if key[1] in FINDINGS]


@pytest.mark.parametrize("section", ["findings", "impression"])
def test_every_report_is_drawn_on_the_side_it_says(section, vocabulary, drawn_findings):
    drawn = PhantomGenerator(32, vocabulary).draw(requests(section))
    failed = [one.error for one in drawn if one.error]
    assert not failed, failed[:3]
    told = 0
    for report, findings in zip(reports(), drawn_findings, strict=True):
        entities = present(report, vocabulary)
        assert {one.name for one in findings} == {one.drawer for one in entities}
        for entity, side in claims(report[section], entities):
            told += 1
            assert side in {one.side for one in findings if one.name == entity.drawer}, (report[section], findings)
    assert told > 200


def test_the_film_changes_on_the_side_that_is_said(vocabulary):
    """Against the same patient's healthy film, for reports with one finding on a told side."""
    chosen = []
    for request, report in zip(requests("impression"), reports(), strict=True):
        told = claims(request.prompt, entities := present(report, vocabulary))
        if len(entities) == 1 and len({side for _, side in told}) == 1:
            chosen.append((request, told[0][1]))
    chosen = chosen[:30]
    assert len(chosen) == 30
    for request, side in chosen:
        film = PhantomGenerator(64, vocabulary).draw([request])[0].image
        change = np.abs(film.astype(int) - draw_image((), seed=request.seed, index=0, size=64))
        on_left = change[:, 32:].sum() > change[:, :32].sum()  # the patient's left is on the picture's right
        assert on_left == (side == "left"), request.prompt


def test_the_recipe_holds_for_other_seeds_and_counts():
    for seed, count in ((0, 200), (1, 2000)):
        recipe, _ = load_recipe(RECIPE, [f"Global.seed={seed}", f"Global.reports={count}"], ReportsRecipe)
        words, sampler = check_recipe(recipe)
        assert len(Plan(sampler, words, recipe.Global).first()) == count
