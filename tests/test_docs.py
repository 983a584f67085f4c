"""The documents say what is so: commands run, snippets load, links lead somewhere, quoted errors are the real ones."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from paddle_cxr import recipe
from paddle_cxr.compare.plan import plan
from paddle_cxr.compare.recipe import load as load_comparison
from paddle_cxr.config import explained
from paddle_cxr.data.labelled import open_source, split_source
from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.registry import accepted_arguments, components
from paddle_cxr.synthesis.analysis_schema import AnalysisRecipe
from paddle_cxr.synthesis.fidelity.schema import FidelityRecipe
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.pairs.schema import check_recipe as check_pairs
from paddle_cxr.synthesis.quality.curate_schema import CurationRecipe
from paddle_cxr.synthesis.run import check_recipe
from paddle_cxr.synthesis.schema import ReportsRecipe, load_recipe
from paddle_cxr.tasks.classification import check_components

ROOT = Path(__file__).resolve().parents[1]
NOT_OURS = {"output", "data", "cache", "build", "dist", "venv"}
PAGES = sorted(file for file in ROOT.rglob("*.md") if not any(
    part.startswith(".") or part in NOT_OURS for part in file.relative_to(ROOT).parts[:1]))
GUIDES = [page for page in PAGES if page.parent in (ROOT, ROOT / "docs")]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def ids(value: object) -> str:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else ""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/make_config_reference.py"""
    spec = importlib.util.spec_from_file_location("make_config_reference", ROOT / "docs/make_config_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
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
    for above in re.findall(r"(?<![\w.])\.\./([\w.-]+)", text):
        assert (ROOT / above).exists(), f"../{above}"
    indexes = re.findall(r"(?:-i|--index-url|--extra-index-url|-f|--find-links)[ =]\s*(https?://[^/\s]+)", text)
    assert set(indexes) <= {"https://www.paddlepaddle.org.cn"}
    hosts = re.findall(r"https?://([^/\s)\"'>]+)", text)
    assert not [host for host in hosts if re.search(r"pypi|mirror|pythonhosted|npmjs|proxy", host)]


# --- commands -------------------------------------------------------------------------------------------------------

def commands(page: Path, *languages: str) -> Iterator[list[str]]:
    """The words of every ``python …`` line in blocks of these languages, from the script on."""
    for language in languages:
        for line in "\n".join(blocks(page, language)).replace("\\\n", " ").splitlines():
            for part in line.removeprefix("$ ").split("&&"):
                words = shlex.split(part, comments=True)
                scripts = [i for i, word in enumerate(words) if re.fullmatch(r"[\w/]+\.py", word)]
                if words[:1] == ["python"] and scripts:
                    yield words[scripts[0]:]


def overrides(words: list[str]) -> list[str]:
    return [after for word, after in zip(words, words[1:], strict=False) if word == "-o"]


def config(words: list[str]) -> str:
    return words[words.index("-c") + 1]


ALL_COMMANDS = [(page, words) for page in GUIDES for words in commands(page, "bash", "console")]
# Those shown with an answer are shown because they fail.
MEANT_TO_RUN = [(page, words) for page in GUIDES for words in commands(page, "bash") if "-c" in words]


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
    if words[0] in SYNTHESIS:
        check_synthesis(words)
        return
    if words[0] == "tools/compare.py":
        plan(load_comparison(config(words), overrides(words)))
        return
    if recipe.task_of(config(words), overrides(words)) != recipe.CLASSIFICATION:
        check_other_training(words)
        return
    try:
        check_all(recipe.load(config(words), overrides(words)))
    except UserError as error:
        assert str(error).startswith("DataLoader.Source.root：找不到数据"), error
    monkeypatch.setattr(recipe, "_missing_data", lambda raw: None)
    check_all(recipe.load(config(words), overrides(words)))


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


SYNTHESIS = {"tools/synthesize.py": {"reports": (ReportsRecipe, check_recipe), "pairs": (PairsRecipe, check_pairs)},
             "tools/analyze.py": {"corpus": (AnalysisRecipe, None), "entities": (AnalysisRecipe, None),
                                  "quality": (CurationRecipe, None), "fidelity": (FidelityRecipe, None)}}


def check_synthesis(words: list[str]) -> None:
    """As the tools do before they write a report, draw an image or read a corpus."""
    Path("my_vocabulary.csv").write_text("name,type\n" + "".join(
        f"{kind}{i},{kind}\n" for kind in ("abnormality", "disease", "anatomy") for i in range(900)), encoding="utf-8")
    task = words[1] if words[0] == "tools/analyze.py" else recipe.task_of(config(words), overrides(words))
    schema, check = SYNTHESIS[words[0]][task if task in SYNTHESIS[words[0]] else "reports"]
    loaded, origins = load_recipe(config(words), overrides(words), schema)
    if check is not None:
        try:
            with explained(origins):
                check(loaded)
        except UserError as error:  # a data set that every user has to get
            if not str(error).startswith("Reports.pairs：找不到数据 数据文件夹"):
                raise


def check_other_training(words: list[str]) -> None:
    """A recipe of another task is read as ``tools/train.py`` reads it; its data set need not be there."""
    try:
        job_named(recipe.task_of(config(words), overrides(words))).load(config(words), overrides(words))
    except UserError as error:
        assert re.match(r"DataLoader.Source：找不到", str(error)), error


# --- snippets -------------------------------------------------------------------------------------------------------

def check_all(loaded: recipe.Loaded) -> None:
    """As ``tools/train.py`` does before it reads an image."""
    with explained(loaded.origins):
        check_components(loaded.recipe)


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
