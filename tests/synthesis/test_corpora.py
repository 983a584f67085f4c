"""Reading corpora: every form that is documented, and one clear line with file and line for every broken one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.data import lines
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis import corpora
from paddle_cxr.synthesis.corpora import read_corpus


def write(path, *records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


def test_jsonl_of_this_project(tmp_path):
    file = write(tmp_path / "a.jsonl", {
        "id": "r1", "entities": [{"id": "effusion", "type": "disease"}, {"id": "heart", "type": "anatomy"}],
        "findings": " Effusion. ", "impression": "Effusion.", "writer": "grammar", "attempts": 1, "seed": 3},
        {"id": 7, "findings": None, "impression": "胸腔积液。"})
    first, second = read_corpus(file)
    assert first.entities == {("effusion", "disease"), ("heart", "anatomy")}
    assert (first.id, first.texts, first.writer) == ("r1", ("Effusion.", "Effusion."), "grammar")
    assert second == corpora.Report(f"{file}:2", "7", "", "胸腔积液。")


def test_csv_with_cells_over_several_lines(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('\ufeffUID,MeSH,Findings,impression\n1,x,"Clear.\nNo effusion.",\n\n2,y,"A ""b"", c",Normal.\n',
                    "utf-8")
    first, second = read_corpus(str(file))
    assert (first.where, first.id, first.findings, first.impression) == (f"{file}:2", "1", "Clear.\nNo effusion.", "")
    assert (second.where, second.findings, second.entities, second.writer) == (f"{file}:5", 'A "b", c', None, "")


def test_folder_of_text_with_and_without_headings(tmp_path):
    (tmp_path / "p10").mkdir()
    (tmp_path / "p10/s1.txt").write_text(
        "FINAL REPORT\n EXAMINATION: CHEST\n FINDINGS: Lungs clear.\n No effusion.\n\n IMPRESSION: Normal.\n", "utf-8")
    (tmp_path / "s0.txt").write_text("Heart size is normal.\n", "utf-8")
    assert [report.texts for report in read_corpus(str(tmp_path))] == [
        ("Lungs clear.\n No effusion.", "Normal."), ("Heart size is normal.", "")]


def test_an_addendum_is_no_replacement(tmp_path):
    (tmp_path / "a.txt").write_text(
        "FINDINGS: Clear.\nIMPRESSION: Normal.\nADDENDUM: read again\nFINDINGS: A nodule.\n")
    assert [report.texts for report in read_corpus(str(tmp_path))] == [("Clear.\nA nodule.", "Normal.")]


def test_shards_by_pattern_in_order(tmp_path):
    for name in "ba":
        (tmp_path / name).mkdir()
        write(tmp_path / name / "reports.jsonl", {"id": name, "findings": name})
    assert [report.id for report in read_corpus(f"{tmp_path}/*/reports.jsonl")] == ["a", "b"]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.jsonl", b'{"findings": "x"}\n{"findings": "caf\xe9"}\n', [":2", "UTF-8"]),
    ("a.jsonl", b'{"findings": "x"}\n\n{"findings": "x', [":3", "JSON", "没有写完"]),
    ("a.jsonl", b"[" * 100_000, [":1", "JSON"]),
    ("a.jsonl", b'{"findings": ' + b"1" * 10_000 + b"}", [":1", "JSON"]),
    ("a.jsonl", b'["findings"]\n', [":1", "findings"]),
    ("a.jsonl", b'{"text": "x"}\n', [":1", "findings"]),
    ("a.jsonl", b'{"findings": ["x"]}\n', [":1", "findings", "list"]),
    ("a.jsonl", b'{"findings": "x", "entities": {"id": "a"}}\n', [":1", "entities"]),
    ("a.jsonl", b'{"findings": "x", "entities": 3}\n', [":1", "entities"]),
    ("a.jsonl", b'{"findings": "x", "entities": [{"id": [], "type": "disease"}]}\n', [":1", "entities"]),
    ("a.jsonl", b'{"findings": "x", "entities": [{"id": "a", "type": "illness"}]}\n', [":1", "entities", "anatomy"]),
    ("a.csv", b"findings\nx\n\xff\n", [":3", "UTF-8"]),
    ("a.csv", b"report,label\nx,1\n", [":1", "findings", "report"]),
    ("a.csv", b"", [":1", "findings"]),
    ("a.csv", b"uid,findings\n1,x\n2,y,z\n", [":3", "3 列"]),
    ("a.csv", b'uid,findings\n1,"' + b"x" * 200_000, [":2", "CSV", "引号"]),
    ("a.csv", b'uid,findings\n1,ok\n2,"never closed\n3,x\n4,y\n', [":3", "CSV", "引号"]),
    ("a.csv", b'uid,findings\n1,"a "quoted" word"\n', [":2", "CSV", "引号"]),
    ("a.csv", b"findings,Findings\nx,y\n", [":1", "findings", "两次"]),
    ("a.txt", b"good\n\xff", [":2", "UTF-8"]),
    ("a.pdf", b"", [".jsonl"]),
])
def test_broken_files_are_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_corpus(str(tmp_path / name)))
    assert all(word in str(error.value) for word in [name, *words]), error.value
    assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path):
    (tmp_path / "reports.jsonl").touch()
    with pytest.raises(UserError, match=r"report\.jsonl，是不是 .*reports\.jsonl"):
        list(read_corpus(str(tmp_path / "report.jsonl")))
    with pytest.raises(UserError, match="没有 .txt"):
        list(read_corpus(str(tmp_path)))


def test_a_line_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE", 1000)
    (tmp_path / "a.jsonl").write_text('{"findings": "' + "x" * 2000 + '"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1：这一行超过"):
        list(read_corpus(str(tmp_path / "a.jsonl")))


@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".csv", ".txt"]))
def test_any_bytes_are_reports_or_one_clear_line(tmp_path_factory, content, suffix):
    file = tmp_path_factory.getbasetemp() / f"any{suffix}"
    file.write_bytes(content)
    try:
        for report in read_corpus(str(file)):
            assert isinstance(report.findings, str)
    except UserError as error:
        assert "any" in str(error)
