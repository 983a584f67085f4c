"""Sections of reports, and sentences."""

from __future__ import annotations

import csv
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.data.pairs.sections import sentences, split_sections

STRUCTURED = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old with cough  // eval for pneumonia

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or
 pneumothorax.  Heart at 3:10 p.m. unchanged.
 BONES: Intact.

 No free air.

 {impression}:

 1. No acute
 process.
 2. Stable nodule.
"""


@pytest.mark.parametrize("impression", ["IMPRESSION", "CONCLUSION", "IMPRESSON"])
def test_sections_of_a_mimic_report(impression):
    found = split_sections(STRUCTURED.format(impression=impression))
    assert list(found) == ["PREAMBLE", "EXAMINATION", "INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION"]
    assert found["FINDINGS"] == ("There is no focal consolidation, pleural effusion or pneumothorax. Heart at 3:10 "
                                 "p.m. unchanged. BONES: Intact.\n\nNo free air.")
    assert found["IMPRESSION"] == "1. No acute process.\n2. Stable nodule."
    assert found["INDICATION"] == "___-year-old with cough // eval for pneumonia"


@pytest.mark.parametrize(("report", "found"), [
    ("FINDINGS AND IMPRESSION: Clear.", {"IMPRESSION": "Clear."}),
    ("FINDINGS/IMPRESSION:\n Clear.", {"IMPRESSION": "Clear."}),
    ("CHEST, TWO VIEWS:  Clear lungs.\n\n IMPRESSION:  Normal.", {"FINDINGS": "Clear lungs.", "IMPRESSION": "Normal."}),
    ("CHEST, TWO VIEWS:\n\n HISTORY: Cough.\n FINDINGS: Clear.", {"HISTORY": "Cough.", "FINDINGS": "Clear."}),
    ("FINDINGS: One. IMPRESSION: Two.", {"FINDINGS": "One.", "IMPRESSION": "Two."}),
    ("IMPRESSION: One.\n ADDENDUM: x\n IMPRESSION: Two.", {"IMPRESSION": "One.\n\nTwo.", "ADDENDUM": "x"}),
    ("影像所见：双肺清晰。\n诊断意见：心肺未见异常。", {"FINDINGS": "双肺清晰。", "IMPRESSION": "心肺未见异常。"}),
    ("【影像所见】双肺清晰。【诊断】正常。", {"FINDINGS": "双肺清晰。", "IMPRESSION": "正常。"}),
    ("Indication: Cough. Findings: Clear.  Impression: Normal.",
     {"PREAMBLE": "Indication: Cough.", "FINDINGS": "Clear.", "IMPRESSION": "Normal."}),
    ("CLINICAL HISTORY: Clinical Impression: Cough.\n Findings and Impression:\n Clear.",
     {"CLINICAL HISTORY": "Clinical Impression: Cough.", "IMPRESSION": "Clear."}),
    ("检查部位：胸部\n检查方法：DR\nX线表现：双肺清晰。\n检查结论：正常。\n报告医师：张三  审核医师：李四",
     {"检查部位": "胸部", "检查方法": "DR", "FINDINGS": "双肺清晰。", "IMPRESSION": "正常。", "报告医师": "张三",
      "审核医师": "李四"}),
    ("临床诊断：咳嗽待查\n\n双肺：纹理清晰。\n心脏：不大。",
     {"临床诊断": "咳嗽待查", "FINDINGS": "双肺：纹理清晰。 心脏：不大。"}),
    ("Seen: nothing. See IMPRESSION below.", {"FINDINGS": "Seen: nothing. See IMPRESSION below."}),
    ("CHEST FILM\n\nLungs are clear.\n\nNo effusion.",
     {"PREAMBLE": "CHEST FILM", "FINDINGS": "Lungs are clear.\n\nNo effusion."}),
    ("HISTORY: Cough.\n COMPARISON: None.\n \n Lungs are clear.",
     {"HISTORY": "Cough.", "COMPARISON": "None.", "FINDINGS": "Lungs are clear."}),
    ("INDICATION: Cough.", {"INDICATION": "Cough."}),
    ("", {}), ("IMPRESSION:", {}),
])
def test_sections_of_other_reports(report, found):
    assert split_sections(report) == found


@given(st.lists(st.tuples(st.sampled_from(["FINDINGS", "IMPRESSION", "HISTORY", "BONES", "影像所见"]),
                          st.text("ab .1-\n双，。", max_size=25)), max_size=5))
def test_no_word_of_a_report_is_lost(parts):
    report = "\n".join(f"{heading}:\n {body}" for heading, body in parts)
    kept = Counter(word for text in split_sections(report).values() for word in text.split())
    assert kept - Counter({"BONES:": 5}) == Counter(word for _, body in parts for word in body.split())


@pytest.mark.parametrize(("text", "found"), [
    ("Clear lungs. No effusion.", ["Clear lungs.", "No effusion."]),
    ("A 3.5 cm nodule. Stable.", ["A 3.5 cm nodule.", "Stable."]),
    ("1. Bullous emphysema. 2. Scarring in the apex. 3. Ok", ["Bullous emphysema.", "Scarring in the apex.", "Ok"]),
    ("1. Low lung volumes 2. Patchy opacity 3. No edema", ["Low lung volumes", "Patchy opacity", "No edema"]),
    ("1.No acute process.\n2) Stable.\n- Tube in place\n• Heart large",
     ["No acute process.", "Stable.", "Tube in place", "Heart large"]),
    ("Seen on image 2. No nodule on image 7. 8 mm granuloma.", ["Seen on image 2.", "No nodule on image 7.",
                                                               "8 mm granuloma."]),
    ("Told to Dr. ___ by Dr. XXXX at 9 a.m. on ___. Unchanged.", ["Told to Dr. ___ by Dr. XXXX at 9 a.m. on ___.",
                                                                  "Unchanged."]),
    ("Called at 3 p.m. The heart is large.", ["Called at 3 p.m.", "The heart is large."]),
    ("Opacity, e.g. atelectasis vs. pneumonia, approx. 5 cm. in size, scars etc. No effusion.",
     ["Opacity, e.g. atelectasis vs. pneumonia, approx. 5 cm. in size, scars etc.", "No effusion."]),
    ("There are XXXX. XXXX are seen.", ["There are XXXX.", "XXXX are seen."]),
    ("Opacities in the left apex.There is no effusion.", ["Opacities in the left apex.", "There is no effusion."]),
    ("Is there a nodule? (Series no. 2.) Yes! Good.", ["Is there a nodule?", "(Series no. 2.)", "Yes!", "Good."]),
    ("Wrapped\nline here.\n\nNew paragraph", ["Wrapped line here.", "New paragraph"]),
    ("双肺纹理增多；心影不大。未见积液！气胸？", ["双肺纹理增多；", "心影不大。", "未见积液！", "气胸？"]),
    ("1、双肺清晰。2、见3.5cm结节。（3）心影增大。④正常", ["双肺清晰。", "见3.5cm结节。", "心影增大。", "正常"]),
    ("1.双肺清晰;2.心影增大.无气胸", ["双肺清晰;", "心影增大.", "无气胸"]),
    ("１．双肺清晰2．心影增大３、未见积液", ["双肺清晰", "心影增大", "未见积液"]),
    ("1.右侧第2、3肋骨骨折，左侧第2、右侧第4肋陈旧2.余正常", ["右侧第2、3肋骨骨折，左侧第2、右侧第4肋陈旧", "余正常"]),
    ("结节约3.5cm;心影增大.见CT.请结合临床．无气胸!复查",
     ["结节约3.5cm;", "心影增大.", "见CT.", "请结合临床．", "无气胸!", "复查"]),
    ("考虑肺炎 vs.结核。Dr.王会诊", ["考虑肺炎 vs.结核。", "Dr.王会诊"]),
    ("（1）肺气肿（见图（3）上）（2）右上肺结核（3）心影增大", ["肺气肿（见图（3）上）", "右上肺结核", "心影增大"]),
    ("①双肺清晰②心影增大", ["双肺清晰", "心影增大"]), ("1.结节（见图2）心影增大", ["结节（见图2）心影增大"]),
    ("见“磨玻璃影。”余正常。", ["见“磨玻璃影。”", "余正常。"]),
    ("Clear. . .", ["Clear. . ."]), ("...", ["..."]), ("", []), ("1.", []),
])
def test_sentences(text, found):
    assert sentences(text) == found


MARK = re.compile("[0-9\uff10-\uff19.)、．）(（①-\u2473*•·-]")  # what list numbers and bullets are made of


@given(st.text(alphabet="ab Z1.2)-;?!\n。；（）、①肺第“”_．２", max_size=60) | st.text(max_size=60)
       | st.lists(st.sampled_from(["Dr.", "e.g.", "cm.", "3.5", "1.", "2.", "XXXX.", "Clear.", "lungs", "\n", "双肺；",
                                     "No"]), max_size=15).map(" ".join))
def test_nothing_is_lost_but_blanks_and_list_numbers(text):
    found = sentences(text)
    assert all(one.strip() for one in found)
    assert MARK.sub("", "".join("".join(found).split())) == MARK.sub("", "".join(text.split()))
    assert all(one == " ".join(one.split()) for one in sentences(text))


def test_long_text_takes_no_time():
    for unit in ("1. ", "\n", "\n ", ".", ". ", ")", " A:", "A" * 60, "。」", "Dr. "):
        sentences(unit * 10_000)
        split_sections(unit * 10_000)


def test_real_reports(real_data):
    with open(real_data / "iu_reports.csv", encoding="utf-8", newline="") as file:
        reports = [row[name] for row in csv.DictReader(file) for name in ("findings", "impression") if row[name]]
    found = [one for report in reports for one in sentences(report)]
    words = [len(one.split()) for one in found]
    assert len(found) > 17_000 and max(words) < 60 and not any(re.match(r"[0-9]+[.)]\s", one) for one in found)
