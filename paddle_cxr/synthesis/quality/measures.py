"""What can be measured on a picture without knowing what it shows: exposure, grey levels, noise, sharpness, artefacts.

Everything is counted on whole numbers (uint8 and int16), which NumPy does many times faster than on floats; percentiles
come from histograms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

LONGEST = 512  # pixels; a larger picture is shrunk to this first, so that a limit means the same for every size
_WHITE, _BLACK = 253, 2  # grey levels from which on a pixel counts as clipped (JPEG moves them by one or two)
_STEEP = 64  # grey levels over two pixels: more than any edge in a body makes
_STEP = 8  # grey levels over two pixels: a step, and not noise
_STROKE, _STROKE_CONTRAST = 6, 48  # half the width of the widest stroke, in pixels of 512; grey levels
_LINE, _LINE_CONTRAST = 4, 40  # the same of the strokes of small letters
_ONE_INK = 9  # grey levels next to each other that count as one: JPEG spreads them
_GAMMA = 2.2  # of a screen: how much light a grey level makes


@dataclass(frozen=True, slots=True)
class Measures:
    """Of one picture; "thorax" is the box around the lungs, everything else counts the whole picture.

    Attributes:
        white: share of the thorax clipped to white, 0 … 1.
        black: share of the thorax clipped to black, 0 … 1.
        burnt: share of the whole picture clipped to white, 0 … 1.
        dark, bright: grey levels, 3rd and 97th percentile of the thorax, 0 … 255.
        light: of the thorax on a screen, share of what white would give, 0 … 1.
        comb: bits by which the histogram of the thorax is poorer than the same histogram smoothed: about 0 where grey
            levels follow each other, log2(s) where only every s-th is in use (posterised).
        flat: share of the thorax's unclipped pixels that equal their neighbours to the right and below, 0 … 1.
        noise: standard deviation of the pixel noise, grey levels (Immerkær, CVIU 64(2), 1996, with a median).
        impulses: share of pixels far from all four neighbours (salt and pepper), 0 … 1.
        sharpness: fine over coarse contrast of the thorax, in the direction where it is less (see :func:`_sharpness`).
        detail: the same one scale coarser and without the noise, which does not make a blurred film sharp (see
            :func:`_detail`).
        edges: share of the strip in steps too steep for anatomy, 0 … 1. The strip is as wide as the thorax and as high
            as the picture: real films carry their markers (side, "portable", arrows) mostly beside it.
        strokes: share of the strip brighter or darker than what is on both sides of it: letters, lines, 0 … 1.
        ink: share of the strip in thin strokes of one grey level, of the level that most are of: letters share an ink,
            and what is thin in a body does not, 0 … 1.
        seam: the straightest step: share of a row's or column's length over which brightness jumps there, 0 … 1.
        mirror: correlation of the fine detail with its own mirror image, −1 … 1.
        blocks: steps on the 8-pixel grid of JPEG over steps beside it; 1 where there is no grid.
    """

    white: float
    black: float
    burnt: float
    dark: float
    bright: float
    light: float
    comb: float
    flat: float
    noise: float
    impulses: float
    sharpness: float
    detail: float
    edges: float
    strokes: float
    ink: float
    seam: float
    mirror: float
    blocks: float


def shrink(image: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W]``, longest side at most :data:`LONGEST` (averaging pixels; never enlarged)."""
    scale = LONGEST / max(image.shape)
    if scale >= 1:
        return np.ascontiguousarray(image)
    height, width = (max(1, round(side * scale)) for side in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def _enlarge(image: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W]``, longest side :data:`LONGEST` (between pixels, linear)."""
    scale = LONGEST / max(image.shape)
    if scale == 1:
        return image
    height, width = (round(side * scale) for side in image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def coloured(image: np.ndarray, least: int) -> float:
    """Share of pixels whose red, green and blue differ by at least ``least`` grey levels; 0 for a grey ``[H, W]``."""
    if image.ndim == 2:
        return 0.0
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    most, fewest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return float((most - fewest >= least).mean())


def measure(image: np.ndarray, box: tuple[float, float, float, float]) -> Measures:
    """Measure a picture.

    Args:
        image: uint8 ``[H, W]``, both sides 32 pixels or more, as :func:`shrink` gives it.
        box: left, top, right, bottom of the thorax, in parts of width and height.
    """
    height, width = image.shape
    left, top, right, bottom = box
    columns = slice(int(left * width), int(np.ceil(right * width)))
    thorax = image[int(top * height):int(np.ceil(bottom * height)), columns]
    histogram = np.bincount(thorax.ravel(), minlength=256)
    dark, bright = np.searchsorted(np.cumsum(histogram) / thorax.size, (0.03, 0.97))
    light = histogram @ (np.arange(256) / 255) ** _GAMMA / thorax.size
    # How steep is too steep depends on the size of a pixel: in a picture of 64 pixels anatomy itself is.
    full = _enlarge(image)
    edge = round(0.03 * len(full))
    strip = full[edge:len(full) - edge, int(left * full.shape[1]):int(np.ceil(right * full.shape[1]))]
    return Measures(
        white=float(histogram[_WHITE:].sum() / thorax.size), black=float(histogram[:_BLACK + 1].sum() / thorax.size),
        burnt=float((image >= _WHITE).mean()), dark=float(dark), bright=float(bright), light=float(light),
        comb=_comb(histogram), flat=_flat(thorax), noise=_noise(thorax), impulses=_impulses(image),
        sharpness=min(_sharpness(thorax), _sharpness(thorax.T)), detail=_detail(thorax), edges=_edges(strip),
        strokes=_strokes(strip), ink=_ink(strip),
        seam=max(_seam(full), _seam(full.T)), mirror=_mirror(image), blocks=_blocks(image))


def _step(image: np.ndarray, axis: int, distance: int) -> np.ndarray:
    """int16: each pixel's difference from the one ``distance`` before it along ``axis``."""
    image = image.astype(np.int16)
    return image[:, distance:] - image[:, :-distance] if axis else image[distance:] - image[:-distance]


def _percentile(values: np.ndarray, percent: float) -> float:
    """Of whole numbers ≥ 0."""
    cumulative = np.cumsum(np.bincount(values.ravel()))
    return float(np.searchsorted(cumulative, percent / 100 * values.size))


def _comb(histogram: np.ndarray) -> float:
    """See :attr:`Measures.comb`; clipped pixels are left out, they are a heap of their own."""
    counts = histogram[_BLACK + 1:_WHITE].astype(float)
    if not counts.any():
        return 8.0  # all clipped: of 8 bits none is left
    places = np.arange(-24, 25)
    smooth = np.convolve(counts, np.exp(-0.5 * (places / 8) ** 2), "same")
    return _entropy(smooth) - _entropy(counts)


def _entropy(counts: np.ndarray) -> float:
    """In bits."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _flat(image: np.ndarray) -> float:
    here = image[:-1, :-1]
    inside = (here > _BLACK) & (here < _WHITE)
    equal = (here == image[:-1, 1:]) & (here == image[1:, :-1]) & inside
    return float(equal.sum() / max(1, inside.sum()))


def _noise(image: np.ndarray) -> float:
    """σ from a filter that lines and slopes pass without a trace: the difference of two Laplacians."""
    rows = image[:-2].astype(np.int16) - 2 * image[1:-1].astype(np.int16) + image[2:]
    values = np.abs(rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:])
    return _percentile(values, 50) / 0.6745 / 6  # the filter multiplies σ by 6; a Gaussian's median is 0.6745 σ


def _impulses(image: np.ndarray) -> float:
    here = image[1:-1, 1:-1]
    sides = (image[:-2, 1:-1], image[2:, 1:-1], image[1:-1, :-2], image[1:-1, 2:])
    most = np.maximum(np.maximum(sides[0], sides[1]), np.maximum(sides[2], sides[3]))
    least = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    far = ((here > most) & (here - most > 32)) | ((here < least) & (least - here > 32))
    return float(far.mean())


def _sharpness(image: np.ndarray) -> float:
    """Bending from pixel to pixel over bending from one mean of four to the next: second differences, root mean square.

    Second differences see no slope, and a slope is all that a blur leaves between neighbouring pixels. Picture detail
    falls with its frequency by the same law at every scale (Field, JOSA A 4(12), 1987), so the ratio depends little on
    the patient: about 0.35, and below 0.1 after a Gaussian blur of two pixels. The rows are looked at only; call it
    with the transpose for the columns, as motion blurs one direction.
    """
    values = image.astype(np.int16)
    fine = values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]
    pairs = values[:, 1:] + values[:, :-1]
    fours = pairs[:, 2:] + pairs[:, :-2]
    coarse = fours[:, 8:] - 2 * fours[:, 4:-4] + fours[:, :-8]
    # Rounding to whole grey levels alone gives second differences of variance 6/12; one level more below keeps a
    # picture without any contrast from being sharp.
    return float(np.sqrt(max(_mean_square(fine) - 0.5, 0) / (_mean_square(coarse) / 16 + 1)))


def _detail(image: np.ndarray) -> float:
    """Bending between means of 2 x 2 pixels over bending between means of 8 x 8, as in :func:`_sharpness`.

    Noise, and what JPEG leaves, would pass for detail where the film itself is blurred. White noise bends means of
    2 x 2 a quarter as much as single pixels (mean squares), and of its own detail a film has least in single pixels:
    what they have is taken for noise, and its quarter taken off. About 0.5 for a film, 0.3 and less after a blur of
    1.5 pixels.
    """
    noise, fine, coarse = (_bending(_means(image, size)) for size in (1, 2, 8))
    return float(np.sqrt(max(fine - noise / 4, 0) / (coarse + 1)))


def _means(image: np.ndarray, size: int) -> np.ndarray:
    """float32: the means of squares of ``size`` x ``size`` pixels; what is left over at the end is left out."""
    height, width = (side // size for side in image.shape)
    squares = image[:height * size, :width * size].reshape(height, size, width, size)
    return squares.mean(axis=(1, 3), dtype=np.float32)


def _bending(values: np.ndarray) -> float:
    """Mean square of the second differences, in the direction where it is less."""
    return min(_mean_square(part[:, 2:] - 2 * part[:, 1:-1] + part[:, :-2]) for part in (values, values.T))


def _mean_square(values: np.ndarray) -> float:
    flat = np.ascontiguousarray(values, np.float32).ravel()
    return float(flat @ flat) / max(1, flat.size)


def _edges(image: np.ndarray) -> float:
    """Over two pixels, so that a step softened by JPEG or resampling counts as well."""
    steep = np.abs(_step(image, 1, 2))[1:-1] > _STEEP
    return float((steep | (np.abs(_step(image, 0, 2))[:, 1:-1] > _STEEP)).mean())


def _strokes(image: np.ndarray) -> float:
    """See :attr:`Measures.strokes`."""
    return float(_stroke_pixels(image, _STROKE, _STROKE_CONTRAST).any(axis=0).mean())


def _stroke_pixels(image: np.ndarray, reach: int, contrast: int) -> np.ndarray:
    """bool ``[2, H, W]``: far brighter, or far darker, than both pixels ``reach`` away, sideways or up and down."""
    found = np.zeros((2, *image.shape), bool)
    for values, bright, dark in ((image, *found), (image.T, *(part.T for part in found))):
        values = values.astype(np.int16)
        here, before, after = values[:, reach:-reach], values[:, :-2 * reach], values[:, 2 * reach:]
        bright[:, reach:-reach] |= here - np.maximum(before, after) > contrast
        dark[:, reach:-reach] |= np.minimum(before, after) - here > contrast
    return found


def _ink(image: np.ndarray) -> float:
    """See :attr:`Measures.ink`."""
    counts = [np.bincount(image[part], minlength=256) for part in _stroke_pixels(image, _LINE, _LINE_CONTRAST)]
    return max(float(np.convolve(levels, np.ones(_ONE_INK), "same").max()) for levels in counts) / image.size


def _seam(image: np.ndarray) -> float:
    """The most abrupt column in the inner three quarters of the picture, see :attr:`Measures.seam`."""
    share = (np.abs(_step(image, 1, 2)) > _STEP).mean(axis=0)
    around = np.convolve(np.pad(share, 8, mode="edge"), np.ones(17) / 17, "valid")
    margin = len(share) // 8
    return float((share - around)[margin:len(share) - margin].max())


def _mirror(image: np.ndarray) -> float:
    smooth = Image.fromarray(image).filter(ImageFilter.BoxBlur(4))
    detail = (image.astype(np.int16) - np.asarray(smooth)).astype(np.float32)
    return float((detail * detail[:, ::-1]).mean() / ((detail * detail).mean() + 0.1))


def _blocks(image: np.ndarray) -> float:
    ratios = []
    for axis in (0, 1):
        steps = np.abs(_step(image, axis, 1)).mean(axis=1 - axis)
        on = np.arange(1, len(steps) + 1) % 8 == 0
        ratios.append((steps[on].mean() + 0.5) / (steps[~on].mean() + 0.5))
    return float(min(ratios))
