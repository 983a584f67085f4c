"""What became of the reports: ``metrics.json``, ``summary.md``, the waterfall and the contact sheets.

Nothing here depends on when or by how many processes the pairs were made: the same rows give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from paddle_cxr import __version__
from paddle_cxr.files import write_json, write_text
from paddle_cxr.synthesis.pairs.decision import UNJUDGED, Outlook
from paddle_cxr.synthesis.pairs.figures import Sheet, Spread, draw_figures
from paddle_cxr.synthesis.pairs.folder import Opened
from paddle_cxr.synthesis.pairs.schema import PairsRecipe
from paddle_cxr.synthesis.pairs.source import Order
from paddle_cxr.synthesis.pairs.store import Drawing, Rows
from paddle_cxr.synthesis.quality.base import QUESTIONS

_REASONS = 20
_STEPS = {"reports": "报告（reports）", "drawn": "第一次就画出（drawn）", "judged": "第一次通过六问（judge）",
          "similarity": "第一次不像坏图（similarity）", "redrawn": "重画后收下（redrawn）", "pairs": "图文对（pairs）"}
_FAILED = {"judge": "六问", "similarity": "像坏图", UNJUDGED: "没答上"}  # on a contact sheet


@dataclass
class Tally:
    """Counts over all pairs.

    Attributes:
        reports: all of them.
        drawn, judged: those whose first drawing came about; passed the judge.
        first, pairs: those whose first drawing was accepted; any drawing was.
        again: pairs that were drawn more than once; waiting: pairs that may be drawn (again), but not by this run.
        drawings: all that were decided.
        cut_prompts, cut_tokens: prompts that were longer than the text encoder takes, and by how much.
        by_attempt: (attempt, stage failed at, or empty) → drawings.
        reasons: stage and question → drawings.
        generators, judges, encoders: title → drawings.
        accepted, refused: what the contact sheets choose from.
    """

    reports: int = 0
    drawn: int = 0
    judged: int = 0
    first: int = 0
    pairs: int = 0
    again: int = 0
    waiting: int = 0
    drawings: int = 0
    cut_prompts: int = 0
    cut_tokens: int = 0
    by_attempt: Counter[tuple[int, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    generators: Counter[str] = field(default_factory=Counter)
    judges: Counter[str] = field(default_factory=Counter)
    encoders: Counter[str] = field(default_factory=Counter)
    accepted: Spread = field(default_factory=Spread)
    refused: Spread = field(default_factory=Spread)

    @property
    def demo(self) -> bool:
        """Whether phantoms were drawn, or an encoder has seen nothing else."""
        return any("phantom" in name for name in (*self.generators, *self.encoders))

    def add(self, order: Order, outlook: Outlook, rows: Rows) -> None:
        """Count one pair."""
        self.reports += 1
        if not outlook.attempts:  # nothing decided yet
            return
        first = outlook.attempts[0].failed
        self.drawn += first not in ("draw", "reports")
        self.judged += first in ("", "similarity")
        self.first += first == ""
        self.pairs += outlook.accepted
        self.again += len(outlook.attempts) > 1
        self.waiting += outlook.waits
        cut = 0
        for attempt in outlook.attempts:
            key = order.number, attempt.number
            if attempt.failed:
                self.reasons.update(_kinds(attempt.failed, attempt.reason))
            if key not in rows.drawn:
                continue
            drawing = rows.drawn[key]
            self.drawings += 1
            self.by_attempt[attempt.number, attempt.failed] += 1
            self.generators[drawing.generator] += 1
            cut = max(cut, drawing.tokens_cut)
            if key in rows.judged:
                self.judges[rows.judged[key].judge] += 1
            if key in rows.compared:
                self.encoders[rows.compared[key].encoder] += 1
            self._sheet(order, attempt.failed, attempt.reason, drawing)
        self.cut_prompts, self.cut_tokens = self.cut_prompts + bool(cut), self.cut_tokens + cut

    def _sheet(self, order: Order, failed: str, reason: str, drawing: Drawing) -> None:
        if not drawing.image:
            return
        if failed:
            self.refused.add(Sheet(drawing.image, f"{_FAILED.get(failed, failed)}：{order.id}", reason))
            return
        labels = order.labels
        present = "、".join(one for one, value in labels.items() if value)
        nothing = "无异常（no finding）" if labels else order.report.impression
        self.accepted.add(Sheet(drawing.image, order.id, present or nothing))


def _kinds(failed: str, reason: str) -> list[str]:
    """A reason without its numbers: of a judge the questions, of the others the stage (and a drawing's error)."""
    if failed == "judge":
        questions = (part.partition(": ")[0] for part in reason.split("；"))
        return [f"judge: {question}" for question in questions if question in QUESTIONS]
    return [f"draw: {' '.join(reason.split())[:80]}"] if failed == "draw" else [failed]


def write_summary(recipe: PairsRecipe, opened: Opened, tally: Tally, rows: Rows) -> None:
    """Write ``metrics.json``, ``summary.md`` and the figures, and tell the user the most important lines."""
    path, settings = opened.path, recipe.Global
    metrics = _metrics(recipe, opened, tally, rows)
    write_json(path / "metrics.json", metrics)
    write_text(path / "summary.md", _markdown(recipe, metrics, tally))
    steps = [(_STEPS[name], count) for name, count in metrics["waterfall"].items() if name != "redrawn"]
    draw_figures(path, steps, tally.accepted, tally.refused, demo=tally.demo)
    say = opened.log.say
    say("，".join(f"{_STEPS[name]} {count}" for name, count in metrics["waterfall"].items())
        + f"；共画 {tally.drawings} 张，{tally.again} 对重画过")
    for kind, count in rows.errors.most_common():
        say(f"!! 裁判没有答上的问题：{count} 个（累计，后来答上的也在内），原因：{kind}")
    if tally.waiting:
        say(f"!! {tally.waiting} 对等着画或重画（现在算作被拒）：把 draw 写进 Global.stages 再运行")
    if tally.cut_prompts:
        say(f"!! {tally.cut_prompts} 份 IMPRESSION 比文本编码器能读的长，共截去 {tally.cut_tokens} 个词元（token）")
    unjudged = tally.reasons[UNJUDGED]
    if unjudged:
        say(f"!! {unjudged} 对因裁判答非所问而未收下；换好裁判后再运行同一条命令会重新提问")
    if settings.pairs is not None and tally.reports < settings.pairs:
        say(f"!! Global.pairs={settings.pairs}，而报告只有 {tally.reports} 份")
    say(f"写在 {path}：pairs.jsonl（收下）、rejected.jsonl（被拒，附原因）、images/、summary.md。"
        "这些是合成的图文对（synthetic），不是临床资料")


def _metrics(recipe: PairsRecipe, opened: Opened, tally: Tally, rows: Rows) -> dict[str, Any]:
    stages = recipe.Global.stages
    judged, compared = "judge" in stages or tally.judges, "similarity" in stages or tally.encoders
    waterfall = {"reports": tally.reports, "drawn": tally.drawn,
                 **({"judged": tally.judged} if judged else {}), **({"similarity": tally.first} if compared else {}),
                 "redrawn": tally.pairs - tally.first, "pairs": tally.pairs}
    attempts = []
    for number in range(1 + max((attempt for attempt, _ in tally.by_attempt), default=-1)):
        drawn = sum(count for (attempt, _), count in tally.by_attempt.items() if attempt == number)
        accepted = tally.by_attempt[number, ""]
        attempts.append({"attempt": number + 1, "drawn": drawn, "errors": tally.by_attempt[number, "draw"],
                         "failed_judge": tally.by_attempt[number, "judge"],
                         "unjudged": tally.by_attempt[number, UNJUDGED],
                         "failed_similarity": tally.by_attempt[number, "similarity"], "accepted": accepted,
                         "acceptance": round(accepted / drawn, 4)})
    return {
        "synthetic": True, **({"demo_data": True} if tally.demo else {}), "version": __version__,
        "seed": recipe.Global.seed, "stages": [stage for stage in stages], "reports_digest": opened.source.digest,
        "generator": sorted(tally.generators), "judge": sorted(tally.judges), "encoder": sorted(tally.encoders),
        "drop": recipe.Rules.drop, "questions": recipe.Rules.questions,
        "threshold": recipe.Similarity.threshold if compared and recipe.Similarity else None,
        "waterfall": waterfall, "rejected": tally.reports - tally.pairs, "drawings": tally.drawings,
        "drawn_again": tally.again, "waiting": tally.waiting, "attempts": attempts,
        "reasons": dict(sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))[:_REASONS]),
        "judge_errors": dict(sorted(rows.errors.items())),
        "tokens_cut": {"prompts": tally.cut_prompts, "tokens": tally.cut_tokens}}


def _markdown(recipe: PairsRecipe, metrics: dict[str, Any], tally: Tally) -> str:
    waterfall, reports = metrics["waterfall"], max(1, metrics["waterfall"]["reports"])
    lines = [
        "# 图文对小结（summary of pairs）", "",
        "全部是合成的图文对（synthetic），不是临床资料"
        + ("；图是内置模体（phantom），不能说明任何临床效果。" if tally.demo else "。"), "",
        f"- 画图（generator）：{_names(metrics['generator'])}；裁判（judge）：{_names(metrics['judge'])}；"
        f"编码器（encoder）：{_names(metrics['encoder'])}",
        f"- 六问不合格的规则：`{metrics['drop']}`；相似度阈值："
        f"{'未比较' if metrics['threshold'] is None else metrics['threshold']}；种子：{metrics['seed']}",
        f"- 共画 {metrics['drawings']} 张，{metrics['drawn_again']} 对重画过；收下 {waterfall['pairs']} 对，"
        f"被拒 {metrics['rejected']} 对", "",
        "## 逐步筛下来（waterfall）", "", "| 步骤 | 对数 | 占报告 |", "| --- | --- | --- |",
        *(f"| {_STEPS[name]} | {count} | {100 * count / reports:.1f} % |" for name, count in waterfall.items()), "",
        "![逐步筛下来](waterfall.png)", "",
        "## 第几次画", "", "| 第几次 | 画了 | 出错 | 六问不合格 | 裁判没答上 | 太像坏图 | 收下 | 通过率 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {one['attempt']} | {one['drawn']} | {one['errors']} | {one['failed_judge']} | {one['unjudged']} "
          f"| {one['failed_similarity']} | {one['accepted']} | {100 * one['acceptance']:.1f} % |"
          for one in metrics["attempts"])]
    if metrics["reasons"]:
        lines += ["", "## 没有通过的原因（按图计，一张图可有几个）", "", "| 原因 | 图数 |", "| --- | --- |",
                  *(f"| {reason.replace('|', '/')} | {count} |" for reason, count in metrics["reasons"].items())]
    cut = metrics["tokens_cut"]
    lines += ["", "## 要留意的", "",
              *([f"- 等着画或重画：{metrics['waiting']} 对（现在算作被拒；把 draw 写进 Global.stages 再运行）"]
                if metrics["waiting"] else []),
              f"- IMPRESSION 比文本编码器能读的长：{cut['prompts']} 份，截去 {cut['tokens']} 个词元（token）",
              *(f"- 裁判没有答上的问题（累计，后来答上的也在内）：{count} 个（{kind}）"
                for kind, count in metrics["judge_errors"].items()), "",
              "## 收下的图（accepted）", "", "![收下的图](accepted.png)", "",
              "## 没有通过的图及原因（rejected）", "", "![没有通过的图](rejected.png)"]
    return "\n".join(lines) + "\n"


def _names(names: list[str]) -> str:
    return "、".join(f"`{name}`" for name in names) or "未用"
