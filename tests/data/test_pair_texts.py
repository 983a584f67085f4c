"""Texts of pairs without reports: phantoms with several findings and in Chinese, films with labels and columns."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.pairs import LabelledPairs, PhantomPairs, ShuffledPairs
from paddle_cxr.data.pairs.template import Template
from paddle_cxr.data.phantom import DRAWERS
from paddle_cxr.errors import UserError

FINDINGS = ("normal", "covid", "viral", "consolidation", "effusion", "nodule", "pneumothorax", "atelectasis", "oedema",
            "cardiomegaly")
NAMED = {"covid": "COVID", "viral": "viral pneumonia", "consolidation": "onsolidation", "effusion": "effusion",
         "nodule": "odule", "pneumothorax": "pneumothorax", "atelectasis": "atelectasis", "oedema": "edema",
         "cardiomegaly": "ardiomegaly"}  # how an IMPRESSION names what it says is there


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


# Phantoms


def test_one_finding_a_film_is_what_it_always_was():
    """Models trained on these pairs name this fingerprint; the pictures belong to it."""
    pairs = PhantomPairs(60, seed=4, size=64, findings=FINDINGS)
    assert pairs.fingerprint() == "6fbabba37514ec96"
    drawn = hashlib.sha256(b"".join(pairs.read(index).tobytes() for index in range(0, 60, 7))).hexdigest()
    assert drawn[:16] == "07826aa645fb4bdf"


def test_several_findings_a_film():
    pairs = PhantomPairs(500, seed=1, size=64, findings=FINDINGS, together=3)
    alone = PhantomPairs(500, seed=1, size=64, findings=FINDINGS)
    reports = Counter((record.findings, record.impression) for record in pairs.records)
    assert len(reports) > 0.75 * 500 > 0.4 * 500 > len({record.impression for record in alone.records})
    counts = Counter(sum(record.labels.values()) for record in pairs.records)
    assert set(counts) == {0, 1, 2, 3} and counts[0] == 50
    for record, own in zip(pairs.records, alone.records, strict=True):
        shown = {name for name, label in record.labels.items() if label}
        assert {name for name, words in NAMED.items() if words in record.impression} == shown
        assert record.patient_id == own.patient_id and shown >= {name for name, label in own.labels.items() if label}
        assert len(shown & {"covid", "viral", "consolidation", "oedema"}) <= 1
        assert (record.side is None) == (not shown) == (record.impression == "No acute cardiopulmonary abnormality.")
    assert pairs.fingerprint() != alone.fingerprint() == PhantomPairs(500, 1, 64, FINDINGS, 1, "en").fingerprint()
    again = PhantomPairs(20, seed=1, size=64, findings=FINDINGS, together=3)
    assert again.records == pairs.records[:20] and np.array_equal(again.read(7), pairs.read(7))


def test_every_finding_told_is_drawn():
    """Taking any finding away from a film changes it."""
    from paddle_cxr.data.phantom import draw_image

    pairs = PhantomPairs(40, seed=2, size=64, findings=FINDINGS, together=3)
    several = [index for index, record in enumerate(pairs.records) if sum(record.labels.values()) == 3][:4]
    for index in several:
        findings = pairs._findings[index]
        whole = pairs.read(index).astype(int)
        for left_out in range(3):
            rest = [one for place, one in enumerate(findings) if place != left_out]
            change = np.abs(draw_image(rest, seed=2, index=index, size=64) - whole)
            assert (change > 8).sum() > 15, (index, findings[left_out])
            assert set(DRAWERS[findings[left_out].name].sides) >= {findings[left_out].side}


def test_chinese_reports():
    english, chinese = (PhantomPairs(30, 3, 64, FINDINGS, 3, language) for language in ("en", "zh"))
    assert not any(record.impression.isascii() for record in chinese.records)
    assert all(record.impression.isascii() for record in english.records)
    assert chinese.records[0].impression == "心肺未见明显异常。" and chinese.fingerprint() != english.fingerprint()
    assert [record.labels for record in chinese.records] == [record.labels for record in english.records]
    assert np.array_equal(chinese.read(5), english.read(5))


def test_phantoms_refuse():
    error("together.*至少为 1", PhantomPairs, together=0)


# Templates


@pytest.mark.parametrize(("row", "text"), [
    ({"text": "Clear.", "view": "PA", "age": "59", "sex": "F"}, "Clear. PA view. 59-year-old female patient."),
    ({"text": "Clear.", "view": "PA", "age": "", "sex": "F"}, "Clear. PA view."), ({"text": "Clear."}, "Clear."),
    ({"text": "Clear.", "age": "9", "sex": "X"}, "Clear. 9-year-old X patient.")])
def test_templates(row, text):
    template = Template("{text}[ {view} view.][ {age}-year-old {sex} patient.]", "Data.template",
                        {"sex": {"F": "female"}})
    assert template.fields == ["text", "view", "age", "sex"] and template.fill(row) == text


def test_templates_refuse():
    for text in ("{text", "text}", "[{view}", "[a [b]]", "{a{b}}"):
        error("Data.template：括号没有配对", Template, text, "Data.template")
    rows = [{"text": "a", "view": "PA"}, {"text": "b", "view": ""}]
    error("没有列 'vew'，是不是 view", Template("[{vew}]", "Data.template").check, rows)
    error("没有列 'sex'", Template("{text}", "Data.template", {"sex": {}}).check, rows)
    error("1 行没有 view.*方括号", Template("{text} {view}", "Data.template").check, rows)
    Template("{text}[ {view}]", "Data.template").check(rows)


@given(st.text(alphabet="ab []{}", max_size=20), st.dictionaries(st.text("ab", max_size=2), st.text(max_size=5)))
def test_any_template_is_filled_or_refused(text, row):
    try:
        template = Template(text, "Data.template")
    except UserError:
        return
    filled = template.fill(row)
    assert filled == " ".join(filled.split()) and all(name in text for name in template.fields)


# Labelled images

PROMPTS = {"NORMAL": "No acute abnormality.", "PNEUMONIA": "Pneumonia.", "COVID": "COVID-19 pneumonia."}
TEMPLATE = "{text}[ {view} view.][ {age}-year-old {sex} patient.]"
SEX = {"sex": {"F": "female", "M": "male"}}


@pytest.fixture
def films(tmp_path: Path) -> dict:
    rows = ["file,label,patient_id,sex,age,view,found,note",
            "a.png,NORMAL,1,F,30,PA,No Finding,", "b.png,PNEUMONIA,2,M,,AP,Effusion|Pneumonia|Pleural_Thickening,",
            "c.png,COVID,3,F,55,,,Seen in both lungs.", "d.png,COVID,4,,,,,"]
    for name in "abcd":
        Image.new("L", (8, 8), 7).save(tmp_path / f"{name}.png")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    return {"name": "ListFile", "root": str(tmp_path)}


def test_texts_from_columns(films):
    pairs = LabelledPairs(films, PROMPTS, text_column="note", label_column="found", template=TEMPLATE, values=SEX,
                          label_texts={"Effusion": "Pleural effusion.", "No Finding": "No acute abnormality."})
    assert [record.impression for record in pairs.records] == [
        "No acute abnormality. PA view. 30-year-old female patient.",
        "Pleural effusion. Pneumonia. Pleural thickening. AP view.", "Seen in both lungs.", "COVID-19 pneumonia."]
    assert [record.extra["text_from"] for record in pairs.records] == ["label", "label", "note", "label"]
    assert pairs.records[1].labels == {"NORMAL": 0, "PNEUMONIA": 1, "COVID": 0, "Effusion": 1, "No Finding": 0,
                                       "Pleural_Thickening": 1}
    assert pairs.records[3].labels == {"NORMAL": 0, "PNEUMONIA": 0, "COVID": 1, "Effusion": None, "No Finding": None,
                                       "Pleural_Thickening": None}
    assert pairs.read(0)[0, 0] == 7 and pairs.locate(1).endswith("b.png")
    plain = LabelledPairs(films, PROMPTS)
    assert plain.records[1].impression == "Pneumonia." and plain.fingerprint() != pairs.fingerprint()
    assert plain.records[2].extra["text_from"] == "label"
    shuffled = ShuffledPairs({"name": "LabelledPairs", "source": films, "prompts": PROMPTS, "text_column": "note"})
    assert all((record.extra["text_from"] == "note") == (record.impression == "Seen in both lungs.")
               for record in shuffled.records) and shuffled.records[0].extra["age"] == "30"


def test_texts_from_columns_refuse(films):
    error("label_column：.*'fund'.*是不是 found", LabelledPairs, films, PROMPTS, label_column="fund")
    error("label_texts：写了它就要写 label_column", LabelledPairs, films, PROMPTS, label_texts={"Effusion": "x"})
    error("label_texts：.*'effusion'，是不是 Effusion", LabelledPairs, films, PROMPTS, label_column="found",
          label_texts={"effusion": "x"})
    error("values：写了它就要写 template", LabelledPairs, films, PROMPTS, values=SEX)
    error("LabelledPairs.template：.*'views'，是不是 view", LabelledPairs, films, PROMPTS, template="{text}[ {views}]")
    error("LabelledPairs.template：1 行没有 sex", LabelledPairs, films, PROMPTS, template="{text} {sex}")


def test_real_films(real_data):
    """880 films: 73 notes, and sentences from labels, age, sex and view for the others."""
    pairs = LabelledPairs({"name": "ListFile", "root": str(real_data / "cxr")}, PROMPTS, text_column="note",
                          label_column="nih_labels", template=TEMPLATE, values=SEX,
                          label_texts={"Effusion": "Pleural effusion.", "No Finding": "No acute abnormality."})
    assert len(pairs.records) == 880
    assert Counter(record.extra["text_from"] for record in pairs.records) == {"note": 73, "label": 807}
    made = [record.impression for record in pairs.records if record.extra["text_from"] == "label"]
    assert "Pneumonia. PA view. 33-year-old male patient." in " ".join(made).replace("Infiltration. ", "")
    assert len(set(made)) > 250 and not any(mark in text for text in made for mark in "[]{}|_")
