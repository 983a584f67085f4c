"""Drawing by latent diffusion: images/s and peak memory of this project and of ppdiffusers' plain pipeline.

    python benchmarks/drawing.py                     # a small model with random weights, 64² and 128²
    python benchmarks/drawing.py --folder RoentGen   # a folder in the layout of diffusers, with its own size

Both draw the same prompts from the same noise with the same folder, steps, guidance, scheduler (PNDM), batch and
threads.  Each runs in a process of its own, so that the peak memory is its own; they take turns, and the ratio is
taken within a turn, so that a machine that slows down slows both.  Loading and one short drawing to warm up are not
counted.  The two must draw the same images, but for rounding.  On a machine that others use, the ratio of the CPU times
says more than that of the speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from machine import load, print_load

GOAL = 1.0
SEED = 1000
PROMPTS = ["Large right pleural effusion with adjacent atelectasis.", "No acute cardiopulmonary process.",
           "Left lower lobe consolidation, concerning for pneumonia.", "Moderate cardiomegaly without edema."]
# About the size of what a CPU trains in minutes: 6.7 million parameters in the U-Net.
SMALL = {
    "unet": {"sample_size": 16, "block_out_channels": [64, 128, 128], "layers_per_block": 1, "attention_head_dim": 4,
             "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
             "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]},
    "vae": {"in_channels": 1, "out_channels": 1, "block_out_channels": [32, 64, 64], "latent_channels": 4,
            "sample_size": 64, "down_block_types": ["DownEncoderBlock2D"] * 3,
            "up_block_types": ["UpDecoderBlock2D"] * 3},
    "text_encoder": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    "tokenizer": {"vocab_size": 600}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="diffusers 布局的模型文件夹（默认：随机权重的小模型）")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="图像边长（像素）")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="轮流运行几遍，取中位数")
    parser.add_argument("--worker", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments)
        return
    from paddle_cxr.cpu import prepare

    prepare(arguments.threads)  # the workers inherit it: both have the same threads and settings
    before = load()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or make_small(Path(temporary) / "small")
        met = [compare(arguments, folder, size) for size in arguments.sizes]
    print(f"目标：≥ {GOAL:.0f} 倍，内存不多于它：{'达到' if all(met) else '没有达到'}")
    print_load(before)


def make_small(folder: Path) -> str:
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    import paddle

    from paddle_cxr.models.latent_diffusion import build_latent_diffusion, save_latent_diffusion

    paddle.seed(0)
    save_latent_diffusion(build_latent_diffusion(SMALL, PROMPTS), folder, demo=True, meta={})
    return str(folder)


def compare(arguments: argparse.Namespace, folder: str, size: int) -> bool:
    """Run both in turns; whether the goal is met."""
    command = [sys.executable, __file__, "--folder", folder, "--sizes", str(size), "--steps", str(arguments.steps),
               "--guidance", str(arguments.guidance), "--batch-size", str(arguments.batch_size)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for turn in range(arguments.repeats):
        for name in sorted(CONTESTANTS, reverse=bool(turn % 2)):  # neither is always first
            answer = subprocess.run([*command, "--worker", name], check=True, capture_output=True, text=True)
            found[name].append(json.loads(answer.stdout.splitlines()[-1]))
    print(f"{size}²，{arguments.steps} 步，guidance {arguments.guidance:g}，batch {arguments.batch_size}，"
          f"{arguments.threads} 线程，{arguments.repeats} 遍：")
    middle = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
              for name, runs in found.items()}
    for name, value in middle.items():
        speeds = [run["rate"] for run in found[name]]
        print(f"  {CONTESTANTS[name]}：{value['rate']:.3f} 张/秒（{min(speeds):.3f}–{max(speeds):.3f}），"
              f"CPU {value['cpu']:.2f} 秒/张，内存峰值 {value['memory']:.0f} MB")
    ratio = statistics.median(ours["rate"] / plain["rate"] for ours, plain in
                              zip(found["ours"], found["plain"], strict=True))
    work = middle["plain"]["cpu"] / middle["ours"]["cpu"]
    apart = abs(middle["ours"]["mean"] - middle["plain"]["mean"])
    print(f"  速度之比 {ratio:.3f}，CPU 时间之比 {work:.3f}，内存之比 "
          f"{middle['ours']['memory'] / middle['plain']['memory']:.3f}；平均灰度相差 {apart:.3f}")
    return ratio >= GOAL and middle["ours"]["memory"] <= middle["plain"]["memory"] and apart < 0.5


def worker(arguments: argparse.Namespace) -> None:
    """Draw one batch and print images/s, CPU seconds an image, peak memory in MB and the mean grey level."""
    from paddle_cxr.quiet import import_paddle

    import_paddle()
    draw = {"ours": ours, "plain": plain}[arguments.worker](arguments)
    count = arguments.batch_size
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(count)]
    draw(prompts, 2)
    begun, used = time.perf_counter(), time.process_time()
    images = draw(prompts, arguments.steps)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    unit = 1024**2 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KB elsewhere
    print(json.dumps({"rate": count / seconds, "cpu": used / count, "mean": float(images.mean()),
                      "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}))


def ours(arguments: argparse.Namespace):  # noqa: ANN201 - a function (prompts, steps) → grey levels 0–255 [N, H, W]
    import numpy as np

    from paddle_cxr.models.latent_diffusion import load_latent_diffusion, sample

    model, size = load_latent_diffusion(arguments.folder), arguments.sizes[0]
    return lambda prompts, steps: np.stack(sample(
        model, prompts, range(SEED, SEED + len(prompts)), steps=steps, guidance=arguments.guidance, height=size,
        width=size, batch_size=arguments.batch_size))


def plain(arguments: argparse.Namespace):  # noqa: ANN201 - as ours
    import numpy as np
    import paddle

    from paddle_cxr.models.diffusers_folder import import_ppdiffusers
    from paddle_cxr.models.diffusion_sampling import noise_of

    import_ppdiffusers()
    from ppdiffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(arguments.folder, from_diffusers=True)
    pipeline.set_progress_bar_config(disable=True)
    side = arguments.sizes[0] // pipeline.vae_scale_factor
    shape = (pipeline.unet.config["in_channels"], side, side)

    def draw(prompts, steps):  # noqa: ANN001, ANN202
        noise = np.stack([noise_of(SEED + number, shape) for number in range(len(prompts))])
        images = pipeline(list(prompts), latents=paddle.to_tensor(noise), num_inference_steps=steps,
                          guidance_scale=arguments.guidance, height=arguments.sizes[0], width=arguments.sizes[0],
                          output_type="np").images
        return images.mean(-1) * 255

    return draw


CONTESTANTS = {"ours": "本项目", "plain": "ppdiffusers 的 StableDiffusionPipeline"}


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    main()
