"""The smallest autoencoder: every patch of an image as a few numbers, by principal component analysis.

    image [H, W] → patches of P x P pixels → the K directions in which patches of the training images differ most
                 → latents [K, H / P, W / P]

A linear autoencoder that is trained by gradient descent ends in this very place (Baldi & Hornik, "Neural networks and
principal component analysis", 1989); computing it takes a second.  It has the interface of Stable Diffusion's
autoencoder (ppdiffusers' ``AutoencoderKL``), which does the same job with a deep network, for photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.errors import UserError

_MOST_PATCHES = 200_000  # that the components are computed from


@dataclass(frozen=True)
class Certain:
    """A posterior without doubt: mean [N, K, h, w] and standard deviation 0."""

    mean: paddle.Tensor

    @property
    def std(self) -> paddle.Tensor:
        return paddle.zeros_like(self.mean)


@dataclass(frozen=True)
class Encoded:
    """What :meth:`PatchAutoencoder.encode` returns, as ``AutoencoderKL`` does."""

    latent_dist: Certain


class PatchAutoencoder(paddle.nn.Layer):
    """Principal components of image patches.

    Args:
        patch: P, side of a patch in pixels.
        channels: K ≤ P².

    Attributes:
        config: the arguments, and what other autoencoders' configs hold.
        basis: float32 [K, 1, P, P], the components, of length 1.
        mean: float32 [1, 1, P, P], the mean patch.
        scale: float32 [K], what a latent is divided by.

    Raises:
        UserError: an argument out of range.
    """

    def __init__(self, patch: int, channels: int) -> None:
        super().__init__()
        if not 1 <= patch <= 64 or not 1 <= channels <= patch * patch:
            raise UserError(f"PatchAutoencoder：patch（{patch}）应在 1–64 之间，"
                            f"channels（{channels}）在 1 与 patch²（{patch * patch}）之间")
        self.config: dict[str, Any] = {"patch": patch, "channels": channels, "in_channels": 1, "out_channels": 1,
                                       "latent_channels": channels, "scaling_factor": 1.0}
        for name, shape in (("basis", [channels, 1, patch, patch]), ("mean", [1, 1, patch, patch]),
                            ("scale", [channels])):
            self.register_buffer(name, paddle.zeros(shape))

    def encode(self, pixels: paddle.Tensor) -> Encoded:
        """Grey images float32 [N, 1, H, W] in [-1, 1] → latents [N, K, H / P, W / P]."""
        return Encoded(Certain(self._components(pixels) / self.scale.reshape([1, -1, 1, 1])))

    def decode(self, latents: paddle.Tensor, return_dict: bool = False) -> tuple[paddle.Tensor]:
        """Latents → images float32 [N, 1, H, W], in a tuple, as ``AutoencoderKL`` with ``return_dict=False``.

        Where two patches do not quite agree there is an edge that no film has.  Patches cut half a patch further on
        have that edge in their middle, and the components, which are those of films, cannot express it.  So the image
        is expressed once more with patches that begin half-way, and the mean is taken (cycle spinning, Coifman &
        Donoho, "Translation-invariant de-noising", 1995).
        """
        pixels = self._pixels(latents * self.scale.reshape([1, -1, 1, 1]))
        half = self.config["patch"] // 2
        if not half:
            return (pixels,)
        looks = [pixels, *(self._again(pixels, down, right) for down, right in ((half, 0), (0, half), (half, half)))]
        return (paddle.add_n(looks) / len(looks),)

    def _components(self, pixels: paddle.Tensor) -> paddle.Tensor:
        return F.conv2d(pixels - self._tiled(pixels.shape), self.basis, stride=self.config["patch"])

    def _pixels(self, components: paddle.Tensor) -> paddle.Tensor:
        pixels = F.conv2d_transpose(components, self.basis, stride=self.config["patch"])
        return pixels + self._tiled(pixels.shape)

    def _again(self, pixels: paddle.Tensor, down: int, right: int) -> paddle.Tensor:
        """The image as patches express it that begin ``down`` and ``right`` pixels further on."""
        patch, (height, width) = self.config["patch"], pixels.shape[2:]
        above, left = (patch - shift if shift else 0 for shift in (down, right))
        around = F.pad(pixels, [left, right, above, down], mode="replicate")
        return self._pixels(self._components(around))[:, :, above:above + height, left:left + width]

    def _tiled(self, shape: Sequence[int]) -> paddle.Tensor:
        patch = self.config["patch"]
        return self.mean.tile([1, 1, shape[2] // patch, shape[3] // patch])

    def fit(self, images: np.ndarray, positions: np.ndarray) -> None:
        """Compute the components from the images at ``positions`` of ``images``, uint8 [N, H, W].

        A component's latents are divided by the square root of their standard deviation: half-way between leaving them
        as they are, where noise hides the fine components from the first step on, and making all equally large, where
        the fine ones, mostly noise themselves, would take as much of the network as the anatomy.  All are then divided
        by one number, so that their variance is 1 on average, as noise's is.

        Raises:
            UserError: images whose sides are no multiples of the patch, fewer kinds of patches than channels.
        """
        patch, channels = self.config["patch"], self.config["channels"]
        height, width = images.shape[1:3]
        if height % patch or width % patch:
            raise UserError(f"Arch.vae.patch：图像 {height}×{width} 的边长应是 {patch} 的倍数")
        each = (height // patch) * (width // patch)
        step = max(1, len(positions) * each // _MOST_PATCHES)
        films = np.stack([images[position] for position in positions[::step]]).astype(np.float64) / 127.5 - 1
        patches = films.reshape(len(films), height // patch, patch, width // patch, patch).transpose(0, 1, 3, 2, 4)
        patches = patches.reshape(-1, patch * patch)
        mean = patches.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov((patches - mean).T).reshape(patch * patch, patch * patch))
        variances, directions = variances[::-1][:channels], directions[:, ::-1][:, :channels]
        if variances[-1] <= 1e-12 * variances[0]:
            number = int((variances > 1e-12 * variances[0]).sum())
            raise UserError(f"Arch.vae.channels：训练图像的小块（patch）只有 {number} 个不同的方向，少于 {channels}；"
                            "请减小 channels，或检查图像是否都一样")
        directions = directions * np.where(directions[np.abs(directions).argmax(0), range(channels)] < 0, -1, 1)
        root = variances**0.25
        scale = root * np.sqrt((variances / root**2).mean())
        for buffer, values in ((self.basis, directions.T), (self.mean, mean), (self.scale, scale)):
            buffer.set_value(paddle.to_tensor(values.reshape(buffer.shape), dtype="float32"))
