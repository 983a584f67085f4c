"""Make the notebooks of the course: notebooks/NN-name.ipynb from docs/lessons/NN-name.md, its one source.

    python docs/make_notebooks.py                    write them all; outputs stay while the code stays
    python docs/make_notebooks.py --run 01 05         run these in a fresh copy and keep light outputs

What becomes a cell, and the comments in a lesson that say so: docs/README.md.  ``tests/test_notebooks.py``
fails when a notebook is out of date.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs from a checkout that is not installed

import nbformat  # noqa: E402
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook  # noqa: E402
from PIL import Image  # noqa: E402

from paddle_cxr.cli import run  # noqa: E402
from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.files import write_text  # noqa: E402

LESSONS = ROOT / "docs/lessons"
NOTEBOOKS = ROOT / "notebooks"
LINES = 30  # of text an output keeps
CHARACTERS = 1000  # of a line
IMAGE = 100_000  # bytes
WIDTHS = 900, 600  # pixels, of a picture that is larger
CELL_SECONDS = 1200
# What a checkout has that is not the repository's; data above all: in the copy every recipe falls back to phantoms.
NOT_COPIED = {".git", "output", "data", "cache", "build", "dist", "venv", ".venv", "shared"}
CACHES = {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", ".ipynb_checkpoints"}

HEAD = """\
> 这个 notebook 由课文 [{name}](../docs/lessons/{name}.md) 生成（`python docs/make_notebooks.py`），要改请改课文。
> 有的命令在这里用小号设置（mini settings），几分钟内跑完，数字与课文里的不同。
>
> **仅供教学与研究，不能用于诊断。**"""

SETUP = """\
# 先运行这一格：换到项目的根目录；下面命令里的 python 就是这个 notebook 用的 python
import os
import sys
from pathlib import Path

here = Path.cwd()  # 在 AI Studio 上是主目录，项目在它下面的 work 里
places = [here, *here.parents, *here.glob("*"), *here.glob("*/*")]
root = next((place for place in places if (place / "paddle_cxr/recipe.py").is_file()), None)
if root is None:
    raise SystemExit("找不到项目的根目录；请在项目的 notebooks 目录里打开这个 notebook，或先 %cd 到项目的目录")
os.chdir(root)
sys.path.insert(0, str(root))
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])"""

BASH = "%%bash -eo pipefail\n"
MINI = "# 小号设置：比课文里多了 {words}\n"

# Whatever is not one of these is text. A fence of any language is matched, so that nothing inside it is.
PIECES = re.compile(r"""
    ^<details>(?P<hidden>.*?)^</details>$
  | ^<!--\ notebook:\ run\ (?P<run>[^\n]+?)\ -->$
  | ^<!--\ show:\ (?P<show>[^\n]+?)\ -->$
  | (?:^<!--\ (?P<marker>notebook|excerpt):\ (?P<words>[^\n]+?)\ -->\n)?
    ^(?P<fence>```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$)
""", re.MULTILINE | re.DOTALL | re.VERBOSE)

# A line of bash: its command, and what follows: a comment, or a quote that is not closed.
COMMAND = re.compile(r"""((?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<=\S)\#|[^'"\\\#\s]|\s+(?=[^\s\#]))*)(.*)""", re.DOTALL)

# Of a package, as Python writes it: the place, and the line of code there.
WARNING = re.compile(r"^\S*site-packages/\S+: \w*Warning: .*\n(?:  .*\n)?", re.MULTILINE)

COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)


class Part(NamedTuple):
    """A stretch of a lesson: ``text`` (Markdown), ``whole`` (Markdown, never divided), ``python`` or ``bash``."""

    kind: str
    body: str


def parts(text: str, answers: bool = False) -> Iterator[Part]:
    """A lesson's text, code and what its comments ask for, in order.

    Args:
        text: Markdown.
        answers: the code among the answers to the exercises is code, too; else an answer stays one piece of text.

    Raises:
        UserError: a command cannot take the words a comment adds.
    """
    end = 0
    for found in PIECES.finditer(text):
        yield Part("text", text[end:found.start()])
        end = found.end()
        if found["hidden"] is not None:
            if answers:
                yield from parts(re.sub(r"</?summary>", "", found["hidden"]), answers)
            else:
                yield Part("whole", COMMENT.sub("", found[0]))
        elif found["run"]:
            yield Part("bash", f"# 只有 notebook 里有这一格：替前面的课做一个小号\n{found['run']}")
        elif found["show"]:
            yield Part("python", _show(found["show"].split()))
        elif found["language"] in ("python", "bash") and found["marker"] != "excerpt" and found["words"] != "skip":
            yield Part(found["language"], with_words(found["body"].rstrip("\n"), found["words"] or ""))
        else:
            yield Part("whole", found["fence"])
    yield Part("text", text[end:])


def _show(pictures: list[str]) -> str:
    return "\n".join(["from IPython.display import Image, display", "",
                      *(f'display(Image("{picture}"))' for picture in pictures)])


def with_words(body: str, words: str) -> str:
    """The commands of a block, each ``python … tools/….py`` with these words added.

    Raises:
        UserError: a line does more than run one tool, or its quotes are not closed, so that it is not clear where the
            words go; no line runs a tool.
    """
    if not words:
        return body
    lines = [_with_words(line, words) for line in re.split(r"(?<!\\)\n", body)]
    if "\n".join(lines) == body:
        raise UserError(f"课文里的这一块没有 python tools/… 命令，{words} 没有地方加：{body}")
    return MINI.format(words=words) + "\n".join(lines)


def _with_words(line: str, words: str) -> str:
    """One line of a block, with those that continue it; the words go before its comment."""
    command, comment = COMMAND.fullmatch(line).groups()
    clear = comment.lstrip()[:1] in ("", "#") and "\n" not in comment
    if not re.search(r"\bpython3?\b.*\btools/\w+\.py", command if clear else line, re.DOTALL):
        return line
    if not clear:
        raise UserError(f"课文里的这一行引号没有成对，或注释以 \\ 结尾，不知道把 {words} 加在哪里：{line}")
    tokens = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars=True)
    tokens.whitespace_split, tokens.commenters = True, ""
    several = any(set(token) <= set("();<>|&") for token in tokens if token)
    if several or not re.match(r"\s*(?:\w+=\S*\s+)*python3?\s", command):
        raise UserError(f"课文里的这一行不止一条命令，或不以 python 开头，不知道把 {words} 加在哪里，"
                        f"请分成几行：{line}")
    return f"{command} {words}{comment}"


def relinked(text: str) -> str:
    """Markdown of docs/lessons/ as it stands in notebooks/: links lead where they led, or to a lesson's notebook."""

    def moved(link: re.Match) -> str:
        target = link[1]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        file, _, anchor = target.partition("#")
        if re.fullmatch(r"\d\d-[\w-]+\.md", file):
            return f"]({file.removesuffix('.md')}.ipynb)"
        path = (LESSONS / file).resolve().relative_to(ROOT).as_posix()
        return f"](../{path}#{anchor})" if anchor else f"](../{path})"

    pieces = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # every second one is a fence
    return "".join(piece if number % 2 else re.sub(r"\]\(([^)\s]+)\)", moved, piece)
                   for number, piece in enumerate(pieces))


def cells(text: str, answers: bool = False) -> Iterator[tuple[str, str]]:
    """Kind (``markdown`` or ``code``) and source of each cell of a lesson; every section begins a cell."""
    waiting = ""
    for part in parts(text, answers):
        if part.kind in ("text", "whole"):
            body = part.body if part.kind == "whole" else COMMENT.sub("", part.body)
            sections = re.split(r"^(?=## )", body, flags=re.MULTILINE) if part.kind == "text" else [body]
            for number, section in enumerate(sections):
                if number and waiting.strip():
                    yield "markdown", waiting.strip()
                    waiting = ""
                waiting += section
            continue
        if waiting.strip():
            yield "markdown", waiting.strip()
        waiting = ""
        yield "code", BASH + part.body if part.kind == "bash" else part.body
    if waiting.strip():
        yield "markdown", waiting.strip()


def notebook(lesson: Path, answers: bool = False) -> nbformat.NotebookNode:
    """The notebook of a lesson, without outputs; the same lesson gives the same bytes."""
    made, seen = [], {}
    all_cells = [("markdown", HEAD.format(name=lesson.stem)), ("code", SETUP),
                 *cells(lesson.read_text(encoding="utf-8"), answers)]
    for kind, source in all_cells:
        source = relinked(source) if kind == "markdown" and made else source
        digest = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1  # the same cell twice: "python tools/doctor.py"
        name = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        made.append((new_markdown_cell if kind == "markdown" else new_code_cell)(source, id=name))
    return new_notebook(cells=made, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}})


def without_outputs(one: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy as the generator makes it: no outputs, no numbers of execution."""
    bare = nbformat.from_dict(one)
    for cell in bare.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    bare.metadata = nbformat.from_dict({"kernelspec": bare.metadata.get("kernelspec", {}),
                                        "language_info": {"name": "python"}})
    return bare


def keep_outputs(new: nbformat.NotebookNode, old: nbformat.NotebookNode) -> None:
    """Take over the outputs of the notebook that was there, if its code is the same: else they may not be true."""
    of_new, of_old = ([cell for cell in one.cells if cell.cell_type == "code"] for one in (new, old))
    if [cell.source for cell in of_new] == [cell.source for cell in of_old]:
        for one, other in zip(of_new, of_old, strict=True):
            one.outputs, one.execution_count = other.outputs, other.execution_count


def fresh_copy(folder: Path) -> Path:
    """The repository in ``folder`` as somebody who has just got it has it: no data, no results."""

    def skipped(where: str, names: list[str]) -> set[str]:
        anywhere = {name for name in names if name in CACHES or name.endswith(".egg-info")}
        return anywhere | (NOT_COPIED & set(names) if Path(where) == ROOT else set())

    return Path(shutil.copytree(ROOT, folder, ignore=skipped))


def execute(one: nbformat.NotebookNode, root: Path) -> None:
    """Run a notebook top to bottom in ``root``/notebooks, filling in its outputs.

    Raises:
        UserError: a cell failed; nbclient is not installed.
    """
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise UserError('运行 notebook 要装 nbclient 和 ipykernel：python -m pip install -e ".[notebooks]"') from error
    (root / "notebooks").mkdir(exist_ok=True)
    client = NotebookClient(one, timeout=CELL_SECONDS, kernel_name="python3",
                            resources={"metadata": {"path": str(root / "notebooks")}})
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise UserError(f"有一格没有运行成功：{_told(one)}\n{type(error).__name__}") from error


def _told(one: nbformat.NotebookNode) -> str:
    """The cell that failed and the last lines it said."""
    begun = [cell for cell in one.cells if cell.metadata.get("execution")]  # nbclient notes when each began
    if not begun:
        return "内核（kernel）没有开始运行第一格"
    cell = begun[-1]
    said = "".join(output.get("text", "") for output in cell.outputs)
    said = said or "".join(output.get("evalue", "") for output in cell.outputs)
    return "\n".join([cell.source, "——", *said.splitlines()[-LINES:]])


def lighten(one: nbformat.NotebookNode, root: Path) -> None:
    """Of each cell's outputs keep what is short: the first and last lines, small pictures; no path of this computer."""
    for cell in one.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            if not cell.source.startswith(BASH):  # what Python says there are warnings about this computer
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.outputs = _light(cell.outputs, root)
    one.metadata = without_outputs(one).metadata


def _light(outputs: list[nbformat.NotebookNode], root: Path) -> list[nbformat.NotebookNode]:
    streams, kept = "", []
    for output in outputs:
        if output.output_type == "stream":
            streams += output.text
            continue
        if "data" in output:
            picture = output.data.get("image/png", "")
            output.data = _small_picture(picture) if len(picture) * 3 // 4 > IMAGE else _light_data(output.data, root)
        output.metadata = {}
        kept.append(output)
    if streams:
        kept.insert(0, nbformat.v4.new_output("stream", name="stdout", text=_shorter(streams, root)))
    return kept


def _light_data(data: dict[str, Any], root: Path) -> dict[str, Any]:
    """A result in its several forms: as text like other output; of the others (HTML, pictures) those that are small."""
    light = {kind: value if kind.startswith("image/") else _without_places(value, root)
             for kind, value in data.items() if isinstance(value, str) and len(value) * 3 // 4 <= IMAGE}
    if "text/plain" in data:
        light["text/plain"] = _shorter(data["text/plain"], root).rstrip("\n")
    return light or {"text/plain": "（这个结果大，没有存在 notebook 里；运行这一格就看得到）"}


def _small_picture(png: str) -> dict[str, str]:
    """A large picture as JPEG, as wide as a page or less; in words where that is large, too."""
    for width in WIDTHS:
        with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
            picture.thumbnail((width, 4 * width))
            file = io.BytesIO()
            picture.convert("RGB").save(file, "JPEG", quality=80)
        if file.tell() <= IMAGE:
            return {"image/jpeg": base64.b64encode(file.getvalue()).decode()}
    return {"text/plain": "（这张图大，没有存在 notebook 里；运行这一格就看得到）"}


def _shorter(text: str, root: Path) -> str:
    text = _without_places(WARNING.sub("", text), root)
    lines = [line.rpartition("\r")[2].rstrip() for line in text.rstrip("\n").split("\n")]
    lines = [line if len(line) <= CHARACTERS else f"{line[:CHARACTERS]}…" for line in lines]
    if len(lines) > LINES:
        first, last = LINES // 3, LINES - LINES // 3 - 1
        lines = [*lines[:first], f"…（略去 {len(lines) - first - last} 行）…", *lines[-last:]]
    return "\n".join(lines) + "\n"


def _without_places(text: str, root: Path) -> str:
    text = text.replace(f"{root}/", "").replace(f"{sys.prefix}/", "")
    return re.sub(rf"{re.escape(str(root))}(?!\w)", ".", text)


def write(one: nbformat.NotebookNode, name: str) -> Path:
    """Write a notebook where it belongs."""
    return write_text(NOTEBOOKS / f"{name}.ipynb", nbformat.writes(one) + "\n")


def chosen(names: list[str]) -> list[Path]:
    """The lessons whose names begin so, or all.

    Raises:
        UserError: there is none.
    """
    lessons = sorted(LESSONS.glob("[0-9][0-9]-*.md"))
    for name in names:
        if not any(lesson.stem.startswith(name) for lesson in lessons):
            raise UserError(f"没有名为 {name} 的课；有：{'、'.join(lesson.stem for lesson in lessons)}")
    return [lesson for lesson in lessons if not names or lesson.stem.startswith(tuple(names))]


def main(options: argparse.Namespace) -> None:
    """Write the notebooks, or run them."""
    for lesson in chosen(options.run or []):
        one = notebook(lesson)
        file = NOTEBOOKS / f"{lesson.stem}.ipynb"
        if options.run is not None:
            with tempfile.TemporaryDirectory() as folder:
                root, started = fresh_copy(Path(folder) / "paddle_cxr"), time.monotonic()
                execute(one, root)
                lighten(one, root)
                print(f"{lesson.stem}：从头到尾运行了 {time.monotonic() - started:.0f} 秒")
        elif file.exists():
            keep_outputs(one, nbformat.read(file, as_version=4))
        print(f"已写入 {write(one, lesson.stem)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="由课文生成 notebook")
    parser.add_argument("--run", nargs="*", metavar="课", 
                        help="在一份新的副本里运行这些课（不写就是全部），留下简短的输出")
    parser.add_argument("--debug", action="store_true", help="出错时显示完整的调用栈（traceback）")
    run(main, parser.parse_args())
