"""Makes ``tests/fixtures/diffusers``: what PyTorch's diffusers draws, for tests that have neither.

    python -m venv .venv && . .venv/bin/activate
    pip install torch diffusers transformers safetensors
    python tests/models/make_diffusers_fixtures.py

Not run by the tests.  Written with torch 2.13, diffusers 0.42 and transformers 5.23.  It writes two folders in the
layout of diffusers, with random weights large enough for errors to show:

    like_sd1   as Stable Diffusion 1 and RoentGen are published: predicts the noise, RGB autoencoder with the old names
               of its attention, text encoder with its old names and position_ids, vocab.json and merges.txt
    like_sd2   the structure of Stable Diffusion 2 as newer releases write it: v-prediction, linear projections, other
               numbers of heads at each depth, "!" as padding, tokenizer.json, half precision; grey autoencoder

(and ``tests/fixtures/torch_bin``, the first one's weights as ``.bin``), and in each an expected.safetensors:

    ids, context              of PROMPTS: int64 [2, 77], float32 [2, 77, C]
    latents, times, noise     float32 [2, 4, 8, 8], int64 [2], and what the U-Net says for them and ``context``
    pixels, mean, std, image  float32 [2, C, 16, 16], the autoencoder's posterior, and its decoding of ``latents``
    drawn.SCHEDULER           float32 [2, 4, 8, 8], the pipeline's result for PROMPTS, from the noise ``latents``, with
                              guidance 4 and 12 steps
"""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "diffusers"
BINS = OUT.with_name("torch_bin")
PROMPTS = ["No acute cardiopulmonary process: café, 3 cm!", "effusion " * 90]

UNET = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (4, 6), "layers_per_block": 1,
        "norm_num_groups": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
VAE = {"sample_size": 16, "block_out_channels": (4, 4), "norm_num_groups": 2, "latent_channels": 4,
       "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
TEXT = {"intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "set_alpha_to_one": False,
            "steps_offset": 1}
# Beside the folder's own settings; ppdiffusers' DPM-Solver++ ends at the noise of the first time step.
MORE = {"pndm": {"skip_prk_steps": True}, "ddim": {"clip_sample": False},
        "dpmsolver++": {"final_sigmas_type": "sigma_min"}}


def main() -> None:
    logging.set_verbosity_error()  # it repeats each prompt that it cuts
    shutil.rmtree(OUT, ignore_errors=True)
    tokens = letters()
    torch.manual_seed(1)
    make("like_sd1", tokens, {"attention_head_dim": 2, "cross_attention_dim": 8}, {"in_channels": 3, "out_channels": 3},
         {"hidden_size": 8, "hidden_act": "quick_gelu", "eos_token_id": 2},
         PNDMScheduler(**SCHEDULE, skip_prk_steps=True), "<|endoftext|>")
    as_published_in_2022(OUT / "like_sd1", tokens)
    as_bins(OUT / "like_sd1")
    make("like_sd2", tokens, {"attention_head_dim": (1, 2), "cross_attention_dim": 12, "use_linear_projection": True},
         {"in_channels": 1, "out_channels": 1, "scaling_factor": 0.5}, {"hidden_size": 12, "hidden_act": "gelu"},
         DDIMScheduler(**SCHEDULE, prediction_type="v_prediction", clip_sample=False, timestep_spacing="leading"),
         "!")
    print(f"{sum(file.stat().st_size for file in OUT.rglob('*') if file.is_file()) / 1000:.0f} kB in {OUT}")


def letters() -> tuple[dict[str, int], list[str]]:
    """A tokenizer that knows the bytes and two merges."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letter = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]
    merges = ["e f", "f u"]
    tokens = [*letter, *(one + "</w>" for one in letter), "ef", "fu", "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}, merges


def make(name: str, tokens: tuple[dict[str, int], list[str]], unet: dict, vae: dict, text: dict, scheduler: object,
         pad: str) -> None:
    vocab, merges = tokens
    files = OUT / "tokenizer_source"
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps(vocab))
    (files / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    tokenizer = CLIPTokenizer.from_pretrained(files, pad_token=pad, model_max_length=77)
    shutil.rmtree(files)
    config = CLIPTextConfig(**TEXT | text, vocab_size=len(vocab), bos_token_id=len(vocab) - 2)
    pipeline = StableDiffusionPipeline(
        vae=spread(AutoencoderKL(**VAE | vae)), unet=spread(UNet2DConditionModel(**UNET | unet)),
        text_encoder=spread(CLIPTextModel(config)), tokenizer=tokenizer, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)
    half = name == "like_sd2"
    if half:  # weights that half precision holds exactly, so that the numbers below are those of the files
        pipeline.to(torch.float16).save_pretrained(OUT / name, variant="fp16")
        pipeline.to(torch.float32)
    else:
        pipeline.save_pretrained(OUT / name)
    with torch.no_grad():
        save_file({key: value.contiguous() for key, value in expected(pipeline).items()},
                  OUT / name / "expected.safetensors")




def spread(model: torch.nn.Module) -> torch.nn.Module:
    """Far from the initial values, so that every part shows, but not so far that twelve steps run away."""
    for name, parameter in model.named_parameters():
        is_scale = "norm" in name and name.endswith("weight")
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
        torch.nn.init.normal_(parameter, 1.0 if is_scale else 0.0, 0.8 / fan_in**0.5 if not is_scale else 0.2)
    return model.eval()


def expected(pipeline: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = pipeline.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True,
                             return_tensors="pt").input_ids
    context = pipeline.text_encoder(ids)[0]
    latents = torch.randn((2, 4, 8, 8), generator=generator)
    times = torch.tensor([3, 700])
    pixels = torch.rand((2, pipeline.vae.config.in_channels, 16, 16), generator=generator) * 2 - 1
    posterior = pipeline.vae.encode(pixels).latent_dist
    found = {"ids": ids, "context": context, "latents": latents, "times": times, "pixels": pixels,
             "noise": pipeline.unet(latents, times, context).sample, "mean": posterior.mean, "std": posterior.std,
             "image": pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample}
    pipeline.set_progress_bar_config(disable=True)
    config = pipeline.scheduler.config
    for name, kind in (("pndm", PNDMScheduler), ("ddim", DDIMScheduler), ("dpmsolver++", DPMSolverMultistepScheduler)):
        pipeline.scheduler = kind.from_config(config, **MORE[name])
        found[f"drawn.{name}"] = pipeline(PROMPTS, latents=latents, num_inference_steps=12, guidance_scale=4,
                                          output_type="latent").images
    return found


def as_published_in_2022(folder: Path, tokens: tuple[dict[str, int], list[str]]) -> None:
    """Old names of the same tensors, and the tokenizer in two files."""
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(file)
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}.") if "mid_block.attentions" in key else key: value
                 for key, value in state.items()}
    save_file(state, file, {"format": "pt"})
    file = folder / "text_encoder" / "model.safetensors"
    state = {key if key.startswith("text_model.") else f"text_model.{key}": value
             for key, value in load_file(file).items()}
    save_file(state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file, {"format": "pt"})
    file = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    del config["timestep_spacing"]  # each scheduler then has its own
    file.write_text(json.dumps(config))
    vocab, merges = tokens
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocab))
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def as_bins(folder: Path) -> None:
    """``tests/fixtures/torch_bin``: the weights of like_sd1 as ``torch.save`` writes them, and every kind of tensor."""
    BINS.mkdir(exist_ok=True)
    for part, name in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
                       ("text_encoder", "model")):
        torch.save(OrderedDict(load_file(folder / part / f"{name}.safetensors")), BINS / f"{part}.bin")
    numbers = torch.arange(24.0).reshape(4, 6)
    torch.save({"plain": numbers, "transposed": numbers.T, "part": numbers[1:3, ::2], "half": numbers.half(),
                "brain": numbers.bfloat16(), "whole": numbers.long(), "one": torch.tensor(7.0), "yes": numbers > 3,
                "none": torch.zeros(0, 3), "parameter": torch.nn.Parameter(numbers)}, BINS / "kinds.bin")
    torch.save(torch.nn.Linear(2, 2), BINS / "module.bin")  # not only tensors: it names classes
    torch.save({"x": numbers}, BINS / "old.bin", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
