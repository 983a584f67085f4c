"""Every lesson has the parts of a lesson; what it shows of the code stands there; its figures come from the script."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from doc_pages import GUIDES, LESSONS, PAGES, ROOT, ids, script, without_code
from PIL import Image

from paddle_cxr.errors import UserError

FIGURES = ROOT / "docs/figures"
COMMENT = re.compile(r"<!-- (?:excerpt: [\w/.-]+|notebook: (?:skip|run python .+|-o .+)|show: output/.+) -->")
FENCE = re.compile(r"^(?:<!-- (\w+): ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXCERPTS = [(page, file, body) for page in LESSONS
            for marker, file, _, body in FENCE.findall(page.read_text(encoding="utf-8")) if marker == "excerpt"]


def section(page: Path, name: str) -> str:
    """The text below the one heading of the second level that has ``name`` in it."""
    found = re.findall(rf"^## [^\n]*{name}[^\n]*\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"),
                       re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{ids(page)}: {len(found)} sections named {name}"
    return found[0]


def numbers(text: str) -> list[int]:
    """Of the items ``1. …`` or ``**1. …``, each at the beginning of a line."""
    return [int(number) for number in re.findall(r"^(?:\*\*)?(\d+)\.", text, re.MULTILINE)]


def test_there_are_thirteen_lessons_and_the_index_has_them() -> None:
    assert [page.name[:2] for page in LESSONS] == [f"{number:02d}" for number in range(1, 14)]
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    for page in LESSONS:
        assert f"(lessons/{page.name})" in index and f"(../notebooks/{page.stem}.ipynb)" in index, page.name


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_a_lesson_has_the_parts_of_a_lesson(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.match(rf"# 第 {int(page.name[:2])} 课", text)
    assert "时间：" in text and "预备：" in text
    assert 3 <= len(numbers(section(page, "学完这一课"))) <= 6
    assert "```console" in section(page, "会出什么错") or "```text" in section(page, "会出什么错")
    assert re.search(r"arxiv\.org/abs/|doi\.org/", section(page, "参考文献"))
    assert re.search(r"^!\[[^]]+\]\(|^```mermaid$", text, re.MULTILINE), "no figure"
    assert "```bash" in text, "no command"
    assert any(one == page for one, _, _ in EXCERPTS), "no code to read"
    assert "phantom" in text, "what is measured on phantoms is not said to be"


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_exercises_have_answers(page: Path) -> None:
    questions, *answers = re.split(r"^<details>", section(page, "练习"), flags=re.MULTILINE)
    asked = numbers(questions)
    assert asked == list(range(1, len(asked) + 1)) and 3 <= len(asked) <= 5
    assert numbers("".join(answers)) == asked
    assert all("<summary>" in answer and "</details>" in answer for answer in answers)


@pytest.mark.parametrize(("page", "file", "body"), EXCERPTS, ids=ids)
def test_excerpts_stand_in_the_file_named(page: Path, file: str, body: str) -> None:
    assert f"\n{body}" in "\n" + (ROOT / file).read_text(encoding="utf-8"), f"{ids(page)}: not in {file}:\n{body}"


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_code_that_is_no_excerpt_is_a_whole_program(page: Path) -> None:
    for marker, words, language, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" and marker != "excerpt" and words != "skip":
            compile(body, ids(page), "exec")


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_comments_are_those_the_notebooks_know(page: Path) -> None:
    for comment in re.findall(r"<!--.*?-->", page.read_text(encoding="utf-8"), re.DOTALL):
        assert COMMENT.fullmatch(comment), f"{ids(page)}: {comment}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_nothing_is_left_to_be_done(page: Path) -> None:
    left = re.findall(r"<!--\s*(?:TODO|FIGURE)[^\n]*", page.read_text(encoding="utf-8"))
    assert not left


@pytest.mark.parametrize("page", GUIDES, ids=ids)
def test_bold_text_is_shown_bold(page: Path) -> None:
    """CommonMark does not close ``**…。**`` when a character follows at once: the stars would be seen."""
    for line in without_code(page).splitlines():
        for number, stars in enumerate(re.finditer(r"(?<!\*)\*\*(?!\*)", line)):
            before, after = line[:stars.start()][-1:], line[stars.end():][:1]
            inner, outer = (before, after) if number % 2 else (after, before)
            assert inner.strip(), f"{ids(page)}: {line}"
            if is_punctuation(inner) and outer.strip():
                assert is_punctuation(outer), f"{ids(page)}: … {line[:stars.end() + 1][-20:]}"


def is_punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"


# --- figures --------------------------------------------------------------------------------------------------------

def test_every_lesson_figure_is_drawn_by_the_script_and_shown_once_or_more() -> None:
    drawn = set(script("make_lesson_figures").load_all())
    assert drawn == {file.stem for file in (FIGURES / "lessons").iterdir()}, "run: python docs/make_lesson_figures.py"
    shown = {name for page in LESSONS for name in
             re.findall(r"^!\[[^]\n]+\]\(\.\./figures/lessons/(\w+)\.png\)$", page.read_text("utf-8"), re.MULTILINE)}
    assert drawn == shown


def test_every_other_figure_is_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for file in FIGURES.glob("*.*"):
        assert f"figures/{file.name})" in text, file.name


@pytest.mark.parametrize("file", sorted((FIGURES / "lessons").glob("*.png")), ids=lambda file: file.stem)
def test_figures_are_light(file: Path) -> None:
    assert file.stat().st_size <= 400_000


def test_a_figure_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="没有名为 any 的课程插图"):
        script("make_lesson_figures").draw(["any"], tmp_path)


def test_a_figure_of_a_run_waits_for_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    figures = script("make_lesson_figures")
    late = figures.Figure(lambda path: None, "lesson_01", ("output/any/curves.png",), "python tools/train.py -c any")
    monkeypatch.setattr(figures, "load_all", lambda: {"late": late})
    assert figures.draw([], tmp_path) == []
    assert "请先运行 python tools/train.py -c any" in capsys.readouterr().out
    with pytest.raises(UserError, match="请先运行"):
        figures.draw(["late"], tmp_path)


@pytest.mark.slow
def test_figures_are_what_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a few grey levels: another matplotlib draws the same letters a little differently."""
    monkeypatch.chdir(ROOT)
    drawn = script("make_lesson_figures").draw([], tmp_path)
    assert drawn
    for path in drawn:
        new, old = (np.asarray(Image.open(file).convert("L"), np.float64)
                    for file in (path, FIGURES / "lessons" / path.name))
        assert new.shape == old.shape, path.name
        assert np.abs(new - old).mean() < 3, path.name
