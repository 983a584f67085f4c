"""One small file per data set layout; importing this package registers them all."""

from paddle_cxr.data.sources.chestxray14 import ChestXray14
from paddle_cxr.data.sources.chexpert import CheXpert
from paddle_cxr.data.sources.classes_as_findings import ClassesAsFindings
from paddle_cxr.data.sources.covid_chestxray import CovidChestXray
from paddle_cxr.data.sources.covid_radiography import CovidRadiography
from paddle_cxr.data.sources.covid_radiography_findings import CovidRadiographyFindings
from paddle_cxr.data.sources.covid_rural import CovidRural
from paddle_cxr.data.sources.covidx import COVIDxCXR2
from paddle_cxr.data.sources.findings_file import FindingsFile
from paddle_cxr.data.sources.image_folder import ImageFolder
from paddle_cxr.data.sources.list_file import ListFile
from paddle_cxr.data.sources.mimic_cxr import MimicCxr
from paddle_cxr.data.sources.padchest import PadChest
from paddle_cxr.data.sources.phantom import Phantoms
from paddle_cxr.data.sources.phantom_findings import PhantomFindings
from paddle_cxr.data.sources.planted_mark import PlantedMark
from paddle_cxr.data.sources.rsna_pneumonia import RSNAPneumonia
from paddle_cxr.data.sources.several_films import SeveralFilms
from paddle_cxr.data.sources.siim_acr import SIIMACRPneumothorax
from paddle_cxr.data.sources.vindr_cxr import VinDrCxr

__all__ = ["COVIDxCXR2", "CheXpert", "ChestXray14", "ClassesAsFindings", "CovidChestXray", "CovidRadiography",
           "CovidRadiographyFindings", "CovidRural", "FindingsFile", "ImageFolder", "ListFile", "MimicCxr", "PadChest",
           "PhantomFindings", "Phantoms", "PlantedMark", "RSNAPneumonia", "SIIMACRPneumothorax", "SeveralFilms",
           "VinDrCxr"]
