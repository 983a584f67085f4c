"""Make the Chinese font that paddle_cxr/plots ships, from Noto Sans CJK Regular.

    pip install "fonttools>=4.40"
    apt-get download fonts-noto-cjk && dpkg-deb -x fonts-noto-cjk_*.deb noto
    python docs/make_font_subset.py noto/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc \\
        paddle_cxr/plots/fonts/CXRSansSC-Regular.otf

Needed only to change the set of characters; using the toolkit never runs it.  The same input gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTCollection, TTFont

FAMILY = "CXR Sans SC"
SOURCE_FAMILY = "Noto Sans CJK SC"

# Rows of GB 2312: 1 punctuation, 2 numbered lists, 3 full-width ASCII, 6 Greek, 16-55 and 56-87 the 6763 characters.
GB2312_ROWS = (1, 2, 3, 6, *range(16, 88))
# Hanzi of medicine that GB 2312 lacks; extend it when the font test names another one.
MORE_HANZI = "腘齁癥镕噁喎"
RANGES = (
    (0x20, 0x7E),      # ASCII
    (0xA0, 0xFF),      # Latin-1: ± × ² µ · é …
    (0x391, 0x3C9),    # Greek: α β σ λ …
    (0x2010, 0x203B),  # dashes, quotation marks, bullets, ellipsis, ‰ ′ ″ ※
    (0x2190, 0x2193),  # arrows
    (0x2200, 0x2265),  # mathematics: ∑ − √ ∞ ≈ ≠ ≤ ≥ …
    (0x25A0, 0x25CF),  # ■ □ ▲ △ ◆ ○ ●
    (0x3000, 0x301C),  # Chinese punctuation
)  # of each, what the source font has; matplotlib's own DejaVu Sans fills in for the rest (✓, ⁻¹)


def characters() -> set[int]:
    """Code points to keep."""
    wanted = {code for first, last in RANGES for code in range(first, last + 1)} | {ord(char) for char in MORE_HANZI}
    for row in GB2312_ROWS:
        for cell in range(1, 95):
            try:
                wanted.add(ord(bytes((0xA0 + row, 0xA0 + cell)).decode("gb2312")))
            except UnicodeDecodeError:
                pass  # the standard leaves some cells empty
    return wanted


def rename(font: TTFont) -> None:
    """Give the subset its own name: "Noto" is a trademark, and a changed font should not pass for the original."""
    names = font["name"]
    version = names.getDebugName(5).split(";")[0]
    for record in list(names.names):
        if record.nameID not in (0, 13, 14):  # copyright, licence and its address stay as they are
            names.removeNames(nameID=record.nameID)
    texts = {1: FAMILY, 2: "Regular", 3: f"{FAMILY} Regular {version}", 4: FAMILY, 5: version,
             6: "CXRSansSC-Regular", 10: f"Subset of {SOURCE_FAMILY} Regular, {version}, without hints."}
    for name_id, text in texts.items():
        names.setName(text, name_id, 3, 1, 0x409)
    top = font["CFF "].cff
    top.fontNames = ["CXRSansSC-Regular"]
    top.topDictIndex[0].FullName = top.topDictIndex[0].FamilyName = FAMILY
    top.topDictIndex[0].Notice = names.getDebugName(0)


def main(source: str, target: str) -> None:
    """Write the subset of ``source`` (.ttc) to ``target`` (.otf)."""
    fonts = TTCollection(source).fonts
    font = next(font for font in fonts if font["name"].getDebugName(1) == SOURCE_FAMILY)
    font.recalcTimestamp = False
    options = Options(hinting=False, layout_features=["kern"], name_IDs=["*"], notdef_outline=True,
                      drop_tables=["vhea", "vmtx", "VORG", "BASE", "DSIG"], recalc_timestamp=False)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=characters())
    subsetter.subset(font)
    rename(font)
    font.save(target)
    print(f"{target}: {len(font.getBestCmap())} characters, {Path(target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
