"""Reading, inheriting and overriding recipes."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paddle_cxr.config import apply_overrides, merge, read_recipe
from paddle_cxr.errors import UserError


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_child_is_laid_over_its_bases_in_order(tmp_path):
    write(tmp_path, "a.yaml", "Global: {seed: 1, epochs: 2}\nlist: [1, 2, 3]\n")
    write(tmp_path, "b.yaml", "Global: {epochs: 3}\n")
    child = write(tmp_path, "c.yaml", "_base_: [a.yaml, b.yaml]\nGlobal: {device: cpu}\nlist: [9]\n")
    recipe, origins = read_recipe(child)
    assert recipe == {"Global": {"seed": 1, "epochs": 3, "device": "cpu"}, "list": [9]}
    assert origins["Global.seed"].endswith("a.yaml:1")
    assert origins["Global.device"].endswith("c.yaml:2")


def test_a_component_of_another_name_drops_the_old_arguments(tmp_path):
    write(tmp_path, "base.yaml", "Optimizer: {name: Adam, beta1: 0.5, lr: {name: Constant, learning_rate: 1}}\n")
    child = write(tmp_path, "c.yaml", "_base_: base.yaml\nOptimizer: {name: Momentum, momentum: 0.8}\n")
    assert read_recipe(child)[0]["Optimizer"] == {"name": "Momentum", "momentum": 0.8}


def test_scientific_notation_is_a_number(tmp_path):
    recipe, _ = read_recipe(write(tmp_path, "c.yaml", "a: 1e-3\nb: 3E+2\nc: 1.5e4\nd: e5\n"))
    assert recipe == {"a": 1e-3, "b": 300.0, "c": 15000.0, "d": "e5"}


@pytest.mark.parametrize("text, said", [
    ("Global: {a: 1\n", "YAML 语法错误"),
    ("Global:\n\tepochs: 1\n", "Tab"),
    ("Global:\n  epochs: 1\n seed: 2\n", "缩进与上面不齐"),
    ("a: 'b\nc: 1\n", "没有闭合，从第 1 行开始"),
    ("when: 2026-13-45\n", "若是文字请加引号"),
    ("n: !!int x\n", "若是文字请加引号"),
    ("b: !!bool x\n", "若是文字请加引号"),
    ("a: 1\na: 2\n", "'a' 重复"),
    ("- 1\n", "最外层"),
    ("_base_: nowhere.yaml\n", "nowhere.yaml"),
    (f"_base_: {'x' * 300}.yaml\n", "指向的文件不存在"),  # longer than the system allows
    ("_base_: 3\n", "_base_"),
    ("a: !!python/object/apply:os.system ['true']\n", "YAML 语法错误"),
    ("a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b]\n"
     "d: &d [*c, *c, *c, *c, *c, *c]\ne: [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n", "锚点"),
])
def test_a_bad_file_is_one_clear_line(tmp_path, text, said):
    file = write(tmp_path, "bad.yaml", text)
    with pytest.raises(UserError) as error:
        read_recipe(file)
    assert said in str(error.value) and "bad.yaml" in str(error.value) and "\n" not in str(error.value)


def test_circular_inheritance_is_told_with_its_ring(tmp_path):
    write(tmp_path, "a.yaml", "_base_: b.yaml\n")
    write(tmp_path, "b.yaml", "_base_: a.yaml\n")
    with pytest.raises(UserError, match="a.yaml → b.yaml → a.yaml"):
        read_recipe(tmp_path / "a.yaml")


def test_missing_recipe_names_the_file(tmp_path):
    with pytest.raises(UserError, match="none.yaml"):
        read_recipe(tmp_path / "none.yaml")


def test_overrides_reach_into_mappings_lists_and_new_keys():
    recipe = {"a": {"b": [{"c": 1}, {"c": 2}]}, "empty": None}
    apply_overrides(recipe, ["a.b.1.c=[1, x]", "a.new=1e-2", "a.b.0={k: true}", "empty.x=null"])
    assert recipe == {"a": {"b": [{"k": True}, {"c": [1, "x"]}], "new": 0.01}, "empty": {"x": None}}


@pytest.mark.parametrize("override, said", [
    ("a.b", "a.b.c=值"), ("=1", "a.b.c=值"), ("a..b=1", "a.b.c=值"), ("list.9=1", "0–1"), ("list.x=1", "0–1"),
    ("text.x=1", "没有 'x' 可改"), ("a=[1", "不是合法的 YAML"), ("a=2026-13-45", "不是合法的 YAML"),
    ("a=" + "[" * 3000, "不是合法的 YAML"), ("a=!!python/name:os.system", "不是合法的 YAML"),
])
def test_a_bad_override_is_one_clear_line(override, said):
    with pytest.raises(UserError) as error:
        apply_overrides({"list": [1, 2], "text": "t", "a": {}}, [override])
    assert said in str(error.value) and override in str(error.value)


def test_other_files_than_a_recipe_are_told_apart(tmp_path):
    write(tmp_path, "resnet50.yaml", "a: 1\n")
    (tmp_path / "gbk.yaml").write_bytes("a: 中文\n".encode("gbk"))
    for name, said in (("resnet50.yml", "是不是 .*resnet50.yaml"), (".", "是文件夹"), ("gbk.yaml", "UTF-8")):
        with pytest.raises(UserError, match=said):
            read_recipe(tmp_path / name)


def test_an_override_makes_what_was_written_below_it_forgotten(tmp_path):
    recipe, origins = read_recipe(write(tmp_path, "c.yaml", "a:\n  b: [{c: 1}, {c: 2}]\n"))
    apply_overrides(recipe, ["a.b=[3]", "x.y=1"], origins)
    assert origins == {"a": f"{tmp_path}/c.yaml:2", "a.b": "-o a.b=[3]", "x": "-o x.y=1", "x.y": "-o x.y=1"}


keys = st.text("abcxyz", min_size=1, max_size=3)
trees = st.recursive(st.integers() | st.booleans() | st.lists(st.integers(), max_size=3),
                     lambda inner: st.dictionaries(keys, inner, max_size=4), max_leaves=12)
mappings = st.dictionaries(keys, trees, max_size=4)


@given(mappings, mappings)
def test_merge_keeps_the_top_and_what_it_leaves_alone(base, top):
    merged = merge(base, top)
    assert merge(merged, top) == merged
    assert merge(base, {}) == base and merge({}, top) == top
    for key in base.keys() - top.keys():
        assert merged[key] == base[key]
    for key, value in top.items():
        if not isinstance(value, dict):
            assert merged[key] == value


@given(mappings)
def test_what_is_dumped_is_read_back(tmp_path_factory, mapping):
    file = tmp_path_factory.mktemp("r") / "r.yaml"
    file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    recipe, _ = read_recipe(file)
    assert recipe == yaml.safe_load(yaml.safe_dump(mapping))
