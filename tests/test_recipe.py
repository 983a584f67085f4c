"""The recipe as a whole: fallback, cross-field rules, every shipped file."""

import pytest

from paddle_cxr.engine.jobs import job_named
from paddle_cxr.errors import UserError
from paddle_cxr.recipe import load, task_of


def shipped(root):
    files = sorted((root / "configs").glob("*.yaml"))
    return [file for file in files if task_of(file) != "app"]  # the page's is read by its own tool: tests/app


def test_every_shipped_recipe_is_sound(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no data here, so recipes with a fallback use it
    assert shipped(root)
    for file in shipped(root):
        try:
            loaded = job_named(task_of(file)).load(file)
        except UserError as error:
            assert "找不到" in str(error), file  # a recipe for real data without fallback
        else:
            assert loaded.recipe.Global.output_dir, file


def test_missing_data_falls_back_loudly_and_visibly(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(root / "configs/resnet50.yaml")
    assert loaded.recipe.DataLoader.Source["name"] == "Phantoms"
    assert loaded.recipe.Arch["name"] == "ResNet50"
    assert any("phantom" in line and "不是临床结果" in line for line in loaded.notices)


def test_overrides_win_over_the_fallback(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = load(root / "configs/resnet50.yaml", ["Global.epochs=77", "DataLoader.Train.sampler.batch_size=10"])
    assert loaded.recipe.Global.epochs == 77 and loaded.recipe.DataLoader.Train.sampler.batch_size == 10


@pytest.mark.parametrize("overrides", [["fallback=null"], ["DataLoader.Source.root=/nowhere/at/all"]])
def test_no_fallback_when_off_or_when_a_folder_was_named(root, tmp_path, monkeypatch, overrides):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="找不到数据"):
        load(root / "configs/resnet50.yaml", overrides)


def test_present_data_does_not_fall_back(root, tmp_path, monkeypatch, class_folders):
    (tmp_path / "data").mkdir()
    class_folders.rename(tmp_path / "data/chest3")
    monkeypatch.chdir(tmp_path)
    loaded = load(root / "configs/resnet50.yaml")
    assert loaded.recipe.DataLoader.Source["name"] == "ImageFolder" and not loaded.notices
    assert loaded.recipe.Global.image_shape == (3, 224, 224)


@pytest.mark.parametrize("override, said", [
    ("Global.epoch=3", "是不是 epochs？"),
    ("epochs=3", "epochs：没有这个键，是不是 Global.epochs？"),
    ("Global.batch_size=3", "是不是 DataLoader.Train.sampler.batch_size 或 DataLoader.Eval.sampler.batch_size？"),
    ("Global.epochs=three", "Global.epochs：应为整数"),
    ("Global.epochs=0", "Global.epochs：应为不小于 1"),
    ("Arch.class_num=4", "Arch.class_num：是 4"),
    ("Arch.in_channels=3", "Arch.in_channels：是 3"),
    ("Global.image_shape=[2, 64, 64]", "通道数应为 1 或 3"),
    ("Global.image_shape=[1, 16, 64]", "应不小于 32"),
    ("Global.image_shape=[1, 64]", "Global.image_shape"),
    ("Loss.class_weights=[1, 2]", "Loss.class_weights：有 2 个数"),
    ("DataLoader.preprocess.mean=[1, 2, 3]", "DataLoader.preprocess.mean"),
    ("DataLoader.preprocess.std=[0]", "应为正数"),
    ("DataLoader.Train.sampler.batch_size=3", "不足 2 张"),
    ("Global.ranks=3", "不能平分"),
    ("Global.fold=1", "Global.fold"),
    ("Global.device=cuda", "Global.device"),
    ("Optimizr.name=Adam", "是不是 Optimizer？"),
    ("DataLoader.Train.transform_ops.0.name=RandomFlip", "没有叫 'RandomFlip' 的组件"),
    ("Global.classes=[{name: A, zh: 甲, en: A}]", "至少 2 项"),
    ("Global.classes.1.name=NORMAL", "Global.classes.1：'normal' 同时是 NORMAL 和 NORMAL"),
    ("Global.classes.2.aliases=[normal]", "Global.classes.2：'normal' 同时是 NORMAL 和 COVID"),
    ("Global.ranks=0", "Global.ranks：应不小于 1"),
    ("Global.ranks=two", "Global.ranks：应为整数（int） 或 auto，现在是 'two'"),
    ("Global.resume=maybe", "Global.resume：应为 auto 或 true 或 false"),
    ("Global.keep=lats", "应为 best、last 之一，是不是 last？"),
    ("Global.image_shape=[1, 64]", "Global.image_shape：应为三个数"),
    ("Global.seed=99999999999999999999", "Global.seed：应为不大于"),
    ("Global.output_dir=''", "Global.output_dir：应为不空的文字"),
    ("Global.epochs=null", "现在是 空（null）"),
])
def test_rules_between_fields(tiny_recipe, override, said):
    with pytest.raises(UserError) as error:
        load(tiny_recipe, [override])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, said", [
    ("  epochs:2\n", r"Global：应为一组 键: 值，现在是 'epochs:2'（.*半角冒号"),
    ("  epochs： 2\n", "Global：应为一组 键: 值"),
    ("\n", r"Global：应为一组 键: 值，现在是 空"),
    ("  epochs: '2'\n", "Global.epochs：应为整数"),
])
def test_a_mistake_is_not_hidden_by_the_fallback_laid_over_it(root, tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"_base_: {root}/configs/resnet50.yaml\nGlobal:\n{text}", encoding="utf-8")
    with pytest.raises(UserError, match=f"{said}.*mine.yaml:[23]"):
        load(tmp_path / "mine.yaml")


def test_a_mistake_in_a_file_is_told_with_its_line(tiny_recipe):
    text = tiny_recipe.read_text(encoding="utf-8").replace("seed: 1", "sed: 1")
    tiny_recipe.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"tiny\.yaml:5"):
        load(tiny_recipe)
