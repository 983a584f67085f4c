"""Zero-shot prompts for the findings that phantoms show, in the words of the phantoms' own reports.

A prompt should read like the reports a model was trained on.  These say neither side nor zone nor degree, which differ
from image to image, and deny a finding as the reports do: by its name where they name it, else by clear lungs or
another finding.
"""

from __future__ import annotations

from paddle_cxr.data.phantom.names import NAMES
from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.evaluation.prompts import FindingPrompts

LANGUAGES = ("en", "zh")
_CLEAR = {"en": ("The lungs are clear.", "No acute cardiopulmonary abnormality."),
          "zh": ("双肺野清晰，未见实质性病变。", "心肺未见明显异常。")}

# finding → language → (positive, negative), negative None: not denied by name.
_PROMPTS: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]]] = {
    "covid": {
        "en": (("There are patchy ground-glass opacities in both lungs, with areas of consolidation.",
                "Ground-glass opacities in both lungs, a pattern seen in COVID-19 pneumonia."), None),
        "zh": (("双肺见斑片状磨玻璃密度影，部分实变。", "双肺磨玻璃影，符合新型冠状病毒肺炎表现。"), None),
    },
    "viral": {
        "en": (("There are reticular interstitial opacities in both lungs, with peribronchial thickening.",
                "Interstitial opacities in both lungs, a pattern seen in viral pneumonia."), None),
        "zh": (("双肺肺纹理增多、模糊，见网状间质影，支气管壁增厚。", "双肺间质性改变，符合病毒性肺炎表现。"), None),
    },
    "consolidation": {
        "en": (("There is airspace consolidation in the lung.", "Consolidation, consistent with pneumonia."), None),
        "zh": (("肺内见大片状实变影。", "肺实变，考虑肺炎。"), None),
    },
    "effusion": {
        "en": (("There is a pleural effusion.", "A collection of pleural fluid blunts the costophrenic angle."),
               ("There is no pleural effusion.",)),
        "zh": (("见胸腔积液，肋膈角变钝。", "肋膈角消失，见弧形液面影，为胸腔积液。"),
               ("双侧肋膈角锐利，未见胸腔积液。",)),
    },
    "nodule": {
        "en": (("A round, well-defined nodule is seen in the lung.", "There is a pulmonary nodule."), None),
        "zh": (("肺内见一圆形结节影，边界清楚。", "肺内可见结节状高密度影。"), None),
    },
    "pneumothorax": {
        "en": (("There is a pneumothorax with a visible pleural line.",
                "Pneumothorax; no lung markings are seen beyond the visceral pleural line."),
               ("There is no pneumothorax.",)),
        "zh": (("见气胸，可见脏层胸膜线，其外无肺纹理。", "胸腔见无肺纹理透亮区，为气胸。"), ("未见气胸。",)),
    },
    "atelectasis": {
        "en": (("There is plate-like atelectasis in the lung.", "Linear atelectasis is seen in the lung."), None),
        "zh": (("肺内见盘状肺不张。", "肺内见横行条带影，为肺不张。"), None),
    },
    "oedema": {
        "en": (("There is pulmonary edema with perihilar haze and Kerley B lines.",
                "Bilateral perihilar opacities in a bat-wing distribution are seen, with septal lines."), None),
        "zh": (("双肺门见蝶翼状模糊影，可见间隔线。", "双肺门周围云雾状影，可见 Kerley B 线，为肺水肿。"), None),
    },
    "cardiomegaly": {
        "en": (("The heart is enlarged.", "There is cardiomegaly."), ("The heart size is normal.",)),
        "zh": (("心影增大。", "心胸比增大，心影增大。"), ("心影大小正常。",)),
    },
}


def phantom_prompts(language: str = "en") -> tuple[FindingPrompts, ...]:
    """The prompts of every finding in :data:`paddle_cxr.data.phantom.DRAWERS`, in the order of that table.

    Args:
        language: ``en`` or ``zh``, as the reports the model was trained on.

    Raises:
        UserError: another language.
    """
    if language not in LANGUAGES:
        raise UserError(f"模体（phantom）的提示词（prompt）只有 en 和 zh，没有 {language!r}"
                        f"{did_you_mean(language, LANGUAGES)}")
    table = {name: texts[language] for name, texts in _PROMPTS.items()}
    return tuple(FindingPrompts(name, positive, negative or _without(name, table, language), *NAMES[name])
                 for name, (positive, negative) in table.items())


def _without(name: str, table: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]], language: str
             ) -> tuple[str, ...]:
    """What reports say where a finding is absent that they do not deny by name: clear lungs, or another disease.

    Clear lungs alone would not do: they are denied by every other disease of the lungs too.
    """
    others = (text for other, (positive, negative) in table.items() if other != name and negative is None
              for text in positive)
    return (*_CLEAR[language], *others)
