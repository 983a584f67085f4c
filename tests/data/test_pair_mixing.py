"""Several sources of pairs as one, and pairs with other images' reports."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.pairs import MixedPairs, PairsFile, PhantomPairs, ShuffledPairs, part_weights
from paddle_cxr.data.sampler import MicroBatchSampler
from paddle_cxr.data.splits import PatientSplit, Published, patient_overlap
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

SYNTHETIC = {"name": "PhantomPairs", "count": 40, "size": 32}


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def real(tmp_path: Path) -> dict:
    """120 films of 40 patients, three each; the last 20 films are the publisher's test films."""
    rows = []
    for number in range(120):
        Image.new("L", (8, 8), number).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "impression": f"Report {number}.", "patient_id": f"p{number // 3}",
                     "labels": {"odd": number % 2}, **({"split": "test"} if number >= 99 else {})})
    rows.append({"image": "0.png", "id": "silent"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "PairsFile", "file": str(tmp_path / "pairs.jsonl")}


def test_mixed_pairs(real):
    spec = {"name": "MixedPairs", "parts": {"real": {"source": real}, "synthetic": {"source": SYNTHETIC}}}
    mixed = build("pairs", spec, "Data")
    assert len(mixed.records) == 160 and len({record.id for record in mixed.records}) == 160
    first, phantom = mixed.records[0], mixed.records[120]
    assert (first.id, first.path, first.extra["part"]) == ("real/0.png", "real/0.png", "real")
    assert phantom.extra["part"] == "synthetic" and phantom.id.startswith("synthetic/phantom/0/normal")
    assert first.patient_id == "p0" and mixed.weights is None and mixed.shares == {} and mixed.demo
    assert mixed.read(7)[0, 0] == 7 and mixed.locate(7).endswith("7.png")
    assert np.array_equal(mixed.read(125), PhantomPairs(40, size=32).read(5))
    assert mixed.locate(125) == PhantomPairs(40, size=32).locate(5)
    assert "real：" in mixed.notices[0] and "没有报告文字" in mixed.notices[0] and "用 40／40 对" in mixed.notices[2]
    assert not MixedPairs({"real": {"source": real}}).demo
    assert MixedPairs.missing(parts=spec["parts"]) is None
    parts = {"synthetic": spec["parts"]["synthetic"], "real": {"source": {"name": "PairsFile", "file": "gone.jsonl"}}}
    assert MixedPairs.missing(parts=parts) == "real：找不到图文对列表（pairs）gone.jsonl"


def test_weights_are_shares_whatever_the_size(real):
    mixed = MixedPairs({"real": {"source": real, "weight": 3.0}, "synthetic": {"source": SYNTHETIC, "weight": 1}})
    assert mixed.weights.dtype == np.float64 and mixed.weights.shape == (160,)
    sampler = MicroBatchSampler(160, batch_size=16, weights=mixed.weights)
    drawn = Counter(mixed.records[place].extra["part"] for epoch in range(50) for step in sampler.plan(epoch)
                    for part in step for place in part)
    assert drawn["real"] / drawn.total() == pytest.approx(0.75, abs=0.02)
    some = [record for number, record in enumerate(mixed.records) if number % 3]
    weights = part_weights(some, mixed.shares)
    assert sum(weight for weight, one in zip(weights, some, strict=True) if one.extra["part"] == "real") == (
        pytest.approx(3.0)) and weights.sum() == pytest.approx(4.0)


def test_fractions_are_nested_and_by_patient(real):
    chosen = {}
    for fraction in (0.1, 0.25, 0.5, 1.0):
        mixed = MixedPairs({"real": {"source": real, "fraction": fraction}})
        films = [record for record in mixed.records if record.split != "test"]
        chosen[fraction] = {record.id for record in films}
        assert len(mixed.records) - len(films) == 21, "test films stay"
        assert Counter(Counter(record.patient_id for record in films).values()).keys() == {3}, "whole patients"
        assert len(films) == pytest.approx(fraction * 99, abs=3)
    assert chosen[0.1] < chosen[0.25] < chosen[0.5] < chosen[1.0]
    again = MixedPairs({"real": {"source": real, "fraction": 0.5}})
    other = MixedPairs({"real": {"source": real, "fraction": 0.5}}, seed=1)
    assert {one.id for one in again.records} >= chosen[0.5] and {one.id for one in other.records} != {
        one.id for one in again.records}
    assert len({one.fingerprint() for one in (mixed, again, other)}) == 3
    assert again.fingerprint() == MixedPairs({"real": {"source": real, "fraction": 0.5}}).fingerprint()


def test_parts_go_to_subsets(real):
    """Real pairs are divided, synthetic ones only train: the mixture is then published."""
    divided = {"source": real, "split": {"name": "PatientSplit", "val": 0.2, "test": 0.2}}
    parts = {"real": divided, "synthetic": {"source": SYNTHETIC, "split": "train"}}
    mixed = MixedPairs(parts)
    subsets = Published()(mixed.records)
    assert Counter(subsets[:120]) == {"train": 72, "val": 24, "test": 24} and set(subsets[120:]) == {"train"}
    assert not any(patient_overlap(mixed.records, subsets).values())
    less = MixedPairs({**parts, "real": {**divided, "fraction": 0.5}})
    for subset in ("val", "test"):
        whole, part = ({record.id for record in one.records if record.split == subset} for one in (mixed, less))
        assert whole == part
    assert Counter(record.split for record in less.records) == {"train": 36 + 40, "val": 24, "test": 24}


def test_a_patient_in_two_parts_is_not_torn_apart(real):
    mixed = MixedPairs({"notes": {"source": real, "fraction": 0.5}, "all": {"source": real}})
    assert not any(patient_overlap(mixed.records, PatientSplit(val=0.3, test=0.2)(mixed.records)).values())


@pytest.mark.parametrize(("part", "match"), [
    ({"weigth": 1.0}, r"parts.real.weigth：没有这一项，是不是 weight"), ({"weight": 0}, "parts.real.weight：应大于 0"),
    ({"weight": float("nan")}, "parts.real.weight：应大于 0"), ({"fraction": 0.0}, "parts.real.fraction"),
    ({"fraction": 1.5}, "parts.real.fraction"), ({"fraction": "10%"}, "parts.real.fraction：应为 float"),
    ({"split": "training"}, "parts.real.split：应为 train"), ({"split": {"name": "Patient"}}, "parts.real.split.name"),
    ({"source": {"name": "PairsFil"}}, "parts.real.source.name"), ({"source": None}, "parts.real.source：应为"),
    ({"weight": 1.0}, "parts.synthetic：real 写了 weight")])
def test_mixed_pairs_refuse(real, part, match):
    error(match, MixedPairs, {"real": {"source": real, **part}, "synthetic": {"source": SYNTHETIC}})


def test_weights_within_a_part_are_refused(real):
    """They would be lost: what is drawn is decided by the outer parts."""
    inner = {"name": "MixedPairs", "parts": {"a": {"source": real, "weight": 3.0}}}
    for source in (inner, {"name": "ShuffledPairs", "source": inner}):
        error("parts.both.source：里面的混合也写了 weight", MixedPairs, {"both": {"source": source}})
    del inner["parts"]["a"]["weight"]
    assert len(MixedPairs({"both": {"source": inner, "weight": 1.0}}).records) == 120


def test_a_fraction_of_what_is_divided_later_is_told(real):
    """The test images would then become fewer with the fraction."""
    def said(**part) -> str:
        return MixedPairs({"fake": {"source": SYNTHETIC, **part}}).notices[-1]

    assert said(fraction=0.5).startswith("fake：用 20／40 对；!! 这一部分还没有划分")
    assert "parts.fake.split" in said(fraction=0.5)
    assert said() == "fake：用 40／40 对" and said(fraction=0.5, split="train") == "fake：用 20／40 对"
    assert "没有划分" not in MixedPairs({"real": {"source": real, "fraction": 0.5}}).notices[-1]


def test_mixed_pairs_need_parts(real):
    error("至少写一部分", MixedPairs, {})
    error("不能为空，也不能有斜线", MixedPairs, {"a/b": {"source": real}})


def test_shuffled_pairs(real):
    source, shuffled = PairsFile(real["file"]), build("pairs", {"name": "ShuffledPairs", "source": real}, "Data")
    texts = [record.impression for record in source.records]
    moved = [record.impression for record in shuffled.records]
    assert sorted(texts) == sorted(moved) and sum(one == other for one, other in zip(texts, moved, strict=True)) < 6
    for one, other in zip(source.records, shuffled.records, strict=True):
        assert (one.id, one.path, one.patient_id, one.labels, one.split) == (
            other.id, other.path, other.patient_id, other.labels, other.split)
    assert shuffled.read(5)[0, 0] == 5 and shuffled.locate(5) == source.locate(5) and not shuffled.demo
    assert "对照" in shuffled.notices[-1] and shuffled.fingerprint() != source.fingerprint()
    assert shuffled.records == ShuffledPairs(real).records != ShuffledPairs(real, seed=1).records
    assert "gone" in ShuffledPairs.missing(source={"name": "PairsFile", "file": "gone"})
    mixed = {"name": "MixedPairs", "parts": {"a": {"source": SYNTHETIC, "weight": 1.0}}}
    assert ShuffledPairs(mixed).weights.shape == (40,) and ShuffledPairs(mixed).shares == {"a": 1.0}
    assert ShuffledPairs(mixed).demo and not shuffled.shares
