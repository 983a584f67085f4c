"""Makes ``tests/fixtures/dinov2``: what PyTorch and Hugging Face's transformers say, for tests that have neither.

    python -m venv .venv && . .venv/bin/activate
    pip install torch transformers pillow safetensors
    python tests/synthesis/make_dinov2_fixtures.py

Not run by the tests.  Written with torch 2.13 and transformers 5.23; any version from 4.46 on will do (older ones
interpolated position embeddings by a rounded factor).  It writes, all small:

    NAME/{config.json, model.safetensors, preprocessor_config.json}
        random weights large enough for errors to show, in the layout of the published folder (microsoft/rad-dino)
    NAME/expected.safetensors
        N.image    uint8 [h, w], smooth noise of some size
        N.pixels   float32 [3, H, W], what the published pre-processing (BitImageProcessor on Pillow) makes of it
        N.tokens   float32 [1 + patches, C], ``last_hidden_state`` for that
        free.N.levels, free.N.tokens
                   uint8 [3, H, W], and the tokens for levels / 127.5 - 1: inputs of other sizes, for which the position
                   embeddings are interpolated
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

try:  # transformers 5 names the Pillow version so; before, it was the only one
    from transformers import BitImageProcessorPil as BitImageProcessor
except ImportError:
    from transformers import BitImageProcessor

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "dinov2"

COMMON = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "mlp_ratio": 4, "patch_size": 14}
SHAPES = {
    "like_rad_dino": COMMON | {"image_size": 42},  # the published one: 768, 12, 12, 4, 14, 518
    "other": COMMON | {"image_size": 40, "patch_size": 8, "qkv_bias": False, "mlp_ratio": 2, "hidden_size": 10,
                       "num_attention_heads": 5, "layer_norm_eps": 1e-5},
}
# As the published preprocessor_config.json has them, but for the size of 518.
GREY = {"image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}
PREPROCESSING = {
    "like_rad_dino": GREY | {"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}},
    "other": {"size": {"shortest_edge": 36}, "crop_size": {"height": 45, "width": 32}, "resample": 2,
              "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]},  # a crop larger than the image: padded
}
IMAGES = [(60, 47), (42, 79), (20, 25)]  # height, width
FREE = [(28, 42), (70, 56), (30, 45)]  # not all are whole patches


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    for number, (name, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(number)
        make(OUT / name, Dinov2Config(**shape), BitImageProcessor(**PREPROCESSING[name]), np.random.default_rng(number))
    print(f"{sum(file.stat().st_size for file in OUT.rglob('*') if file.is_file()) / 1000:.0f} kB in {OUT}")


def make(folder: Path, config: Dinov2Config, processor: BitImageProcessor, rng: np.random.Generator) -> None:
    model = Dinov2Model(config).eval()
    for name, parameter in model.named_parameters():  # far from the tiny initial values: every part shows
        torch.nn.init.normal_(parameter, 1.0 if name.endswith(("norm1.weight", "norm2.weight", "layernorm.weight",
                                                                "lambda1")) else 0.0, 0.25)
    expected = {}
    for number, size in enumerate(IMAGES):
        image = smooth_noise(size, rng)
        picture = Image.fromarray(image).convert("RGB")
        pixels = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
        expected |= {f"{number}.image": torch.from_numpy(image), f"{number}.pixels": pixels.float().contiguous(),
                     f"{number}.tokens": tokens(model, pixels)}
    for number, size in enumerate(FREE):
        levels = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
        expected |= {f"free.{number}.levels": levels, f"free.{number}.tokens": tokens(model, levels / 127.5 - 1)}
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            shutil.copy(Path(temporary) / name, folder / name)
    assert "encoder.layer.0.attention.attention.query.weight" in load_file(folder / "model.safetensors")
    assert "shortest_edge" in json.loads((folder / "preprocessor_config.json").read_text())["size"]
    save_file(expected, folder / "expected.safetensors")


def smooth_noise(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Grey levels with structure at several scales, as a film has; decoded from JPEG, so that it is kept small."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(coarse, np.float64) + rng.normal(0, 12, size), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=80)
    return np.array(Image.open(file))


def tokens(model: Dinov2Model, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixels[None].float()).last_hidden_state[0].contiguous()


if __name__ == "__main__":
    main()
