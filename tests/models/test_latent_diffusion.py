"""Latent diffusion: against PyTorch's diffusers, folders read, written and refused, and drawing."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import change
from hypothesis import given, settings
from hypothesis import strategies as st

paddle = pytest.importorskip("paddle")
pytest.importorskip("ppdiffusers")

from paddle_cxr.errors import UserError  # noqa: E402
from paddle_cxr.models.clip_tokenizer import train_clip_tokenizer  # noqa: E402
from paddle_cxr.models.diffusion_sampling import denoise, noise_of  # noqa: E402
from paddle_cxr.models.latent_diffusion import (  # noqa: E402
    build_latent_diffusion,
    load_latent_diffusion,
    sample,
    save_latent_diffusion,
)
from paddle_cxr.models.noise_schedule import NoiseSchedule  # noqa: E402
from paddle_cxr.pdparams import save_pdparams  # noqa: E402
from paddle_cxr.weights import read_safetensors, write_safetensors  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "fixtures" / "diffusers"
NAMES = ["like_sd1", "like_sd2"]
BINS = Path(__file__).parents[1] / "fixtures" / "torch_bin"
PROMPTS = ["No acute cardiopulmonary process: café, 3 cm!", "effusion " * 90]  # those of make_diffusers_fixtures.py
LUMA = np.array([0.299, 0.587, 0.114])
TEXTS = ["Large right pleural effusion with adjacent atelectasis.", "No acute cardiopulmonary process.",
         "Small left apical pneumothorax."] * 3
TINY = {"unet": {"sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4,
                 "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                 "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "attention_head_dim": 4},
        "vae": {"in_channels": 1, "out_channels": 1, "block_out_channels": [4, 8], "norm_num_groups": 2,
                "down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2,
                "latent_channels": 4, "sample_size": 16},
        "text_encoder": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                         "max_position_embeddings": 24},
        "tokenizer": {"vocab_size": 560}}


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    folder = FIXTURES / request.param
    return load_latent_diffusion(folder), read_safetensors(folder / "expected.safetensors")[0]


@pytest.fixture(scope="module")
def tiny():
    paddle.seed(3)
    return build_latent_diffusion(TINY, TEXTS)


@pytest.fixture
def folder(tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(FIXTURES / "like_sd1", tmp_path / "roentgen"))


def close(found, expected, tolerance):
    assert np.abs(expected).max() > 0.2  # large enough for an error to show
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)


def draw(model, prompts, seeds, **more):
    return sample(model, prompts, seeds, **{"steps": 4, "height": 16, "width": 16, "batch_size": 3} | more)


# --- against PyTorch ---------------------------------------------------------------------------------------------

def test_networks_equal_pytorchs(loaded):
    model, expected = loaded
    tensors = {name: paddle.to_tensor(value) for name, value in expected.items()}
    with paddle.no_grad():
        close(model.encode_text(PROMPTS)[0], expected["context"], 1e-4)
        close(model.unet(tensors["latents"], tensors["times"], tensors["context"]).sample, expected["noise"], 1e-4)
        mean, std = model.posterior(tensors["pixels"])
        close(mean / model.scaling_factor, expected["mean"], 1e-4)
        close(std / model.scaling_factor, expected["std"], 1e-4)
        close(model.vae.decode(tensors["latents"] / model.scaling_factor).sample, expected["image"], 1e-4)


def test_tokens_equal_pytorchs_and_what_is_cut_is_counted(loaded):
    model, expected = loaded
    ids, cut = zip(*map(model.tokenizer.encode, PROMPTS), strict=True)
    assert (np.array(ids) == expected["ids"]).all()
    assert cut == (0, 6 * 90 - 75)  # ef fu s i o n
    assert model.encode_text(PROMPTS)[1] == list(cut)


@pytest.mark.parametrize("scheduler", ["pndm", "ddim", "dpmsolver++"])
def test_whole_drawings_equal_those_of_pytorchs_pipeline(loaded, scheduler):
    model, expected = loaded
    with paddle.no_grad():
        context, empty = model.encode_text(PROMPTS)[0], model.encode_text([""])[0]
        found = denoise(model, paddle.to_tensor(expected["latents"]), context, empty,
                        model.schedule.stepper(scheduler, 12), guidance=4)
    close(found, expected[f"drawn.{scheduler}"], 1e-3)


@pytest.mark.parametrize("config", [{}, {"beta_schedule": "linear", "beta_end": 0.02},
                                    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50},
                                    {"trained_betas": (0.1, 0.2, 0.3), "num_train_timesteps": 3}])
def test_noise_schedule_equals_the_schedulers(config):
    schedule = NoiseSchedule(**config)
    found = schedule.alphas_cumprod()
    assert found.dtype == np.float64 and (np.diff(found) < 0).all()
    for name in ("ddim", "pndm", "dpmsolver++"):
        # squaredcos ends where float32 has few digits left
        np.testing.assert_allclose(schedule.stepper(name, 2).alphas_cumprod.numpy(), found, rtol=2e-3, atol=1e-7)


# --- folders that hold the same model another way ----------------------------------------------------------------

def same(model, other, drawn=True):
    for ours, theirs in zip(model.networks, other.networks, strict=True):
        state = theirs.state_dict()
        for name, value in ours.state_dict().items():
            assert (value.numpy() == state[name].numpy()).all(), name
    if drawn:
        for one, two in zip(draw(model, PROMPTS, [1, 2]), draw(other, PROMPTS, [1, 2]), strict=True):
            assert (one == two).all()


def test_a_saved_model_comes_back_exactly(loaded, tmp_path):
    model, _ = loaded
    save_latent_diffusion(model, tmp_path / "saved", demo=True, meta={"parent": "x"})
    again = load_latent_diffusion(tmp_path / "saved")
    same(model, again)
    assert again.schedule == model.schedule
    meta = json.loads((tmp_path / "saved" / "model.json").read_text())
    assert meta["demo_data"] is True and meta["parent"] == "x" and meta["architecture"] == "LatentDiffusion"


def test_a_built_model_comes_back_exactly(tiny, tmp_path):
    save_latent_diffusion(tiny, tmp_path / "twin", demo=False, meta={})
    again = load_latent_diffusion(tmp_path / "twin")
    same(tiny, again)
    assert again.tokenizer.encode(TEXTS[0]) == tiny.tokenizer.encode(TEXTS[0])
    assert (again.image_size, again.max_tokens) == (16, 24)


def test_saving_over_a_folder_that_was_there(tiny, tmp_path):
    for demo in (True, False):
        save_latent_diffusion(tiny, tmp_path / "twin", demo=demo, meta={})
        assert json.loads((tmp_path / "twin" / "model.json").read_text())["demo_data"] is demo
    assert [file.name for file in tmp_path.iterdir()] == ["twin"]


@pytest.mark.parametrize("name", NAMES)
def test_ppdiffusers_own_pipeline_draws_the_same_from_a_written_folder(name, tmp_path):
    from ppdiffusers import StableDiffusionPipeline

    model = load_latent_diffusion(FIXTURES / name)
    save_latent_diffusion(model, tmp_path / "saved", demo=True, meta={})
    pipeline = StableDiffusionPipeline.from_pretrained(str(tmp_path / "saved"), from_diffusers=True)
    pipeline.set_progress_bar_config(disable=True)
    noise = np.stack([noise_of(seed, (4, 8, 8)) for seed in (1, 2)])
    with paddle.no_grad():
        images = pipeline(TEXTS[:2], latents=paddle.to_tensor(noise), num_inference_steps=4, guidance_scale=4.0,
                          height=16, width=16, output_type="np").images
    expected = (images @ LUMA if images.shape[-1] == 3 else images[..., 0]) * 255
    found = np.stack(draw(model, TEXTS[:2], [1, 2], batch_size=2))
    assert np.abs(found - expected).max() <= 0.51 and expected.std() > 5


def test_sharded_safetensors(folder):
    model, file = load_latent_diffusion(folder), folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = list(read_safetensors(file)[0].items())
    mapping = {}
    for number, part in enumerate((state[:20], state[20:])):
        name = f"diffusion_pytorch_model-0000{number + 1}-of-00002.safetensors"
        write_safetensors(file.with_name(name), dict(part))
        mapping |= {key: name for key, _ in part}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps({"weight_map": mapping}))
    file.unlink()
    same(model, load_latent_diffusion(folder))
    change(folder / "unet" / "config.json", in_channels=9)
    with pytest.raises(UserError, match=r"unet（2 个分片）.*conv_in.weight"):
        load_latent_diffusion(folder)
    file.with_name("diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="00002-of-00002"):
        load_latent_diffusion(folder)


def test_paddles_own_weights(folder):
    model = load_latent_diffusion(folder)
    for part, name, file in (("unet", "model_state.pdparams", "diffusion_pytorch_model.safetensors"),
                             ("vae", "diffusion_paddle_model.safetensors", "diffusion_pytorch_model.safetensors"),
                             ("text_encoder", "model.safetensors", "model.safetensors")):
        (folder / part / file).unlink()
        write = save_pdparams if name.endswith("pdparams") else write_safetensors
        write(folder / part / name, getattr(model, part).state_dict())
    same(model, load_latent_diffusion(folder))


def with_bins(folder):
    """The same weights as ``torch.save`` wrote them, see make_diffusers_fixtures.py."""
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                       ("text_encoder", "pytorch_model")):
        for file in (folder / part).glob("*.safetensors"):
            file.unlink()
        shutil.copy(BINS / f"{part}.bin", folder / part / f"{name}.bin")
    return folder


def test_weights_as_they_were_published_in_2022(folder):
    model = load_latent_diffusion(folder)
    same(model, load_latent_diffusion(with_bins(folder)))


def test_brain_floats(folder):
    """bfloat16, which NumPy does not have: the upper half of a float32."""
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    header, content, rounded = {}, b"", {}
    for name, value in read_safetensors(file)[0].items():
        halves = (value.view(np.uint32) >> 16).astype("<u2")
        place = [len(content), len(content) + halves.nbytes]
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": place}
        content += halves.tobytes()
        rounded[name] = (halves.astype(np.uint32) << 16).view(np.float32)
    text = json.dumps(header).encode()
    file.unlink()
    file.with_name("diffusion_pytorch_model.bf16.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + content)
    unet = load_latent_diffusion(folder).unet
    assert (unet.conv_in.weight.numpy() == rounded["conv_in.weight"]).all()


def test_reading_leaves_a_folder_as_it_is(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    load_latent_diffusion(folder)
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


# --- folders that are wrong --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("missing", "named"), [
    ("model_index.json", "model_index.json"), ("unet/config.json", "unet/config.json"),
    ("vae/diffusion_pytorch_model.safetensors", "vae"), ("text_encoder/model.safetensors", "text_encoder"),
    ("tokenizer/vocab.json", "vocab.json"), ("tokenizer/merges.txt", "merges.txt"),
    ("scheduler/scheduler_config.json", "scheduler_config.json")])
def test_missing_files_are_named(folder, missing, named):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=named):
        load_latent_diffusion(folder)


def test_the_folder_above_a_trained_model(folder):
    folder.rename(folder.with_name("model"))
    with pytest.raises(UserError, match=f"训练出的模型在 {folder.parent / 'model'}"):
        load_latent_diffusion(folder.parent)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        load_latent_diffusion(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "text_encoder/config.json",
                                  "tokenizer/vocab.json", "scheduler/scheduler_config.json",
                                  "unet/diffusion_pytorch_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
def test_damaged_files_are_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=name.rpartition("/")[2]):
        load_latent_diffusion(folder)


@pytest.mark.parametrize("suffix", [".bin", ".ckpt"])
def test_other_kinds_of_weights_are_refused(folder, suffix):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(suffix))
    with pytest.raises(UserError, match="safetensors"):
        load_latent_diffusion(folder)


def test_a_lost_or_reshaped_tensor_of_a_bin_is_named(folder):
    change(with_bins(folder) / "unet" / "config.json", in_channels=9)
    said = r"diffusion_pytorch_model.bin.*conv_in.weight \[4, 4, 3, 3\] 应为 \[4, 9, 3, 3\]"
    with pytest.raises(UserError, match=said):
        load_latent_diffusion(folder)


@pytest.mark.parametrize("change_of", [
    {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
    {"unet": ["diffusers", "UNet3DConditionModel"]}, {"vae": [None, None]}, {"vae": "delete"},
    {"tokenizer": ["transformers", "T5Tokenizer"]}])
def test_other_models_are_refused(folder, change_of):
    change(folder / "model_index.json", **change_of)
    with pytest.raises(UserError, match=next(iter(change_of))):
        load_latent_diffusion(folder)


def test_safety_checkers_and_feature_extractors_do_not_matter(folder):
    change(folder / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
           feature_extractor=["transformers", "CLIPImageProcessor"])
    load_latent_diffusion(folder)


@pytest.mark.parametrize(("part", "changes", "said"), [
    ("unet", {"block_out_channels": [4, 8]}, "应为"), ("unet", {"norm_num_groups": 3}, "unet"),
    ("unet", {"down_block_types": ["No", "Block"]}, "unet"), ("unet", {"sample_size": None}, "sample_size"),
    ("unet", {"class_embed_type": "timestep"}, "class_embed_type"), ("unet", {"in_channels": 9}, "conv_in"),
    ("unet", {"block_out_channels": [10**7, 10**7]}, "unet"), ("vae", {"latent_channels": 8}, "应为"),
    ("unet", {"sample_size": []}, "sample_size"), ("unet", {"sample_size": ["8", "8"]}, "sample_size"),
    ("vae", {"scaling_factor": "x"}, "scaling_factor"), ("vae", {"scaling_factor": 0}, "scaling_factor"),
    ("vae", {"latent_channels": "x"}, "vae"), ("text_encoder", {"num_attention_heads": 3}, "text_encoder"),
    ("text_encoder", {"vocab_size": 100}, "token_embedding"), ("text_encoder", {"num_hidden_layers": 1}, "unexpected"),
    ("text_encoder", {"hidden_act": "magic"}, "text_encoder")])
def test_configs_that_do_not_fit_the_weights(folder, part, changes, said):
    change(folder / part / "config.json", **changes)
    with pytest.raises(UserError, match=said):
        load_latent_diffusion(folder)


@pytest.mark.parametrize(("key", "value"), [
    ("prediction_type", "sample"), ("beta_schedule", "sigmoid"), ("num_train_timesteps", 0), ("beta_end", "x"),
    ("trained_betas", [0.1]), ("rescale_betas_zero_snr", True)])
def test_noise_schedules_that_are_not_supported(folder, key, value):
    change(folder / "scheduler" / "scheduler_config.json", **{key: value})
    with pytest.raises(UserError, match=key):
        load_latent_diffusion(folder)


def test_a_lost_or_reshaped_tensor_is_named(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = read_safetensors(file)[0]
    write_safetensors(file, {name: value for name, value in state.items() if name != "conv_in.bias"})
    with pytest.raises(UserError, match="conv_in.bias"):
        load_latent_diffusion(folder)
    write_safetensors(file, state | {"conv_in.bias": np.zeros(5, np.float32)})
    with pytest.raises(UserError, match=r"conv_in.bias \[5\] 应为 \[4\]"):
        load_latent_diffusion(folder)


@pytest.mark.parametrize("vocab", [{}, {"<|startoftext|>": 0}, {"<|startoftext|>": 0, "<|endoftext|>": 0},
                                   {"<|startoftext|>": -1, "<|endoftext|>": 0},
                                   {"<|startoftext|>": "a", "<|endoftext|>": 0},
                                   {"<|startoftext|>": 10**6, "<|endoftext|>": 0}])
def test_tokenizers_of_another_kind_are_refused(folder, vocab):
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocab))
    with pytest.raises(UserError, match="tokenizer|vocab"):
        load_latent_diffusion(folder)


# --- building ----------------------------------------------------------------------------------------------------

def test_what_the_parts_share_is_filled_in(tiny):
    assert tiny.unet.config["in_channels"] == tiny.vae.config["latent_channels"] == 4
    assert tiny.unet.config["cross_attention_dim"] == tiny.text_encoder.config.hidden_size == 16
    assert tiny.text_encoder.config.vocab_size == tiny.tokenizer.size <= 560
    assert tiny.latent_shape(16, 24) == (4, 8, 12)


@pytest.mark.parametrize(("config", "said"), [
    ({"nets": {}}, "nets"), ({"tokenizer": {"vocabulary": 9}}, "tokenizer.vocabulary"),
    ({"unet": {"sampel_size": 8}}, "是不是 sample_size"), ({"text_encoder": {"heads": 8}}, "text_encoder.heads"),
    ({"vae": {"patch": 8}}, "vae.patch"), ({"unet": {"norm_num_groups": 5}}, "Arch.unet"),
    ({"tokenizer": {"vocab_size": 10}}, "514"),
    ({"scheduler": {"beta_strat": 0.1}}, "是不是 beta_start"), ({"tokenizer": {"vocab_size": "x"}}, "整数"),
    ({"text_encoder": {"bos_token_id": 1}}, "text_encoder.bos_token_id"),
    ({"unet": {"cross_attention_dim": 5}}, "cross_attention_dim"), ({"scheduler": {"beta_end": 2}}, "beta_end")])
def test_configs_from_which_nothing_can_be_built(config, said):
    with pytest.raises(UserError, match=said):
        build_latent_diffusion({key: TINY.get(key, {}) | config.get(key, {}) for key in {*TINY, *config}}, TEXTS)


@settings(max_examples=50)
@given(st.text(max_size=60))
def test_every_text_can_be_spelled_and_read_back(tiny, text):
    row, cut = tiny.tokenizer.encode(text)
    assert len(row) == 24 and row[0] == tiny.tokenizer.vocab["<|startoftext|>"] and cut >= 0
    assert all(0 <= one < tiny.tokenizer.size for one in row)


def test_frequent_words_become_one_token():
    tokenizer = train_clip_tokenizer(TEXTS, 640)
    assert tokenizer.encode("pleural effusion")[0][1:3] == [tokenizer.vocab["pleural</w>"],
                                                            tokenizer.vocab["effusion</w>"]]
    assert train_clip_tokenizer(TEXTS[::-1], 640).vocab == tokenizer.vocab


def plain_merges(texts, count):
    """The definition, word for word: count all pairs anew after each merge; of equal ones the oldest tokens win."""
    from paddlenlp.transformers.clip.tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    order = sorted(letters.values())
    words = [[letters[byte] for byte in word.encode()] for text in sorted(texts) for word in text.lower().split()]
    words = [[*word[:-1], word[-1] + "</w>"] for word in words]
    order += dict.fromkeys(word[-1] for word in words)
    merges = []
    while len(merges) < count:
        pairs = Counter(pair for word in words for pair in zip(word, word[1:], strict=False))
        best = max(pairs, key=lambda pair: (pairs[pair], *(-order.index(one) for one in pair)), default=None)
        if best is None or pairs[best] < 2:
            break
        merges.append(best)
        if "".join(best) not in order:
            order.append("".join(best))
        for word in words:
            for place in range(len(word) - 1):
                if tuple(word[place:place + 2]) == best:
                    word[place:place + 2] = ["".join(best)]
    return merges


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abc ", max_size=12), min_size=1, max_size=12), st.randoms())
def test_merges_are_the_most_frequent_pairs_whatever_the_order_of_the_texts(texts, random):
    wanted = plain_merges(texts, 20)
    random.shuffle(texts)
    assert train_clip_tokenizer([*texts], 514 + 20).merges == wanted


# --- images and latents ------------------------------------------------------------------------------------------

def test_latents_with_noise_spread_as_the_posterior_says(tiny):
    pixels = paddle.rand([2, 1, 16, 16]) * 2 - 1
    with paddle.no_grad():
        mean, std = tiny.posterior(pixels)
        assert (tiny.encode_images(pixels).numpy() == mean.numpy()).all()
        noise = paddle.randn(mean.shape)
        np.testing.assert_allclose(tiny.encode_images(pixels, noise).numpy(), (mean + std * noise).numpy())
        assert (tiny.encode_images(pixels, 5).numpy() == tiny.encode_images(pixels, 5).numpy()).all()


def test_grey_images_of_a_colour_autoencoder():
    model = load_latent_diffusion(FIXTURES / "like_sd1")
    with paddle.no_grad():
        grey = paddle.rand([1, 1, 16, 16])
        assert (model.encode_images(grey).numpy() == model.encode_images(grey.expand([1, 3, 16, 16])).numpy()).all()
        latents = paddle.randn([2, 4, 8, 8])
        colour = model.vae.decode(latents / model.scaling_factor).sample.numpy().clip(-1, 1) / 2 + 0.5
    expected = np.tensordot([0.299, 0.587, 0.114], colour, (0, 1)) * 255
    found = model.decode(latents)
    assert found.dtype == np.uint8 and found.shape == (2, 16, 16)
    assert np.abs(found - expected).max() <= 0.51


# --- drawing -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("scheduler", ["pndm", "ddim", "dpmsolver++"])
def test_an_image_is_the_same_alone_and_in_any_company(tiny, scheduler):
    prompts = [f"{side} effusion {number}" for number, side in enumerate(["left", "right", "no", "left", "", "big"])]
    seeds = [11, 5, 11, 9, 2**40, 0]
    together = draw(tiny, prompts, seeds, scheduler=scheduler)
    order = [4, 2, 0, 5, 3, 1]
    shuffled = draw(tiny, [prompts[place] for place in order], [seeds[place] for place in order], scheduler=scheduler)
    for place, image in zip(order, shuffled, strict=True):
        assert (image == together[place]).all()
    for prompt, seed, image in zip(prompts, seeds, together, strict=True):
        assert image.dtype == np.uint8 and image.shape == (16, 16) and image.std() > 1
        assert (draw(tiny, [prompt], [seed], scheduler=scheduler)[0] == image).all()
    assert len({image.tobytes() for image in together}) == len(together)


PLACES = """
import json, sys
import numpy as np
from paddle_cxr.quiet import import_paddle
import_paddle()
import paddle
from paddle_cxr.models.diffusion_sampling import denoise, noise_of
from paddle_cxr.models.latent_diffusion import build_latent_diffusion
paddle.seed(0)
model = build_latent_diffusion(json.loads(sys.argv[1]), ["no effusion"] * 3)
contexts = [model.encode_text([f"effusion {number}"])[0] for number in range(8)]
def latents(places):
    noise = paddle.to_tensor(np.stack([noise_of(place, (4, 16, 16)) for place in places]))
    context = paddle.concat([contexts[place] for place in places])
    with paddle.no_grad():
        drawn = denoise(model, noise, context, contexts[0], model.schedule.stepper("ddim", 2), 4.0).numpy()
    return {place: one.tobytes() for place, one in zip(places, drawn)}
together = latents(range(8))
others = [latents(range(7, -1, -1)), *(latents([place] * 8) for place in (0, 3, 7))]
print(all(together[place] == one for other in others for place, one in other.items()))
"""


@pytest.mark.parametrize("threads", ["2", pytest.param("3", marks=pytest.mark.slow)])
def test_places_do_not_matter_either_where_threads_share_the_work(threads, tmp_path):
    config = json.loads(json.dumps(TINY))
    config["unet"] |= {"sample_size": 16, "block_out_channels": [64, 64], "norm_num_groups": 32}
    config["text_encoder"] |= {"hidden_size": 64, "max_position_embeddings": 77}
    answer = subprocess.run([sys.executable, "-c", PLACES, json.dumps(config)], capture_output=True, text=True,
                            check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": threads,
                                                                       "PYTHONPATH": str(Path(__file__).parents[2])})
    assert answer.stdout.split() == ["True"]


def test_prompt_seed_guidance_and_steps_matter(tiny):
    base = draw(tiny, ["left effusion"], [1])[0]
    for more in ({"prompts": ["right effusion"]}, {"seeds": [2]}, {"guidance": 1.0}, {"steps": 5},
                 {"scheduler": "ddim"}):
        other = draw(tiny, **{"prompts": ["left effusion"], "seeds": [1]} | more)[0]
        assert (other != base).any(), more


@pytest.mark.parametrize("scheduler", ["pndm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_any_number_of_steps(tiny, scheduler, steps):
    stepper = tiny.schedule.stepper(scheduler, steps)
    assert steps <= len(stepper.timesteps) <= steps + 1
    if steps < 1000:
        assert draw(tiny, ["x"], [1], steps=steps, scheduler=scheduler)[0].shape == (16, 16)


def test_other_sizes_and_no_images(tiny):
    assert draw(tiny, ["x"], [1], height=16, width=24)[0].shape == (16, 24)
    assert draw(tiny, [], []) == []


@pytest.mark.parametrize(("more", "said"), [({"height": 15}, "15"), ({"width": 0}, "0"), ({"steps": 0}, "steps"),
                                            ({"steps": 1001}, "steps"), ({"scheduler": "euler"}, "euler"),
                                            ({"seeds": []}, "种子")])
def test_what_cannot_be_drawn(tiny, more, said):
    with pytest.raises(UserError, match=said):
        draw(tiny, **{"prompts": ["x"], "seeds": [1]} | more)


def test_no_image_from_weights_that_are_no_numbers(tmp_path):
    model = load_latent_diffusion(FIXTURES / "like_sd2")
    model.unet.conv_out.bias.set_value(paddle.full([4], float("nan")))
    assert draw(model, ["x", "y"], [1, 2]) == [None, None]


def test_drawing_leaves_a_model_in_training_as_it_was(tiny):
    before = draw(tiny, ["x"], [1])[0]
    tiny.unet.train()
    tiny.vae.eval()
    state = {name: value.numpy() for name, value in tiny.unet.state_dict().items()}
    paddle.seed(1)
    drawn = draw(tiny, ["x"], [1])[0]
    numbers = paddle.rand([3]).numpy()
    assert (drawn == before).all()
    assert tiny.unet.training and not tiny.vae.training
    assert all((state[name] == value.numpy()).all() for name, value in tiny.unet.state_dict().items())
    paddle.seed(1)
    assert (paddle.rand([3]).numpy() == numbers).all()
