"""``tools/analyze.py`` as a user runs it: tables, figures and page, and one clear line for every mistake."""

import csv
import json
import warnings

import numpy as np
import pytest
from PIL import Image

from paddle_cxr import plots
from paddle_cxr.synthesis.entities import TYPES

VOCABULARY = """name,type,id,zh,also
pleural effusion,disease,effusion,胸腔积液,effusion
pleural effusion,non-disease,effusion,,
nodule,abnormality,nodule,结节,
nodule,non-abnormality,nodule,,
left lung,anatomy,left_lung,左肺,
"""
FIGURES = ["types.png", "ranks.png", "lorenz.png", *(f"top50_{type_}.png" for type_ in TYPES)]


@pytest.fixture
def folder(tmp_path):
    """A small real corpus, a small synthetic one and a recipe for both."""
    (tmp_path / "v.csv").write_text(VOCABULARY, "utf-8")
    with open(tmp_path / "real.csv", "w", encoding="utf-8") as file:
        file.write("uid,findings,impression\n1,No pleural effusion. Nodule in the left lung.,Nodule.\n2,,\n")
        file.writelines(f"{i},No effusion in view {i}.,\n" for i in range(3, 9))
    with open(tmp_path / "synthetic.jsonl", "w", encoding="utf-8") as file:
        for i, (id_, type_) in enumerate([("effusion", "disease"), ("nodule", "abnormality")] * 5):
            record = {"id": f"r{i}", "writer": "grammar", "findings": f"In film {i} the left lung has {id_}.",
                      "entities": [{"id": id_, "type": type_}, {"id": "left_lung", "type": "anatomy"}]}
            file.write(json.dumps(record) + "\n")
    (tmp_path / "a.yaml").write_text("""
Global: {output_dir: out}
Vocabulary: {file: v.csv}
Corpora:
  - {name: IU X-ray, path: real.csv}
  - {name: 语法, path: synthetic.jsonl}
Analysis: {sample: 100}
""", "utf-8")
    return tmp_path


def rows(file):
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_corpus_writes_tables_figures_and_a_page(folder, tool):
    done = tool("analyze", "corpus", "-c", "a.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "语法：10 份报告，其中合成/仿真 10 份" in done.stdout
    out = folder / "out"
    frequencies = {(row["corpus"], row["id"], row["type"]): row for row in rows(out / "frequencies.csv")}
    denied = frequencies["IU X-ray", "effusion", "non-disease"]
    assert (denied["count"], denied["rank"], denied["name"], denied["mark"]) == (
        "7", "1", "no pleural effusion", "真实（real）")
    assert frequencies["IU X-ray", "nodule", "abnormality"]["count"] == "1"
    made = frequencies["语法", "left_lung", "anatomy"]
    assert (made["count"], made["zh"], made["mark"]) == ("10", "左肺", "合成/仿真（synthetic）")
    types = {(row["corpus"], row["type"]): row for row in rows(out / "types.csv")}
    assert len(types) == 10 and types["语法", "disease"]["gini"] == "0" and types["语法", "non-disease"]["gini"] == ""
    real, synthetic = rows(out / "texts.csv")
    assert (real["reports"], real["empty"], synthetic["synthetic"]) == ("7", "1", "10")
    assert real["compared_words"] == synthetic["compared_words"]
    page = (out / "analysis.md").read_text("utf-8")
    assert "合成/仿真" in page and "不是真实病例" in page
    for name in FIGURES:
        assert f"({name})" in page
        with Image.open(out / name) as image:
            assert image.format == "PNG" and image.width > 600
    assert (out / "config.yaml").is_file() and (out / "duplicates.csv").is_file()
    again = {name: (out / name).read_bytes() for name in ["analysis.md", "types.csv", "texts.csv", *FIGURES]}
    assert tool("analyze", "corpus", "-c", "a.yaml", cwd=folder).returncode == 0
    assert again == {name: (out / name).read_bytes() for name in again}  # same input, same bytes


def test_entities_writes_a_vocabulary_with_counts(folder, tool):
    done = tool("analyze", "entities", "-c", "a.yaml", "-o", "Corpora.1.path=real.csv", cwd=folder)
    assert done.returncode == 0, done.stderr
    found = {(row["name"], row["type"]): row["count"] for row in rows(folder / "out/vocabulary.csv")}
    assert found == {("pleural effusion", "non-disease"): "14", ("nodule", "abnormality"): "2",
                     ("left lung", "anatomy"): "2"}
    assert "| 解剖部位（anatomy） | 1 | 2 | left lung（2） |" in (folder / "out/entities.md").read_text("utf-8")


@pytest.mark.parametrize(("change", "words"), [
    ("Corpora.0.path=reel.csv", ["Corpora.0.path", "reel.csv", "是不是 real.csv", "-o"]),
    ("Corpora.1.name=IU X-ray", ["Corpora.1.name", "两次"]),
    ("Corpora.1.name='a|b'", ["Corpora.1.name", "|"]),
    ("Corpora=[]", ["Corpora", "至少 1 项"]),
    ("Corpora.0.file=x", ["Corpora.0.file", "没有这个键", "path"]),
    ("NER.name=DictionaryNERR", ["NER.name", "是不是 DictionaryNER"]),
    ("Analysis.topp=3", ["Analysis.topp", "top"]),
    ("Vocabulary.file=w.csv", ["w.csv"]),
    ("Corpora.0.path=a.yaml", ["Corpora.0.path", ".jsonl"]),
    ("Corpora.0.path=bad.csv", ["bad.csv:3", "UTF-8"]),
    ("Corpora.0.path=empty.csv", ["没有一份带文字的报告", "findings"]),
])
def test_one_line_for_every_mistake(folder, tool, change, words):
    (folder / "empty.csv").write_text("findings\n")
    (folder / "bad.csv").write_bytes(b"findings\nok\n\xff\xfe\n")
    done = tool("analyze", "corpus", "-c", "a.yaml", "-o", change, cwd=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_nothing_found_is_said(folder, tool):
    (folder / "none.csv").write_text("findings\nhello world\n")
    done = tool("analyze", "entities", "-c", "a.yaml", "-o", "Corpora=[{name: a, path: none.csv}]", cwd=folder)
    assert done.returncode == 2 and "没有找到一个实体" in done.stderr
    done = tool("analyze", "corpus", "-c", "a.yaml", "-o", "Corpora=[{name: a, path: none.csv}]", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "不是真实病例" not in (folder / "out/analysis.md").read_text("utf-8")


def test_strange_ids_of_a_corpus_do_no_harm(folder, tool):
    strange = ["a\nb", "\ud800", "$x^2$", "|", "=1+1", "x" * 500]
    (folder / "synthetic.jsonl").write_text("".join(json.dumps(
        {"id": id_, "findings": f"text {i}", "entities": [{"id": id_, "type": "disease"}]}) + "\n"
        for i, id_ in enumerate(strange)))
    done = tool("analyze", "corpus", "-c", "a.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len([row for row in rows(folder / "out/frequencies.csv") if row["corpus"] == "语法"]) == len(strange)


def test_the_folder_of_another_run_is_left_alone(folder, tool):
    """Its config.yaml overwritten, that run could not be continued."""
    (folder / "out").mkdir()
    (folder / "out/config.yaml").write_text("Global: {task: reports}\n")
    done = tool("analyze", "corpus", "-c", "a.yaml", cwd=folder)
    assert done.returncode == 2 and "Global.output_dir" in done.stderr, done.stderr
    assert (folder / "out/config.yaml").read_text() == "Global: {task: reports}\n"


def test_without_rensa_all_but_near_duplicates(folder, tool):
    """As after ``pip install -e ".[cpu]"``, the first line of the README."""
    (folder / "rensa.py").write_text("raise ImportError('not installed')\n")
    done = tool("analyze", "corpus", "-c", "a.yaml", cwd=folder, env={"PYTHONPATH": str(folder)})
    assert done.returncode == 0, done.stderr
    assert "rensa" in done.stdout
    real, synthetic = rows(folder / "out/texts.csv")
    assert (real["exact_duplicates"], real["near_duplicates"], synthetic["near_duplicates"]) == ("0", "", "")
    assert "未安装 rensa" in (folder / "out/analysis.md").read_text("utf-8")


def test_few_words_are_said_to_be_too_few(folder, tool):
    assert tool("analyze", "corpus", "-c", "a.yaml", cwd=folder).returncode == 0
    assert "词太少" in (folder / "out/analysis.md").read_text("utf-8")


def test_long_names_stay_apart_in_a_legend():
    from paddle_cxr.plots.entities import corpus_title

    same = "语法合成的报告，自带词表，balance"
    titles = {corpus_title(plots.CorpusFigures(f"{same} {one}", "合成/仿真（synthetic）", True, 1, {}, {}, {}))
              for one in ("none", "type")}
    assert len(titles) == 2 and all(title.endswith("\n合成/仿真（synthetic）") for title in titles)


@pytest.mark.parametrize("corpora", [1, 2, 4])
def test_figures_of_any_number_of_corpora_and_long_names(tmp_path, corpora):
    rng = np.random.default_rng(0)
    figures = [plots.CorpusFigures(
        f"语料 {i} with a rather long name，还有很长的中文名字", "合成/仿真（synthetic）", i == 1, 1000,
        {type_: np.sort(rng.integers(1, 900, 0 if type_ == "disease" else 10**i % 997))[::-1] for type_ in TYPES},
        {type_: ["一个很长很长很长的实体名字 with an even longer English name of an entity"] * 50 for type_ in TYPES},
        {type_: None if type_ == "disease" else 0.5 for type_ in TYPES}) for i in range(corpora)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph, a layout that could not be applied
        plots.plot_types(figures, tmp_path / "types.png")
        plots.plot_ranks(figures, tmp_path / "ranks.png")
        plots.plot_lorenz(figures, tmp_path / "lorenz.png")
        for type_ in ("disease", "anatomy"):
            plots.plot_top_entities(figures, type_, 50, tmp_path / f"{type_}.png")
    with Image.open(tmp_path / "ranks.png") as image:
        red = np.abs(np.asarray(image.convert("RGB")).astype(int)[-33:] - [0xD5, 0x5E, 0]).sum(axis=2) < 60
        assert (red.sum() > 100) == (corpora > 1)  # the line about synthetic reports
