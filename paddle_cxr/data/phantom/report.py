"""The report a radiologist would dictate for a phantom, in English and in Chinese.

Both are built from the placed findings alone, so they are true by construction: side, zone and severity in the text are
those in the picture, and what is not there is either denied or not mentioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paddle_cxr.data.phantom.findings import Place

Report = dict[str, str]  # keys "findings" and "impression"


class _Words(NamedTuple):
    """Sentences of one finding, with several wordings; {degree}, {amount}, {side} and {where} are filled in."""

    en: tuple[str, ...]
    en_impression: str
    zh: tuple[str, ...]
    zh_impression: str


_WORDS = {
    "covid": _Words(
        (
            "There are {degree} patchy ground-glass opacities {where}, with areas of consolidation.",
            "{Degree} ground-glass opacities with foci of consolidation are seen {where}.",
        ),
        "{Degree} ground-glass opacities {where}, a pattern seen in COVID-19 pneumonia.",
        ("{where}见{degree}斑片状磨玻璃密度影，部分实变。", "{where}可见多发磨玻璃影，程度{degree}，内见实变影。"),
        "{where}磨玻璃影（{degree}），符合新型冠状病毒肺炎表现。",
    ),
    "viral": _Words(
        (
            "There are {degree} reticular interstitial opacities {where}, with peribronchial thickening.",
            "{Degree} interstitial streaks and peribronchial thickening are seen {where}.",
        ),
        "{Degree} interstitial opacities {where}, a pattern seen in viral pneumonia.",
        (
            "{where}肺纹理增多、模糊，见{degree}网状间质影，支气管壁增厚。",
            "{where}见{degree}条索状、网状影，支气管周围增厚。",
        ),
        "{where}间质性改变（{degree}），符合病毒性肺炎表现。",
    ),
    "consolidation": _Words(
        ("There is {degree} airspace consolidation {where}.", "{Degree} dense airspace opacity is present {where}."),
        "{Degree} consolidation {where}, consistent with pneumonia.",
        ("{where}见{degree}大片状实变影。", "{where}见片状高密度影，实变程度{degree}。"),
        "{where}实变（{degree}），考虑肺炎。",
    ),
    "effusion": _Words(
        (
            "There is a {amount} {side} pleural effusion.",
            "A {amount} {side} collection of pleural fluid blunts the costophrenic angle.",
        ),
        "{Amount} {side} pleural effusion.",
        ("{side}见{amount}胸腔积液，肋膈角变钝。", "{side}肋膈角消失，见弧形液面影，为{amount}积液。"),
        "{side}胸腔积液（{amount}）。",
    ),
    "nodule": _Words(
        ("A round, well-defined nodule is seen {where}.", "There is a pulmonary nodule {where}."),
        "Pulmonary nodule {where}.",
        ("{where}见一圆形结节影，边界清楚。", "{where}可见结节状高密度影。"),
        "{where}结节。",
    ),
    "pneumothorax": _Words(
        (
            "There is a {amount} {side} pneumothorax with a visible pleural line.",
            "{Amount} {side} pneumothorax; no lung markings are seen beyond the visceral pleural line.",
        ),
        "{Amount} {side} pneumothorax.",
        ("{side}见{amount}气胸，可见脏层胸膜线，其外无肺纹理。", "{side}胸腔见无肺纹理透亮区，为{amount}气胸。"),
        "{side}气胸（{amount}）。",
    ),
    "atelectasis": _Words(
        ("There is {degree} plate-like atelectasis {where}.", "{Degree} linear atelectasis is seen {where}."),
        "{Degree} atelectasis {where}.",
        ("{where}见{degree}盘状肺不张。", "{where}见横行条带影，为{degree}肺不张。"),
        "{where}盘状肺不张（{degree}）。",
    ),
    "oedema": _Words(
        (
            "There is {degree} pulmonary edema with perihilar haze and Kerley B lines.",
            "{Degree} bilateral perihilar opacities in a bat-wing distribution are seen, with septal lines.",
        ),
        "{Degree} pulmonary edema.",
        ("双肺门见{degree}蝶翼状模糊影，可见间隔线。", "双肺门周围云雾状影，可见 Kerley B 线，程度{degree}。"),
        "肺水肿（{degree}）。",
    ),
    "cardiomegaly": _Words(
        ("The heart is enlarged, to a {degree} degree.", "There is {degree} cardiomegaly."),
        "{Degree} cardiomegaly.",
        ("心影{degree}增大。", "心胸比增大，心影增大程度{degree}。"),
        "心影增大（{degree}）。",
    ),
}

# What a report says is absent, unless one of the findings on the left is present.
_DENIALS = (
    (
        {"covid", "viral", "consolidation", "nodule", "atelectasis", "oedema", "pneumothorax"},
        "The lungs are clear.",
        "双肺野清晰，未见实质性病变。",
    ),
    ({"cardiomegaly"}, "The heart size is normal.", "心影大小正常。"),
    ({"effusion"}, "There is no pleural effusion.", "双侧肋膈角锐利，未见胸腔积液。"),
    ({"pneumothorax"}, "There is no pneumothorax.", "未见气胸。"),
)

_ZONE_ZH = {"upper": "上野", "middle": "中野", "lower": "下野", "all": ""}
_REGION_ZH = {"central": "内带", "peripheral": "外带", "all": ""}
_STEPS = (0.6, 0.8)  # severity from which the second and the third word is used
_DEGREES = (("mild", "轻度"), ("moderate", "中度"), ("severe", "重度"))
_AMOUNTS = (("small", "少量"), ("moderate", "中量"), ("large", "大量"))  # of fluid or of free air
_SIDE_ZH = {"left": "左", "right": "右", "bilateral": "双"}


def _fields(p: Place) -> tuple[dict[str, str], dict[str, str]]:
    step = sum(p.severity >= limit for limit in _STEPS)
    en_degree, zh_degree = _DEGREES[step]
    en_amount, zh_amount = _AMOUNTS[step]
    region = {"central": "perihilar", "peripheral": "peripheral", "all": ""}[p.region]
    both = p.side == "bilateral"
    if p.zone == "all" and not region:
        where = "in both lungs" if both else f"in the {p.side} lung"
    elif p.zone == "all":
        where = f"in the {region} regions of both lungs" if both else f"in the {region} region of the {p.side} lung"
    else:
        zone = " ".join(w for w in (region, p.zone) if w)
        where = f"in the {zone} zones of both lungs" if both else f"in the {zone} zone of the {p.side} lung"
    en = {"degree": en_degree, "Degree": en_degree.capitalize(), "amount": en_amount, "Amount": en_amount.capitalize()}
    en |= {"side": p.side, "where": where}
    zh_where = f"{_SIDE_ZH[p.side]}肺{_ZONE_ZH[p.zone]}{_REGION_ZH[p.region]}"
    if p.zone == "all" and p.region == "central":
        zh_where = f"{_SIDE_ZH[p.side]}侧肺门周围"
    return en, {"degree": zh_degree, "amount": zh_amount, "side": f"{_SIDE_ZH[p.side]}侧", "where": zh_where}


def write_report(places: Sequence[Place], rng: np.random.Generator) -> tuple[Report, Report]:
    """Report on the given findings, (English, Chinese), each {"findings": ..., "impression": ...}."""
    en, zh, en_impression, zh_impression = [], [], [], []
    for p in places:
        words = _WORDS[p.name]
        en_fields, zh_fields = _fields(p)
        variant = int(rng.integers(len(words.en)))
        en.append(words.en[variant].format(**en_fields))
        zh.append(words.zh[variant].format(**zh_fields))
        en_impression.append(words.en_impression.format(**en_fields))
        zh_impression.append(words.zh_impression.format(**zh_fields))
    names = {p.name for p in places}
    for unless, en_text, zh_text in _DENIALS:
        if not names & unless:
            en.append(en_text)
            zh.append(zh_text)
    if not places:
        en_impression.append("No acute cardiopulmonary abnormality.")
        zh_impression.append("心肺未见明显异常。")
    return (
        {"findings": " ".join(en), "impression": " ".join(en_impression)},
        {"findings": "".join(zh), "impression": "".join(zh_impression)},
    )
