"""Prompt files, and reading what a model answered."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.entities import Entity
from paddle_cxr.synthesis.writers.answers import MAX_ANSWER, MAX_SECTION, AnswerError, read_answer
from paddle_cxr.synthesis.writers.base import Request
from paddle_cxr.synthesis.writers.prompts import Prompts

ENTITIES = (Entity("opacity", "abnormality", "patchy opacity"), Entity("lungs", "non-abnormality", "clear left lung"),
            Entity("effusion", "non-disease", "pleural effusion", denies=True), Entity("lobe", "anatomy", "right lobe"))


@pytest.fixture
def folder(root, tmp_path):
    """A copy of the shipped English prompts."""
    return shutil.copytree(root / "configs/synthesis/prompts/en", tmp_path / "prompts")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_shipped_prompts_name_every_entity_once_and_ask_for_json(root, language):
    prompts = Prompts(root / "configs/synthesis/prompts" / language)
    for section in ("findings", "impression"):
        assert prompts.wants_json(section)
        request = Request("r1", section, ENTITIES, seed=1, findings="Patchy opacity is seen.")
        system, user = prompts.messages(request)
        assert (system["role"], user["role"]) == ("system", "user")
        present, absent = user["content"].split("\nABSENT")[0], user["content"].split("\nABSENT")[1]
        assert "- patchy opacity\n" in present and "- clear left lung\n" in present
        assert "- pleural effusion\n" in absent.split("\nANATOMY")[0]
        assert "- right lobe\n" in absent.split("\nANATOMY")[1]
        assert ("Patchy opacity is seen." in user["content"]) == (section == "impression")
        assert json.loads(user["content"].splitlines()[-1]).keys() == {section}
        again = prompts.messages(Request("r1", section, ENTITIES, 1, "", "Not mentioned: patchy opacity."))
        assert "Not mentioned: patchy opacity." in again[1]["content"]


def test_an_empty_group_says_so(root):
    _, user = Prompts(root / "configs/synthesis/prompts/en").messages(Request("r1", "findings", ENTITIES[:1], seed=1))
    assert user["content"].count("(none)") == 2


def test_what_is_filled_in_is_no_template(folder):
    odd = Entity("odd", "abnormality", "$feedback {0} %s $$ \\1")
    _, user = Prompts(folder).messages(Request("r1", "findings", (odd,), seed=1, feedback="$present"))
    assert "- $feedback {0} %s $$ \\1\n" in user["content"] and "did not pass. $present" in user["content"]


def test_the_hash_follows_the_words_and_not_the_line_ends(folder):
    first = Prompts(folder).hash
    text = (folder / "retry.txt").read_bytes()
    (folder / "retry.txt").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert Prompts(folder).hash == first
    (folder / "retry.txt").write_bytes(text.replace(b"anew", b"again"))
    assert Prompts(folder).hash != first


@pytest.mark.parametrize("file, text, told", [
    ("findings", "$present $absent", r"\$anatomy"),
    ("findings", "$present $absent $anatomy $anatomie", "是不是 anatomy"),
    ("system", "costs $5", "第 1 行"), ("system", "$present", r"\$present"), ("retry", "Again.", r"\$feedback"),
    ("impression", "Conclude.", r"\$findings")])
def test_a_wrong_prompt_is_one_line(folder, file, text, told):
    (folder / f"{file}.txt").write_text(text, "utf-8")
    with pytest.raises(UserError, match=told) as caught:
        Prompts(folder)
    assert f"{file}.txt" in str(caught.value)


def test_a_missing_or_foreign_file_is_one_line(folder):
    (folder / "retry.txt").write_bytes("请重写：$feedback".encode("gbk"))
    with pytest.raises(UserError, match="UTF-8"):
        Prompts(folder)
    (folder / "retry.txt").unlink()
    with pytest.raises(UserError, match=r"retry\.txt"):
        Prompts(folder)
    with pytest.raises(UserError, match=r"system\.txt"):
        Prompts(folder / "nowhere")


GOOD = "No effusion is seen."


@pytest.mark.parametrize("answer", [
    '{"findings": "No effusion is seen."}',
    '```json\n{"findings": "No effusion is seen."}\n```',
    'Sure! Here is the report {as asked}:\n\n{"findings": "No effusion is seen."}\n\nLet me know if you need more.',
    '{"FINDINGS ": "No effusion\n is seen.", "note": {"findings": "x"}}',
    '{"findings": ["No effusion", "is seen."]}',
    '{"findings": "the text of the section"} {"findings": "No effusion is seen."}',
    '<think>Maybe {"findings": "Effusion."}? No.</think>{"findings": "No effusion is seen."}',
    '{"findings": "No\\u0000 effusion\\u2028is\\u00a0seen."}',
    '{"findings": "No effusion is seen."} and {"findings": "cut'])
def test_json_is_found_whatever_is_around_it(answer):
    assert read_answer(answer, "findings", in_json=True) == GOOD


@pytest.mark.parametrize("answer, told", [
    ("", "empty"), (None, "empty"), ({"findings": GOOD}, "empty"), (GOOD, "no JSON"), ('{"findings": "No', "truncated"),
    ('{"impression": "No effusion."}', "invalid"), ('{"findings": 3}', "invalid"), ('{"findings": " \\n"}', "empty"),
    (json.dumps({"findings": "a" * (MAX_SECTION + 1)}), "过长"), ("{" * (MAX_ANSWER + 1), "过长"),
    ('{"a":' * 3000, "invalid"), ("[" * MAX_ANSWER, "no JSON"), ("<think>hm", "no JSON"),
    ('{"findings": ' + "1" * 10_000 + "}", "invalid")])
def test_an_answer_of_no_use_says_why(answer, told):
    with pytest.raises(AnswerError, match=told):
        read_answer(answer, "findings", in_json=True)


def test_prose_is_taken_as_it_is():
    assert read_answer("```\n**IMPRESSION:** No\teffusion “seen”, 1‑sided.\n```", "impression", in_json=False) \
        == 'No effusion "seen", 1-sided.'
    assert read_answer("Findings: clear.", "findings", in_json=False) == "clear."
    with pytest.raises(AnswerError, match="truncated"):
        read_answer("No effusion is", "findings", in_json=False, cut=True)


@given(st.text(), st.booleans())
def test_anything_is_one_printable_line_or_an_error(answer, in_json):
    try:
        text = read_answer(answer, "findings", in_json)
    except AnswerError:
        return
    assert text and text.isprintable() and text == " ".join(text.split())
    text.encode("utf-8")


@given(st.text(st.characters(codec="ascii", exclude_characters="{}\\"), max_size=50),
       st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=200),
       st.text(st.characters(codec="ascii", exclude_characters="{}\\"), max_size=50))
def test_what_was_written_comes_back(before, text, after):
    answer = before + json.dumps({"findings": text}) + after
    assert read_answer(answer, "findings", in_json=True) == " ".join(text.split())
