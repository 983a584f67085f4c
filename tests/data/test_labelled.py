"""From recipe to decoded subsets: views, who stands in for validation, folds that are left aside."""

from __future__ import annotations

import numpy as np
import pytest

from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.labelled import View, load_labelled
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources import Phantoms
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import load

CLASSES = (ClassInfo("normal", "正常", "Normal"), ClassInfo("covid", "新冠", "COVID-19"))


def test_part_of_another_seed_is_not_served_from_the_cache(tmp_path):
    seen = []
    for seed in (0, 1):
        part = View(Phantoms(3, seed, 32, classes=CLASSES), np.array([4, 1]))
        seen.append(np.array(DecodedCache(part, Preprocess((1, 32, 32)), folder=tmp_path).images))
        assert np.array_equal(seen[-1][1], part.read(1))
    assert not np.array_equal(*seen)


def test_a_view_is_named_by_its_source_and_its_indices():
    source = Phantoms(3, 0, 32, classes=CLASSES)
    names = {View(source, indices).fingerprint() for indices in ([0, 1], [1, 0], [0], np.array([0]))}
    assert len(names) == 3 and View(Phantoms(3, 1, 32, classes=CLASSES), [0]).fingerprint() not in names


def opened(recipe, *overrides, only=None, subsets=None):
    said = []
    return load_labelled(load(recipe, overrides), subsets, only, said.append), said


def test_the_blog_split_says_that_it_validates_on_the_test_images(tiny_recipe):
    data, said = opened(tiny_recipe)
    loud = [line for line in said if line.startswith("!!")]
    assert len(loud) == 1 and "BlogSplit" in loud[0] and "测试集" in loud[0]
    assert np.array_equal(data.positions("val"), data.positions("test")) and len(data.positions("val")) == 6
    data, said = opened(tiny_recipe, only="val")
    assert len(data.labels) == 6 and sum(line.startswith("!!") for line in said) == 1


@pytest.mark.parametrize("overrides, only", [
    (["DataLoader.Eval.subset=test"], None), ([], "test"),
    (["DataLoader.Split={name: PatientSplit, val: 0.2, test: 0.2}"], None),
])
def test_nothing_is_said_where_nothing_stands_in(tiny_recipe, overrides, only):
    data, said = opened(tiny_recipe, *overrides, only=only)
    assert not [line for line in said if line.startswith("!!")] and len(data.labels)


def test_the_fallback_of_a_recipe_that_follows_the_blog_has_validation_images(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, said = opened(root / "configs/resnet18.yaml", "fallback.DataLoader.Source.per_class=20",
                        "fallback.DataLoader.Source.size=32", "Global.image_shape=[1,32,32]",
                        "DataLoader.cache.mode=memory")
    assert not [line for line in said if line.startswith("!!")] and len(data.positions("val")) == 6


@pytest.mark.parametrize("split", ["{name: PatientSplit, val: 0.0, test: 0.3}", "{name: NoSplit}"])
def test_no_other_split_validates_on_test_unasked(tiny_recipe, split):
    data, _ = opened(tiny_recipe, f"DataLoader.Split={split}")
    with pytest.raises(UserError, match="子集 'val' 里没有图像"):
        data.positions("val")
    with pytest.raises(UserError, match="子集 'val' 里没有图像"):
        opened(tiny_recipe, f"DataLoader.Split={split}", only="val")


def test_published_folds_of_another_number_are_not_dropped_silently(tiny_recipe):
    class_folders = tiny_recipe.parent / "chest3"
    rows = [f"{path.relative_to(class_folders)},{path.parent.name},{int(path.stem) % 4}"
            for path in sorted(class_folders.rglob("*.jpg"))]
    (class_folders / "index.csv").write_text("\n".join(["file,label,fold", *rows]))
    source = f"DataLoader.Source={{name: ListFile, root: {class_folders}}}"
    for folds, loud in ((4, 0), (3, 1)):
        _, said = opened(tiny_recipe, source, f"Global.folds={folds}", subsets=["all"] * 36)
        assert sum("fold" in line and "Global.folds=4" in line for line in said) == loud
