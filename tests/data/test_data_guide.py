"""The page on data: its examples of findings and pairs are accepted, and name folders as the recipes do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipes import ROOT

from paddle_cxr.config import read_recipe
from paddle_cxr.doctor.data_sets import sources_in
from paddle_cxr.registry import check, components

EXAMPLES = [yaml.safe_load(text) for text in re.findall(
    r"^```\n(Source:.*?)^```$", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["Source"]["name"])
def test_examples_are_accepted(example: dict[str, Any]) -> None:
    kind = "findings" if example["Source"]["name"] in components("findings") else "pairs"
    check(kind, example["Source"], "DataLoader.Source")
    if "Split" in example:
        check("split", example["Split"], "DataLoader.Split")


def test_there_is_an_example_of_every_public_data_set() -> None:
    shown = {example["Source"]["name"] for example in EXAMPLES}
    assert set(components("findings")) - shown == {"PhantomFindings"}


def test_a_data_set_lies_in_one_folder_everywhere() -> None:
    folders: dict[str, dict[str, str]] = {}
    recipes = [(file.name, read_recipe(file)[0]) for file in sorted(Path(ROOT / "configs").rglob("*.yaml"))]
    for place, value in [*recipes, *(("docs/data.md", example) for example in EXAMPLES)]:
        for one in sources_in(value):
            if one["name"] not in ("ListFile", "FindingsFile", "ImageFolder"):  # one's own
                folders.setdefault(one["name"].removesuffix("Pairs"), {})[one["root"]] = place
    assert {"RSNAPneumonia", "SIIMACRPneumothorax", "MimicCxr", "PadChest"} <= set(folders)
    assert all(len(places) == 1 for places in folders.values()), folders
