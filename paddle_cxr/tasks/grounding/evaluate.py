"""Zero-shot grounding on marked images: what ``tools/eval.py`` does for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from paddle_cxr import cpu
from paddle_cxr.data.labelled import part_of
from paddle_cxr.engine.continuing import dump
from paddle_cxr.engine.distributed import World, select_device
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.engine.provenance import say_overlap
from paddle_cxr.engine.run import circumstances
from paddle_cxr.files import write_json, write_text
from paddle_cxr.recipe import Loaded
from paddle_cxr.tasks.grounding.maps import Maps
from paddle_cxr.tasks.grounding.marked import load_marked
from paddle_cxr.tasks.grounding.report import WRITTEN, Report
from paddle_cxr.tasks.grounding.schema import GroundingSection
from paddle_cxr.tasks.pretrained import open_pretrained, read_settings, with_input_of


def evaluate(loaded: Loaded) -> None:
    """Evaluate and write ``<output_dir>/eval_<subset>/``."""
    loaded = replace(loaded, recipe=with_input_of(loaded.recipe, read_settings(loaded.recipe.Model.checkpoint)))
    recipe = loaded.recipe
    for line in [*loaded.notices, *select_device(recipe.Global.device, World())[1], cpu.describe()]:
        print(line)
    pretrained = open_pretrained(recipe.Model.checkpoint)
    tested, chosen = recipe.DataLoader.Eval.subset, recipe.DataLoader.Eval.threshold_subset
    # Everything that may be wrong with the data is found before the output folder is touched.
    data, prompts, marked = load_marked(loaded, [tested] if chosen is None else [tested, chosen], print)
    maps = Maps(pretrained, prompts, recipe.Grounding)
    demo = data.source.demo or bool(pretrained.meta.get("demo_data"))
    folder = RunFolder(Path(recipe.Global.output_dir) / f"eval_{tested}")
    try:
        folder.forget(*WRITTEN)
        write_text(folder.path / "config.yaml", dump(recipe))
        for line in [*pretrained.notices, *_notices(recipe.Grounding, maps)]:
            folder.say(line)
        of_tested = part_of(data, np.unique([one.position for one in marked[tested]]))
        found = {"also_trained_on": say_overlap(pretrained.settings.folder, of_tested, folder.say)}
        found |= Report(recipe, data, prompts, marked, maps, folder, demo).write()
        write_json(folder.path / "metrics.json", {
            "evaluation": found, "architecture": pretrained.settings.arch.name, "demo_data": demo,
            "checkpoint": str(pretrained.settings.folder),
            "dataset": {"name": data.source.name, "fingerprint": data.source.fingerprint()},
            **circumstances(recipe.Global.seed)})
        folder.say(f"评估结果写在 {folder.path}")
    finally:
        folder.close()


def _notices(section: GroundingSection, maps: Maps) -> list[str]:
    if "layer" in section.model_fields_set and section.map != "gradcam":
        return [*maps.notices, f"Grounding.layer 只用于 map: gradcam，现在的 map 是 {section.map}，不用它"]
    return maps.notices
