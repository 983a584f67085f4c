"""Is a command of the documentation accepted?  Checked as the tools do before they read an image or write a report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import config, overrides

from paddle_cxr import recipe
from paddle_cxr.compare.plan import plan
from paddle_cxr.compare.recipe import load as load_comparison
from paddle_cxr.config import explained
from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.synthesis.analysis_schema import AnalysisRecipe
from paddle_cxr.synthesis.fidelity.schema import FidelityRecipe
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.pairs.schema import check_recipe as check_pairs
from paddle_cxr.synthesis.quality.curate_schema import CurationRecipe
from paddle_cxr.synthesis.run import check_recipe
from paddle_cxr.synthesis.schema import ReportsRecipe, load_recipe
from paddle_cxr.tasks.classification import check_components

SYNTHESIS = {"tools/synthesize.py": {"reports": (ReportsRecipe, check_recipe), "pairs": (PairsRecipe, check_pairs)},
             "tools/analyze.py": {"corpus": (AnalysisRecipe, None), "entities": (AnalysisRecipe, None),
                                  "quality": (CurationRecipe, None), "fidelity": (FidelityRecipe, None)}}


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its data set missing (so that the recipe falls back) and with it there; the current folder has configs/."""
    if words[0] in SYNTHESIS:
        check_synthesis(words)
        return
    if words[0] == "tools/compare.py":
        plan(load_comparison(config(words), overrides(words)))
        return
    if words[0] == "tools/app.py":
        from paddle_cxr.app.recipe import load

        load(Path(config(words)), overrides(words))
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


def check_all(loaded: recipe.Loaded) -> None:
    """As ``tools/train.py`` does before it reads an image."""
    with explained(loaded.origins):
        check_components(loaded.recipe)


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
