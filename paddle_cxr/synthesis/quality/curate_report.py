"""The lists, figures and page of a curation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paddle_cxr import __version__
from paddle_cxr.data.lines import json_lines
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.evaluation.report import write_table
from paddle_cxr.files import write_atomic, write_json, write_text
from paddle_cxr.plots.gallery import plot_sheet
from paddle_cxr.plots.quality import plot_waterfall
from paddle_cxr.plots.similarity import plot_similarity
from paddle_cxr.plots.style import DEMO_LINE, SYNTHETIC_IMAGES
from paddle_cxr.synthesis.quality.bank import write_bank
from paddle_cxr.synthesis.quality.base import QUESTIONS
from paddle_cxr.synthesis.quality.curate_schema import CurationRecipe
from paddle_cxr.synthesis.quality.decision import JUDGED, KEPT, SIMILAR, STAGES, UNREADABLE, Decision
from paddle_cxr.synthesis.quality.images import RECORD, ImageSet, read
from paddle_cxr.synthesis.similarity import THRESHOLD

SHOWN, THUMBNAIL = 36, 256  # images of a contact sheet, and the pixels of their longer side
_LISTED = 10  # examples on the page
NAMES = {"chest_xray": "是胸部 X 光片（chest X-ray）", "human": "是人（human）", "frontal": "正位（frontal）",
         "good_quality": "质量好（good quality）", "artefact_free": "无伪影、未过度处理（artefact-free）",
         "sharp": "清晰（sharp）"}
_SHORT = {JUDGED: "六问", SIMILAR: "像坏图"}
_WHY = {UNREADABLE: "不能读取（unreadable）", JUDGED: "六问（judge）", SIMILAR: "像坏图（similarity）"}


def write_decision(folder: RunFolder, recipe: CurationRecipe, images: ImageSet, decision: Decision, seconds: float
                   ) -> None:
    """Write everything into the output folder, and tell the user the most important lines.

    Raises:
        UserError: a file cannot be written.
    """
    path, compared = folder.path, decision.compared
    line = DEMO_LINE if images.demo else SYNTHETIC_IMAGES if images.synthetic else ""
    for old in ("similarity.png", "undecided.csv", "pairs.jsonl"):  # of other stages or another threshold
        (path / old).unlink(missing_ok=True)
    _write_lists(path, images, decision)
    waterfall = _waterfall(recipe, decision)
    plot_waterfall([(label, left) for _, label, left in waterfall], path / "waterfall.png", line=line)
    _plot_dropped(images, decision, path / "dropped.png", line)
    if "similarity" in recipe.Global.stages:
        shutil.rmtree(path / "bank", ignore_errors=True)
    if compared is not None:
        write_bank(path / "bank", compared.features, compared.encoder.title, compared.files, compared.demo,
                   compared.encoder.probe)
        if compared.suggested is not None:
            plot_similarity(compared.good, compared.bad, recipe.Similarity.threshold, compared.encoder.title,
                            path / "similarity.png", demo=images.demo or compared.demo)
    metrics = _metrics(recipe, images, decision, waterfall, seconds)
    write_json(path / "metrics.json", metrics)
    write_text(path / "quality.md", "\n".join(_page(recipe, images, decision, metrics, line)) + "\n")
    _say(folder, recipe, decision, waterfall, metrics)


def _say(folder: RunFolder, recipe: CurationRecipe, decision: Decision, waterfall: Sequence[tuple[str, str, int]],
         metrics: dict[str, Any]) -> None:
    folder.say(" → ".join(f"{left:,}" for _, _, left in waterfall)
               + f"（{' → '.join(label for _, label, _ in waterfall)}）")
    undecided = int(decision.judged.undecided.sum())
    if undecided:
        folder.say(f"!! {undecided} 张图裁判一问也没有回答，不因六问去掉，列在 undecided.csv；"
                   "要重问用 -o Global.ask_again=true")
    compared = decision.compared
    if compared is not None and compared.suggested is not None and recipe.Similarity.encoder["name"] != "RadDino" \
            and recipe.Similarity.threshold == THRESHOLD:
        folder.say(f"!! 阈值 {THRESHOLD:g} 是论文给 RAD-DINO 的；{compared.encoder.title} 分得最开之处是 "
                   f"{compared.suggested:.3f}，见 similarity.png，可用 -o Similarity.threshold=… 改（不重算特征）")
    if metrics["fails_any"] and not metrics["dropped"]["judge"]:
        folder.say(f"没有一张图回答了的问题都不合格；有一问不合格的 {metrics['fails_any']} 张，"
                   "要去掉它们用 -o Rules.drop=any（不重新判断）")
    folder.say(f"写在 {folder.path}：keep.csv、drop.csv{'、bank/' if compared else ''}，先看 quality.md")


def _write_lists(path: Path, images: ImageSet, decision: Decision) -> None:
    answered = (decision.judged.passed >= 0).sum(axis=1)
    kept, undecided = np.flatnonzero(decision.stage == KEPT), np.flatnonzero(decision.judged.undecided)
    write_table(path / "keep.csv", ["file", "questions_passed", "questions_answered", "similarity", "nearest_bad"], (
        [images.files[n], int((decision.judged.passed[n] > 0).sum()), int(answered[n]), *_nearest(decision, n)]
        for n in kept))
    write_table(path / "drop.csv", ["file", "stage", "reason", "similarity", "nearest_bad"], (
        [images.files[n], STAGES[int(decision.stage[n])], decision.reasons.get(int(n), ""), *_nearest(decision, n)]
        for n in np.flatnonzero(decision.stage != KEPT)))
    if len(undecided):
        write_table(path / "undecided.csv", ["file", "reason"], (
            [images.files[n], decision.judged.unanswered.get(int(n), "")] for n in undecided))
    if images.pairs is not None:
        write_atomic(path / "pairs.jsonl", lambda temporary: _copy_pairs(images, decision, temporary))


def _nearest(decision: Decision, number: int) -> tuple[str, str]:
    """The cells about the most similar member of the bank."""
    similarity = decision.similarity[number]
    if np.isnan(similarity):
        return "", ""
    return f"{similarity:.6f}", decision.compared.files[decision.nearest[number]]


def _copy_pairs(images: ImageSet, decision: Decision, file: Path) -> None:
    """The lines of the pairs whose image is kept, as they are: image paths stay relative to the old folder."""
    from paddle_cxr.data.sources.layout import inside

    kept = {name for name, stage in zip(images.files, decision.stage, strict=True) if stage == KEPT}
    with open(file, "wb") as out:
        for where, raw, record in json_lines(images.pairs, RECORD):
            if inside(record[images.column], where) in kept:
                out.write(raw.rstrip(b"\r\n") + b"\n")


def _waterfall(recipe: CurationRecipe, decision: Decision) -> list[tuple[str, str, int]]:
    """(key, label, images left) of each filter."""
    left = len(decision.stage)
    rows = [("all", "全部（all）", left)]
    for stage, key, label in ((UNREADABLE, "readable", "能读取（readable）"), (JUDGED, "judge", "通过六问（judge）"),
                              (SIMILAR, "similarity", "不像坏图（similarity）")):
        if stage == JUDGED and "judge" not in recipe.Global.stages or stage == SIMILAR and decision.compared is None:
            continue
        left -= int((decision.stage == stage).sum())
        rows.append((key, label, left))
    return rows


def _plot_dropped(images: ImageSet, decision: Decision, file: Path, line: str) -> None:
    """A contact sheet of dropped images, each with the filter that dropped it and why."""
    shown = list(_sheet(images, decision))
    plot_sheet([picture for picture, _, _ in shown], [reason for _, _, reason in shown], file,
               title=f"被去掉的图像（dropped）：{len(shown)} / {int((decision.stage != KEPT).sum())} 张",
               names=[name for _, name, _ in shown], demo=bool(line), line=line or DEMO_LINE)


def _sheet(images: ImageSet, decision: Decision) -> Iterator[tuple[np.ndarray, str, str]]:
    """(picture, filter and file, why) of dropped images, as many of either filter as fit, evenly over the data set."""
    by_stage = [np.flatnonzero(decision.stage == stage) for stage in (JUDGED, SIMILAR)]
    shares = [min(len(numbers), max(SHOWN // 2, SHOWN - len(other)))
              for numbers, other in zip(by_stage, by_stage[::-1], strict=True)]
    for numbers, share in zip(by_stage, shares, strict=True):
        for n in numbers[np.linspace(0, len(numbers) - 1, share).astype(int)]:
            picture = read(images.root / images.files[n])
            if not isinstance(picture, str):
                reason = decision.reasons.get(int(n), "").removeprefix("similarity: ")
                yield _small(picture), f"{_SHORT[int(decision.stage[n])]}：{images.files[n]}", reason


def _small(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture)
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


def _metrics(recipe: CurationRecipe, images: ImageSet, decision: Decision,
             waterfall: Sequence[tuple[str, str, int]], seconds: float) -> dict[str, Any]:
    judged, compared = decision.judged, decision.compared
    metrics: dict[str, Any] = {
        "task": "quality", "demo_data": images.demo, "synthetic": images.synthetic, "version": __version__,
        "dataset": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint()},
        "stages": recipe.Global.stages, "judge": recipe.Judge, "rules": recipe.Rules.model_dump(),
        "waterfall": {key: left for key, _, left in waterfall},
        "kept": int((decision.stage == KEPT).sum()),
        "dropped": {STAGES[stage]: int((decision.stage == stage).sum()) for stage in STAGES},
        "undecided": int(judged.undecided.sum()), "known_bad": int(judged.known_bad.sum()),
        "fails_any": int((judged.passed == 0).any(axis=1).sum()),
        "questions": {question: {"yes": int((column == 1).sum()), "no": int((column == 0).sum()),
                                 "unanswered": int((judged.done & judged.reading & (column < 0)).sum())}
                      for question, column in zip(QUESTIONS, judged.passed.T, strict=True)},
        "similarity": None, "seconds_this_session": round(seconds, 1)}
    if compared is not None:
        threshold = recipe.Similarity.threshold
        metrics["similarity"] = {
            "encoder": recipe.Similarity.encoder, "title": compared.encoder.title, "dim": compared.features.shape[1],
            "threshold": threshold, "suggested_threshold": compared.suggested,
            "bank": {"images": len(compared.files), "own": compared.own, "demo_data": compared.demo},
            "compared": len(compared.good), "over": int((compared.good > threshold).sum()),
            "bank_over": int((compared.bad > threshold).sum()) if len(compared.bad) else None}
    elif decision.skipped:
        metrics["similarity_skipped"] = decision.skipped
    return metrics


def _page(recipe: CurationRecipe, images: ImageSet, decision: Decision, metrics: dict[str, Any], line: str
          ) -> Iterator[str]:
    judged, compared = decision.judged, decision.compared
    yield from ["# 数据集的质量控制（quality control）", ""]
    if line:
        yield from [f"**{line}。**", ""]
    rules = {"any": "有一问不合格", "all": "回答了的都不合格"}
    yield from [f"数据集 {_cell(images.name)}，{len(images)} 张图；裁判 `{recipe.Judge['name']}`。"
                f"去掉：{rules[recipe.Rules.drop]}；进坏图库：{rules[recipe.Rules.known_bad]}。"
                "过滤器只看图像是否可用，不判断有没有病，不能用于临床。", "",
                "## 还剩多少", "", "![瀑布图](waterfall.png)", "", "| 步骤 | 留下 | 去掉 |", "|---|---:|---:|"]
    before = len(images)
    for label, left in zip(_labels(recipe, decision), metrics["waterfall"].values(), strict=True):
        yield f"| {label} | {left:,} | {before - left:,} |"
        before = left
    yield from ["", "论文（SynCXR，arXiv 2410.13523）在 MIMIC-CXR 上：213,384 → 211,936 → 206,424。", ""]
    if "judge" in recipe.Global.stages:
        yield from _questions(metrics, judged.undecided, images)
    if "similarity" in recipe.Global.stages:
        yield from ["## 相似度（similarity）", ""]
        yield from _similarity(metrics) if compared is not None else [f"没有做：{decision.skipped}。", ""]
    yield from _dropped(images, decision)
    if images.pairs is not None:
        yield from ["## 留下的图文对", "", "`pairs.jsonl` 是留下的行，内容不变；图像路径仍相对于原来的文件夹，"
                    f"使用时写 `root`：`{_cell(str(images.root))}`。", ""]


def _labels(recipe: CurationRecipe, decision: Decision) -> list[str]:
    return [label for _, label, _ in _waterfall(recipe, decision)]


def _questions(metrics: dict[str, Any], undecided: np.ndarray, images: ImageSet) -> Iterator[str]:
    yield from ["## 六问", "", "| 问题 | 是 | 否 | 否的比例 | 没有回答 |", "|---|---:|---:|---:|---:|"]
    for question, counts in metrics["questions"].items():
        answered = counts["yes"] + counts["no"]
        share = f"{counts['no'] / answered:.2%}" if answered else "—"
        yield f"| {NAMES[question]} | {counts['yes']:,} | {counts['no']:,} | {share} | {counts['unanswered']:,} |"
    yield from ["", f"有一问不合格的 {metrics['fails_any']:,} 张；"
                    f"已知坏图（known-bad）{metrics['known_bad']:,} 张。", ""]
    if undecided.any():
        names = "、".join(f"`{_cell(images.files[n])}`" for n in np.flatnonzero(undecided)[:_LISTED])
        yield from [f"**未决（undecided）{metrics['undecided']:,} 张**：裁判一问也没有回答，不因六问去掉，原因列在 "
                    f"`undecided.csv`（{names}…）。要重问，用 `-o Global.ask_again=true` 再运行。", ""]


def _similarity(metrics: dict[str, Any]) -> Iterator[str]:
    found = metrics["similarity"]
    bank = found["bank"]
    yield from [f"编码器（encoder）{_cell(found['title'])}，{found['dim']} 维；坏图库（bank）{bank['images']:,} 张"
                f"（本数据集 {bank['own']:,} 张），写在 `bank/`，可作别的运行的 `Similarity.bank`。"
                f"阈值 {found['threshold']:g}：{found['compared']:,} 张中 {found['over']:,} 张超过。", ""]
    if found["suggested_threshold"] is not None:
        yield from ["![相似度](similarity.png)", "",
                    f"坏图与别的坏图相比，{found['bank_over']:,} / {bank['images']:,} 张超过阈值；两种图分得最开之处是 "
                    f"{found['suggested_threshold']:.4f}。0.5 是论文给 RAD-DINO 的；换了编码器，阈值要照这张图另选，"
                    "“好图”一边也混有没有认出的坏图。", ""]


def _dropped(images: ImageSet, decision: Decision) -> Iterator[str]:
    yield from ["## 去掉的图像", "", "全部列在 `drop.csv`（file、stage、reason、similarity、nearest_bad）。", "",
                "![去掉的图像](dropped.png)", "", "| 步骤 | 图像 | 原因 |", "|---|---|---|"]
    for stage, why in _WHY.items():
        for n in np.flatnonzero(decision.stage == stage)[:_LISTED]:
            yield f"| {why} | {_cell(images.files[n])} | {_cell(decision.reasons.get(int(n), ''))} |"
    yield ""


def _cell(text: str) -> str:
    """Text of a data set as one cell of a Markdown table: no line ends, no bars, no markup."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "/").replace("`", "'").replace("<", "‹")
