"""Public sets of image–report pairs: MIMIC-CXR-JPG and IU X-ray, and frontal views only."""

from __future__ import annotations

import csv
import gzip
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from paddle_cxr.data.pairs import IuXrayPairs, MimicCxrPairs, PairsFile
from paddle_cxr.data.pairs.mimic_cxr import CHEXPERT
from paddle_cxr.data.pairs.views import is_frontal
from paddle_cxr.data.splits import Published
from paddle_cxr.errors import UserError
from paddle_cxr.registry import build, check


def image(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)


def write(path: Path, *rows: list, zipped: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open(f"{path}.gz", "wt", newline="") if zipped else open(path, "w", newline="")) as file:
        csv.writer(file).writerows(rows)


def error(match: str, make, *arguments, **options) -> None:
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("view", "frontal"), [
    ("PA", True), ("ap", True), ("AP Supine", True), ("Frontal", True), ("antero-posterior", True), ("LATERAL", False),
    ("LL", False), ("", False), ("apical", False), ("Paddle", False), ("AP_horizontal", True), ("胸部正位", True),
    ("站立后前位", True), ("前后位（卧位）", True), ("侧位", False), ("正侧位", False), ("正位+侧位", False)])
def test_frontal_views(view, frontal):
    assert is_frontal(view) == frontal


def test_frontal_pairs_of_a_file(tmp_path):
    rows = [["image", "impression", "view"]]
    for number, view in enumerate(["PA", "Lateral", "", "Frontal"]):
        image(tmp_path / f"{number}.png")
        rows.append([f"{number}.png", "A.", view])
    write(tmp_path / "pairs.csv", *rows)
    pairs = PairsFile(str(tmp_path / "pairs.csv"), frontal_only=True)
    assert [record.path for record in pairs.records] == ["0.png", "3.png"]
    assert "其他体位 1 张、体位不明 1 张" in pairs.notices[0]
    write(tmp_path / "pairs.csv", *rows[:1], rows[2])
    error("frontal_only", PairsFile, str(tmp_path / "pairs.csv"), frontal_only=True)


# MIMIC-CXR

# subject, study, dicom, view, split, report (None: no file)
FILMS = [("10000032", "50414267", "02aa804e-bde0afdd", "PA", "train", "FINDINGS: Clear lungs.\n IMPRESSION: Normal."),
         ("10000032", "50414267", "174413ec-4ec4c1f7", "LATERAL", "train", ""),
         ("10000764", "57375967", "096052b7-d256dc40", "AP", "validate", "CHEST: \n\n HISTORY: x\n\n Small effusion."),
         ("11000098", "50985099", "43330e13-1b9a2e2a", "", "test", "IMPRESSION: Edema."),
         ("11000183", "51967845", "65fb0d34-5f0cf0a6", "PA", "test", "INDICATION: Cough."),
         ("12000935", "50578979", "d0b71acc-b5a62046", "AP", "train", None)]


def study_folder(subject: str, study: str) -> str:
    return f"files/p{subject[:2]}/p{subject}/s{study}"


def mimic(root: Path, zipped: bool = False, reports: str = "folder") -> Path:
    labels = {"50414267": ["1.0", "-1.0", "", "0.0"]}
    for subject, study, dicom, *_ in FILMS:
        image(root / study_folder(subject, study) / f"{dicom}.jpg", int(study[-1]))
    write(root / "mimic-cxr-2.0.0-metadata.csv", ["dicom_id", "subject_id", "study_id", "Rows", "ViewPosition"],
          *([dicom, subject, study, 3056, view] for subject, study, dicom, view, _, _ in FILMS), zipped=zipped)
    write(root / "mimic-cxr-2.0.0-split.csv", ["dicom_id", "study_id", "subject_id", "split"],
          *([dicom, study, subject, split] for subject, study, dicom, _, split, _ in FILMS), zipped=zipped)
    write(root / "mimic-cxr-2.0.0-chexpert.csv", ["subject_id", "study_id", *CHEXPERT],
          *([subject, study, *(labels.get(study, []) + [""] * 14)[:14]]
            for subject, study in dict.fromkeys((film[0], film[1]) for film in FILMS)), zipped=zipped)
    texts = {f"{study_folder(subject, study)}.txt": text for subject, study, *_, text in FILMS if text}
    if reports == "folder":
        for name, text in texts.items():
            (root / name).write_text(text)
    elif reports == "zip":
        with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    else:
        write(root / "mimic_cxr_sectioned.csv", ["study", "impression", "findings", "last_paragraph", "comparison"],
              ["s50414267", "Normal.", "Clear lungs.", "", ""], ["s57375967", "", "", "Small effusion.", ""],
              ["s50985099", "Edema.", "", "", ""], ["s51967845", "", "", "", "None."], ["s1", "Another.", "", "", ""],
              zipped=reports == "zipped table")
    return root


@pytest.mark.parametrize(("zipped", "reports"), [(False, "folder"), (True, "zip"), (True, "table"),
                                                 (True, "zipped table")])
def test_mimic(tmp_path, zipped, reports):
    root = mimic(tmp_path / "mimic", zipped, reports)
    pairs = build("pairs", {"name": "MimicCxrPairs", "root": str(root)}, "Data")
    one, side, effusion, edema = pairs.records
    assert one.path == "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg" and pairs.read(0)[0, 0] in (6, 7, 8)
    assert (one.id, one.patient_id, one.view, one.split) == ("02aa804e-bde0afdd", "10000032", "PA", "train")
    assert (one.findings, one.impression) == ("Clear lungs.", "Normal.") == (side.findings, side.impression)
    assert list(one.labels.values())[:4] == [1, None, None, 0] and tuple(one.labels) == CHEXPERT
    assert (effusion.findings, effusion.impression) == ("Small effusion.", "") and effusion.split == "val"
    assert edema.view == "" and edema.prompt == "Edema." and edema.labels["Edema"] is None
    assert "略过 2 张图，其中 1 张找不到报告，1 张的报告没有" in " ".join(pairs.notices)
    assert Published()(pairs.records) == ["train", "train", "val", "test"] and not pairs.demo
    frontal = MimicCxrPairs(str(root), frontal_only=True)
    assert [record.view for record in frontal.records] == ["PA", "AP"]
    assert "其他体位 1 张、体位不明 1 张" in " ".join(frontal.notices)


def test_mimic_as_far_as_it_is_there(tmp_path):
    """Some images, the reports elsewhere, no split and no labels."""
    root = mimic(tmp_path / "jpg", reports="table")
    (root / study_folder(*FILMS[1][:2]) / f"{FILMS[1][2]}.jpg").unlink()
    for kind in ("split", "chexpert"):
        (root / f"mimic-cxr-2.0.0-{kind}.csv").unlink()
    (root / "mimic_cxr_sectioned.csv").rename(tmp_path / "mimic_cxr_sectioned.csv")
    error("应为 files/p10/.*reports", MimicCxrPairs, str(root), str(tmp_path / "jpg/files/p12"))
    pairs = MimicCxrPairs(str(root), str(tmp_path / "mimic_cxr_sectioned.csv"))
    assert len(pairs.records) == 3 and pairs.records[0].split is None and pairs.records[0].labels == {}
    notices = " ".join(pairs.notices)
    assert "1 张图不在磁盘上" in notices and "没有发布者的划分" in notices and "没有标签" in notices
    mimic(tmp_path / "txt")
    assert len(MimicCxrPairs(str(root), str(tmp_path / "txt")).records) == 3
    assert len(MimicCxrPairs(str(root), str(tmp_path / "txt" / "files")).records) == 3


def test_mimic_refuses(tmp_path):
    root = mimic(tmp_path / "mimic")
    metadata = root / "mimic-cxr-2.0.0-metadata.csv"
    assert MimicCxrPairs.missing(root=str(root)) is None
    assert "nowhere" in MimicCxrPairs.missing(root=str(tmp_path / "nowhere"))
    error("找不到数据.*nowhere", MimicCxrPairs, str(tmp_path / "nowhere"))
    error("reports：找不到.*gone", MimicCxrPairs, str(root), str(tmp_path / "gone"))
    good = metadata.read_text()
    for text, match in ((good.replace("ViewPosition", "View"), "表头没有列 'ViewPosition'"),
                        (good.replace("10000032", "../../etc", 1), r"编号 .*\.\./\.\./etc"),
                        (good.replace("50414267,3056", "50414267", 1), "metadata.csv:2：有 4 列，而表头有 5 列"),
                        (good.split("\n")[0], "没有一张图既在磁盘上又有报告"), ("", "表头没有列")):
        metadata.write_text(text)
        error(match, MimicCxrPairs, str(root))
    metadata.unlink()
    error("没有 mimic-cxr-2.0.0-metadata", MimicCxrPairs, str(root))
    whole = gzip.compress(good.encode())
    for raw in (whole[:-9], b"PK", whole[:20] + bytes(20) + whole[40:], gzip.compress(b"\xff\xfe")):
        (root / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(raw)
        error("无法读取 .*metadata.csv.gz", MimicCxrPairs, str(root))
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(whole)
    (root / "mimic-cxr-reports.zip").write_bytes(b"PK\5\6")
    error("无法读取报告的压缩包", MimicCxrPairs, str(root))


@given(st.binary(max_size=300))
def test_any_metadata_is_read_or_refused(tmp_path_factory, raw):
    root = tmp_path_factory.mktemp("any")
    (root / "mimic-cxr-2.0.0-metadata.csv").write_bytes(raw)
    with pytest.raises(UserError):
        MimicCxrPairs(str(root))


# IU X-ray

REPORTS = [["uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"],
           ["1", "normal", "normal", "PA and lateral", "Cough", "None.", "Clear lungs.", "Normal chest x-XXXX."],
           ["2", "Opacity", "Opacity", "PA", "", "", "", "Left, small opacity."], ["3", "", "", "", "", "", "", ""]]
PROJECTIONS = [["uid", "filename", "projection"], ["1", "1_IM-0001-4001.dcm.png", "Frontal"],
               ["1", "1_IM-0001-3001.dcm.png", "Lateral"], ["2", "2_IM-0652-1001.dcm.png", "Frontal"],
               ["3", "3_IM-1384-1001.dcm.png", "Frontal"]]


def kaggle(root: Path, images: str = "images/images_normalized") -> Path:
    write(root / "indiana_reports.csv", *REPORTS)
    write(root / "indiana_projections.csv", *PROJECTIONS)
    for number, (_, name, _) in enumerate(PROJECTIONS[1:]):
        image(root / images / name, number)
    return root


@pytest.mark.parametrize("images", ["images/images_normalized", "images", ""])
def test_iu_xray_from_kaggle(tmp_path, images):
    pairs = build("pairs", {"name": "IuXrayPairs", "root": str(kaggle(tmp_path / "iu", images))}, "Data")
    one, lateral, other = pairs.records
    assert (one.id, one.findings, one.impression) == ("1_IM-0001-4001", "Clear lungs.", "Normal chest x-XXXX.")
    assert one.view == "Frontal" and lateral.view == "Lateral" and one.patient_id == lateral.patient_id == "iu-1"
    assert one.extra["indication"] == "Cough" and other.prompt == "Left, small opacity." and other.findings == ""
    assert pairs.read(2)[0, 0] == 2 and "略过 1 张图" in pairs.notices[0]
    frontal = IuXrayPairs(str(tmp_path / "iu"), frontal_only=True)
    assert len(frontal.records) == 2 and "其他体位 1 张" in frontal.notices[1]


XML = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION"/>
<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation><MeSH><major>Opacity/lung/apex</major><major>Edema</major></MeSH>{images}</eCitation>
"""


def open_i(root: Path) -> Path:
    for uid, findings, impression, films in (("1", "Clear &amp; dry.", "Normal.", ["CXR1_1_IM-0001-4001"]),
                                             ("10", "", "Edema.", ["CXR10_IM-0002-1001", "CXR10_IM-0002-2001"]),
                                             ("2", "", "", ["CXR2_IM-0652-1001"])):
        images = "".join(f'<parentImage id="{film}"><caption>PA</caption></parentImage>' for film in films)
        (root / "ecgen-radiology").mkdir(parents=True, exist_ok=True)
        (root / f"ecgen-radiology/{uid}.xml").write_text(XML.format(uid=uid, findings=findings, impression=impression,
                                                                    images=images))
        for film in films:
            image(root / "NLMCXR_png" / f"{film}.png", int(uid))
    return root


def test_iu_xray_from_open_i(tmp_path):
    root = open_i(tmp_path / "iu")
    pairs = IuXrayPairs(str(root))
    one, other, lateral = pairs.records
    assert (one.id, one.path) == ("1_IM-0001-4001", "NLMCXR_png/CXR1_1_IM-0001-4001.png")
    assert (one.findings, one.impression, one.view) == ("Clear & dry.", "Normal.", "") and pairs.read(1)[0, 0] == 10
    assert one.extra == {"uid": "1", "comparison": "None.", "MeSH": "Opacity/lung/apex;Edema"}
    assert other.patient_id == lateral.patient_id == "iu-10" and other.prompt == "Edema."
    error("indiana_projections.csv 放到", IuXrayPairs, str(root), frontal_only=True)
    write(root / "indiana_projections.csv", *PROJECTIONS)
    frontal = IuXrayPairs(str(root), frontal_only=True)
    assert [record.id for record in frontal.records] == ["1_IM-0001-4001"] and "体位不明 2 张" in frontal.notices[1]


@pytest.mark.parametrize(("reports", "images"), [(".", "."), ("reports", "images"),
                                                 ("NLMCXR_reports", "images/NLMCXR_png")])
def test_open_i_as_people_unpack_it(tmp_path, reports, images):
    """The two archives into folders of their own; that of the images has no folder inside."""
    whole, root = open_i(tmp_path / "whole"), tmp_path / "iu"
    (root / images).mkdir(parents=True)
    for file in (whole / "NLMCXR_png").iterdir():
        file.rename(root / images / file.name)
    (root / reports).mkdir(exist_ok=True)
    (whole / "ecgen-radiology").rename(root / reports / "ecgen-radiology")
    pairs = IuXrayPairs(str(root))
    assert [record.patient_id for record in pairs.records] == ["iu-1", "iu-10", "iu-10"]
    assert pairs.read(0)[0, 0] == 1 and pairs.read(2)[0, 0] == 10


BOMB = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><eCitation>&b;</eCitation>'


@pytest.mark.parametrize(("raw", "match"), [
    (BOMB.encode(), "1.xml：.*DOCTYPE"), (b"<eCitation>", "1.xml：不是有效的"), (b"", "1.xml：不是有效的"),
    (b'<?xml version="1.0" encoding="klingon"?><a/>', "1.xml：不是有效的"), (b"<a/>" + bytes(3_000_000), "超过 2 MB"),
    (b'<a><AbstractText Label="FINDINGS">x</AbstractText><parentImage id="../../x"/></a>', "1.xml.*之外"),
    (b'<a><AbstractText Label="FINDINGS">x</AbstractText><parentImage id="x"/></a>', "1.xml：找不到图像.*x.png"),
    (b'<a><parentImage id="CXR10_IM-0002-1001"/></a>', "CXR10_IM-0002-1001.png 出现在两份报告里")])
def test_broken_open_i_files(tmp_path, raw, match):
    root = open_i(tmp_path / "iu")
    (root / "ecgen-radiology/1.xml").write_bytes(raw)
    error(match, IuXrayPairs, str(root))


def test_iu_xray_refuses(tmp_path):
    assert "nowhere" in IuXrayPairs.missing(root=str(tmp_path / "nowhere"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    error("不像 IU X-ray", IuXrayPairs, str(tmp_path / "other"))
    root = kaggle(tmp_path / "iu")
    (root / "images/images_normalized" / PROJECTIONS[1][1]).unlink()
    error(r"projections.csv:2：找不到图像", IuXrayPairs, str(root))
    write(root / "indiana_reports.csv", ["uid", "text"], ["1", "x"])
    error("没有列 'findings'", IuXrayPairs, str(root))
    write(root / "indiana_reports.csv", REPORTS[0], REPORTS[3])
    error("一个图文对也没有", IuXrayPairs, str(root))
    (root / "indiana_projections.csv").unlink()
    error("没有 indiana_projections.csv", IuXrayPairs, str(root))


def test_images_that_are_not_there_may_be_left_out(tmp_path):
    """As the recipe's on_error says, in a source and in those made of it."""
    root = kaggle(tmp_path / "iu")
    gone = root / "images/images_normalized" / PROJECTIONS[1][1]
    gone.unlink()
    spec = {"name": "IuXrayPairs", "root": str(root)}
    mixed = {"name": "MixedPairs", "parts": {"real": {"source": {"name": "ShuffledPairs", "source": spec}}}}
    for one in (spec, mixed):
        error(f"projections.csv:2：找不到图像 .*{PROJECTIONS[1][1]}.*on_error: skip", build, "pairs", one, "Data")
        pairs = build("pairs", one, "Data", on_error="skip")
        assert len(pairs.records) == 2
        assert any(f"略过 1 张找不到的图像：{gone}" in notice for notice in pairs.notices)
    with pytest.raises(UserError, match="没有参数 'on_error'"):  # a key of DataLoader, not of a source
        build("pairs", spec | {"on_error": "skip"}, "Data", on_error="error")


# The data guide


def test_the_guide_shows_sources_that_exist(root):
    page = (root / "docs/data.md").read_text(encoding="utf-8").split("\n## 图文对\n")[1].split("\n## ")[0]
    shown = [yaml.safe_load(text) for text in re.findall(r"^```\n(Source:.*?)^```$", page, re.MULTILINE | re.DOTALL)]
    assert len(shown) >= 6
    for section in shown:
        check_all(section["Source"])
        check("split", section.get("Split", {"name": "NoSplit"}), "Split")


def check_all(spec: dict) -> None:
    """A source and those inside it."""
    _, arguments = check("pairs", spec, "Source")
    if spec["name"] == "ShuffledPairs":
        check_all(arguments["source"])
    for part in arguments.get("parts", {}).values():
        check_all(part["source"])
