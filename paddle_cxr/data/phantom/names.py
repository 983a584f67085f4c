"""What the findings that can be drawn are called."""

NAMES = {
    "covid": ("新冠肺炎", "COVID-19 pneumonia"),
    "viral": ("病毒性肺炎", "Viral pneumonia"),
    "consolidation": ("实变", "Consolidation"),
    "effusion": ("胸腔积液", "Pleural effusion"),
    "nodule": ("结节", "Nodule"),
    "pneumothorax": ("气胸", "Pneumothorax"),
    "atelectasis": ("肺不张", "Atelectasis"),
    "oedema": ("肺水肿", "Pulmonary edema"),
    "cardiomegaly": ("心影增大", "Cardiomegaly"),
}
"""Drawer → (Chinese name, English name)."""
