"""Image–report pairs: read from files, made of phantoms, made of labelled images."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.labelled import View
from paddle_cxr.data.pairs import LabelledPairs, PairsFile, PhantomPairs
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.splits import PatientSplit
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build

ENTITIES = [{"id": "pleural_effusion", "type": "abnormality"}]


def image(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40), level, np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(3):
        image(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def lines(folder: Path, *rows: object) -> str:
    file = folder / "pairs.jsonl"
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(file)


def table(folder: Path, text: str, name: str = "pairs.csv") -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


# Files


def test_pairs_as_the_toolkit_writes_them(folder):
    full = {"id": "p1", "image": "images/1.png", "findings": "A.", "impression": "B.", "entities": ENTITIES,
            "labels": {"effusion": 1, "nodule": 0, "mass": None}, "patient_id": "x", "view": "PA",
            "source": "synthetic", "writer": "grammar", "generator": "roentgen", "seed": 3, "similarity": 0.2}
    file = lines(folder, full, "\n", {"image": "images/0.png", "findings": "Only these."},
                 {"image": "images/2.png", "impression": None, "findings": "  "})
    pairs = build("pairs", {"name": "PairsFile", "file": file}, "Data")
    one, other = pairs.records
    assert (one.id, one.path, one.findings, one.impression) == ("p1", "images/1.png", "A.", "B.")
    assert one.labels == {"effusion": 1, "nodule": 0, "mass": None} and one.entities == tuple(ENTITIES)
    assert one.patient_id == "x" and one.view == "PA" and one.extra["generator"] == "roentgen" and one.prompt == "B."
    assert other.id == "images/0.png" and other.prompt == "Only these." and other.labels == {}
    assert "1 行没有报告" in pairs.notices[0]
    assert pairs.read(0)[0, 0] == 1 and pairs.locate(0) == str(folder / "images/1.png")
    assert not pairs.demo and pairs.classes == () and pairs.counts() == {}


def test_pairs_drawn_by_phantoms_are_a_demo(folder):
    assert PairsFile(lines(folder, {"image": "images/0.png", "impression": "A.", "generator": "phantom"})).demo


def test_table(folder):
    text = "filename,report,patient_id,view,split,age\n0.png,\"Left, small.\",7,AP,train,60\n1.png,Clear.,,,,\n"
    pairs = PairsFile(table(folder, text), str(folder / "images"), {"image": "filename", "findings": "report"})
    one, other = pairs.records
    assert (one.path, one.findings) == ("0.png", "Left, small.")
    assert (one.patient_id, one.view, one.split) == ("7", "AP", "train")
    assert one.extra == {"age": "60"} and other.patient_id is None and other.split is None
    tabbed = PairsFile(table(folder, "image\timpression\nimages/0.png\tA, b.\n", "pairs.tsv"))
    assert tabbed.records[0].prompt == "A, b."


WHOLE = "FINAL REPORT\n INDICATION: Cough.\n\n FINDINGS: Lungs are clear.\n\n IMPRESSION:\n 1. Normal."
ZH = "检查方法：DR\n影像所见：双肺纹理清晰。心影不大。\n诊断意见：心肺未见异常。\n报告医师：张三  审核医师：李四"


def test_whole_reports_are_cut_into_their_sections(folder):
    """As a report was written, in JSONL and in a cell of a table with several lines; given sections come first."""
    rows = [{"image": "images/0.png", "report": WHOLE}, {"image": "images/1.png", "report": ZH},
            {"image": "images/2.png", "report": WHOLE, "impression": "Mine."}]
    one, chinese, own = PairsFile(lines(folder, *rows)).records
    assert (one.findings, one.impression) == ("Lungs are clear.", "1. Normal.")
    assert (chinese.findings, chinese.impression) == ("双肺纹理清晰。心影不大。", "心肺未见异常。")
    assert (own.findings, own.impression) == ("", "Mine.")
    text = f'image,text\nimages/0.png,"{WHOLE}"\nimages/1.png,Findings: Clear. Impression: Normal.\nimages/2.png,\n'
    pairs = PairsFile(table(folder, text), columns={"report": "text"})
    assert [(record.findings, record.impression) for record in pairs.records] == [
        ("Lungs are clear.", "1. Normal."), ("Clear.", "Normal.")]
    assert "1 行没有报告" in pairs.notices[0]
    plain = PairsFile(table(folder, "image,report\nimages/0.png,Clear lungs.\n"))
    assert plain.records[0].prompt == "Clear lungs."


def test_absent_images_are_named_and_left_out(folder):
    rows = [{"image": f"images/{number}.png", "impression": "A."} for number in (0, 7, 8)]
    file = lines(folder, *rows)
    error("pairs.jsonl:2：找不到图像 .*7.png.*on_error: skip", PairsFile, file)
    pairs = PairsFile(file, on_error="skip")
    assert [record.path for record in pairs.records] == ["images/0.png"]
    assert re.search(r"略过 2 张找不到的图像：.*images/7.png、.*images/8.png$", pairs.notices[-1])
    error("一个图文对也没有（.*略过 1 张", PairsFile, lines(folder, rows[1]), on_error="skip")


def test_numbers_and_words_that_people_write(folder):
    row = {"image": "images/0.png", "impression": "A.", "id": 7, "patient_id": 12, "split": "validation"}
    record, = PairsFile(lines(folder, row)).records
    assert (record.id, record.patient_id, record.split) == ("7", "12", "val")
    error("pairs.jsonl:1：split 为 'dev'", PairsFile, lines(folder, row | {"split": "dev"}))


def test_the_fingerprint_names_images_and_reports(folder):
    row = {"image": "images/0.png", "impression": "A."}
    first = PairsFile(lines(folder, row)).fingerprint()
    assert PairsFile(lines(folder, row)).fingerprint() == first
    assert PairsFile(lines(folder, row | {"impression": "B."})).fingerprint() != first
    assert PairsFile(lines(folder, row | {"image": "images/1.png"})).fingerprint() != first


@pytest.mark.parametrize(("row", "match"), [
    ("{\"image\": \"ima", r"pairs.jsonl:1：不是有效的 JSON，这一行可能没有写完"),
    ("[1]\n", "pairs.jsonl:1：应是一个 JSON 对象"),
    ({"impression": "A."}, "pairs.jsonl:1：图像路径为空"),
    ({"image": "../secret.png", "impression": "A."}, "pairs.jsonl:1.*之外"),
    ({"image": "/etc/a.png", "impression": "A."}, "pairs.jsonl:1.*之外"),
    ({"image": "images/9.png", "impression": "A."}, "pairs.jsonl:1：找不到图像.*9.png"),
    ({"image": "images/0.png", "impression": 3}, "pairs.jsonl:1 的 impression：应为 str 或 null"),
    ({"image": "images/0.png", "impression": "A.", "entities": ["effusion"]}, "pairs.jsonl:1：entities"),
    ({"image": "images/0.png", "impression": "A.", "labels": {"effusion": 2}}, "pairs.jsonl:1.*effusion.*0、1 或 null"),
    ({"image": "images/0.png", "impression": "A.", "labels": "effusion"}, "pairs.jsonl:1 的 labels"),
    ({"image": "images/0.png", "impression": "A.", "labels": {"effusion": 10**400}}, "pairs.jsonl:1.*effusion"),
    ({"image": "images/0.png", "impression": ""}, "一个图文对也没有"),
])
def test_broken_lines(folder, row, match):
    error(match, PairsFile, lines(folder, row))


def test_broken_files(folder, tmp_path):
    row = {"id": "a", "image": "images/0.png", "impression": "A."}
    error("pairs.jsonl:3：编号（id）'a' 在 .*:1 已经有了", PairsFile,
          lines(folder, row, "\n", row | {"image": "images/1.png"}))
    error("找不到图文对列表", PairsFile, str(folder / "none.jsonl"))
    assert "none.csv" in PairsFile.missing(file=str(folder / "none.csv"))
    assert PairsFile.missing(file=lines(folder, row)) is None
    error("没有列 'image'，是不是 images", PairsFile, table(folder, "images,impression\nimages/0.png,A.\n"))
    error("没有列 'impression'.*columns", PairsFile, table(folder, "image,note\nimages/0.png,A.\n"))
    error("没有列 'text'", PairsFile, table(folder, "image,impression\nimages/0.png,A.\n"), None, {"findings": "text"})
    error("没有 'img' 这一项", PairsFile, table(folder, "image,impression\n"), None, {"img": "image"})
    error(r"pairs.csv:3：有 1 列", PairsFile, table(folder, "image,impression\nimages/0.png,A.\nimages/1.png\n"))


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "image", "impression", "findings", "entities", "labels", "type"]), inner, max_size=7),
    max_leaves=12))
def test_any_line_is_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "pairs.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError):  # no image lies there
        PairsFile(str(file))


# Phantoms


def test_phantom_pairs_are_balanced_and_told_truly():
    pairs = PhantomPairs(240, seed=5, size=64, findings=("normal", "effusion", "nodule", "covid:left"))
    assert pairs.demo and PhantomPairs.missing() is None
    cells = Counter((next((name for name, label in record.labels.items() if label), "normal"), record.side)
                    for record in pairs.records)
    assert cells == {("normal", None): 60, ("covid", "left"): 60, ("nodule", "left"): 30, ("nodule", "right"): 30,
                     ("effusion", "left"): 20, ("effusion", "right"): 20, ("effusion", "bilateral"): 20}
    for record in pairs.records:
        assert set(record.labels) == {"effusion", "nodule", "covid"}
        told = [side for side in ("left", "right", "bilateral", "both") if side in record.impression]
        wanted = {None: [], "bilateral": ["bilateral"]}.get(record.side, [record.side])
        assert [{"both": "bilateral"}.get(one, one) for one in told] == wanted


def test_phantom_pairs_show_what_is_told():
    """A finding changes the side of the film that its report names, against the same patient without it."""
    asked = ("consolidation:left", "consolidation:right")
    pairs = PhantomPairs(8, seed=1, size=64, findings=asked)
    healthy = PhantomPairs(8, seed=1, size=64, findings=("normal",))
    for index, record in enumerate(pairs.records):
        change = np.abs(pairs.read(index).astype(int) - healthy.read(index)).sum(axis=0)
        on_left = change[32:].sum() > change[:32].sum()  # the patient's left is on the picture's right
        assert on_left == (record.side == "left"), record


def test_phantom_pairs_are_the_same_anywhere():
    one, other = PhantomPairs(9, 2, 48), PhantomPairs(5, 2, 48)
    assert one.records[:5] == other.records and np.array_equal(one.read(4), other.read(4))
    assert one.fingerprint() != other.fingerprint() == PhantomPairs(5, 2, 48).fingerprint()
    assert {record.patient_id for record in one.records}.isdisjoint(
        record.patient_id for record in PhantomPairs(9, 3, 48).records)


def test_phantom_pairs_refuse():
    error("画不出 'efusion'，是不是 effusion", PhantomPairs, findings=("efusion",))
    error("nodule:bilateral.*left、right", PhantomPairs, findings=("nodule:bilateral",))
    error("至少写一种", PhantomPairs, findings=())
    error("count", PhantomPairs, 0)


def test_cache_split_and_view_work_on_pairs(tmp_path):
    pairs = PhantomPairs(20, 0, 48)
    cache = DecodedCache(pairs, Preprocess(image_shape=(1, 32, 32)), folder=tmp_path, workers=1)
    assert cache.images.shape[0] == 20
    subsets = PatientSplit(val=0.25, test=0.0)(pairs.records)
    assert Counter(subsets) == {"train": 15, "val": 5}
    view = View(pairs, [3, 1])
    assert view.records[0] is pairs.records[3] and np.array_equal(view.read(1), pairs.read(1)) and view.demo


# Labelled images


@pytest.fixture
def labelled(tmp_path) -> dict:
    rows = ["file,label,patient_id,fold,view,note", "a.png,normal,1,0,PA,", "b.png,covid-19,2,1,AP,Seen in both lungs."]
    for name in ("a.png", "b.png"):
        image(tmp_path / "films" / name, 7)
    table(tmp_path / "films", "\n".join(rows) + "\n", "index.csv")
    return {"name": "ListFile", "root": str(tmp_path / "films")}


PROMPTS = {"NORMAL": "No finding.", "COVID": "COVID-19 pneumonia."}
ALIASES = {"COVID": ["covid-19"]}


def test_labelled_images_get_their_class_text(labelled):
    spec = {"name": "LabelledPairs", "source": labelled, "prompts": PROMPTS, "aliases": ALIASES}
    one, other = build("pairs", spec, "Data").records
    assert (one.impression, other.impression) == ("No finding.", "COVID-19 pneumonia.")
    assert one.labels == {"NORMAL": 1, "COVID": 0} and (one.patient_id, one.fold, one.view) == ("1", 0, "PA")
    noted = LabelledPairs(labelled, PROMPTS, ALIASES, text_column="note")
    assert [record.impression for record in noted.records] == ["No finding.", "Seen in both lungs."]
    assert noted.read(1)[0, 0] == 7 and noted.locate(1).endswith("films/b.png") and not noted.demo
    assert noted.fingerprint() != LabelledPairs(labelled, PROMPTS, ALIASES).fingerprint()


def test_labelled_phantoms_are_a_demo():
    pairs = LabelledPairs({"name": "Phantoms", "per_class": 2, "size": 48}, {"normal": "Clear.", "covid": "COVID-19."})
    assert pairs.demo and len(pairs.records) == 4 and pairs.read(0).shape == (48, 48)


def test_labelled_pairs_refuse(labelled, tmp_path):
    error("COVID 没有文字", LabelledPairs, labelled, {"COVID": " "}, ALIASES)
    error("aliases：'covid'.*是不是 COVID", LabelledPairs, labelled, PROMPTS, {"covid": []})
    error("'notes'.*是不是 note", LabelledPairs, labelled, PROMPTS, ALIASES, text_column="notes")
    error("index.csv:3：标签 'covid-19'", LabelledPairs, labelled, PROMPTS)
    error("LabelledPairs.source.name", LabelledPairs, {"name": "ListFiles"}, PROMPTS)
    assert LabelledPairs.missing(source=labelled) is None
    assert "nowhere" in LabelledPairs.missing(source={"name": "ListFile", "root": str(tmp_path / "nowhere")})


def test_real_films_as_pairs(real_data):
    prompts = {"NORMAL": "No finding.", "PNEUMONIA": "Pneumonia.", "COVID": "COVID-19 pneumonia."}
    pairs = LabelledPairs({"name": "ListFile", "root": str(real_data / "cxr")}, prompts, text_column="note")
    assert len(pairs.records) == 880
    assert sum(record.impression not in prompts.values() for record in pairs.records) > 10
