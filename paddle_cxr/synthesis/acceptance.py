"""The acceptance report of a run: what passed, what did not and why, and how even the entities came out."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np

from paddle_cxr import __version__
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.files import write_json, write_text
from paddle_cxr.synthesis.analysis import gini
from paddle_cxr.synthesis.entities import TYPES
from paddle_cxr.synthesis.plan import Plan
from paddle_cxr.synthesis.schema import ReportsRecipe
from paddle_cxr.synthesis.store import ACCEPTED, REJECTED, Tally
from paddle_cxr.synthesis.vocabulary import Vocabulary

_REASONS = 20  # of the most frequent ones are listed


def write_acceptance(recipe: ReportsRecipe, plan: Plan, positions: np.ndarray, tally: Tally, folder: RunFolder,
                     seconds: float) -> None:
    """Write ``metrics.json`` and ``report.md``, and tell the user the most important lines.

    Args:
        plan: what was to be written.
        positions: int ``[accepted, k + m]``, vocabulary positions of the accepted reports' entities.
        seconds: of this session (a run that was continued took longer).
    """
    wanted, vocabulary = len(plan), plan.vocabulary
    types = type_balance(vocabulary, plan.drawn_from, positions)
    tokens = {name: tally.tokens[name] for name in ("prompt", "completion")}
    price = recipe.Writer.get("price")  # of a million tokens, in and out
    metrics = {
        "synthetic": True, "writer": recipe.Writer, "ner": recipe.NER, "version": __version__,
        "seed": recipe.Global.seed, "shard": f"{recipe.Global.shard}/{recipe.Global.shards}",
        "vocabulary": {"name": vocabulary.name, "entries": len(vocabulary), "fingerprint": vocabulary.fingerprint},
        "wanted": wanted, "accepted": len(tally.accepted), "rejected": len(tally.rejected),
        "acceptance": _share(len(tally.accepted), len(tally.accepted) + len(tally.rejected)),
        "sections_written": {str(number): count for number, count in sorted(tally.attempts.items())},
        "reasons": dict(tally.reasons.most_common(_REASONS)), "tokens": tokens,
        "cost": sum(a * tokens[b] for a, b in zip(price, tokens, strict=True)) / 1e6 if price else None,
        "cap": plan.cap, "drawn_from": sum(one["entries"] for one in types.values()), "types": types,
        "seconds_this_session": round(seconds, 1)}
    write_json(folder.path / "metrics.json", metrics)
    write_text(folder.path / "report.md", _markdown(metrics))
    folder.say(f"通过 {len(tally.accepted)}/{wanted} 份，写了 {len(tally.accepted) + len(tally.rejected)} 份，"
               f"通过率 {100 * (metrics['acceptance'] or 0):.2f} %；这一次用时 {seconds:.0f} 秒")
    if len(tally.accepted) < wanted:
        folder.say(f"!! 少 {wanted - len(tally.accepted)} 份：原因见 report.md 和 {REJECTED}；"
                   "增大 Global.rounds 再运行就接着补写；或增大 Global.attempts、换一个 Writer，从头重写")
    folder.say(f"写在 {folder.path}：{ACCEPTED}（通过）、{REJECTED}（被拒，附原因）、report.md。"
               "这些是合成报告（synthetic），不是临床报告")


def type_balance(vocabulary: Vocabulary, drawn_from: Container[int], positions: np.ndarray
                 ) -> dict[str, dict[str, Any]]:
    """Per type: entries, how often they are mentioned in all, least and most often, and the Gini of the counts.

    Args:
        drawn_from: positions that can be drawn; the others, of which there can be none, say nothing of the balance.
        positions: int ``[N, …]``, what was drawn.
    """
    counts = np.bincount(positions.ravel().astype(np.int64), minlength=len(vocabulary))
    result = {}
    for name in TYPES:
        own = counts[[place for place in vocabulary.of_type(name).tolist() if place in drawn_from]]
        total = int(own.sum())
        result[name] = {"entries": len(own), "mentions": total, "least": int(own.min()) if len(own) else 0,
                        "most": int(own.max(initial=0)), "gini": round(gini(own), 4) if total else None}
    return result


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _markdown(metrics: dict[str, Any]) -> str:
    rows = [f"| {name} | {one['entries']} | {one['mentions']} | {one['least']}–{one['most']} "
            f"| {'—' if one['gini'] is None else one['gini']} |" for name, one in metrics["types"].items()]
    written = [f"| {number} | {count} |" for number, count in metrics["sections_written"].items()]
    reasons = [f"| {reason.replace('|', '/')} | {count} |" for reason, count in metrics["reasons"].items()]
    lines = [
        "# 验收报告（acceptance report）", "",
        "合成报告（synthetic），不是临床报告。", "",
        f"- 写作：`{metrics['writer']['name']}`；检查：`{metrics['ner']['name']}`；"
        f"词表：{metrics['vocabulary']['name']}，{metrics['vocabulary']['entries']} 项",
        f"- 要 {metrics['wanted']} 份，通过 {metrics['accepted']} 份，被拒 {metrics['rejected']} 份；"
        f"每个实体最多 τ_max = {metrics['cap']} 次",
        f"- 词元（token）：提示 {metrics['tokens']['prompt']}，生成 {metrics['tokens']['completion']}；"
        f"费用：{'未计' if metrics['cost'] is None else round(metrics['cost'], 4)}", "",
        "## 实体（entity）的均衡", "",
        f"按抽样抽得到的 {metrics['drawn_from']} 项算（词表共 {metrics['vocabulary']['entries']} 项），"
        "没有抽到的计 0。", "",
        "| 类型 | 可抽项数 | 出现次数 | 每项最少–最多 | Gini |", "| --- | --- | --- | --- | --- |", *rows, "",
        "## 每份报告写了几段才有结果", "", "一份报告有两段，一次就通过是 2。", "",
        "| 段数 | 报告数 |", "| --- | --- |", *written]
    if reasons:
        lines += ["", "## 被拒的原因（最多的若干种）", "", "| 原因 | 报告数 |", "| --- | --- |", *reasons]
    return "\n".join(lines) + "\n"
