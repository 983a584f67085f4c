"""The notebooks are what the lessons make them, and their commands are accepted; slow: each runs to its end."""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from doc_commands import check_command
from doc_pages import LESSONS, ROOT, commands, ids, script
from PIL import Image

from paddle_cxr.errors import UserError

nbformat = pytest.importorskip("nbformat", reason='needs nbformat: pip install -e ".[test]"')
make = script("make_notebooks")

MINUTES = 10
MODULES = {"nlp": "paddlenlp", "diffusion": "ppdiffusers", "seg": "paddleseg", "ray": "ray"}  # of the extras
BASH = "%%bash -eo pipefail\n"

LESSON = """\
# 第 0 课 样本

看[设计](../design.md#a)、[代码](../../tools/train.py)、[下一课](02-next.md)、[站点](https://example.org)。

## 一、命令

<!-- notebook: -o Global.epochs=1 -->
```bash
python tools/train.py -c a.yaml \\
       -o Global.seed=1   # 种子
ls output
```

<!-- notebook: run python tools/train.py -c b.yaml -->
<!-- show: output/a/curves.png output/a/roc.png -->

## 二、代码

<!-- excerpt: tools/train.py -->
```python
    return train(arguments)
```

```python
print(1)
```

<!-- notebook: skip -->
```bash
python -m pip install -e ".[cpu]"
```

```text
## 不是标题，[不是链接](x.md)
```

<details><summary>答案</summary>

<!-- notebook: -o Global.epochs=1 -->
```bash
python tools/eval.py -c a.yaml
```

</details>
"""


def sources(text: str, answers: bool = False) -> list[tuple[str, str]]:
    return list(make.cells(text, answers))


def code(page: Path, answers: bool = False) -> list[str]:
    return [source for kind, source in make.cells(page.read_text(encoding="utf-8"), answers) if kind == "code"]


# --- the generator --------------------------------------------------------------------------------------------------

def test_what_becomes_a_cell() -> None:
    first, head, train, run, show, excerpt, number, rest = sources(LESSON)
    assert first == ("markdown", LESSON.partition("\n\n## ")[0])
    assert head == ("markdown", "## 一、命令")
    assert train == ("code", BASH + "# 小号设置：比课文里多了 -o Global.epochs=1\npython tools/train.py -c a.yaml \\\n"
                     "       -o Global.seed=1 -o Global.epochs=1   # 种子\nls output")
    assert run[0] == "code" and run[1].startswith(BASH) and run[1].endswith("\npython tools/train.py -c b.yaml")
    assert show[0] == "code" and show[1].endswith('display(Image("output/a/curves.png"))\n'
                                                  'display(Image("output/a/roc.png"))')
    assert excerpt == ("markdown", "## 二、代码\n\n```python\n    return train(arguments)\n```")
    assert number == ("code", "print(1)")
    assert rest[0] == "markdown" and "pip install" in rest[1] and "tools/eval.py" in rest[1]
    assert not any("<!--" in source for _, source in sources(LESSON))


def test_answers_are_cells_when_they_are_asked_for() -> None:
    assert sources(LESSON, answers=True)[-1] == (
        "code", BASH + "# 小号设置：比课文里多了 -o Global.epochs=1\npython tools/eval.py -c a.yaml -o Global.epochs=1")


def test_links_lead_where_they_led() -> None:
    text = make.relinked(LESSON)
    assert ("看[设计](../docs/design.md#a)、[代码](../tools/train.py)、[下一课](02-next.ipynb)、"
            "[站点](https://example.org)。") in text
    assert "[不是链接](x.md)" in text


@pytest.mark.parametrize("line", ["python tools/train.py -c a.yaml | tail -1", "python tools/train.py -c a.yaml && ls",
                                  "python tools/train.py -c a.yaml > log.txt", "python tools/train.py -c a.yaml; ls"])
def test_words_are_not_added_to_a_line_of_two_commands(line: str) -> None:
    with pytest.raises(UserError, match="不止一条命令"):
        make.with_words(line, "-o Global.epochs=1")


def test_words_are_added_to_tools_alone() -> None:
    body = ("python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c 'a|b.yaml'\n"
            "python -m pytest tests\ncat output/history.csv | head -1")
    assert make.with_words(body, "-o a=1").splitlines()[1:] == [
        "python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c 'a|b.yaml' -o a=1",
        "python -m pytest tests", "cat output/history.csv | head -1"]


@pytest.mark.parametrize(("line", "with_them"), [
    ("python tools/train.py -c a.yaml  # it's small", "python tools/train.py -c a.yaml -o x=1  # it's small"),
    ("python tools/train.py -c 'a #1.yaml'#2", "python tools/train.py -c 'a #1.yaml'#2 -o x=1"),
    ("OMP_NUM_THREADS=1 A=b python tools/train.py", "OMP_NUM_THREADS=1 A=b python tools/train.py -o x=1"),
    ("for s in 1 2; do\n  python tools/train.py \\\n    -o s=$s  # \"a\"\ndone",
     "for s in 1 2; do\n  python tools/train.py \\\n    -o s=$s -o x=1  # \"a\"\ndone"),
    ("# python tools/eval.py: it's later\npython tools/train.py",
     "# python tools/eval.py: it's later\npython tools/train.py -o x=1"),
])
def test_words_stand_where_the_command_ends(line: str, with_them: str) -> None:
    assert make.with_words(line, "-o x=1").partition("\n")[2] == with_them


@pytest.mark.parametrize(("body", "said"), [
    ("python tools/train.py -c 'a.yaml", "引号没有成对"), ("python tools/train.py # a \\\nls", "注释以"),
    ("time python tools/train.py -c a.yaml", "不以 python 开头"),
    ("ls output\ncat tools/train.py", "没有 python tools/")])
def test_words_that_have_no_place_are_refused(body: str, said: str) -> None:
    """Left out in silence, the cell would say that it is small and run for hours."""
    with pytest.raises(UserError, match=said):
        make.with_words(body, "-o x=1")


def test_the_same_lesson_gives_the_same_bytes(tmp_path: Path) -> None:
    lesson = tmp_path / "00-any.md"
    lesson.write_text(LESSON.replace("```python\nprint(1)\n```", "```python\nprint(1)\n```\n\n" * 2), encoding="utf-8")
    one, other = make.notebook(lesson), make.notebook(lesson)
    assert nbformat.writes(one) == nbformat.writes(other)
    nbformat.validate(one)
    assert len({cell.id for cell in one.cells}) == len(one.cells)
    assert "仅供教学与研究" in one.cells[0].source and "docs/lessons/00-any.md" in one.cells[0].source


def test_outputs_stay_while_the_code_stays(tmp_path: Path) -> None:
    lesson = tmp_path / "00-any.md"
    lesson.write_text(LESSON, encoding="utf-8")
    old = make.notebook(lesson)
    old.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    lesson.write_text(LESSON.replace("样本", "别的字"), encoding="utf-8")
    new = make.notebook(lesson)
    make.keep_outputs(new, old)
    assert new.cells[1].outputs == old.cells[1].outputs and make.without_outputs(new) == make.notebook(lesson)
    lesson.write_text(LESSON.replace("print(1)", "print(2)"), encoding="utf-8")
    changed = make.notebook(lesson)
    make.keep_outputs(changed, old)
    assert not changed.cells[1].outputs


def test_outputs_are_light(tmp_path: Path) -> None:
    lesson = tmp_path / "00-any.md"
    lesson.write_text(LESSON, encoding="utf-8")
    one = make.notebook(lesson)
    many = [nbformat.v4.new_output("stream", text=f"10%\r{tmp_path}/a{i}\n") for i in range(100)]
    warning = nbformat.v4.new_output("stream", name="stderr", text="/home/me/site-packages/x.py:1: UserWarning: no\n")
    cells = [cell for cell in one.cells if cell.cell_type == "code"]
    python, bash = (next(cell for cell in cells if cell.source.startswith(BASH) == wanted) for wanted in (False, True))
    python.outputs = [warning, *many, picture(np.tile(np.arange(1500) % 256, (1500, 1)), 0), picture(200, 1500)]
    bash.outputs = [nbformat.v4.new_output("stream", name="stderr", text=(
        f"/home/me/site-packages/x.py:1: UserWarning: no\n  warnings.warn(no)\n!! notice {sys.prefix}/bin/python\n"))]
    make.lighten(one, tmp_path)
    text, smooth, noisy = python.outputs
    lines = text.text.splitlines()
    assert len(lines) == make.LINES and lines[0] == "a0" and lines[-1] == "a99" and "略去 71 行" in lines[10]
    shown = Image.open(io.BytesIO(base64.b64decode(smooth.data["image/jpeg"])))
    assert shown.width in make.WIDTHS and len(smooth.data["image/jpeg"]) * 3 // 4 <= make.IMAGE
    assert list(noisy.data) == ["text/plain"]
    assert bash.outputs[0].text == "!! notice bin/python\n"


def test_results_are_light_and_name_no_place_of_this_computer(tmp_path: Path) -> None:
    one = make.new_notebook(cells=[make.new_code_cell("x")])
    table = {"text/html": f"<td>{tmp_path}/a.png</td>", "text/plain": f"{tmp_path}/a.png\n" + "row\n" * 100}
    one.cells[0].outputs = [nbformat.v4.new_output("execute_result", data) for data in (
        table, {"text/html": "x" * 1_000_000, "text/plain": f"PosixPath('{tmp_path}')"}, {"text/html": "x" * 1_000_000},
        {"text/plain": "1, " * 100_000})]
    make.lighten(one, tmp_path)
    small, path, large, long = (output.data for output in one.cells[0].outputs)
    assert small["text/html"] == "<td>a.png</td>" and small["text/plain"].startswith("a.png\nrow")
    assert len(small["text/plain"].splitlines()) == make.LINES and "略去" in small["text/plain"]
    assert path == {"text/plain": "PosixPath('.')"} and "没有存在 notebook 里" in large["text/plain"]
    assert list(large) == ["text/plain"] and len(long["text/plain"]) <= make.CHARACTERS + 1


def picture(levels: np.ndarray | int, noise: int) -> nbformat.NotebookNode:
    """An output: a picture of 1500 × 1500 as a notebook has it."""
    random = np.random.default_rng(0).integers(0, noise + 1, (1500, 1500, 3))
    pixels = (np.broadcast_to(np.atleast_2d(levels), (1500, 1500))[..., None] + random).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(file.getvalue()).decode()})


def make_root(folder: Path) -> Path:
    """What the first cell knows the project by."""
    (folder / "paddle_cxr").mkdir(parents=True)
    (folder / "paddle_cxr/recipe.py").touch()
    return folder


@pytest.mark.parametrize("below", [".", "notebooks", "notebooks/more", "..", "../.."])
def test_the_first_cell_changes_to_the_root(below: str, tmp_path: Path) -> None:
    root = make_root(tmp_path / "work/paddle_cxr")
    (root / below).mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", make.SETUP + "\nprint(os.getcwd(), os.environ['PATH'])"],
                          cwd=root / below, capture_output=True, text=True)
    assert done.stdout.startswith(f"{root.resolve()} {Path(sys.executable).parent}{os.pathsep}"), done.stderr


def test_the_first_cell_says_where_a_notebook_belongs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", make.SETUP], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("找不到项目的根目录")


def test_a_lesson_that_is_not_there_is_refused() -> None:
    assert [lesson.stem[:2] for lesson in make.chosen(["01", "13-s"])] == ["01", "13"]
    with pytest.raises(UserError, match="没有名为 14 的课"):
        make.chosen(["01", "14"])


# --- the notebooks --------------------------------------------------------------------------------------------------

def test_every_lesson_has_its_notebook_and_no_other_is_there() -> None:
    assert sorted(file.stem for file in make.NOTEBOOKS.glob("*.ipynb")) == [page.stem for page in LESSONS]


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_notebooks_are_what_the_lessons_make_them(page: Path) -> None:
    written = nbformat.read(make.NOTEBOOKS / f"{page.stem}.ipynb", as_version=4)
    nbformat.validate(written)
    same = make.without_outputs(written) == make.notebook(page)  # in words: pytest would print both
    assert same, "run: python docs/make_notebooks.py"
    assert (make.NOTEBOOKS / f"{page.stem}.ipynb").stat().st_size <= 1_500_000
    said = "".join(output.get("text", "") for cell in written.cells for output in cell.get("outputs", ()))
    assert "site-packages" not in said and "/tmp/" not in said


@pytest.mark.parametrize("page", LESSONS, ids=ids)
def test_cells_are_programs_and_install_nothing(page: Path) -> None:
    for source in code(page, answers=True):
        if source.startswith(BASH):
            assert "pip install" not in source, f"{ids(page)}: put <!-- notebook: skip --> above it"
        else:
            compile(source, ids(page), "exec")


CELL_COMMANDS = [(page, words) for page in LESSONS for source in code(page, answers=True) if source.startswith(BASH)
                 for words in commands(source) if "-c" in words]


@pytest.mark.parametrize(("page", "words"), CELL_COMMANDS, ids=ids)
def test_commands_of_the_cells_are_accepted(page: Path, words: list[str], tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """With the words that make them small."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    check_command(words, monkeypatch)


# --- running --------------------------------------------------------------------------------------------------------

@pytest.fixture
def jupyter() -> None:
    pytest.importorskip("nbclient", reason='needs nbclient: pip install -e ".[notebooks]"')
    pytest.importorskip("ipykernel", reason='needs ipykernel: pip install -e ".[notebooks]"')


@pytest.mark.slow
@pytest.mark.parametrize(("body", "works"), [
    (f'test "$(python -c "import sys; print(sys.prefix)")" = "{sys.prefix}"', True),
    ("test -f paddle_cxr/recipe.py", True), ("false\ntrue", False), ("false | true", False)])
def test_cells_of_commands_use_this_python_and_stop_at_a_failure(body: str, works: bool, tmp_path: Path, jupyter: None
                                                                 ) -> None:
    make_root(tmp_path)
    (tmp_path / "00-any.md").write_text(f"```bash\n{body}\n```\n", encoding="utf-8")
    one = make.notebook(tmp_path / "00-any.md")
    if works:
        make.execute(one, tmp_path)
    else:
        with pytest.raises(UserError, match="没有运行成功"):
            make.execute(one, tmp_path)


def test_a_kernel_that_ends_at_once_is_told(tmp_path: Path, jupyter: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any cell: the notebook has none to blame."""
    from nbclient.client import NotebookClient
    from nbclient.exceptions import DeadKernelError

    def dies(*_: object, **__: object) -> None:
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(NotebookClient, "execute", dies)
    with pytest.raises(UserError, match="内核.*没有开始"):
        make.execute(make.new_notebook(cells=[make.new_markdown_cell("x"), make.new_code_cell("1")]), tmp_path)


def processor_seconds() -> float:
    """Of the programs this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_a_notebook_runs_top_to_bottom_in_ten_minutes(page: Path, tmp_path: Path, jupyter: None) -> None:
    """In a fresh copy, and the code among the answers, too.  On a busy machine the processor's time is what counts."""
    for extra in re.findall(r"\.\[([\w,]+)\]", page.read_text(encoding="utf-8")):
        for module in filter(None, map(MODULES.get, extra.split(","))):
            pytest.importorskip(module, reason=f'this lesson needs pip install -e ".[{extra}]"')
    root = make.fresh_copy(tmp_path / "paddle_cxr")
    started, used = time.monotonic(), processor_seconds()
    make.execute(make.notebook(page, answers=True), root)
    seconds, on_two_cores = time.monotonic() - started, (processor_seconds() - used) / 2
    print(f"measured: notebook {page.stem} took {seconds:.0f} s, of two cores' time {on_two_cores:.0f} s")
    assert min(seconds, on_two_cores) <= 60 * MINUTES
