"""The documents say what is so: commands run, snippets load, links lead somewhere, quoted errors are the real ones."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from doc_commands import SYNTHESIS, check_all, check_command, check_synthesis
from doc_pages import GUIDES, PAGES, ROOT, blocks, commands, config, ids, overrides, script, without_code
from PIL import Image

from paddle_cxr import recipe
from paddle_cxr.data.labelled import open_source, split_source
from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.registry import accepted_arguments, components


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script("make_config_reference")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: the recipes, and no data."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def any_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is ever missing, so that a recipe is checked to its end."""
    monkeypatch.setattr(recipe, "_missing_data", lambda raw: None)


# --- config.md ------------------------------------------------------------------------------------------------------

def test_config_reference_is_up_to_date(generator: ModuleType) -> None:
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == generator.reference(), "run: python docs/make_config_reference.py"


def test_config_reference_has_every_key_and_component(generator: ModuleType) -> None:
    text = generator.reference()
    for _, label, schema in generator.RECIPES:
        for path, section in generator.sections("", schema):
            assert not path or f"### {label}`{path}`\n" in text
            for name in section.model_fields:
                assert f"| `{name}` |" in text
    assert {kind.kind for kind in generator.KINDS} >= {
        kind for kind in ("arch", "loss", "optimizer", "lr", "source", "split", "transform", "batch_transform",
                          "metric") if components(kind)}
    for kind in generator.KINDS:
        taken = {name for one in components(kind.kind).values() for name in accepted_arguments(one)}
        assert set(kind.supplied) <= taken, f"{kind.kind}: no component takes {set(kind.supplied) - taken}"


def test_tool_reference_is_up_to_date_and_has_every_tool() -> None:
    tools = script("make_tool_reference")
    assert sorted(tools.TOOLS) == sorted(file.stem for file in (ROOT / "tools").glob("*.py"))
    assert (ROOT / "docs/tools.md").read_text(encoding="utf-8") == tools.reference(), (
        "run: python docs/make_tool_reference.py")


@pytest.mark.parametrize(("hint", "text"), [
    (int | None, "int / null"), (list[float], "float 的列表"), (tuple[int, int, int], "[int, int, int]"),
    (tuple[str, ...], "str 的列表"), (dict[str, str], "{str: str}"), (bool, "bool")])
def test_types_are_written_for_people(generator: ModuleType, hint: object, text: str) -> None:
    assert generator.type_text(hint) == text


def test_argument_meanings_are_taken_from_docstrings(generator: ModuleType) -> None:
    document = "One line.\n\nArgs:\n    a, b: both\n        of them.\n    c: ``x``; d: other.\n\nRaises:\n    E: no."
    assert generator.argument_meanings(document) == {"a": "both of them.", "b": "both of them.", "c": "`x`",
                                                     "d": "other."}


# --- links and names ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path, generator: ModuleType) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{ids(page)}: no such file: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(generator.anchor, headings), f"{ids(page)}: no such heading: {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_nothing_of_one_workplace_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    absolute = re.findall(r"(?<![\w.:/~<-])/[a-z]+/[\w./-]+", text)
    assert all(path.startswith(("/dev/shm", "/root/.cache/paddle_cxr/")) for path in absolute), absolute
    for above in set(re.findall(r"(?<![\w.])\.\./([\w.-]+)", text)) - {".."}:
        inside = (folder / above for folder in (ROOT, page.parent.parent) if (folder / above).exists())
        assert any(found.resolve().is_relative_to(ROOT) for found in inside), f"../{above}"
    indexes = re.findall(r"(?:-i|--index-url|--extra-index-url|-f|--find-links)[ =]\s*(https?://[^/\s]+)", text)
    assert set(indexes) <= {"https://www.paddlepaddle.org.cn"}
    hosts = re.findall(r"https?://([^/\s)\"'>]+)", text)
    assert not [host for host in hosts if re.search(r"pypi|mirror|pythonhosted|npmjs|proxy", host)]


# --- commands -------------------------------------------------------------------------------------------------------

ALL_COMMANDS = [(page, words) for page in GUIDES for language in ("bash", "console")
                for words in commands("\n".join(blocks(page, language)))]
# Those shown with an answer are shown because they fail.
MEANT_TO_RUN = [(page, words) for page in GUIDES for words in commands("\n".join(blocks(page, "bash")))
                if "-c" in words]


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=ids)
def test_commands_name_existing_scripts_and_flags(page: Path, words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.is_file(), f"{ids(page)}: {words[0]}"
    source = script.read_text(encoding="utf-8") + (ROOT / "paddle_cxr/cli.py").read_text(encoding="utf-8")
    for flag in (word for word in words if word.startswith("-")):
        assert f'"{flag}"' in source, f"{ids(page)}: {words[0]} has no {flag}"


@pytest.mark.parametrize(("page", "words"), MEANT_TO_RUN, ids=ids)
def test_commands_are_accepted_with_and_without_data(page: Path, words: list[str], empty: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    check_command(words, monkeypatch)


# --- quoted errors --------------------------------------------------------------------------------------------------

QUOTED = [(page, *block.strip().splitlines()) for page in GUIDES for block in blocks(page, "console")]


@pytest.mark.parametrize(("page", "command", "answer"), QUOTED, ids=ids)
def test_quoted_errors_of_recipes_are_the_real_ones(page: Path, command: str, answer: str, empty: Path) -> None:
    """Those that a recipe alone decides; what needs data or a trained model is left to the tests of those parts."""
    Path("data/chest3").mkdir(parents=True)
    Path("data/chest3/any").touch()
    Path("configs/mine.yaml").write_text("Global:\n  epochs: 2\n   seed: 1\n", encoding="utf-8")
    Path("configs/a.yaml").write_text("_base_: b.yaml\n", encoding="utf-8")
    Path("configs/b.yaml").write_text("_base_: a.yaml\n", encoding="utf-8")
    words = shlex.split(command.removeprefix("$ python "))
    assert answer.startswith("错误：")
    try:
        if words[0] in SYNTHESIS:
            check_synthesis(words)
        check_all(job_named(recipe.task_of(config(words), overrides(words))).load(config(words), overrides(words)))
    except UserError as error:
        assert answer == f"错误：{error}"
    else:
        assert "检查点" in answer  # the one kind quoted that needs an output folder



# --- snippets -------------------------------------------------------------------------------------------------------

SNIPPETS = [(page, text) for page in GUIDES for text in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), SNIPPETS, ids=ids)
def test_snippets_are_recipes(page: Path, text: str, empty: Path, any_data: None) -> None:
    file = Path("configs/snippet.yaml")
    file.write_text(text, encoding="utf-8")
    check_all(recipe.load(file))


def picture(file: Path, shade: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(file)


def make_folders(root: Path, loaded: recipe.Loaded) -> None:
    for info in loaded.classes:
        for i in range(20):
            picture(root / info.name / f"p{i // 2:02d}_{i}.png")


def make_list(root: Path, loaded: recipe.Loaded) -> None:
    source = loaded.recipe.DataLoader.Source
    columns = {"path": "file", "label": "label", "patient_id": "patient_id"} | source.get("columns", {})
    lines = [",".join([*columns.values(), "split"])]
    for i in range(60):
        picture(root / f"images/{i}.png")
        lines.append(f"images/{i}.png,{loaded.classes[i % 3].name},p{i // 6},{'train' if i < 48 else 'test'}")
    file = root / source["file"] if "/" not in source["file"] else Path(source["file"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_radiography(root: Path, loaded: recipe.Loaded) -> None:
    for name in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for i in range(1, 21):
            picture(root / name / "images" / f"{name}-{i}.png")
            picture(root / name / "masks" / f"{name}-{i}.png")


def make_covidx(root: Path, loaded: recipe.Loaded) -> None:
    labels = {"negative": "negative", "positive": "positive", "NORMAL": "normal", "PNEUMONIA": "pneumonia",
              "COVID": "COVID-19"}
    lists = loaded.recipe.DataLoader.Source.get("lists") or {"train": "train.txt", "test": "test.txt"}
    for split, name in lists.items():
        lines = []
        for i, info in enumerate(loaded.classes * 10):
            picture(root / split / f"{split}{i}.png")
            lines.append(f"{split}-{i} {split}{i}.png {labels[info.name]} ricord")
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_covid_chestxray(root: Path, loaded: recipe.Loaded) -> None:
    lines = ["patientid,finding,view,modality,folder,filename,license"]
    for i, finding in enumerate(["Pneumonia/Viral/COVID-19", "Pneumonia/Viral/SARS", "Pneumonia"] * 8):
        picture(root / "images" / f"{i}.png")
        lines.append(f"{i},{finding},PA,X-ray,images,{i}.png,CC BY 4.0")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


MAKERS: dict[str, Callable[[Path, recipe.Loaded], None]] = {
    "ImageFolder": make_folders, "ListFile": make_list, "CovidRadiography": make_radiography,
    "COVIDxCXR2": make_covidx, "CovidChestXray": make_covid_chestxray}
DATA_SNIPPETS = blocks(ROOT / "docs/data.md", "yaml")


@pytest.mark.parametrize("text", DATA_SNIPPETS, ids=lambda text: re.findall(r"output_dir: ([\w/]+)", text)[0])
def test_data_guide_opens_and_divides_the_layouts_it_describes(text: str, empty: Path) -> None:
    file = Path("configs/snippet.yaml")
    file.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "_missing_data", lambda raw: None)
        loaded = recipe.load(file)
    section = loaded.recipe.DataLoader
    if section.Source["name"] != "Phantoms":
        root = Path(section.Source["root"])
        root.mkdir(parents=True)
        MAKERS[section.Source["name"]](root, loaded)
    loaded = recipe.load(file)
    assert not loaded.notices  # no fallback
    source = open_source(loaded)
    subsets = split_source(source, section)
    assert all(source.counts().values())
    assert {section.Train.subset} <= set(subsets) or loaded.recipe.Global.folds
    if section.Source["name"] != "Phantoms":
        assert source.read(0).shape == (16, 16)
