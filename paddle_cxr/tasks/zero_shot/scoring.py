"""What a pre-trained model says of images, a batch at a time: how much each finding outweighs its opposite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.prompts import FindingPrompts, prompt_texts
from paddle_cxr.evaluation.zero_shot import check_finite, margins, margins_of_sides, sides
from paddle_cxr.tasks.pretrained import Pretrained
from paddle_cxr.tasks.pretraining.scoring import encode_images, encode_texts
from paddle_cxr.tasks.pretraining.whole_batch import Features, some_of, text_slices
from paddle_cxr.tasks.prompt_texts import notices_of
from paddle_cxr.tasks.zero_shot.schema import ZeroShotPrompts


class PromptScorer:
    """Compares images with prompts.  The prompts are encoded once; nothing is kept of one image for the next.

    Args:
        pretrained: the model.
        prompts: of K findings.
        section: ensemble and similarity.
        batch_size: texts encoded at a time.

    Attributes:
        notices: what the text tower cannot read of the prompts.

    Raises:
        UserError: a similarity or an ensemble that this model has not.
    """

    def __init__(self, pretrained: Pretrained, prompts: Sequence[FindingPrompts], section: ZeroShotPrompts,
                 batch_size: int) -> None:
        self._model, self._prompts = pretrained.model, prompts
        self._ensemble, self._similarity = section.ensemble, _similarity(pretrained.model, section)
        # As the model scales cosines before it compares them.
        self._scale = 1 / self._model.temperature if hasattr(self._model, "temperature") else (
            self._model.temperatures[2])
        texts = prompt_texts(prompts)
        self.notices = notices_of(texts, pretrained.tokenizer)
        self._parts = encode_texts(pretrained.model, pretrained.tokenizer, texts, batch_size)
        if self._ensemble == "embeddings":
            self._parts = [_averaged(self._parts, texts, prompts)]

    @paddle.no_grad()
    def __call__(self, images: Features) -> np.ndarray:
        """Margins float64 ``[N, K]`` of encoded images; see :func:`paddle_cxr.evaluation.zero_shot.margins`."""
        found = [self._compare(images, some_of(part, chosen)) for part in self._parts
                 for chosen in text_slices(images, part)]
        scores = np.concatenate([one.astype("float32").numpy() for one in found], axis=1)
        if self._ensemble == "embeddings":
            check_finite(scores)
            return margins_of_sides(scores, len(self._prompts))
        return margins(scores, self._prompts, self._ensemble)

    def _compare(self, images: Features, texts: Features) -> paddle.Tensor:
        if self._similarity == "both":
            return self._model.score(images, texts)
        if self._similarity == "global":
            return images["global"] @ texts["global"].T * self._scale
        return self._model.similarities(images, texts)[self._similarity]


def _similarity(model: paddle.nn.Layer, section: ZeroShotPrompts) -> str:
    """Which matrix is taken: ``both`` of a model that has one is that one."""
    if section.similarity == "both":
        chosen = model.compared[0] if len(model.compared) == 1 else "both"
    else:
        chosen = section.similarity
    if chosen != "both" and chosen not in model.compared:
        raise UserError(f"Prompts.similarity：{model.arch} 没有局部相似度（local），只有 {'、'.join(model.compared)}；"
                        "请改为 both 或 global")
    if section.ensemble == "embeddings" and chosen != "global":
        raise UserError(f"Prompts.ensemble：embeddings 平均的是整句的向量，{model.arch} 还比较词和区域；"
                        "请加 Prompts.similarity: global，或改 ensemble: scores")
    return chosen


def _averaged(parts: Sequence[Features], texts: Sequence[str], prompts: Sequence[FindingPrompts]) -> Features:
    """One unit vector a side: the mean of its prompts' unit vectors."""
    vectors = paddle.concat([part["global"] for part in parts])  # [P, D]
    member = np.array([[text in side for text in texts] for side in sides(prompts)], np.float32)  # [S, P]
    return {"global": F.normalize(paddle.to_tensor(member) @ vectors)}  # the length of a mean does not matter


def score_images(scorer: PromptScorer, pretrained: Pretrained, data: LabelledData, batch_size: int,
                 progress: Callable[[int], object] = lambda done: None) -> np.ndarray:
    """Margins float32 ``[N, K]`` of all images of ``data``; only one batch of them is in memory at a time.

    Args:
        progress: receives how many images each batch had.

    Raises:
        UserError: the model gives NaN or infinity; an image that cannot be read.
    """
    found = []
    for start in range(0, len(data.images), batch_size):
        positions = np.arange(start, min(start + batch_size, len(data.images)))
        # float32 as the model computes, so that what per_image.csv says is exactly what the metrics were made of.
        found.append(scorer(encode_images(pretrained.model, data, positions)).astype(np.float32))
        progress(len(positions))
    return np.concatenate(found)
