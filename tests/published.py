"""Files as publishers ship them, for tests of data sets."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paddle_cxr.errors import UserError

JPEG_BASELINE, EXPLICIT_LITTLE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"


def picture(path: Path, pixels: np.ndarray) -> Path:
    """Write a grey or binary picture in the format of its extension, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def dicom(path: Path, pixels: np.ndarray, jpeg: bool = True, **tags: object) -> Path:
    """Write an 8-bit radiograph as the RSNA and SIIM challenges did: JPEG-compressed, a view and identifiers."""
    pydicom = pytest.importorskip("pydicom", minversion="3")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEG_BASELINE if jpeg else EXPLICIT_LITTLE
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.276.0.7230010.3.1.4.1"
    dataset.Modality, dataset.ViewPosition, dataset.PatientID = "CR", "PA", path.stem
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    if jpeg:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def refused(match: str, make, *arguments, **options) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(UserError, match=match) as caught:
        make(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
