"""COVID-19 Rural: the chest films of COVID-19-AR (Desai et al., Scientific Data 7, 2020) with outlined opacities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_cxr.data.findings import FindingsRecord, FindingsSource
from paddle_cxr.data.records import ClassInfo
from paddle_cxr.data.sources.layout import list_images, open_root, subfolders, why_missing
from paddle_cxr.data.sources.mask_file import draw_polygons, read_mask
from paddle_cxr.errors import UserError
from paddle_cxr.registry import register

OPACITY = ClassInfo("Lung Opacity", "肺部阴影", "Lung opacity", ("opacity",))
LUNG = "lung"

_NAME, _DATASET = "CovidRural", "COVID-19 Rural（covid_rural_annot）"
_IMAGES, _MASKS, _OUTLINES = "jpgs", "pngs_masks", "jpgs/jsons"
_MASK = ".png"
_LUNGS = ("left_lung", "right_lung")
_MAX_OUTLINES = 50_000_000  # bytes; such a file repeats the image, up to about 1 MB


@register("findings")
class CovidRural(FindingsSource):
    """Films of patients with COVID-19 at a rural hospital in Arkansas, opacities and lungs outlined by hand.

    The films are of the TCIA collection COVID-19-AR; the outlines, and the films as JPEG, are published by the authors
    of a segmentation study (github.com/haimingt/opacity_segmentation_covid_chest_X_ray).  ``root`` is its folder
    ``covid_rural_annot``, or one that holds it::

        jpgs/COVID-19-AR-16406490_01-11-2012-XR.jpg            patient, date
        jpgs/jsons/COVID-19-AR-16406490_01-11-2012-XR.json     outlines of left_lung, right_lung and opacities
        pngs_masks/COVID-19-AR-16406490_01-11-2012-XR.png      the opacities, 0 and 1, of the film's size

    ``Lung Opacity`` is present where there is a mask or an outline of one, absent on an outlined film without, and
    unknown on the few films that nobody outlined (most of them seen from the side).  Where there is no mask the
    outlines are drawn.  The masks of ``lung`` (no finding, and not among them) are the outlines of both lungs.  The
    patient is in the file's name.

    TCIA's DICOM files cannot take the JPEGs' place: a study holds several, and nothing says which one was outlined.

    Args:
        root: the folder, or an archive of it.

    Raises:
        UserError: no ``jpgs`` folder, no film in it, an outline file that is none, a mask or outlines of another size
            than the film.
    """

    regions = (LUNG,)

    def __init__(self, root: str) -> None:
        notices: list[str] = []
        folder = _annotations(open_root(root, notices, _IMAGES, "covid_rural_annot"))
        films, _ = list_images(folder / _IMAGES)
        if not films:
            raise UserError(f"{folder / _IMAGES} 里一张图也没有；下载可能不完整，请重新下载")
        self._masks, self._outlines = _by_film(folder / _MASKS, _MASK), _by_film(folder / _OUTLINES, ".json")
        records = [FindingsRecord(film.relative_to(folder).as_posix(), 0, film.stem.partition("_")[0],
                                  labels={OPACITY.name: self._label(film.stem)}) for film in films]
        unknown = sum(record.labels[OPACITY.name] is None for record in records)
        if unknown:
            notices.append(f"{folder}：{unknown} 张图没有勾画（多为侧位），阴影算未知（unknown）")
        names = {film.stem for film in films}
        lost = sorted({*self._masks, *self._outlines} - names)
        if lost:
            notices.append(f"{folder}：{len(lost)} 张图有勾画而没有图像（例如 {lost[0]}）")
        super().__init__("covid-rural", folder, (OPACITY,), records, notices)

    @classmethod
    def missing(cls, **arguments: object) -> str | None:
        """Absent or empty root."""
        return why_missing(str(arguments.get("root", "")))

    def annotated(self, index: int, finding: str) -> bool:
        """Opacities where the label is known, lungs where they are outlined."""
        if finding == LUNG:
            return self._film(index) in self._outlines
        return self.records[index].labels.get(finding) is not None

    def mask(self, index: int, finding: str, shape: tuple[int, int]) -> np.ndarray:
        """The opacities, or the lungs; bool ``[H, W]``."""
        file = self.mask_file(index, finding)
        if file.suffix == _MASK:
            return read_mask(file, shape)
        outlines = _read_outlines(file)
        if outlines.shape != tuple(shape):
            raise UserError(f"{file}：勾画时的图像是 {outlines.shape[1]}×{outlines.shape[0]}，而 {self.locate(index)} "
                            f"是 {shape[1]}×{shape[0]}；请用原来大小的图")
        return draw_polygons([points for label, points in outlines.polygons
                              if (label in _LUNGS) == (finding == LUNG)], shape)

    def mask_file(self, index: int, finding: str) -> Path | None:
        """The mask, or the outlines."""
        film = self._film(index)
        is_mask = finding == OPACITY.name and film in self._masks
        return self._masks[film] if is_mask else self._outlines.get(film)

    def _film(self, index: int) -> str:
        return Path(self.records[index].path).stem

    def _label(self, film: str) -> int | None:
        # The outlines are read only where no mask tells that there is something to see.
        if film in self._masks:
            return 1
        if film not in self._outlines:
            return None
        return int(any(label not in _LUNGS for label, _ in _read_outlines(self._outlines[film]).polygons))


def _annotations(folder: Path) -> Path:
    """The folder that holds ``jpgs``: ``folder``, or one at most two below it."""
    level = [folder]
    for _ in range(3):
        for one in level:
            if (one / _IMAGES).is_dir():
                return one
        level = [deeper for one in level for deeper in subfolders(one)]
    raise UserError(f"{folder} 里没有 {_IMAGES} 文件夹，不像 {_DATASET}；请检查 {_NAME}.root，"
                    "数据下载方法见 docs/data.md")


def _by_film(folder: Path, suffix: str) -> dict[str, Path]:
    """Film (file name without suffix) → file, of those in ``folder``."""
    return {file.stem: file for file in sorted(folder.glob(f"*{suffix}"))}


@dataclass(frozen=True)
class _Outlines:
    """Label and (x, y) points of each polygon; (H, W) of the film they were drawn on."""

    polygons: list[tuple[str, list[tuple[float, float]]]]
    shape: tuple[int, int]


def _read_outlines(file: Path) -> _Outlines:
    """A file of the program labelme."""
    if file.stat().st_size > _MAX_OUTLINES:
        raise UserError(f"{file}：超过 {_MAX_OUTLINES // 10**6} MB，不像勾画文件；请重新下载")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        polygons = [(str(shape["label"]), [(float(x), float(y)) for x, y in shape["points"]])
                    for shape in content["shapes"] if len(shape["points"]) > 2]  # fewer: a click by mistake
        if not all(np.isfinite(points).all() for _, points in polygons):
            raise ValueError("not finite")
        return _Outlines(polygons, (int(content["imageHeight"]), int(content["imageWidth"])))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(f"{file}：不是 labelme 的勾画文件（应有 imageHeight、imageWidth 和 shapes，"
                        "每项有 label 和 points）；请重新下载") from None
