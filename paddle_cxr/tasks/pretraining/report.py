"""What a trained pre-training model is worth on a subset: retrieval, zero-shot classification and the figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle

from paddle_cxr.data.findings import label_matrix
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.pairs.labelled import TEXT_FROM
from paddle_cxr.engine.distributed import World
from paddle_cxr.engine.output import RunFolder
from paddle_cxr.evaluation.phantom_prompts import phantom_prompts
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts, read_prompts
from paddle_cxr.evaluation.retrieval import retrieval, unique_texts
from paddle_cxr.evaluation.zero_shot import zero_shot
from paddle_cxr.models.text_encoder import ReportTokenizer
from paddle_cxr.tasks.pretraining.figures import draw
from paddle_cxr.tasks.pretraining.schema import PretrainingRecipe
from paddle_cxr.tasks.pretraining.scoring import scores_of
from paddle_cxr.tasks.pretraining.task import with_text
from paddle_cxr.tasks.pretraining.texts import Texts, count_cut


class Report:
    """Evaluates a model on some pairs and writes what it finds.

    Args:
        recipe: which prompts and how large batches.
        model, tokenizer: trained.
        data, texts: the pairs.
        positions: the subset.
        world: the ranks; rank 0 writes.

    Attributes:
        whole: every pair's text; unique: the different ones; own: which of them each pair's is, int64 [pairs].
        synthetic: how many pairs a generator made.
        mark: what every figure says below of phantoms and synthetic pairs.

    Raises:
        UserError: none of the pairs has a text.
    """

    def __init__(self, recipe: PretrainingRecipe, model: paddle.nn.Layer, tokenizer: ReportTokenizer,
                 data: LabelledData, texts: Texts, positions: np.ndarray, world: World) -> None:
        self.recipe, self.model, self.tokenizer, self.data, self.world = recipe, model, tokenizer, data, world
        self.positions = with_text(texts, positions, recipe, recipe.DataLoader.Eval.subset)
        self.whole = [texts.whole[position] for position in self.positions]
        self.unique, self.own = unique_texts(self.whole)
        self.batch = recipe.DataLoader.Eval.sampler.batch_size
        self.synthetic = sum(bool(data.source.records[position].extra.get("generator")) for position in self.positions)
        # Phantoms say so themselves; other synthetic pairs are marked too.
        self.mark: dict[str, Any] = {"demo": data.source.demo or self.synthetic > 0}
        if self.synthetic and not data.source.demo:
            self.mark["line"] = (f"{len(self.positions)} 对里有 {self.synthetic} 对是合成的（synthetic），"
                                 "不是患者的 X 光片")
        model.eval()

    def write(self, folder: RunFolder) -> dict[str, Any]:
        """Compute everything and draw the figures into ``folder``; returns what ``metrics.json`` holds."""
        groups = self.data.groups(self.positions)
        scores = self._scores(self.unique)
        found: dict[str, Any] = {"retrieval": retrieval(scores, self.own, groups)}
        by_kind = self._kinds()
        if len(by_kind) > 1:
            found["retrieval_by_text"] = {kind: self._retrieval_of(scores, chosen, groups)
                                          for kind, chosen in by_kind.items()}
        prompts, labels = self._prompts()
        if prompts:
            found["zero_shot"] = zero_shot(labels, self._scores(prompt_texts(prompts)), prompts, groups)
        cut = count_cut(self.whole, self.tokenizer)
        if self.world.is_main:
            if cut:
                folder.say(f"!! {cut} 对的文字超过 {self.tokenizer.max_tokens} 个词元（token），评估时只看得到开头")
            self._say(found, folder)
            draw(self, scores, folder)
        return found | {"pairs": len(self.positions), "texts": len(self.unique), "texts_cut": cut,
                        "synthetic_pairs": self.synthetic}

    def _scores(self, texts: list[str]) -> np.ndarray:
        return scores_of(self.model, self.tokenizer, self.data, self.positions, texts, self.batch, self.world)

    def _kinds(self) -> dict[str, np.ndarray]:
        """Places of the pairs by where their text comes from, where the source tells (a note, or the labels)."""
        kinds = np.array([self.data.source.records[position].extra.get(TEXT_FROM, "")
                          for position in self.positions])
        return {str(kind): np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds) if kind}

    def _retrieval_of(self, scores: np.ndarray, chosen: np.ndarray, groups: list[str] | None) -> dict[str, Any]:
        """Retrieval among some of the pairs only."""
        kept, own = np.unique(self.own[chosen], return_inverse=True)
        return retrieval(scores[np.ix_(chosen, kept)], own, groups and [groups[place] for place in chosen])

    def _prompts(self) -> tuple[tuple[FindingPrompts, ...], np.ndarray]:
        """Prompts for the findings that the pairs are labelled with, and the labels."""
        records = [self.data.source.records[position] for position in self.positions]
        file = self.recipe.ZeroShot.prompts
        known = {name for record in records for name in record.labels}
        own = [] if file else [one for one in phantom_prompts(self._language()) if one.name in known]
        prompts = read_prompts(file) if file else tuple(own)
        return prompts, label_matrix(records, [one.name for one in prompts])

    def _language(self) -> str:
        chinese = sum("一" <= letter <= "\u9fff" for text in self.unique for letter in text)
        return "zh" if 4 * chinese > sum(map(len, self.unique)) else "en"

    def _say(self, found: dict[str, Any], folder: RunFolder) -> None:
        for title, one in [("全部", found["retrieval"]), *found.get("retrieval_by_text", {}).items()]:
            for way, name in (("image_to_text", "图→文"), ("text_to_image", "文→图")):
                figures = "，".join(f"{key} {one[way][key]['value']:.3f}（随机 {one[way][key]['chance']:.3f}）"
                                   for key in ("R@1", "R@5", "R@10"))
                folder.say(f"检索（retrieval，{title}，{one['images']} 图 {one['texts']} 文）{name}：{figures}；"
                           f"对谁都用同一个排序，R@5 最多 {one[way]['R@5']['blind']:.3f}")
        if "zero_shot" in found:
            zero = found["zero_shot"]
            value = "无" if zero["macro_auc"] is None else f"{zero['macro_auc']:.3f}"
            folder.say(f"零样本（zero-shot）宏平均 AUC：{value}" + "".join(
                f"，{name} {one['auc']:.3f}" for name, one in zero["per_finding"].items() if one["auc"] is not None)
                + (f"；缺阳性或阴性的图，不计：{'、'.join(zero['left_out'])}" if zero["left_out"] else ""))
