"""Prompt files: lists, terms in templates, combinations; and which prompts serve which findings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recipes import ROOT

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts, prompts_for, read_prompts

PROMPTS = (FindingPrompts("effusion", ("fluid",), ("no fluid",), "积液", "Effusion"),
           FindingPrompts("nodule", ("nodule",), ("clear",), "结节", "Nodule"))


def write(folder: Path, text: str) -> Path:
    file = folder / "prompts.yaml"
    file.write_text(text, "utf-8")
    return file


def test_terms_fill_templates(tmp_path: Path) -> None:
    file = write(tmp_path, """
_templates_: {positive: ["Signs of {term}.", "{term} or {term}."], negative: "No {term}."}
pneumonia: {terms: [pneumonia, lung infection], zh: 肺炎}
nodule: {positive: a, negative: b}
""")
    assert read_prompts(file) == (
        FindingPrompts("pneumonia", ("Signs of pneumonia.", "Signs of lung infection.", "pneumonia or pneumonia.",
                                     "lung infection or lung infection."),
                       ("No pneumonia.", "No lung infection."), "肺炎", "pneumonia"),
        FindingPrompts("nodule", ("a",), ("b",), "nodule", "nodule"))


def test_templates_for_any_data_set(tmp_path: Path) -> None:
    file = write(tmp_path, """
_templates_: {positive: "There is {term}.", negative: "No {term}.", others: true}
nodule: {positive: a, negative: b}
""")
    findings = [ClassInfo("Pleural_Thickening", "胸膜增厚", "Pleural thickening"),
                ClassInfo("nodule", "结节", "Nodule"), ClassInfo("COVID", "新冠", "COVID-19"), ClassInfo("x", "x", "")]
    assert [one.name for one in read_prompts(file)] == ["nodule"]
    found = {one.name: one for one in read_prompts(file, findings=findings)}
    assert found["Pleural_Thickening"].positive == ("There is pleural thickening.",)
    assert (found["Pleural_Thickening"].zh, found["COVID"].negative) == ("胸膜增厚", ("No COVID-19.",))
    assert found["nodule"].positive == ("a",) and found["x"].positive == ("There is x.",)
    chinese = write(tmp_path, '_templates_: {positive: "可见{term}。", negative: "未见{term}。", others: zh}')
    found = {one.name: one for one in read_prompts(chinese, findings=findings)}
    assert (found["COVID"].positive, found["nodule"].negative) == (("可见新冠。",), ("未见结节。",))
    alone = write(tmp_path, '_templates_: {positive: "There is {term}.", negative: "No {term}.", others: true}')
    assert read_prompts(alone) == () and len(read_prompts(alone, findings=findings)) == 4


COMBINATIONS = """
Edema: {severity: ["", mild], subtype: [edema, congestion], location: ["", at the bases]}
Mass: {subtype: mass}
"""


def test_combinations(tmp_path: Path) -> None:
    edema, mass = read_prompts(write(tmp_path, COMBINATIONS))
    assert edema.positive == ("edema", "edema at the bases", "congestion", "congestion at the bases", "mild edema",
                              "mild edema at the bases", "mild congestion", "mild congestion at the bases")
    assert mass.positive == ("mass",) and edema.negative == mass.negative == ()


def test_drawn_combinations(tmp_path: Path) -> None:
    file = write(tmp_path, COMBINATIONS)
    every = read_prompts(file)[0].positive
    drawn = {seed: read_prompts(file, 3, seed)[0].positive for seed in range(8)}
    assert all(len(set(texts)) == 3 and set(texts) <= set(every) for texts in drawn.values())
    assert len(set(drawn.values())) > 1 and drawn[2] == read_prompts(file, 3, 2)[0].positive
    assert read_prompts(file, 8)[0].positive == every
    other = write(tmp_path, "Nodule: {subtype: nodule}\n" + COMBINATIONS)  # does not depend on the other findings
    assert read_prompts(other, 3, 5)[1].positive == drawn[5]


@pytest.mark.parametrize(("text", "match"), [
    ("a: {positive: x}", "prompts.yaml:1.*negative：缺少.*没有别的征象可比"),
    ("a: {subtype: x}\nb: {positive: y, negative: z}", "prompts.yaml:1.*征象 a.*要么都写 negative"),
    ("a: {terms: x}", "terms：文件里没有 _templates_"),
    ("_templates_: {positive: 'no place'}\na: {terms: x}", "prompts.yaml:1.*'no place' 没有 {term}"),
    ("_templates_: {negative: '{term}'}\na: {terms: x}", "_templates_：positive：缺少"),
    ("_templates_: [a]\na: {terms: x}", "_templates_ 应写成"),
    ("_templates_: {positive: '{term}', others: en}\na: {terms: x}", "_templates_：others：应为.*zh"),
    ("_templates_: {positive: '{term}'}", "只有 _templates_.*others: true"),
    ("_templates_: {positive: '{term}', negative: '{term}'}\na: {terms: x}", "同一句话 'x'"),
    ("a: {subtype: x, location: [1]}\nb: {subtype: y}", "征象 a.*location.0：应为文字"),
    ("a: {severity: [x]}\nb: {subtype: y}", "征象 a.*subtype：缺少"),
    ("a: {subtype: x, positive: y}\nb: {subtype: y}", "征象 a.*positive：没有这个键"),
    ("a: {subtype: [" + ", ".join(f"s{i}" for i in range(200)) + "], location: ["
     + ", ".join(f"l{i}" for i in range(200)) + "]}\nb: {subtype: y}", "组合出 40000 条.*最多 20000"),
])
def test_a_bad_file_is_one_clear_line(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UserError, match=match) as error:
        read_prompts(write(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["none.yaml", "x" * 300])  # the second is longer than the system allows
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="找不到提示词（prompt）文件 .*positive"):
        read_prompts(tmp_path / name)


def test_prompts_for_the_findings_that_are_evaluated() -> None:
    said: list[str] = []
    assert prompts_for(["nodule", "effusion"], PROMPTS, "f.yaml", False, said.append) == PROMPTS[::-1] and not said
    assert prompts_for(["nodule"], PROMPTS, "f.yaml", False, said.append) == PROMPTS[1:]
    assert "effusion" in said.pop()
    with pytest.raises(UserError, match="征象 Nodule 在 f.yaml 里没有提示词.*是不是 nodule？.*missing: skip"):
        prompts_for(["effusion", "Nodule"], PROMPTS, "f.yaml", False, said.append)
    assert prompts_for(["effusion", "Nodule"], PROMPTS, "f.yaml", True, said.append) == PROMPTS[:1]
    assert any("Nodule" in line and "略去" in line for line in said)
    with pytest.raises(UserError, match="征象 a、b .*没有提示词"):
        prompts_for(["a", "b"], PROMPTS, "f.yaml", True, said.append)
    alone = (FindingPrompts("a", ("x",), (), "a", "a"), FindingPrompts("b", ("y",), (), "b", "b"))
    with pytest.raises(UserError, match="征象 a 没有 negative"):
        prompts_for(["a"], alone, "f.yaml", False, said.append)


@pytest.mark.parametrize("file", sorted((ROOT / "configs/prompts").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_files_that_are_shipped(file: Path) -> None:
    prompts = read_prompts(file, 10)
    assert all(one.zh and one.en for one in prompts)
    assert len(prompt_texts(prompts)) <= 200
    for text in prompt_texts(prompts):
        assert text.isascii() != file.stem.endswith("_zh") and "{" not in text


def test_the_files_that_are_shipped_name_the_findings_of_their_data_sets() -> None:
    from paddle_cxr.data.sources.chestxray14 import FINDINGS
    from paddle_cxr.data.sources.chexpert_labels import COMPETITION

    def names(stem: str) -> list[str]:
        return [one.name for one in read_prompts(ROOT / f"configs/prompts/{stem}.yaml")]

    assert names("chestxray14") == [one.name for one in FINDINGS]
    assert sorted(names("chexpert5")) == sorted(COMPETITION) == sorted(names("chexpert5_combinations"))
    assert {"Pneumonia", "Normal"} == set(names("rsna")) and names("siim") == ["Pneumothorax"]
    assert sorted(names("chexpert5_zh")) == sorted(COMPETITION)


@pytest.mark.parametrize("stem", ["generic", "generic_zh"])
def test_templates_make_sense_of_every_finding_of_the_public_data_sets(stem: str) -> None:
    """"No finding" is no finding to fill a template with: there is no "no no finding"."""
    from paddle_cxr.data.sources import chestxray14, chexpert_labels, padchest_labels, rsna_pneumonia, vindr_cxr

    for findings in (chestxray14.FINDINGS, chexpert_labels.OBSERVATIONS, padchest_labels.FINDINGS, vindr_cxr.FINDINGS,
                     (rsna_pneumonia.PNEUMONIA, rsna_pneumonia.NORMAL)):
        prompts = {one.name: one for one in read_prompts(ROOT / f"configs/prompts/{stem}.yaml", findings=findings)}
        for info in findings:
            sides = " ".join((*prompts[info.name].positive, *prompts[info.name].negative)).lower()
            assert not re.search(r"no (no|normal)\b|there is (no finding|normal)\b|(未|可)见(未见|正常)", sides), sides
            assert sides.isascii() == (stem == "generic")
