"""Lesson 7: diffusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lesson_figures import figure


@figure()
def noising(path: Path) -> None:
    """One phantom at five time steps of the cosine schedule."""
    from paddle_cxr.data.phantom import Finding, draw_image
    from paddle_cxr.models.noise_schedule import NoiseSchedule
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import drawing

    pixels = draw_image([Finding("effusion", "left")], seed=0, index=2, size=64).astype(np.float64)
    image = (pixels - pixels.mean()) / pixels.std()
    noise = np.random.default_rng(0).standard_normal(image.shape)
    left = NoiseSchedule(beta_schedule="squaredcos_cap_v2").alphas_cumprod()
    with drawing(path, 8.6, 2.5, title="加噪：图一步一步变成噪声（noise）", demo=True) as sheet:
        for axes, step in zip(sheet.subplots(1, 5), (0, 249, 499, 749, 999), strict=True):
            noisy = np.sqrt(left[step]) * image + np.sqrt(1 - left[step]) * noise
            show(axes, np.clip(noisy * 50 + 128, 0, 255).astype(np.uint8))
            axes.set_title(f"t = {step}", fontsize=10)
            axes.text(0.5, -0.06, f"图 {np.sqrt(left[step]):.2f}　噪声 {np.sqrt(1 - left[step]):.2f}", ha="center",
                      va="top", fontsize=8.5, transform=axes.transAxes)


@figure()
def patches(path: Path) -> None:
    """What is left of a phantom when each patch becomes so many numbers."""
    import paddle

    from paddle_cxr.data.phantom import CLASSES, Finding, draw_image
    from paddle_cxr.models.patch_autoencoder import PatchAutoencoder
    from paddle_cxr.plots.gallery import show
    from paddle_cxr.plots.style import drawing

    side, patch = 64, 8
    films = np.stack([draw_image(CLASSES[i % 3], seed=1, index=i, size=side) for i in range(150)])
    film = draw_image([Finding("effusion", "left")], seed=0, index=2, size=side)  # not among those
    pixels = paddle.to_tensor(film[None, None] / 127.5 - 1, dtype="float32")
    with drawing(path, 8.6, 2.4, title="每个 8×8 的小块记成几个数，再还原", demo=True) as sheet:
        places = list(sheet.subplots(1, 5))
        for axes, channels in zip(places, (1, 4, 16, 64), strict=False):
            autoencoder = PatchAutoencoder(patch, channels)
            autoencoder.fit(films, np.arange(len(films)))
            again = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean)[0].numpy()[0, 0]
            show(axes, np.clip(np.rint((again + 1) * 127.5), 0, 255).astype(np.uint8))
            axes.set_title(f"{channels} 个数", fontsize=10)
        show(places[-1], film)
        places[-1].set_title("原图（64 个像素）", fontsize=10)
