"""read_image against Pillow, pydicom and arithmetic done by hand, on real files."""

from __future__ import annotations

import builtins
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from paddle_cxr.data.cache import DecodedCache
from paddle_cxr.data.image import EXTENSIONS, ImageError, MissingReader, read_image, read_with_facts
from paddle_cxr.data.prepare import prepare
from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.data.records import ClassInfo, Record, Source
from paddle_cxr.data.splits import NoSplit
from paddle_cxr.errors import UserError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_grey_is_read_unchanged(tmp_path, suffix):
    assert np.array_equal(read_image(save(tmp_path / f"a{suffix}", GREY)), GREY)


def test_rgb_is_kept_and_equal_channels_become_grey(tmp_path):
    colour = np.stack([GREY, GREY // 2, GREY // 3], axis=-1)
    assert np.array_equal(read_image(save(tmp_path / "c.png", colour)), colour)
    assert np.array_equal(read_image(save(tmp_path / "g.png", np.stack([GREY] * 3, axis=-1))), GREY)


def test_transparency_is_composited_on_black(tmp_path):
    alpha = np.full_like(GREY, 128)
    rgba = np.stack([GREY, GREY, GREY, alpha], axis=-1)
    expected = np.rint(GREY * (128 / 255))
    assert np.abs(read_image(save(tmp_path / "a.png", rgba)) - expected).max() <= 1
    la = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    assert np.abs(read_image(save(tmp_path / "la.png", la)) - expected).max() <= 1
    opaque = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
    assert np.array_equal(read_image(save(tmp_path / "o.png", opaque)), GREY)


def test_palette_one_bit_and_cmyk(tmp_path):
    palette = Image.fromarray(GREY).convert("P")
    assert np.array_equal(read_image(save(tmp_path / "p.png", palette)), GREY)
    palette.info["transparency"] = 0
    assert read_image(save(tmp_path / "pt.png", palette, transparency=0)).shape == GREY.shape
    bits = Image.fromarray(((GREY > 100) * 255).astype(np.uint8)).convert("1")
    assert np.array_equal(read_image(save(tmp_path / "b.png", bits)), (GREY > 100) * 255)
    cmyk = Image.merge("CMYK", [Image.fromarray(np.zeros_like(GREY))] * 3 + [Image.fromarray(255 - GREY)])
    assert np.array_equal(read_image(save(tmp_path / "k.tif", cmyk)), GREY)


def test_sixteen_bit_is_stretched_to_its_own_window(tmp_path):
    values = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    values[0, 0] = 65535  # a burnt-in marker must not take the contrast away
    pixels, facts = read_with_facts(save(tmp_path / "a.png", values))
    assert facts.bits == 16 and pixels.dtype == np.uint8
    low, high = np.percentile(values, (0.1, 99.9))
    assert np.abs(pixels - np.clip((values - low) / (high - low) * 255, 0, 255)).max() <= 0.5 + 1e-9
    assert pixels.min() == 0 and np.count_nonzero(pixels == 255) < 0.003 * pixels.size


def test_sixteen_bit_file_of_eight_bit_values_is_kept(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY.astype(np.uint16))), GREY)


def test_float_grey_and_constant_and_nan(tmp_path):
    ramp = np.linspace(-1, 1, 4096, dtype=np.float32).reshape(64, 64)
    pixels = read_image(save(tmp_path / "f.tif", ramp))
    assert pixels[0, 0] == 0 and pixels[-1, -1] == 255 and abs(int(pixels[32, 0]) - 128) <= 1
    assert not read_image(save(tmp_path / "c.tif", np.full((4, 4), 700.0, np.float32))).any()
    with pytest.raises(ImageError, match="NaN"):
        read_image(save(tmp_path / "n.tif", np.full((4, 4), np.nan, np.float32)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    # What each orientation tag means, written with numpy instead of Pillow.
    undo = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
            6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.transpose(a), 2), 8: np.rot90}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = (np.add.outer(np.arange(48) * 3, np.arange(64) * 1.5)).astype(np.uint8)
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    pixels, facts = read_with_facts(save(tmp_path / f"a.{suffix}", levels, exif=exif, **options))
    expected = undo(levels)
    assert pixels.shape == expected.shape and facts.rotated == (orientation != 1)
    assert np.abs(pixels.astype(int) - expected).max() <= (3 if suffix == "jpg" else 0)


def png16(path, values: np.ndarray, colour: int, extra: bytes = b""):
    """A 16-bit PNG written by hand, since Pillow writes none but grey; ``values`` is [H, W, channels]."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([16, colour, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("colour, channels", [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bit_colour_is_refused_and_not_cut_to_its_high_byte(tmp_path, colour, channels):
    values = np.random.default_rng(0).integers(0, 4096, (8, 8, channels))  # 12 bits: the high byte holds nearly nothing
    path = png16(tmp_path / "a.png", values, colour)
    assert error_kind(path) == "depth"
    with pytest.raises(ImageError, match="16 位灰度"):
        read_image(path)


def test_sixteen_bit_grey_written_the_same_way_is_read(tmp_path):
    values = np.linspace(1000, 3000, 4096).reshape(64, 64, 1)
    pixels, facts = read_with_facts(png16(tmp_path / "a.png", values, 0))
    assert facts.bits == 16 and pixels.min() == 0 and pixels.max() == 255


def tiff16(path, values: np.ndarray, photometric: int, bits: int = 16):
    """An uncompressed grey TIFF written by hand: Pillow cannot write WhiteIsZero."""
    data = values.astype("<u2" if bits == 16 else "u1").tobytes()
    tags = [(256, values.shape[1]), (257, values.shape[0]), (258, bits), (259, 1), (262, photometric), (273, 8),
            (277, 1), (278, values.shape[0]), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries
                     + bytes(4))
    return path


def test_white_is_zero_is_inverted_at_any_depth(tmp_path):
    values = np.linspace(1000, 3000, 4096).reshape(64, 64)
    upright = read_image(tiff16(tmp_path / "1.tif", values, 1))
    assert upright[0, 0] == 0 and upright[-1, -1] == 255
    assert np.array_equal(read_image(tiff16(tmp_path / "0.tif", values, 0)), 255 - upright)
    assert np.array_equal(read_image(tiff16(tmp_path / "8.tif", GREY, 0, bits=8)), 255 - GREY)


def test_transparent_grey_is_black(tmp_path):
    expected = np.where(GREY == 100, 0, GREY)
    assert np.array_equal(read_image(save(tmp_path / "a.png", GREY, transparency=100)), expected)
    values = np.linspace(1000, 3000, 4096).round().reshape(64, 64, 1)
    values[:8] = 60000
    chunk = b"\0\0\0\2tRNS" + (60000).to_bytes(2, "big")
    pixels = read_image(png16(tmp_path / "b.png", values, 0, chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big")))
    assert not pixels[:8].any() and pixels[-1, -1] == 255 and 120 < pixels[36, 0] < 135  # the window is the film's


def test_every_accepted_extension_but_dicom_can_be_read(tmp_path):
    for suffix in EXTENSIONS[:-2]:
        assert read_image(save(tmp_path / f"a{suffix}", np.full((8, 8), 100, np.uint8))).shape[:2] == (8, 8)


def error_kind(path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return caught.value.kind


def test_unusable_files_are_named(tmp_path, monkeypatch):
    assert error_kind(tmp_path / "absent.png") == "missing"
    (tmp_path / "empty.png").touch()
    assert error_kind(tmp_path / "empty.png") == "empty"
    (tmp_path / "text.png").write_text("<html>404</html>")
    assert error_kind(tmp_path / "text.png") == "not_image"
    (tmp_path / "notes.txt").write_text("x")
    assert error_kind(tmp_path / "notes.txt") == "extension"
    (tmp_path / "folder.png").mkdir()
    assert error_kind(tmp_path / "folder.png") == "missing"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    for name in ("t.png", "t.jpg", "t.tif", "t.bmp"):
        whole = save(tmp_path / name, noise).read_bytes()
        (tmp_path / name).write_bytes(whole[:len(whole) // 2])
        assert error_kind(tmp_path / name) in ("truncated", "not_image")
    save(tmp_path / "pages.tif", GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    assert error_kind(tmp_path / "pages.tif") == "frames"
    big = save(tmp_path / "big.png", np.zeros((50, 50), np.uint8))
    for limit in (2000, 1000):  # Pillow warns at the first and raises at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert error_kind(big) == "bomb"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert error_kind(big) == "bomb"


def test_the_limit_of_pixels_can_be_lower(tmp_path):
    for file in (save(tmp_path / "big.png", np.zeros((50, 50), np.uint8)), dicom(tmp_path / "big.dcm", np.eye(50))):
        assert read_image(file, most_pixels=2500).shape == (50, 50)
        with pytest.raises(ImageError, match="50×50") as caught:
            read_image(file, most_pixels=2499)
        assert caught.value.kind == "bomb"


def test_only_the_formats_of_the_extensions_are_decoded(tmp_path, monkeypatch):
    """Pillow runs Ghostscript for an EPS, whatever its name."""
    run = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *arguments, **options: run.append(arguments))
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    save(tmp_path / "g.gif", GREY)
    (tmp_path / "g.gif").rename(tmp_path / "gif.png")
    assert error_kind(tmp_path / "eps.png") == error_kind(tmp_path / "gif.png") == "not_image"
    assert not run


def test_frames_are_not_counted(tmp_path, monkeypatch):
    """Counting those of a long chain takes minutes."""
    more = [Image.fromarray(GREY)] * 50
    save(tmp_path / "pages.tif", GREY, save_all=True, append_images=more)
    visited = []
    real = TiffImagePlugin.TiffImageFile._seek
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "_seek",
                        lambda self, frame: (visited.append(frame), real(self, frame))[1])
    assert error_kind(tmp_path / "pages.tif") == "frames"
    assert max(visited) == 1


def test_a_png_cut_off_after_its_last_pixel_is_truncated_and_what_follows_the_end_does_not_matter(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    whole = path.read_bytes()
    for length in (len(whole) - 12, len(whole) - 8):
        path.write_bytes(whole[:length])
        assert error_kind(path) == "truncated"
    path.write_bytes(whole + b"left over")
    assert np.array_equal(read_image(path), GREY)


def test_the_error_survives_the_way_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "truncated", "文件不完整")))
    assert (error.path, error.kind, str(error)) == ("a.png", "truncated", "图像 a.png：文件不完整")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]))
def test_damaged_bytes_give_an_image_or_a_clear_error(tmp_path, data, kind):
    buffer = io.BytesIO()
    Image.fromarray(GREY.repeat(4, 0)).save(buffer, kind)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{kind.lower()}"
    path.write_bytes(raw[:data.draw(st.integers(1, len(raw)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = read_image(path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3)


# DICOM


def dicom(path, values, photometric="MONOCHROME2", bits=12, **tags):
    pydicom = pytest.importorskip("pydicom", minversion="3")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality, dataset.ViewPosition = "DX", "PA"
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelData = values.astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


RAMP = np.arange(4096).reshape(64, 64)


def test_dicom_window_is_applied_by_the_standard_formula(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP, WindowCenter=2000, WindowWidth=1001)
    # PS3.3 C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5), clipped
    expected = np.clip((RAMP - 1999.5) / 1000 + 0.5, 0, 1) * 255
    assert np.abs(read_image(path) - expected).max() <= 0.5 + 1e-9


def test_dicom_window_is_not_stretched_to_what_the_image_happens_to_hold(tmp_path):
    values = np.full((8, 8), 2000)
    values[0, 0] = 2100
    pixels = read_image(dicom(tmp_path / "a.dcm", values, WindowCenter=2048, WindowWidth=4096))
    assert 120 <= pixels.min() and pixels.max() <= 135


def test_dicom_rescale_comes_before_the_window_and_monochrome1_is_inverted(tmp_path):
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 2001}
    expected = np.clip((RAMP * 2 - 1000 - 2999.5) / 2000 + 0.5, 0, 1) * 255
    bright = read_image(dicom(tmp_path / "2.dcm", RAMP, **tags))
    assert np.abs(bright - expected).max() <= 0.5 + 1e-9
    inverted, facts = read_with_facts(dicom(tmp_path / "1.dcm", RAMP, photometric="MONOCHROME1", **tags))
    assert np.array_equal(inverted, 255 - bright) and facts.mode == "MONOCHROME1"


def test_dicom_sigmoid_window_and_lut(tmp_path):
    path = dicom(tmp_path / "s.dcm", RAMP, WindowCenter=2048, WindowWidth=1024, VOILUTFunction="SIGMOID")
    expected = 255 / (1 + np.exp(-4 * (RAMP - 2048) / 1024))
    assert np.abs(read_image(path) - expected).max() <= 0.5 + 1e-6
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item.LUTData = (4095 - np.arange(4096)).tolist()
    item["LUTData"].VR = "US"
    path = dicom(tmp_path / "l.dcm", RAMP, VOILUTSequence=[item])
    assert np.abs(read_image(path) - (4095 - RAMP) / 4095 * 255).max() <= 0.5 + 1e-9


def test_dicom_without_window_is_stretched_like_a_16_bit_image(tmp_path):
    pixels = read_image(dicom(tmp_path / "a.dcm", RAMP))
    tiff = read_image(save(tmp_path / "a.tif", RAMP.astype(np.uint16)))
    assert np.array_equal(pixels, tiff)


@pytest.mark.parametrize("tags, word", [
    ({"ViewPosition": "LL"}, "LL"), ({"Modality": "CT"}, "CT"), ({"NumberOfFrames": "2"}, "2 帧"),
    ({"PhotometricInterpretation": "RGB"}, "RGB"),
])
def test_dicom_that_is_no_frontal_film_is_refused(tmp_path, tags, word):
    frames = np.zeros((2, 4, 4)) if "NumberOfFrames" in tags else np.zeros((4, 4))
    path = dicom(tmp_path / "a.dcm", frames, **tags)
    with pytest.raises(ImageError, match=word):
        read_image(path)


def test_dicom_compressed_as_a_whole_is_not_unpacked(tmp_path, monkeypatch):
    """Its size in memory is not known before."""
    path = dicom(tmp_path / "a.dcm", RAMP)
    import pydicom

    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    monkeypatch.setattr(pydicom, "dcmread", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ImageError, match="deflate"):
        read_image(path)


def test_dicom_damaged_or_false(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-4000])
    assert error_kind(path) == "truncated"
    (tmp_path / "b.dcm").write_bytes(b"\0" * 300)
    assert error_kind(tmp_path / "b.dcm") == "not_image"


def test_dicom_under_another_name_is_recognised(tmp_path):
    assert read_with_facts(dicom(tmp_path / "a.png", RAMP))[1].format == "DICOM"


def test_without_pydicom_one_line_says_what_to_install(tmp_path, monkeypatch):
    path = dicom(tmp_path / "a.dcm", RAMP)
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.split(".")[0] == "pydicom":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingReader, match="pip install") as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    # Not a broken file, whatever the policy: neither training nor prepare_data may leave it out.
    source = Source("films", tmp_path, [ClassInfo("A", "甲", "A")], [Record("a.dcm", 0)])
    for mode in ("memory", "disk", "none"):
        with pytest.raises(MissingReader, match="pip install"):
            DecodedCache(source, Preprocess((1, 8, 8)), mode=mode, folder=tmp_path / "cache", on_error="skip")
    with pytest.raises(MissingReader, match="pip install"):
        prepare(source, NoSplit(), output=tmp_path / "out", on_error="skip")
