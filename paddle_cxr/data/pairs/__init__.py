"""Image–report pairs as a data set: what diffusion and pre-training learn from.

A pair source is a :class:`~paddle_cxr.data.records.Source` without classes whose records carry text, so everything made
for labelled images (cache, splits by patient, views) works on it as it is:

    PairsFile       the project's ``pairs.jsonl``, or a table with a column of images and one of reports
    MimicCxrPairs   MIMIC-CXR-JPG with the reports of MIMIC-CXR
    IuXrayPairs     IU X-ray, from Kaggle or from Open-i
    LabelledPairs   a labelled data set, with a text for every class, or made of its columns
    PhantomPairs    phantoms with the reports that describe them, on any machine
    MixedPairs      several of these, each with its share
    FlawedPairs     one of these with some images spoiled and some reports mismatched, as in collected data
    ShuffledPairs   one of these with the reports dealt out at random: a control
"""

from paddle_cxr.data.pairs.file import PairsFile
from paddle_cxr.data.pairs.flawed import FlawedPairs
from paddle_cxr.data.pairs.iu_xray import IuXrayPairs
from paddle_cxr.data.pairs.labelled import LabelledPairs
from paddle_cxr.data.pairs.mimic_cxr import MimicCxrPairs
from paddle_cxr.data.pairs.mixed import MixedPairs, part_weights
from paddle_cxr.data.pairs.phantom import PhantomPairs
from paddle_cxr.data.pairs.record import PairRecord, PairSource
from paddle_cxr.data.pairs.shuffled import ShuffledPairs

__all__ = ["FlawedPairs", "IuXrayPairs", "LabelledPairs", "MimicCxrPairs", "MixedPairs", "PairRecord", "PairSource",
           "PairsFile", "PhantomPairs", "ShuffledPairs", "part_weights"]
