"""The 14 observations of the CheXpert labeller, and what its "uncertain" and its silence are taken for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from paddle_cxr.data.records import ClassInfo
from paddle_cxr.errors import UserError, did_you_mean

OBSERVATIONS = (
    ClassInfo("No Finding", "未见异常", "No finding"),
    ClassInfo("Enlarged Cardiomediastinum", "纵隔影增宽", "Enlarged cardiomediastinum"),
    ClassInfo("Cardiomegaly", "心影增大", "Cardiomegaly"),
    ClassInfo("Lung Opacity", "肺部阴影", "Lung opacity"),
    ClassInfo("Lung Lesion", "肺部病灶", "Lung lesion"),
    ClassInfo("Edema", "肺水肿", "Pulmonary edema", ("Oedema",)),
    ClassInfo("Consolidation", "实变", "Consolidation"),
    ClassInfo("Pneumonia", "肺炎", "Pneumonia"),
    ClassInfo("Atelectasis", "肺不张", "Atelectasis"),
    ClassInfo("Pneumothorax", "气胸", "Pneumothorax"),
    ClassInfo("Pleural Effusion", "胸腔积液", "Pleural effusion", ("Effusion", "pleural_effusion")),
    ClassInfo("Pleural Other", "其他胸膜改变", "Other pleural abnormality"),
    ClassInfo("Fracture", "骨折", "Fracture"),
    ClassInfo("Support Devices", "支持装置", "Support devices"),
)
"""In the order of CheXpert's tables."""

COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five by which the CheXpert competition and most papers judge."""

Uncertain = Literal["unknown", "positive", "negative"]
Blank = Literal["unknown", "negative"]
_MEANING: dict[str, int | None] = {"unknown": None, "positive": 1, "negative": 0}
_SAID = {"1.0": 1, "1": 1, "0.0": 0, "0": 0}
_UNCERTAIN = ("-1.0", "-1")


class LabelPolicy:
    """What the cells ``1.0``, ``0.0``, ``-1.0`` and an empty one mean.

    In the CheXpert paper (Irvin et al. 2019, arXiv:1901.07031) an empty cell, a finding the report does not mention,
    counts as absent, and -1 is ignored (U-Ignore: ``unknown``), taken for absent (U-Zeros: ``negative``) or for present
    (U-Ones: ``positive``).  What served best differed by finding: U-Ones for atelectasis and edema, for instance.

    Args:
        uncertain: what -1 means.
        uncertain_of: finding → what -1 means for it, where that differs.
        blank: what an empty cell means.
        component: the source's name in recipes, for messages.

    Raises:
        UserError: ``uncertain_of`` names no observation of the labeller.
    """

    def __init__(self, uncertain: Uncertain, uncertain_of: Mapping[str, Uncertain] | None, blank: Blank,
                 component: str) -> None:
        self._blank = _MEANING[blank]
        self._uncertain = {info.name: _MEANING[uncertain] for info in OBSERVATIONS}
        for name, meaning in (uncertain_of or {}).items():
            if name not in self._uncertain:
                raise UserError(f"{component}.uncertain_of：没有征象 {name!r}{did_you_mean(name, self._uncertain)}"
                                f"（有：{'、'.join(self._uncertain)}）")
            self._uncertain[name] = _MEANING[meaning]

    def label(self, finding: str, cell: str, where: str) -> int | None:
        """1 present, 0 absent, None unknown; raises :class:`UserError` for any other cell."""
        if cell in _SAID:
            return _SAID[cell]
        if cell in _UNCERTAIN:
            return self._uncertain[finding]
        if not cell:
            return self._blank
        raise UserError(f"{where}：{finding} 的标签 {cell!r} 不是 1、0、-1 或空")
