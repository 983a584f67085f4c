"""The Chinese font that comes with the package and is in every figure."""

from __future__ import annotations

from pathlib import Path

from paddle_cxr.doctor.line import BAD, GOOD, NOTE, Line

# As plots.style has it, which cannot be imported where the packages are missing.
FONT_FILE = Path(__file__).resolve().parents[1] / "plots/fonts/CXRSansSC-Regular.otf"
SAMPLE = "胸片肺炎"


def check() -> Line:
    """Every character of a sample is drawn, and not as the box that stands for a missing one."""
    if not FONT_FILE.is_file():
        return Line("中文字体", BAD, f"找不到 {FONT_FILE}", "文件不全：请重新取得项目，或重新安装")
    try:
        from PIL import ImageFont

        font = ImageFont.truetype(str(FONT_FILE), 20)
        box = bytes(font.getmask("\uffff"))  # no font has this one
        without = [character for character in SAMPLE if bytes(font.getmask(character)) in (b"", box)]
    except ImportError as error:
        return Line("中文字体", NOTE, f"没有检查，pillow 不能用（{error}）", "先装好必需的包")
    except OSError as error:
        return Line("中文字体", BAD, f"{FONT_FILE.name} 打不开（{error}）", "文件坏了：请重新取得项目")
    if without:
        return Line("中文字体", BAD, f"{FONT_FILE.name} 里没有 {''.join(without)}", "文件不全：请重新取得项目")
    return Line("中文字体", GOOD, f"{FONT_FILE.name} 能画“{SAMPLE}”，图里的中文不会变成方块")
