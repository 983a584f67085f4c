"""What the page computes, without the page: recipe, queue, uploads, texts, reports, drawings, and every click."""

from __future__ import annotations

import re
import shlex
import string
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes import ROOT

from paddle_cxr.app import images, texts
from paddle_cxr.app.classify import Classified
from paddle_cxr.app.draw import EXAMPLES, Painter
from paddle_cxr.app.find import Found, checked_text
from paddle_cxr.app.handlers import Handlers
from paddle_cxr.app.recipe import load
from paddle_cxr.app.schema import AppRecipe, DrawSection, ServerSection, WriteSection
from paddle_cxr.app.tabs import NAMES, Tab, open_tabs
from paddle_cxr.app.texts import LANGUAGES, NOTICE, TEXTS, Refusal, explain, harmless, say
from paddle_cxr.app.worker import Worker
from paddle_cxr.app.write import Reporter, checked_seed, segments, value_of
from paddle_cxr.data.image import ImageError
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.overlap import stretched

sys.path.insert(0, str(ROOT / "benchmarks"))
from malformed_uploads import malformed  # noqa: E402

CLASSES = (ClassInfo("normal", "正常", "Normal"), ClassInfo("covid", "新冠肺炎", "COVID-19"))
MB = 20


@dataclass
class StillClassifier:
    """Says the same of every image."""

    demo: bool = True
    present: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> Classified:
        heat = np.zeros(image.shape[:2], np.float32)
        heat[:100, :100] = 1
        return Classified(image, heat, CLASSES, np.array([0.25, 0.75], np.float32), self.present)


class StillFinder:
    """Finds everything in the lower right corner."""

    demo = False

    def __call__(self, image: np.ndarray, phrase: str) -> Found:
        values = np.zeros((4, 4), np.float32)
        values[3, 3] = 0.5
        return Found(image, values)


class Broken:
    """A model with a fault."""

    demo = False

    def __call__(self, *arguments: object) -> None:
        raise ZeroDivisionError("a fault of the program")


@pytest.fixture(scope="module")
def reporter() -> Reporter:
    return Reporter(WriteSection())


@pytest.fixture(scope="module")
def painter() -> Painter:
    return Painter(DrawSection(Generator={"name": "PhantomGenerator", "size": 64}))


@pytest.fixture
def handlers(tmp_path: Path, reporter: Reporter, painter: Painter) -> Handlers:
    models = {"Classify": StillClassifier(), "Find": StillFinder(), "Write": reporter, "Draw": painter}
    return Handlers({name: Tab(name, Worker(name, 4, 60), model) for name, model in models.items()}, tmp_path, MB)


@pytest.fixture
def film(tmp_path: Path) -> str:
    return str(images.write_phantom("effusion", 3, tmp_path / "films"))


# --- recipe ---------------------------------------------------------------------------------------------------------

def test_the_recipe_listens_to_this_computer_only():
    recipe = load(ROOT / "configs/app.yaml").recipe
    assert recipe.Server.host == "127.0.0.1" and recipe.Global.task == "app"
    assert all(getattr(recipe, name) is not None for name in NAMES)
    assert recipe.Classify.make.startswith("python tools/train.py -c configs/")


@pytest.mark.parametrize("name", ["Classify", "Find", "Draw"])
def test_the_command_that_makes_a_model_makes_that_of_the_recipe(name):
    section = getattr(load(ROOT / "configs/app.yaml").recipe, name)
    made = ROOT / section.make.split()[-1]
    folder = section.folder if name != "Draw" else str(Path(section.Generator["folder"]).parent)
    assert f"output_dir: {folder}" in made.read_text("utf-8")


@pytest.mark.parametrize(("override", "message"), [
    ("Server.port=0", "Server.port"), ("Server.hots=x", "是不是 host"), ("Classify.folder=", "Classify.folder"),
    ("Write.Writer.name=Grammarwriter", "Write.Writer.name"), ("Draw.Generator.name=Phantom", "Draw.Generator.name"),
    ("Global.task=classification", "configs/app.yaml"), ("Global.language=fr", "Global.language")])
def test_mistakes_in_the_recipe_are_named(override, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        load(ROOT / "configs/app.yaml", [override])


def test_a_tab_can_be_left_out():
    assert load(ROOT / "configs/app.yaml", ["Find=null"]).recipe.Find is None


def test_models_that_are_not_there_keep_their_reason_and_their_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load(ROOT / "configs/app.yaml", ["Write=null", "Draw.stand_in=true"]).recipe
    recipe = recipe.model_copy(update={"Draw": DrawSection(Generator={"name": "PhantomGenerator", "size": 64})})
    tabs = open_tabs(recipe)
    assert list(tabs) == list(NAMES) and tabs["Draw"].opened
    for name in ("Classify", "Find"):
        for language in LANGUAGES:
            assert "python tools/train.py -c configs/" in tabs[name].explanation(language)
    assert "Write" in tabs["Write"].explanation("en")
    with pytest.raises(UserError, match="Classify.folder"):
        tabs["Classify"](None)


# --- queue ----------------------------------------------------------------------------------------------------------

def test_work_is_done_in_one_thread_in_order():
    worker, seen = Worker("test", 8, 60), []
    lock = threading.Lock()

    def work(number: int) -> str:
        assert lock.acquire(blocking=False), "two at once"
        time.sleep(0.005)
        seen.append(number)
        lock.release()
        return threading.current_thread().name

    threads = [threading.Thread(target=worker, args=(work, number)) for number in range(8)]
    for thread in threads:
        thread.start()
        time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(8))
    assert worker(work, 8) == worker(work, 9)


def test_a_full_queue_refuses_and_recovers():
    worker, go = Worker("test", 1, 60), threading.Event()
    busy = threading.Thread(target=worker, args=(go.wait,))
    busy.start()
    time.sleep(0.05)
    with pytest.raises(Refusal) as refused:
        worker(int)
    assert refused.value.key == "busy"
    go.set()
    busy.join()
    assert worker(int) == 0


def test_a_slow_answer_is_given_up_and_keeps_its_place():
    worker, go = Worker("test", 2, 0.05), threading.Event()
    with pytest.raises(Refusal) as refused:
        worker(go.wait)
    assert refused.value.key == "too_long"
    go.set()
    time.sleep(0.05)
    assert worker(int) == 0


def test_an_exception_passes_through():
    worker = Worker("test", 1, 60)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            worker(lambda: 1 / 0)


@pytest.fixture
def held() -> Iterator[tuple[Worker, threading.Event]]:
    """A worker that is busy until the event is set."""
    worker, go = Worker("test", 8, 60), threading.Event()
    busy = threading.Thread(target=worker, args=(go.wait,))
    busy.start()
    yield worker, go
    go.set()
    busy.join()


def ask_together(worker: Worker, many: Callable, items: Sequence[int]) -> tuple[list[threading.Thread], dict]:
    """Callers that wait, and what each will have got."""
    got: dict[int, object] = {}

    def ask(item: int) -> None:
        try:
            got[item] = worker.together(many, item)
        except Exception as error:
            got[item] = error

    callers = [threading.Thread(target=ask, args=(item,)) for item in items]
    for caller in callers:
        caller.start()
    time.sleep(0.1)
    return callers, got


def test_items_that_wait_are_computed_together(held):
    (worker, go), asked = held, []

    def squares(items: Sequence[int]) -> list[int]:
        asked.append(sorted(items))
        return [item * item for item in items]

    callers, got = ask_together(worker, squares, range(5))
    go.set()
    for caller in callers:
        caller.join()
    assert got == {item: item * item for item in range(5)} and asked == [[0, 1, 2, 3, 4]]
    assert worker.together(squares, 7) == 49


def test_an_error_among_items_is_told_to_its_caller_only(held):
    worker, go = held

    def inverses(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    callers, got = ask_together(worker, inverses, range(4))
    go.set()
    for caller in callers:
        caller.join()
    assert isinstance(got.pop(0), ZeroDivisionError) and got == {1: 1, 2: 1 / 2, 3: 1 / 3}


def test_an_item_whose_caller_gave_up_is_not_computed():
    worker, go, asked = Worker("test", 3, 0.05), threading.Event(), []
    with pytest.raises(Refusal):
        worker(go.wait)
    with pytest.raises(Refusal) as refused:
        worker.together(asked.extend, 1)
    assert refused.value.key == "too_long"
    go.set()
    time.sleep(0.05)
    assert worker.together(lambda items: [*items, asked.extend(items)][:1], 2) == 2 and asked == [2]


def test_a_model_that_takes_several_is_asked_once(held, film, tmp_path):
    class Counting(StillClassifier):
        asked: list[int] = []

        def many(self, items: Sequence[np.ndarray]) -> list[Classified]:
            self.asked.append(len(items))
            return [self(item) for item in items]

    worker, go = held
    handlers = Handlers({"Classify": Tab("Classify", worker, Counting())}, tmp_path, MB)
    answers: list[tuple] = []
    users = [threading.Thread(target=lambda: answers.append(handlers.classify(film, "zh"))) for _ in range(4)]
    for user in users:
        user.start()
    time.sleep(0.3)
    go.set()
    for user in users:
        user.join()
    assert len(answers) == 4 and all(shares for _, _, shares, _ in answers) and max(Counting.asked) > 1


# --- texts ----------------------------------------------------------------------------------------------------------

def test_every_sentence_has_both_languages_and_the_same_places():
    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, (chinese, english) in TEXTS.items():
        assert places(chinese) == places(english), key
        assert not any("\u4e00" <= char <= "\u9fff" for char in english), key
    assert "不能用于临床诊断" in NOTICE and "not for clinical use" in NOTICE


def test_errors_are_told_in_the_users_language():
    error = ImageError("/a/b/<b>x</b>.png", "empty", "文件是空的")
    assert "/a/b" not in explain(error, "zh") and "<" not in explain(error, "zh")
    assert "empty" in explain(error, "en") and "文件是空的" in explain(error, "zh")
    assert explain(Refusal("too_many_entities", number=9, most=4), "en").startswith("9 entities")
    assert explain(UserError("别的错误"), "en") == "别的错误"


def test_names_from_outside_lose_their_markup():
    assert not set("[]()<>`*_#|") & set(harmless("[x](y)<b>`*_#|"))
    assert len(harmless("a" * 500)) <= 80


# --- images ---------------------------------------------------------------------------------------------------------

def test_uploads_are_read_or_refused(film, tmp_path):
    assert images.read_upload(film, MB).shape == (384, 384)
    with pytest.raises(Refusal, match="请先上传"):
        images.read_upload(None, MB)
    with pytest.raises(UserError, match="已经不在"):
        images.read_upload(str(tmp_path / "gone.png"), MB)
    (tmp_path / "large.png").write_bytes(bytes(2 << 20))
    with pytest.raises(Refusal, match="2.0 MB，最大 1 MB"):
        images.read_upload(str(tmp_path / "large.png"), 1)
    (tmp_path / "page.svg").write_text("<svg/>")
    with pytest.raises(UserError, match="不支持这种文件"):
        images.read_upload(str(tmp_path / "page.svg"), MB)


def test_an_overlay_is_warm_where_the_heat_is_and_untouched_elsewhere():
    image = np.full((64, 64), 100, np.uint8)
    heat = np.zeros((64, 64), np.float32)
    heat[:16, :16] = 1
    found = np.asarray(images.overlay(image, heat))
    assert found.shape == (images.SHOWN, images.SHOWN, 3) and found.dtype == np.uint8
    assert (found[-50:, -50:] == 100).all()
    assert found[5, 5].max() > 150
    assert stretched(np.full((2, 2), 3.0)).max() == 0


def test_a_large_or_coloured_picture_is_not_enlarged():
    assert images.show(np.zeros((600, 500, 3), np.uint8)).size == (500, 600)


@pytest.fixture
def warm() -> tuple[np.ndarray, np.ndarray]:
    """A film and a heat map with one warm place."""
    rows, columns = np.mgrid[:64, :64]
    heat = np.exp(-((rows - 20) ** 2 + (columns - 40) ** 2) / 200).astype(np.float32)
    return images.draw_image("covid", seed=1, index=0, size=64), heat


def test_the_colours_are_those_of_the_colour_map(warm):
    from matplotlib import colormaps

    film, heat = warm
    share = np.asarray(Image.fromarray(heat).resize((images.SHOWN,) * 2, Image.Resampling.BILINEAR))[..., None]
    below = np.asarray(images.show(film).convert("RGB"))
    wanted = below * (1 - 0.65 * share) + colormaps["inferno"](share[..., 0])[..., :3] * 255 * 0.65 * share
    assert np.abs(np.asarray(images.overlay(film, heat)) - wanted).max() < 6  # of 255


def test_a_saved_picture_looks_the_same(warm, tmp_path):
    for picture in (images.show(warm[0]), images.overlay(*warm)):
        saved = Image.open(images.save(picture, tmp_path / "new"))
        assert saved.size == picture.size and saved.mode == picture.mode
        difference = np.asarray(saved, float) - np.asarray(picture, float)
        assert np.abs(difference).max() <= 8 and np.square(difference).mean() < 1  # of 255: 48 dB


# --- reports --------------------------------------------------------------------------------------------------------

def test_examples_are_written_and_pass(reporter):
    assert len(reporter.examples) == 3
    for values in reporter.examples:
        report = reporter.write(values, 1)
        assert report.accepted and not any(one.wrong for one in report.sections.values())
        for checked in report.sections.values():
            pieces = segments(checked, "asked", "extra")
            assert "".join(text for text, _ in pieces) == checked.text
            assert {label for _, label in pieces} - {None} == {"asked"}


def test_an_edited_text_is_checked_again(reporter):
    values = reporter.examples[0]
    checked = reporter.check({"findings": "There is a pneumothorax.", "impression": ""}, values)
    assert checked["findings"].wrong.missing and checked["findings"].wrong.extra
    assert segments(checked["findings"], "asked", "extra")[1][1] == "extra"


@pytest.mark.parametrize(("values", "key"), [([], "no_entities"), (None, "no_entities"), (["x/y"], "unknown_entity"),
                                             (["effusion"], "unknown_entity")])
def test_bad_entities_are_refused(reporter, values, key):
    with pytest.raises(Refusal) as refused:
        reporter.write(values, 0)
    assert refused.value.key == key


def test_contradictions_and_too_many_are_refused(reporter):
    one, others = next((one, others) for one, others in reporter.vocabulary.contradictions.items() if others)
    pair = [value_of(reporter.vocabulary.entities[position]) for position in (one, min(others))]
    with pytest.raises(Refusal) as refused:
        reporter.write(pair, 0)
    assert refused.value.key == "contradiction"
    with pytest.raises(Refusal) as refused:
        reporter.write([value_of(entity) for entity in reporter.vocabulary.entities[:13]], 0)
    assert refused.value.key == "too_many_entities"


@pytest.mark.parametrize("seed", [None, -1, 1.5, float("nan"), 10**12, "1", True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(Refusal):
        checked_seed(seed, 1000)


def test_labels_are_those_of_the_vocabulary(reporter):
    labels = [label for label, _ in reporter.choices]
    assert len(set(labels)) == len(labels)


# --- drawings -------------------------------------------------------------------------------------------------------

def test_impressions_are_drawn(painter):
    for text in EXAMPLES:
        drawn = painter(text, 1)
        assert drawn.image.shape == (64, 64) and drawn.title == "phantom" and drawn.entities
    assert (painter(EXAMPLES[0], 1).image == painter(EXAMPLES[0], 1).image).all()
    assert (painter(EXAMPLES[0], 1).image != painter(EXAMPLES[0], 2).image).any()
    assert painter("你好", 1).entities == ()


def test_the_phantom_generator_stands_in_and_says_why(tmp_path):
    missing = {"name": "DiffusersGenerator", "folder": str(tmp_path / "none")}
    assert Painter(DrawSection(Generator=missing)).why_stand_in
    with pytest.raises(UserError):
        Painter(DrawSection(Generator=missing, stand_in=False))


def test_texts_are_one_line_and_bounded():
    assert checked_text(" a \n b ") == "a b"
    for bad in (None, "", "  ", "x" * 301):
        with pytest.raises(Refusal):
            checked_text(bad)


# --- clicks ---------------------------------------------------------------------------------------------------------

def size_of(picture: str) -> tuple[int, int]:
    with Image.open(picture) as opened:
        return opened.size


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_click_answers(handlers, film, reporter, language):
    file, picture, message = handlers.phantom("covid", language)
    assert Path(file).is_file() and size_of(picture) == (448, 448) and message == ""
    assert size_of(handlers.preview(film, language)[0]) == (448, 448)
    seen, cam, shares, message = handlers.classify(film, language)
    assert size_of(seen) == size_of(cam) and sum(shares.values()) == pytest.approx(1)
    assert ("新冠肺炎" if language == "zh" else "COVID-19") in message and "phantom" in message
    _, found, message = handlers.find(film, "There is a pleural effusion.", language)
    assert size_of(found) and say("right", language) in message and say("lower", language) in message
    *written, message = handlers.write(reporter.examples[0], 1, language)
    assert all(written) and say("agrees", language, section="FINDINGS") in message
    *marked, message = handlers.recheck(reporter.examples[0], "A pneumothorax.", written[1], language)
    assert marked[0] and "FINDINGS" in message
    image, message = handlers.draw(EXAMPLES[0], 1, language)
    assert size_of(image) and say("drawn", language) in message
    assert handlers.stand_in(language) == ""


def test_findings_above_their_thresholds_are_named(handlers, film):
    handlers.tabs["Classify"].model.present = np.array([False, True])
    assert "新冠肺炎" in handlers.classify(film, "zh")[-1]
    handlers.tabs["Classify"].model.present = np.array([False, False])
    assert say("none_present", "zh") in handlers.classify(film, "zh")[-1]


def test_a_hundred_malformed_uploads_are_answered(handlers, tmp_path):
    for number, (name, content) in enumerate(malformed(100)):
        file = tmp_path / f"{number}{Path(name).suffix}"
        file.write_bytes(content)
        for language in LANGUAGES:
            *empty, message = handlers.classify(str(file), language)
            assert empty == [None, None, None] and message.startswith("! "), name
            assert say("bug", language) not in message, name


def test_a_fault_of_the_program_is_answered_too(handlers, film, capsys):
    handlers.tabs["Classify"] = Tab("Classify", Worker("broken", 2, 60), Broken())
    assert handlers.classify(film, "en")[-1].endswith(say("bug", "en"))
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert handlers.phantom("<script>", "zh")[-1].startswith("! ")


def test_a_tab_without_a_model_says_so(tmp_path, film):
    tabs = open_tabs(AppRecipe())
    handlers = Handlers(tabs, tmp_path, MB)
    for answer in (handlers.classify(film, "zh"), handlers.find(film, "x", "zh"), handlers.write(["a/b"], 0, "zh"),
                   handlers.draw("x", 0, "zh")):
        assert answer[-1].startswith("! ") and "配方里没有" in answer[-1]


@pytest.mark.parametrize("size", [(1, 60_000), (70_000, 2), (5000, 3000)])
def test_pictures_of_every_shape_are_shown(handlers, tmp_path, size):
    Image.new("L", size).save(tmp_path / "strip.png")
    picture, message = handlers.preview(str(tmp_path / "strip.png"), "zh")
    assert message == "" and max(size_of(picture)) == 3072


def test_pictures_of_every_mode_are_shown(handlers, tmp_path):
    for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
        file = tmp_path / f"{mode.replace(';', '')}.png"
        Image.new(mode, (40, 30)).save(file)
        assert size_of(handlers.preview(str(file), "zh")[0])


def test_texts_of_the_image_errors_are_complete():
    assert set(texts.UNREADABLE) >= {"missing", "extension", "empty", "not_image", "truncated", "bomb", "frames",
                                     "depth", "dicom"}


def test_the_commands_of_the_guide_are_accepted():
    guide = (ROOT / "docs/app.md").read_text("utf-8")
    commands = re.findall(r"python tools/app\.py (-c .*)", guide)
    assert commands
    for command in commands:
        words = shlex.split(command, comments=True)
        load(ROOT / words[1], [after for word, after in zip(words, words[1:], strict=False) if word == "-o"])
    for override in re.findall(r"`-o (\w+\.\w+=\S+?|\w+=null)`", guide):
        load(ROOT / "configs/app.yaml", [override])
    for key in re.findall(r"\| `(Server\.\w+)` \|", guide):
        assert key.partition(".")[2] in ServerSection.model_fields


def test_more_pixels_than_a_film_has_are_not_decoded_and_a_large_film_is_kept_smaller(tmp_path):
    for side in (5001, 4000):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / f"{side}.png")
    with pytest.raises(ImageError, match="5001×5001"):
        images.read_upload(str(tmp_path / "5001.png"), 20)
    assert images.read_upload(str(tmp_path / "4000.png"), 20).shape == (3072, 3072)


def test_without_pydicom_the_page_does_not_tell_where_its_files_are(tmp_path, monkeypatch):
    (tmp_path / "film.dcm").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(Refusal) as caught:
        images.read_upload(str(tmp_path / "film.dcm"), 20)
    assert "pydicom" in explain(caught.value, "en") and str(tmp_path) not in str(caught.value)


def test_what_a_file_says_of_itself_is_no_link_in_the_message():
    error = ImageError("x.dcm", "dicom", "DICOM 的体位（ViewPosition）为 [LOGIN](https://evil.example)，需要正位")
    assert "[" not in explain(error, "zh") and "，需要正位" in explain(error, "zh")


def test_no_entity_is_denied_twice(reporter):
    assert len(reporter.choices) > 1000 and not [name for name, _ in reporter.choices if "无无" in name]


def test_a_file_that_was_not_uploaded_is_not_read(handlers, tmp_path_factory):
    film = images.write_phantom("normal", 1, tmp_path_factory.mktemp("elsewhere"))
    for path in (str(film), "/etc/passwd", "../setup.py"):
        assert "已经不在" in handlers.classify(path, "zh")[-1]
