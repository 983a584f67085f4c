"""Reading a DICOM radiograph as it is meant to be displayed.

The order is the standard's (PS3.3 C.11, PS3.4 N.2): modality LUT or rescale, then VOI LUT or window, then the
photometric interpretation.  pydicom does each step; it is an optional package, since most public sets are PNG or JPEG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paddle_cxr.data.image import ImageError, ImageFacts, MissingReader, check_size, scale_to_uint8, stretch

if TYPE_CHECKING:
    from pydicom import Dataset

# Modalities that are single projection radiographs: computed, digital, plain radiography, and secondary captures.
_RADIOGRAPHY = ("CR", "DX", "DR", "RG", "OT", "SC", "")
_FRONTAL = ("AP", "PA")


def read_dicom(path: Path, most_pixels: int | None = None) -> tuple[np.ndarray, ImageFacts]:
    """Read a frontal, single-frame, monochrome DICOM radiograph as uint8 ``[H, W]``, air dark.

    Without a window in the file the grey levels are stretched as for 16-bit images (:func:`image.stretch`).

    Raises:
        MissingReader: pydicom is not installed.
        ImageError: not DICOM, no pixels, too many of them (see :func:`image.read_image`), several frames, colour,
            lateral, not a radiograph, compressed as a whole (deflate), or in a way for which no decoder is installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
        from pydicom.filereader import read_file_meta_info
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
        from pydicom.uid import DeflatedExplicitVRLittleEndian
    except ImportError:
        raise MissingReader(f'图像 {path}：读取 DICOM 需要 pydicom 3 以上，请先安装：'
                            'pip install "pydicom>=3"') from None
    try:
        # pydicom would unpack all of it at once, however large: 600 KB can hold 600 MB.
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise ImageError(path, "dicom", "整个 DICOM 用 deflate 压缩过，不在这里解压；请先解开，例如 dcmconv +te")
        dataset = dcmread(path)
        _check_usable(path, dataset, most_pixels)
        values = apply_modality_lut(dataset.pixel_array, dataset)
        if _has_window(dataset):
            low, high = _window_range(dataset)
            pixels = scale_to_uint8(apply_voi_lut(values, dataset).astype(np.float64), low, high)
        else:
            pixels = stretch(values, path)
    except ImageError:
        raise
    except InvalidDicomError:
        raise ImageError(path, "not_image", "不是 DICOM 文件（缺少 DICM 标记）") from None
    except RuntimeError as error:  # pydicom's "no decoder for this transfer syntax"
        raise ImageError(path, "dicom", "缺少这种压缩格式的解码器，请安装："
                                        f"pip install pylibjpeg pylibjpeg-libjpeg（{_first_line(error)}）") from None
    except Exception as error:  # broken bytes make the decoders raise nearly anything
        truncated = isinstance(error, EOFError) or "length" in str(error) or "less than" in str(error)
        raise ImageError(path, "truncated" if truncated else "dicom",
                         f"DICOM 无法解码（{_first_line(error)}），文件可能不完整") from None
    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "MONOCHROME1":  # the lowest value is white, as on film
        pixels = 255 - pixels
    return pixels, ImageFacts("DICOM", photometric, int(dataset.BitsStored))


def _check_usable(path: Path, dataset: Dataset, most_pixels: int | None) -> None:
    """Only what a chest X-ray classifier may be shown: one frontal grey radiograph."""
    if "PixelData" not in dataset:
        raise ImageError(path, "dicom", "DICOM 中没有像素数据（PixelData）")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(path, "frames", f"DICOM 含 {frames} 帧，需要单帧胸片")
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(path, "dicom", f"DICOM 的光度解释为 {photometric or '空'}，需要 MONOCHROME1 或 MONOCHROME2")
    modality = str(dataset.get("Modality", "")).upper()
    if modality not in _RADIOGRAPHY:
        raise ImageError(path, "dicom", f"DICOM 的成像方式（Modality）为 {modality}，不是 X 光平片")
    view = str(dataset.get("ViewPosition") or "").upper()
    if view and not view.startswith(_FRONTAL):
        raise ImageError(path, "dicom", f"DICOM 的体位（ViewPosition）为 {view}，需要正位（PA 或 AP）")
    check_size(path, int(dataset.Columns), int(dataset.Rows), most_pixels)


def _has_window(dataset: Dataset) -> bool:
    windowed = dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None
    return windowed or bool(dataset.get("VOILUTSequence"))


def _window_range(dataset: Dataset) -> tuple[float, float]:
    """The grey levels that the VOI step's output calls black and white.

    A LUT's range is its bit depth; a window's is what pydicom maps values far below and far above it to, which is the
    dynamic range of the stored values and wider than what this very image happens to contain.
    """
    from pydicom.pixels import apply_windowing

    if dataset.get("VOILUTSequence"):
        return 0.0, float(2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    with np.errstate(over="ignore"):  # the sigmoid window function reaches its limits through exp(huge)
        low, high = apply_windowing(np.array([-1e12, 1e12]), dataset)
    return float(low), float(high)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
