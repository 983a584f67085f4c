"""What a run was trained on is written beside its weights and found again by a later evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.data.labelled import LabelledData, part_of
from paddle_cxr.data.records import Source
from paddle_cxr.engine.provenance import say_overlap, write_trained_on
from paddle_cxr.registry import build


def data_of(source: Source) -> LabelledData:
    """A source as if it had been decoded: provenance looks at records and files only."""
    count = len(source.records)
    return LabelledData(source, None, np.zeros((count, 1, 1), np.uint8), np.zeros(count, np.int64), ["test"] * count)


def pairs(folder: Path, patients: list[str] | None = None, images: int = 4) -> dict[str, str]:
    """The component of a list of pairs, of which no two images have the same size in bytes."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(images):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 8 + number), np.uint8)).save(
            folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "impression": f"Report {number}.", "labels": {"odd": number % 2},
                     **({"patient_id": patients[number]} if patients else {})})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "PairsFile", "file": str(folder / "pairs.jsonl")}


def findings(folder: Path) -> LabelledData:
    """The images of :func:`pairs` as another task would read them."""
    return data_of(build("findings", {"name": "FindingsFile", "root": str(folder), "file": "pairs.jsonl",
                                      "columns": {"path": "image"}}, "Source"))


def overlap(weights: Path, data: LabelledData) -> tuple[int | None, str]:
    """Images that were trained on, and what is said of them."""
    said: list[str] = []
    return say_overlap(weights, data, said.append), "\n".join(said)


def test_images_learned_in_a_mixture_are_found_elsewhere(tmp_path):
    """They have no patients here: only the file itself can tell, which a mixture calls by another name."""
    real = pairs(tmp_path / "real")
    inner = {"name": "MixedPairs", "parts": {"inner": {"source": real}}}
    mixed = data_of(build("pairs", {"name": "FlawedPairs", "source": {"name": "MixedPairs", "parts": {
        "real": {"source": inner}, "other": {"source": {"name": "PhantomPairs", "count": 4, "size": 32}}}}}, "Data"))
    assert len({record.id for record in mixed.source.records}) == len({r.path for r in mixed.source.records}) == 8
    weights = tmp_path / "run/model"
    weights.mkdir(parents=True)
    write_trained_on(tmp_path / "run", part_of(mixed, np.arange(1, 8)), np.arange(2))  # 1.png and 2.png
    count, said = overlap(weights, findings(tmp_path / "real"))
    assert count == 2 and "其中 2 张" in said
    assert overlap(weights, data_of(build("pairs", real, "Data")))[0] == 2
    assert overlap(weights, mixed)[0] == 2 and overlap(weights, part_of(mixed, np.arange(3, 8)))[0] == 0
    # A record of before, which called them as the mixture does, is still understood by the mixture.
    record = tmp_path / "run/train_files.csv"
    text = record.read_text(encoding="utf-8")
    record.write_text(text.replace("\n1.png", "\nreal/inner/1.png"), encoding="utf-8")
    assert overlap(weights, mixed)[0] == 2


@pytest.mark.parametrize(("content", "said"), [
    (b"", "没有列 'file'"), (b"file,bytes\n0.png,1\n", "train_files.csv:1：表头没有列 'patient_id'"),
    (b"name,price\nx,1\n", "表头没有列 'file'"), (b"\xff\xfe\x00\x01", "表头没有列 'file'"),
    (b"file,bytes,label,patient_id\n0.png,1,,\n1.png,2\n", "train_files.csv:3：有 2 列，而表头有 4 列")])
def test_a_damaged_or_foreign_record_is_none_and_said_so(tmp_path, content, said):
    """Everything has been scored by then.  A short row must not make a patient of nobody, who is in every image."""
    pairs(tmp_path / "data")
    weights = tmp_path / "run/checkpoints/best"
    weights.mkdir(parents=True)
    (tmp_path / "run/train_files.csv").write_bytes(content)
    count, lines = overlap(weights, findings(tmp_path / "data"))
    assert count is None and said in lines and "无法核对" in lines and lines.count("\n") == 1


def test_only_the_own_run_s_record_is_used(tmp_path):
    pairs(tmp_path / "data")
    data = findings(tmp_path / "data")
    for folder in ("run/checkpoints/best", "run/model", "run/fold0/checkpoints/latest"):
        (tmp_path / folder).mkdir(parents=True)
    write_trained_on(tmp_path, data, np.arange(4))  # a user's file, or another run's
    assert overlap(tmp_path / "run/model", data)[0] is None
    assert overlap(tmp_path / "run/checkpoints/best", data)[0] is None
    write_trained_on(tmp_path / "run", data, np.arange(3))
    assert overlap(tmp_path / "run/fold0/checkpoints/latest", data)[0] is None
    for weights in ("run/model", "run/checkpoints/best", "run/model/model.safetensors"):
        assert overlap(tmp_path / weights, data)[0] == 3, weights
    (tmp_path / "copied").mkdir()
    write_trained_on(tmp_path / "copied", data, np.arange(1))
    assert overlap(tmp_path / "copied/model.safetensors", data)[0] == overlap(tmp_path / "copied", data)[0] == 1


def test_a_patient_is_the_same_within_a_cohort_only(tmp_path):
    """Two hospitals both number theirs from 1; the films of one hospital keep their ids in a list of another name."""
    old = pairs(tmp_path / "old", ["1", "2", "3", "3"])
    pairs(tmp_path / "new", ["1", "2", "8", "9", "10"], images=5)
    data, strangers = findings(tmp_path / "old"), findings(tmp_path / "new")
    for folder in (tmp_path / "old", tmp_path / "new"):  # no file alike: only patients can tell
        for number in range(5):
            (folder / f"{number}.png").write_bytes(b"%d" % number * (2 if folder.name == "old" else 3))
    run = tmp_path / "run"
    run.mkdir()
    write_trained_on(run, data, np.arange(3))
    count, said = overlap(run, strangers)
    assert count == 0 and "有 2 张的患者编号" in said and "!!" not in said
    assert overlap(run, data)[0] == 4  # the fourth is of a patient who was trained on
    # A mixture does not hide whose patients they are, in training or in testing.
    mixed = data_of(build("pairs", {"name": "MixedPairs", "parts": {"real": {"source": old}, "other": {
        "source": {"name": "PhantomPairs", "count": 4, "size": 32}}}}, "Data"))
    assert overlap(run, mixed)[0] == 4
    write_trained_on(run, mixed, np.arange(3))
    assert overlap(run, data)[0] == 4 and overlap(run, strangers)[0] == 0
    # A record of before does not say whose they are: it may be these.
    rows = (run / "train_files.csv").read_text(encoding="utf-8").splitlines()
    (run / "train_files.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows), encoding="utf-8")
    assert overlap(run, strangers)[0] == 2


def test_data_sets_of_the_same_films_are_one_cohort(tmp_path):
    """The RSNA challenge's films are ChestX-ray14's, and so are their patients' ids."""
    films = tmp_path / "rsna/stage_2_train_images"
    films.mkdir(parents=True)
    Image.new("L", (8, 8)).save(films / "a.png")
    (tmp_path / "rsna/stage_2_train_labels.csv").write_text("patientId,x,y,width,height,Target\na,,,,,0\n")
    (tmp_path / "rsna/pneumonia-challenge-dataset-mappings_2018.json").write_text(
        json.dumps([{"subset_img_id": "a", "img_id": "00000007_003.png"}]))
    rsna = data_of(build("findings", {"name": "RSNAPneumonia", "root": str(tmp_path / "rsna")}, "Source"))
    (tmp_path / "nih/images").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "nih/images/00000007_001.png")
    (tmp_path / "nih/Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
        "00000007_001.png,No Finding,0,7,058Y,M,PA\n")
    nih = data_of(build("findings", {"name": "ChestXray14", "root": str(tmp_path / "nih")}, "Source"))
    for trained, tested in ((nih, rsna), (rsna, nih)):
        write_trained_on(tmp_path, trained, np.arange(1))
        assert overlap(tmp_path, tested)[0] == 1
