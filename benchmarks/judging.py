"""What the built-in judge keeps and rejects: a Markdown table of spoilings, and images a second.

    python benchmarks/judging.py [--images FOLDER]

Without a folder the films are phantoms of 512 x 512 pixels, which the judge was not made for: a check that it runs.  A
folder's films are counted by class (the folder they lie in, or the column ``label`` of its ``index.csv``).  Every film
is spoiled in each of the eleven ways of paddle_cxr/data/spoil.py, with the randomness of its number; a
copy is rejected when any question is answered with no, the paper's rule for a drawn image.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

PHANTOMS, AT_ONCE, SEED = 96, 16, 0
GOAL_KEPT, GOAL_REJECTED = 0.95, 0.90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="胸片的文件夹（默认：模体）")
    parser.add_argument("--limit", type=int, help="只用前几张")
    arguments = parser.parse_args()
    from machine import load, print_load

    from paddle_cxr.cpu import prepare

    before = load()
    prepare(1)  # one thread: images a second and core
    films = folder_films(arguments.images) if arguments.images else phantom_films()
    films = list(films)[:arguments.limit]
    kept, rejected, seconds, judged = judge_all(films)
    print_tables(Counter(label for label, _ in films), kept, rejected, arguments.images is None)
    print(f"\n裁判：{judged / seconds:.1f} 张/秒（一个线程，{judged} 张）")
    print_load(before)


def phantom_films() -> Iterator[tuple[str, object]]:
    """(class, how to draw it) of each phantom."""
    from paddle_cxr.data.phantom import CLASSES

    for i in range(PHANTOMS):
        yield CLASSES[i % len(CLASSES)], i


def folder_films(folder: Path) -> Iterator[tuple[str, object]]:
    """(class, file) of each image."""
    from paddle_cxr.data.image import EXTENSIONS

    index = folder / "index.csv"
    if index.is_file():
        with open(index, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                yield row["label"], folder / row["file"]
        return
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in EXTENSIONS:
            yield file.parent.name, file


def read(label: str, film: object):  # noqa: ANN201 - uint8 [H, W]; numpy is not imported before the threads are set
    """The picture of a film, grey."""
    if isinstance(film, int):
        from paddle_cxr.data.phantom import draw_image

        return draw_image(label, seed=SEED, index=film, size=512)
    from paddle_cxr.synthesis.generators.reading import read_grey

    return read_grey(film)


def judge_all(films: list[tuple[str, object]]) -> tuple[Counter[str], Counter[str], float, int]:
    """Films kept by class, copies rejected by kind, seconds of judging alone, and how many images that were."""
    import numpy as np

    from paddle_cxr.data.spoil import SPOILINGS
    from paddle_cxr.synthesis.quality.measured import MeasuredJudge
    from paddle_cxr.synthesis.quality.rules import fails

    judge, kept, rejected, seconds, count = MeasuredJudge(), Counter(), Counter(), 0.0, 0
    other = read(*films[-1])
    for start in range(0, len(films), AT_ONCE):
        some = films[start:start + AT_ONCE]
        pictures = [read(*film) for film in some]
        groups = {"": pictures}
        for number, (kind, spoil) in enumerate(SPOILINGS.items()):
            groups[kind] = [spoil(picture, pictures[i - 1] if i else other, np.random.default_rng(
                (SEED, start + i, number))) for i, picture in enumerate(pictures)]
        other = pictures[-1]
        for kind, group in groups.items():
            begun = time.perf_counter()
            bad = [fails(verdict, "any") for verdict in judge.judge(group)]
            seconds, count = seconds + time.perf_counter() - begun, count + len(group)
            if kind:
                rejected[kind] += sum(bad)
            else:
                kept.update(label for (label, _), one in zip(some, bad, strict=True) if not one)
    return kept, rejected, seconds, count


def print_tables(films: Counter[str], kept: Counter[str], rejected: Counter[str], phantoms: bool) -> None:
    """Both as Markdown."""
    print("模体（phantom），非临床结果\n" if phantoms else "")
    print("| 原片（originals） | 张 | 留下 |\n|---|---:|---:|")
    for label, count in sorted(films.items()):
        print(f"| {label} | {count} | {kept[label] / count:.1%} |")
    total = films.total()
    print(f"| 合计 | {total} | **{kept.total() / total:.1%}**（目标 ≥ {GOAL_KEPT:.0%}） |\n")
    print("| 弄坏的副本（spoilings） | 张 | 拒绝 |\n|---|---:|---:|")
    for kind, count in rejected.items():
        print(f"| {kind} | {total} | {count / total:.1%} |")
    print(f"| 最低的一种（目标 ≥ {GOAL_REJECTED:.0%}） | | **{min(rejected.values()) / total:.1%}** |")


if __name__ == "__main__":
    main()
