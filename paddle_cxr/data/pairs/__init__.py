"""Image–report pairs as a data set: what diffusion and pre-training learn from.

A pair source is a :class:`~paddle_cxr.data.records.Source` without classes whose records carry text, so everything made
for labelled images (cache, splits by patient, views) works on it as it is:

    PairsFile       the project's ``pairs.jsonl``, or a table with a column of images and one of reports
    PhantomPairs    phantoms with the reports that describe them, on any machine
    LabelledPairs   a labelled data set, with a text for every class
"""

from paddle_cxr.data.pairs.file import PairsFile
from paddle_cxr.data.pairs.labelled import LabelledPairs
from paddle_cxr.data.pairs.phantom import PhantomPairs
from paddle_cxr.data.pairs.record import PairRecord, PairSource

__all__ = ["LabelledPairs", "PairRecord", "PairSource", "PairsFile", "PhantomPairs"]
