"""One small file per data set layout; importing this package registers them all."""

from paddle_cxr.data.sources.covid_chestxray import CovidChestXray
from paddle_cxr.data.sources.covid_radiography import CovidRadiography
from paddle_cxr.data.sources.covidx import COVIDxCXR2
from paddle_cxr.data.sources.image_folder import ImageFolder
from paddle_cxr.data.sources.list_file import ListFile
from paddle_cxr.data.sources.phantom import Phantoms

__all__ = ["COVIDxCXR2", "CovidChestXray", "CovidRadiography", "ImageFolder", "ListFile", "Phantoms"]
