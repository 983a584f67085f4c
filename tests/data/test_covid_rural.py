"""covid_rural_annot in miniature, as its repository lays it out."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from PIL import Image
from published import picture, refused

from paddle_cxr.data.sources import CovidRural
from paddle_cxr.registry import build

ILL, WELL, SIDE, DRAWN = ("COVID-19-AR-16406490_01-11-2012-XR", "COVID-19-AR-16406492_01-05-2012-XR",
                          "COVID-19-AR-16406488_01-08-2012-XR", "COVID-19-AR-16406490_01-12-2012-XR")
LEFT = ("left_lung", [[20, 4], [27, 4], [27, 15], [20, 15]])
RIGHT = ("right_lung", [[3, 4], [10, 4], [10, 15], [3, 15]])
HAZE = ("subtle_hazy", [[4.0, 10.0], [8.0, 10.0], [8.0, 13.0], [4.0, 13.0]])


def outlines(path, *shapes, height=20, width=30):
    """A file of labelme 4.5.6, which repeats the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({
        "version": "4.5.6", "flags": {}, "shapes": [
            {"label": label, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
            for label, points in shapes],
        "imagePath": f"{path.stem}.jpg", "imageData": base64.b64encode(b"x" * 100).decode(),
        "imageHeight": height, "imageWidth": width}, indent=2))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "opacity_segmentation-master" / "covid_rural_annot"
    for number, film in enumerate((ILL, WELL, SIDE, DRAWN)):
        picture(folder / "jpgs" / f"{film}.jpg", np.full((20, 30, 3), 40 * number, np.uint8))
    for film, shapes in ((ILL, (LEFT, RIGHT, HAZE)), (WELL, (RIGHT, LEFT)), (DRAWN, (LEFT, RIGHT, HAZE))):
        outlines(folder / "jpgs" / "jsons" / f"{film}.json", *shapes)
    mask = np.zeros((20, 30), np.uint8)
    mask[10:14, 4:9] = 1
    picture(folder / "pngs_masks" / f"{ILL}.png", mask)
    (folder / "covid_rural_patient_info.csv").write_text("PATIENT_ID,AGE,SEX\nCOVID-19-AR-16406490,38,F\n")
    return folder


def test_opacities_lungs_and_patients(root):
    source = build("findings", {"name": "CovidRural", "root": str(root)}, "DataLoader.Source")
    place = {record.path.removeprefix("jpgs/").removesuffix(".jpg"): index
             for index, record in enumerate(source.records)}
    assert set(place) == {ILL, WELL, SIDE, DRAWN} and source.read(place[DRAWN])[0, 0] == 120
    labels = {film: source.records[index].labels["Lung Opacity"] for film, index in place.items()}
    assert labels == {ILL: 1, WELL: 0, SIDE: None, DRAWN: 1}
    assert source.records[place[SIDE]].patient_id == "COVID-19-AR-16406488"
    assert [source.annotated(place[film], "Lung Opacity") for film in (ILL, WELL, SIDE)] == [True, True, False]
    mask = source.mask(place[ILL], "Lung Opacity", (20, 30))
    assert mask.dtype == bool and mask.sum() == 20 and mask[10:14, 4:9].all()
    assert np.array_equal(source.mask(place[DRAWN], "Lung Opacity", (20, 30)), mask)  # outlines without a mask
    assert not source.mask(place[WELL], "Lung Opacity", (20, 30)).any()
    lungs = source.mask(place[WELL], "lung", (20, 30))
    assert lungs[4:16, 3:11].all() and lungs[4:16, 20:28].all() and lungs.sum() == 12 * 8 * 2
    assert not source.annotated(place[SIDE], "lung") and source.regions == ("lung",)
    assert any("1 张图没有勾画" in notice for notice in source.notices)


def test_the_repository_itself_or_a_palette_mask(root):
    # labelme saves masks with a palette: 1 is dark red there.
    mask = Image.new("P", (30, 20))
    mask.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)
    mask.putpixel((5, 3), 1)
    mask.save(root / "pngs_masks" / f"{ILL}.png")
    source = CovidRural(str(root.parent.parent))
    index = next(n for n, record in enumerate(source.records) if ILL in record.path)
    assert np.argwhere(source.mask(index, "Lung Opacity", (20, 30))).tolist() == [[3, 5]]


def test_masks_of_another_size_and_broken_files(root):
    source = CovidRural(str(root))
    place = {record.path[5:-4]: index for index, record in enumerate(source.records)}
    refused("30×20.*60×40", source.mask, place[ILL], "Lung Opacity", (40, 60))
    refused("勾画时的图像是 30×20", source.mask, place[WELL], "lung", (40, 60))
    (root / "pngs_masks" / f"{ILL}.png").write_bytes(b"404")
    refused("无法读取", source.mask, place[ILL], "Lung Opacity", (20, 30))
    for broken in ("{", "[]", '{"shapes": [{"label": "x"}]}', '{"shapes": []}',
                   '{"shapes": [{"label": "x", "points": [[1, 2], [3, 4], [5, Infinity]]}], '
                   '"imageHeight": 20, "imageWidth": 30}',
                   '{"shapes": [], "imageHeight": Infinity, "imageWidth": 30}',
                   '{"shapes": [{"label": "x", "points": [[1, 2], [3, 4], [5, %s]]}], '
                   '"imageHeight": 20, "imageWidth": 30}' % ("9" * 400)):
        (root / "jpgs" / "jsons" / f"{WELL}.json").write_text(broken)
        refused("不是 labelme", CovidRural, str(root))


def test_wrong_layouts(root, tmp_path):
    (tmp_path / "other" / "deep").mkdir(parents=True)
    refused("没有 jpgs", CovidRural, str(tmp_path / "other"))
    (tmp_path / "empty" / "jpgs").mkdir(parents=True)
    refused("一张图也没有", CovidRural, str(tmp_path / "empty"))
    (root / "jpgs" / f"{WELL}.jpg").unlink()
    assert any("1 张图有勾画而没有图像" in notice for notice in CovidRural(str(root)).notices)
