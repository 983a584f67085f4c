"""The generator that draws by latent diffusion: what it draws, counts, says of itself and refuses."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paddle_cxr.errors import UserError
from paddle_cxr.registry import build
from paddle_cxr.synthesis.generators.base import ImageRequest

pytest.importorskip("ppdiffusers")

from paddle_cxr.synthesis.generators.diffusers import DiffusersGenerator  # noqa: E402
from paddle_cxr.weights import read_safetensors, write_safetensors  # noqa: E402

FOLDER = Path(__file__).parents[1] / "fixtures" / "diffusers" / "like_sd1"
QUICK = {"steps": 3, "batch_size": 2, "device": "cpu"}
REQUESTS = [ImageRequest(str(number), prompt, number) for number, prompt in
            enumerate(["Large right effusion.", "No acute process.", "effusion " * 90])]


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(FOLDER, tmp_path / "roentgen"))


@pytest.fixture(scope="module")
def generator():
    return DiffusersGenerator(str(FOLDER), **QUICK)


def test_one_image_a_request_the_same_alone(generator):
    drawn = generator.draw(REQUESTS)
    assert [one.image.shape for one in drawn] == [(16, 16)] * 3
    assert all(one.image.dtype == np.uint8 and not one.error for one in drawn)
    for request, one in zip(REQUESTS, drawn, strict=True):
        assert (generator.draw([request])[0].image == one.image).all()
    assert generator.draw([]) == []


def test_tokens_beyond_the_text_encoders_limit_are_counted(generator):
    assert [one.tokens_cut for one in generator.draw(REQUESTS)] == [0, 0, 6 * 90 - 75]


def test_a_new_process_draws_the_same(generator, tmp_path):
    program = ("import sys; from paddle_cxr.synthesis.generators.diffusers import DiffusersGenerator as G;"
               "from paddle_cxr.synthesis.generators.base import ImageRequest as R; import numpy as np;"
               f"g = G({str(FOLDER)!r}, **{QUICK!r});"
               "np.save(sys.argv[1], g.draw([R('1', 'No acute process.', 1)])[0].image)")
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "x.npy")], check=True, timeout=120,
                   env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
    assert (np.load(tmp_path / "x.npy") == generator.draw(REQUESTS)[1].image).all()


def test_from_a_recipe_with_another_size():
    spec = {"name": "DiffusersGenerator", "folder": str(FOLDER), "size": 24, "scheduler": "ddim", **QUICK}
    assert build("generator", spec, "Generator").draw(REQUESTS[:1])[0].image.shape == (24, 24)


def test_the_title_says_phantom_where_nothing_else_was_seen(folder):
    assert DiffusersGenerator(str(folder), **QUICK).title == "roentgen"
    for demo, title in ((True, "roentgen（phantom）"), (False, "roentgen")):
        (folder / "model.json").write_text(json.dumps({"demo_data": demo}))
        assert DiffusersGenerator(str(folder), **QUICK).title == title
    trained = shutil.copytree(folder, folder.with_name("diffusion_covid3") / "model")
    assert DiffusersGenerator(str(trained), **QUICK).title == "diffusion_covid3"
    (folder / "model.json").write_text("{")
    with pytest.raises(UserError, match="model.json"):
        DiffusersGenerator(str(folder), **QUICK)


def test_weights_that_are_no_numbers_give_an_error_and_no_image(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = read_safetensors(file)[0]
    write_safetensors(file, state | {"conv_in.bias": np.full_like(state["conv_in.bias"], np.nan)})
    drawn = DiffusersGenerator(str(folder), **QUICK).draw(REQUESTS)
    assert all(one.image is None and "NaN" in one.error for one in drawn)
    assert drawn[2].tokens_cut > 0


@pytest.mark.parametrize(("argument", "value"), [
    ("steps", 0), ("steps", 1001), ("guidance", -1), ("guidance", float("nan")), ("batch_size", 0), ("size", 15),
    ("size", 0), ("size", 4), ("size", 8192), ("folder", "nowhere"), ("scheduler", "euler")])
def test_what_is_refused(argument, value):
    with pytest.raises(UserError, match=str(value)):
        DiffusersGenerator(**{"folder": str(FOLDER), **QUICK, argument: value})


def test_without_ppdiffusers_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ppdiffusers", None)
    with pytest.raises(UserError, match="pip install"):
        DiffusersGenerator(str(FOLDER), **QUICK)
