"""What the pipeline writes is a data set of pairs, alone and mixed with others."""

from __future__ import annotations

from collections import Counter

from synthesis.pairs_parts import Pairs, picture

from paddle_cxr.data.pairs import MixedPairs, PairsFile
from paddle_cxr.data.splits import Published


def test_what_the_pipeline_writes_is_read_as_pairs(tmp_path):
    made, _ = Pairs(tmp_path, 12)()
    file = str(tmp_path / "out/pairs.jsonl")
    source = PairsFile(file)
    assert len(made) > 5 and [record.id for record in source.records] == [row["id"] for row in made]
    for index, (record, row) in enumerate(zip(source.records, made, strict=True)):
        assert (record.findings, record.impression) == (row["findings"], row["impression"])
        assert record.labels == row["labels"] and record.extra["generator"] == row["generator"]
        assert (source.read(index) == picture(row["seed"])).all()
    real = {"source": {"name": "PhantomPairs", "count": 20, "size": 32},
            "split": {"name": "PatientSplit", "val": 0.25, "test": 0.25}, "weight": 1.0}
    mixed = MixedPairs({"real": real, "synthetic": {"source": {"name": "PairsFile", "file": file}, "split": "train",
                                                    "weight": 3.0}})
    assert Counter(Published()(mixed.records)) == {"train": 10 + len(made), "val": 5, "test": 5}
    assert mixed.shares == {"real": 1.0, "synthetic": 3.0} and mixed.demo
