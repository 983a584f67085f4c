"""A judge without weights: the six questions answered by measuring the picture.

It knows what a frontal chest film looks like and how pictures usually go wrong, not medicine: a film it passes may
still be useless, and one lung that is white from top to bottom may fail. "Of a human" it cannot tell at all.

The limits are reasoned: each is put between what physics or anatomy allows and what the fault produces, far from both
where there is room. What they keep and reject of real films and spoiled copies is held by its tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from paddle_cxr.registry import register
from paddle_cxr.synthesis.quality.base import QUESTIONS, Answer, Verdict
from paddle_cxr.synthesis.quality.layout import Layout, find_layouts
from paddle_cxr.synthesis.quality.measures import Measures, coloured, measure, shrink

SMALLEST = 32  # pixels of the shorter side; below, nothing can be measured

# Is it a chest X-ray
_LAYOUT = 0.58  # of a perfect 1: most films reach 0.75, an opaque lung costs up to 0.3, chance reaches 0.55
_PALER_LUNG = 0.2  # local standard deviations: both lungs are darker than what lies between them; films have 0.4 … 1.9
_TINTED, _COLOURED = 24, 0.10  # a photograph has pixels with that much colour (of 255) over that share of it
_NARROW, _WIDE = 0.6, 1.8  # width over height: films are 0.8 … 1.25, trimmed ones a little more
# Exposure
_WHITE, _BLACK = 0.015, 0.03  # share of the thorax that may be clipped: none should; metal is white, free air black
_BURNT = 0.20  # share of the picture: markers and the edges of the film have a tenth
_DARKEST, _BRIGHTEST = 155, 110  # grey levels: lungs are dark, the heart is bright
_DIM, _GLARING = 0.07, 0.56  # of the light that white gives: films have 0.28; a quarter of it, and twice as much
_CONTRAST = 40  # grey levels; fewer are a sixth of what a screen can show
_NOISE = 8.0  # grey levels, σ: films of 512 pixels have 0.5 … 2, the noisiest 5
_IMPULSES = 0.002  # share of pixels; a film has none
# Artefacts and over-processing
_COMB = 1.3  # bits: two in five grey levels in use. Stretching a film's contrast twofold costs 1
_FLAT = 0.4  # share of pixels
_EDGES, _STROKES = 0.02, 0.005  # share of pixels: one word over the lungs is 0.01 … 0.02
_INK = 0.0013  # share of pixels: one word in letters of 20 pixels is 0.002
_SEAM = 0.30  # share of the length
_MIRROR = 0.93  # correlation; of two real halves it is about 0.1
_BLOCKS = 2.0  # times; JPEG at quality 75 gives 1.4, at 40 1.7, at 10 3.2
_ANNOTATED = 0.001  # share of coloured pixels: arrows, boxes, a watermark
# Sharpness
_SHARP = 0.23  # films have 0.3 and more; a blur of two pixels leaves 0.1, movement over nine 0.12 … 0.22
_DETAIL = 0.30  # films have 0.38 and more; a blur of 1.5 pixels leaves 0.19 … 0.30, whatever noise is put on it


@register("judge")
class MeasuredJudge:
    """Answers the six questions (SynCXR, arXiv 2410.13523) from measured image properties.

    - ``chest_xray``: colour, aspect ratio, and the lungs' layout at any turn or polarity;
    - ``human``: cannot tell, always None;
    - ``frontal``: two lung fields beside a mediastinum, upright and neither turned nor cut off;
    - ``good_quality``: exposure, contrast, polarity and noise;
    - ``artefact_free``: posterised or over-compressed, text, seams, mirrored halves, coloured marks;
    - ``sharp``: fine against coarse detail.

    ``value`` of an answer is the measurement that decided it, or that came nearest to its limit.
    """

    title = "measured"
    many_processes = True

    def judge(self, images: Sequence[np.ndarray]) -> list[Verdict]:
        """A verdict for each image: uint8, ``[H, W]`` or ``[H, W, 3]``, any size."""
        pictures = [shrink(_grey(image)) for image in images]
        large = [i for i, picture in enumerate(pictures) if min(picture.shape) >= SMALLEST]
        layouts = dict(zip(large, find_layouts([pictures[i] for i in large]), strict=True))
        return [_verdict(image, picture, layouts.get(i))
                for i, (image, picture) in enumerate(zip(images, pictures, strict=True))]


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L"))


@dataclass(frozen=True, slots=True)
class _Check:
    """One measurement against its limit.

    Attributes:
        name: in Chinese with the English term.
        value: measured.
        limit: what it must reach (``at_least``) or may not pass.
    """

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def strain(self) -> float:
        """How near the limit, to compare checks: 1 at the limit, more beyond it."""
        value, limit = max(self.value, 1e-6), max(self.limit, 1e-6)
        return limit / value if self.at_least else value / limit

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3g}，{'至少' if self.at_least else '至多'} {self.limit:.3g}"


def _verdict(image: np.ndarray, picture: np.ndarray, layout: Layout | None) -> Verdict:
    height, width = image.shape[:2]
    aspect = [_Check("宽高比（aspect）", width / height, _WIDE),
              _Check("宽高比（aspect）", width / height, _NARROW, True)]
    if layout is None:
        unknown = Answer(None, reason=f"图像太小（{width}×{height}），无法测量")
        small = _Check("短边像素（size）", min(picture.shape), SMALLEST, True)
        return dict.fromkeys(QUESTIONS, unknown) | {"chest_xray": _answer(aspect), "good_quality": _answer([small])}
    found, colour = measure(picture, layout.box), coloured(image, _TINTED)
    any_way = max(layout.upright, layout.inverted, layout.sideways, layout.upside_down)
    return {
        "chest_xray": _answer([
            *aspect,
            _Check("彩色像素（colour）", colour, _COLOURED),
            _Check("肺野布局（lung layout）", any_way, _LAYOUT, True)]),
        "human": Answer(None, reason="内置裁判无法判断"),
        "frontal": _answer([
            _Check("正位布局（frontal layout）", layout.upright, _LAYOUT, True),
            _Check("较亮一侧的肺与纵隔之差（paler lung）", layout.paler_lung, _PALER_LUNG, True),
            _Check("转 90° 的布局（rotated）", layout.sideways, layout.upright),
            _Check("倒置的布局（upside down）", layout.upside_down, layout.upright)]),
        "good_quality": _answer(_exposure(found, layout)),
        "artefact_free": _answer(_artefacts(found, colour)),
        "sharp": _answer([
            _Check("清晰度（sharpness）", found.sharpness, _SHARP, True),
            _Check("去掉噪声后的细节（detail）", found.detail, _DETAIL, True)])}


def _exposure(found: Measures, layout: Layout) -> list[_Check]:
    return [
        _Check("过曝的像素（clipped white）", found.white, _WHITE),
        _Check("欠曝的像素（clipped black）", found.black, _BLACK),
        _Check("全图过曝的像素（burnt out）", found.burnt, _BURNT),
        _Check("肺野最暗处（darkest）", found.dark, _DARKEST),
        _Check("整体过亮（glaring）", found.light, _GLARING),
        _Check("整体过暗（dim）", found.light, _DIM, True),
        _Check("胸部最亮处（brightest）", found.bright, _BRIGHTEST, True),
        _Check("对比度（contrast）", found.bright - found.dark, _CONTRAST, True),
        _Check("黑白颠倒的布局（inverted）", layout.inverted, layout.upright),
        _Check("噪声（noise σ）", found.noise, _NOISE),
        _Check("孤立的亮暗点（impulses）", found.impulses, _IMPULSES)]


def _artefacts(found: Measures, colour: float) -> list[_Check]:
    return [
        _Check("缺失的灰阶（posterised, bits）", found.comb, _COMB),
        _Check("成片相等的像素（flat）", found.flat, _FLAT),
        _Check("陡峭的边缘（edges）", found.edges, _EDGES),
        _Check("文字或线条（strokes）", found.strokes, _STROKES),
        _Check("同一灰度的细笔画（ink）", found.ink, _INK),
        _Check("拼接缝（seam）", found.seam, _SEAM),
        _Check("左右镜像（mirror）", found.mirror, _MIRROR),
        _Check("压缩方块（JPEG blocks）", found.blocks, _BLOCKS),
        _Check("彩色标记（annotation）", colour, _ANNOTATED)]


def _answer(checks: Sequence[_Check]) -> Answer:
    """Passed when every check is; the value is that of the check furthest beyond, or nearest to, its limit."""
    failed = sorted((check for check in checks if not check.passed), key=lambda check: -check.strain)
    if failed:
        return Answer(False, failed[0].value, "；".join(map(str, failed)))
    nearest = max(checks, key=lambda check: check.strain)
    return Answer(True, nearest.value, str(nearest))
