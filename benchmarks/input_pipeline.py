"""Input pipeline alone: images a second on one core, against the blog's loop as written, in one run.

    python benchmarks/input_pipeline.py                 # phantoms saved as 512 × 512 JPEG
    python benchmarks/input_pipeline.py --data FOLDER   # every *.jpg below FOLDER

Ours is what every epoch from the second on costs: pictures from the cache, all seven augmentations, batches of uint8
tensors, normalised to float.  The blog's is its loop: open, RGB, resize, the seven augmentations through PIL, float,
transpose.  Both run on one core in turns, and the medians over the turns are compared, so a busy machine slows both.
The augmentation on the device the batch is on is measured too.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SIZE = 224
BATCH = 16
SEVEN = [{"name": "RandomOrder", "transforms": [{"name": name} for name in (
    "RandomBrightness", "RandomContrast", "RandomColor", "RandomSharpness", "RandomHorizontalFlip", "RandomRotation",
    "GaussianNoise")]}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("PADDLE_CXR_REAL_DATA"), help="JPEG 文件夹；不给则用内置模体")
    parser.add_argument("--images", type=int, default=128, help="用多少张图像")
    parser.add_argument("--repeats", type=int, default=7, help="重复几轮，取中位数")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core for everything, libraries' threads included
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            files = sorted(Path(arguments.data).rglob("*.jpg"))
            files = files[::max(1, len(files) // arguments.images)][:arguments.images]
            if not files:
                sys.exit(f"错误：{arguments.data} 下没有 .jpg 文件")
            print(f"图像：{arguments.data} 下的 {len(files)} 张 JPEG")
        else:
            files = save_phantoms(Path(folder), arguments.images)
            print(f"图像：{len(files)} 张 512×512 灰度 JPEG（内置模体 phantom）")
        compare(files, arguments.repeats)
        measure_device(arguments.repeats)


def compare(files: list[Path], repeats: int) -> None:
    """Print the images a second of both ways, and their ratio."""
    ours = our_epoch(files)
    ours(), blog_epoch(files[:BATCH])  # warm-up: caches, lazy imports
    speeds: dict[str, list[float]] = {"ours": [], "blog": []}
    for _ in range(repeats):
        speeds["blog"].append(len(files) / seconds(lambda: blog_epoch(files)))
        speeds["ours"].append(len(files) / seconds(ours))
    our_speed, blog_speed = (statistics.median(speeds[name]) for name in ("ours", "blog"))
    print(f"本项目（第二个 epoch 起，七种增强全开，{SIZE}²，单核）：{our_speed:.0f} 张/秒")
    print(f"博客的循环（逐张 PIL，单核）：{blog_speed:.0f} 张/秒")
    print(f"比值：{our_speed / blog_speed:.2f} 倍（{repeats} 轮的中位数；目标 ≥ 2）")


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# --- the blog's way -------------------------------------------------------------------------------------------------

def blog_epoch(files: list[Path]) -> None:
    for start in range(0, len(files), BATCH):
        np.stack([blog_image(file) for file in files[start:start + BATCH]])


def blog_image(file: Path) -> np.ndarray:
    """Open, RGB, resize, seven augmentations in random order, each with probability one half, float32 [3, H, W]."""
    image = Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)  # once called ANTIALIAS
    operations = [
        lambda picture: ImageEnhance.Brightness(picture).enhance(random.uniform(0.5, 1.5)),
        lambda picture: ImageEnhance.Contrast(picture).enhance(random.uniform(0.5, 1.5)),
        lambda picture: ImageEnhance.Color(picture).enhance(random.uniform(0.5, 1.5)),
        lambda picture: ImageEnhance.Sharpness(picture).enhance(random.uniform(0.5, 1.5)),
        lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda picture: picture.rotate(random.uniform(-30, 30)),
        blog_noise,
    ]
    random.shuffle(operations)
    for operation in operations:
        if random.random() < 0.5:
            image = operation(image)
    return (np.array(image).astype(np.float32) / 255).transpose(2, 0, 1)


def blog_noise(picture: Image.Image) -> Image.Image:
    pixels = np.array(picture)
    noise = np.random.normal(0, random.uniform(0, 10), pixels.shape).astype(np.uint8)
    return Image.fromarray(pixels + noise)  # wraps around, as written there


# --- ours -----------------------------------------------------------------------------------------------------------

def our_epoch(files: list[Path]) -> Callable[[], None]:
    """Decode once; return a function that runs through one epoch more."""
    from paddle_cxr.data.cache import DecodedCache
    from paddle_cxr.data.dataset import LabelledImages
    from paddle_cxr.data.loader import make_loader
    from paddle_cxr.data.preprocess import Preprocess
    from paddle_cxr.data.records import ClassInfo, Record, Source
    from paddle_cxr.data.sampler import MicroBatchSampler
    from paddle_cxr.data.transforms import build_transforms

    source = Source("benchmark", "/", [ClassInfo("X", "X", "X")], [Record(str(file.resolve()), 0) for file in files])
    preprocess = Preprocess((3, SIZE, SIZE))
    start = time.perf_counter()
    images = DecodedCache(source, preprocess, mode="memory").images
    print(f"第一个 epoch 之前解码一次：{len(files) / (time.perf_counter() - start):.0f} 张/秒（单核）")
    dataset = LabelledImages(images, [0] * len(images), build_transforms(SEVEN, "transform_ops"), seed=0)
    sampler = MicroBatchSampler(len(images), BATCH)
    loader = make_loader(dataset, sampler, num_workers=0)
    epochs = iter(range(10**9))

    def epoch() -> None:
        sampler.set_epoch(next(epochs))
        for batch in loader:
            preprocess.normalize_tensor(batch.images)

    return epoch


def save_phantoms(folder: Path, count: int) -> list[Path]:
    from paddle_cxr.data.phantom import CLASSES, draw_image

    files = [folder / f"{index}.jpg" for index in range(count)]
    labels = list(CLASSES)
    for index, file in enumerate(files):
        picture = draw_image(labels[index % len(labels)], seed=0, index=index, size=SIZE)
        Image.fromarray(picture).resize((512, 512), Image.Resampling.BICUBIC).save(file, quality=90)
    return files


def measure_device(repeats: int) -> None:
    """Images a second of the augmentation batched on paddle's current device, copy and normalisation included."""
    import paddle

    from paddle_cxr.data.device_augment import device_augment_from
    from paddle_cxr.data.preprocess import Preprocess

    device = paddle.device.get_device()
    count, batches = (64, 2) if device.startswith("cpu") else (256, 20)
    augment, preprocess = device_augment_from(SEVEN, "transform_ops"), Preprocess((3, SIZE, SIZE))
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)

    def run() -> None:
        for seed in range(batches):
            total = preprocess.normalize_tensor(augment(paddle.to_tensor(pixels), seed)).sum()
        total.item()  # waits for the device

    run()
    speed = statistics.median(count * batches / seconds(run) for _ in range(repeats))
    where = "CPU 单核" if device.startswith("cpu") else f"{device}（{paddle.device.cuda.get_device_name()}）"
    print(f"整批增强（BatchAugment，同样七种，batch {count}，设备 {where}）：{speed:.0f} 张/秒")


if __name__ == "__main__":
    main()
