"""Writing and checking reports: sections a second on one core, and the check against a plain regular expression.

    python benchmarks/reports.py

The grammar writes FINDINGS for entity sets drawn from the shipped vocabulary; the dictionary NER then finds their
entities, negation included.  The alternative is what one would write first: all names in one regular expression, the
longest first, without negation.  CPU time, one process, the contestants in turns.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a checkout that is not installed

from machine import load, print_load  # noqa: E402

from paddle_cxr.synthesis.ner.dictionary import DictionaryNER  # noqa: E402
from paddle_cxr.synthesis.sampling import BalancedSampler  # noqa: E402
from paddle_cxr.synthesis.vocabulary import Vocabulary, load_vocabulary  # noqa: E402
from paddle_cxr.synthesis.writers.base import Request  # noqa: E402
from paddle_cxr.synthesis.writers.grammar import GrammarWriter  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="轮流测几遍，取中位数")
    parser.add_argument("--sections", type=int, default=2000, help="每遍多少段")
    arguments = parser.parse_args()
    before = load()
    vocabulary = load_vocabulary()
    writer, ner, expression = GrammarWriter(vocabulary), DictionaryNER(vocabulary), all_names(vocabulary)
    plan = BalancedSampler(cap="auto", balance="type").plan(vocabulary, arguments.sections, 0).tolist()
    requests = [Request(f"r{number}", "findings", tuple(vocabulary.entities[one] for one in row), number)
                for number, row in enumerate(plan)]
    texts = [reply.text for reply in writer.write(requests)]
    few = texts[:max(1, len(texts) // 20)]  # the regular expression is slow
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "语法写作（GrammarWriter）": (lambda: writer.write(requests), len(requests)),
        "词典 NER（DictionaryNER）": (lambda: ner.find(texts), len(texts)),
        "正则表达式，全部名称，不管否定": (lambda: [expression.findall(text.lower()) for text in few], len(few))}
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.repeats):
        for name, (work, sections) in contestants.items():
            begun = time.process_time()
            work()
            speeds[name].append(sections / (time.process_time() - begun))
    words = statistics.mean(len(text.split()) for text in texts)
    print(f"词表 {len(vocabulary)} 项；每段平均 {words:.0f} 个词；{arguments.repeats} 遍的中位数，每核（CPU 时间）")
    for name, values in speeds.items():
        print(f"{name}：{statistics.median(values):.0f} 段/秒（{min(values):.0f}–{max(values):.0f}）")
    ours, theirs = list(speeds.values())[1:]
    print(f"词典 NER 是正则表达式的 {statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.1f} 倍")
    print_load(before)


def all_names(vocabulary: Vocabulary) -> re.Pattern[str]:
    """Every name as an alternative, the longest first, so that it wins."""
    names = sorted({name.lower() for entity in vocabulary.entities for name in entity.names}, key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b")


if __name__ == "__main__":
    main()
