"""Makes ``tests/fixtures/clip``: what PyTorch and Hugging Face's transformers say, for tests that have neither.

    python -m venv .venv && . .venv/bin/activate
    pip install torch transformers pillow safetensors
    python tests/synthesis/make_clip_fixtures.py

Not run by the tests.  Written with torch 2.13 and transformers 5.23.  It writes, all small:

    NAME/{config.json, model.safetensors, preprocessor_config.json, vocab.json, merges.txt}
        random weights large enough for errors to show, in the layout of a published folder
    NAME/expected.safetensors
        ids.N      int64 [L], the tokens of TEXTS[N]
        texts      float32 [T, D], their projected vectors (before they are made length 1)
        image.N    uint8 [h, w] or [h, w, 3]
        pixels.N   float32 [3, S, S], after the published pre-processing
        logits     float32 [N, T], ``logits_per_image``
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from clip_texts import TEXTS
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

try:  # transformers 5 names the Pillow version so; before, it was the only one
    from transformers import CLIPImageProcessorPil as CLIPImageProcessor
except ImportError:
    from transformers import CLIPImageProcessor

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "clip"
MERGES = ["c h", "ch e", "s t</w>", "che st</w>", "r a", "ra y</w>", "b l", "u r", "bl ur", "r y</w>", "s h"]
COMMON = {"num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES = {
    # Text and image of unequal width, as in all published models; the second like OpenCLIP's, with GELU.
    "like_openai": {"projection_dim": 6, "text_config": COMMON | {"hidden_size": 8, "intermediate_size": 16},
                    "vision_config": COMMON | {"hidden_size": 12, "intermediate_size": 24, "image_size": 32,
                                               "patch_size": 16}},
    "like_openclip": {"projection_dim": 5, "text_config": COMMON | {"hidden_size": 6, "intermediate_size": 20,
                                                                    "hidden_act": "gelu"},
                      "vision_config": COMMON | {"hidden_size": 8, "intermediate_size": 16, "image_size": 36,
                                                 "patch_size": 10, "hidden_act": "gelu"}},
}
COLOURS = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGES = [(60, 47), (40, 79), (20, 25, 3)]


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for number, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(number)
        make(OUT / name, shape, np.random.default_rng(number), old=number == 0)
    print(f"{sum(file.stat().st_size for file in OUT.rglob('*') if file.is_file()) / 1000:.0f} kB in {OUT}")


def make(folder: Path, shape: dict, rng: np.random.Generator, old: bool) -> None:
    folder.mkdir(parents=True)
    vocabulary = write_tokenizer(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    end = len(vocabulary) - 1
    text = shape["text_config"] | {"vocab_size": len(vocabulary), "max_position_embeddings": 40,
                                   "bos_token_id": end - 1, "eos_token_id": 2 if old else end, "pad_token_id": end}
    config = CLIPConfig(**shape | {"text_config": text})
    model = CLIPModel(config).eval()
    for name, parameter in model.named_parameters():  # far from the tiny initial values: every part shows
        if name == "logit_scale":
            torch.nn.init.constant_(parameter, 2.0)
        else:
            torch.nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.4)
    # Written by hand: transformers leaves out what equals its defaults, and names that changed between versions.
    (folder / "config.json").write_text(json.dumps({
        "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": shape["projection_dim"],
        "text_config": text, "vision_config": shape["vision_config"]}, indent=1))
    size = shape["vision_config"]["image_size"]
    sizes = {"size": size, "crop_size": size} if old else {"size": {"shortest_edge": size},
                                                           "crop_size": {"height": size, "width": size}}
    (folder / "preprocessor_config.json").write_text(json.dumps(COLOURS | sizes | {"resample": 3}, indent=1))
    processor = CLIPImageProcessor(**COLOURS, size={"shortest_edge": size},
                                   crop_size={"height": size, "width": size})
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if old:  # as old versions saved it
        state["text_model.embeddings.position_ids"] = torch.arange(40)[None]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    expected = {}
    images = [rng.integers(0, 256, shape, np.uint8) for shape in IMAGES]
    pixels = []
    for number, image in enumerate(images):
        expected[f"image.{number}"] = torch.from_numpy(image)
        pixels.append(processor(Image.fromarray(image).convert("RGB"), return_tensors="pt")["pixel_values"])
        expected[f"pixels.{number}"] = pixels[-1][0]
    ids = [tokenizer(one)["input_ids"] for one in TEXTS]
    with torch.no_grad():
        vectors, logits = [], []
        for number, one in enumerate(ids):
            expected[f"ids.{number}"] = torch.tensor(one)
            said = model(input_ids=torch.tensor([one]), pixel_values=torch.cat(pixels))
            vectors.append(said.text_embeds[0])
            logits.append(said.logits_per_image[:, 0])
    expected |= {"texts": torch.stack(vectors), "logits": torch.stack(logits, dim=1)}
    save_file(expected, folder / "expected.safetensors")


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A byte-pair vocabulary in CLIP's layout: all bytes, those that end a word, a few merges, two marks."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    words = [*symbols, *(f"{one}</w>" for one in symbols), *(one.replace(" ", "") for one in MERGES),
             "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", "utf-8")
    return vocabulary


if __name__ == "__main__":
    main()
