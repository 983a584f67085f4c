"""Where a pre-trained model sees a finding: one coarse map an image, by similarity, attention or Grad-CAM.

    similarity   how well each region of the map goes with the words: cosine, -1 … 1.  ConVIRT compares each place of
                 layer4, sent through the head by itself, with the prompt; GLoRIA each region of layer3 with the
                 prompt's words, averaged over them
    attention    GLoRIA: how much the prompt's words look at each region, averaged over them; sums to 1
    gradcam      what of a feature map raises the similarity of the whole image with the prompt (Selvaraju et al. 2017)

With several prompts a finding, the mean of their maps is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_cxr.errors import UserError
from paddle_cxr.evaluation.gradcam import grad_cam
from paddle_cxr.evaluation.prompts import FindingPrompts
from paddle_cxr.tasks.grounding.schema import GroundingSection
from paddle_cxr.tasks.pretrained import Pretrained
from paddle_cxr.tasks.pretraining.scoring import encode_texts
from paddle_cxr.tasks.pretraining.whole_batch import Features
from paddle_cxr.tasks.prompt_texts import notices_of

_TEXTS = 32  # compared with a batch of images at a time: GLoRIA's attention has a number for every word and region


class Maps:
    """Makes the maps of one model.

    Args:
        pretrained: the model.
        prompts: the K findings; their positive prompts are looked for.
        section: which kind of map.

    Attributes:
        notices: what the text tower cannot read of the prompts.

    Raises:
        UserError: the model has no such map.
    """

    def __init__(self, pretrained: Pretrained, prompts: Sequence[FindingPrompts], section: GroundingSection) -> None:
        self.model, self.preprocess = pretrained.model, pretrained.preprocess
        self.kind, self.layer = section.map, section.layer
        if self.kind == "attention" and not hasattr(self.model, "attention"):
            raise UserError(f"Grounding.map：{self.model.arch} 没有词对区域的注意力（attention）；"
                            "请用 similarity 或 gradcam")
        texts = list(dict.fromkeys(text for one in prompts for text in one.positive))
        self.notices = notices_of(texts, pretrained.tokenizer)
        self._parts = encode_texts(self.model, pretrained.tokenizer, texts, _TEXTS)
        member = np.array([[text in one.positive for text in texts] for one in prompts], np.float32)
        self._share = member / member.sum(axis=1, keepdims=True)  # [K, T], of each text in the mean of a finding

    def __call__(self, images: np.ndarray, findings: np.ndarray) -> np.ndarray:
        """Maps of R images, each asked for one finding.

        Args:
            images: uint8 ``[R, H, W]`` or ``[R, H, W, 3]``, pre-processed.
            findings: int ``[R]``, number of the finding among the prompts.

        Returns:
            float32 ``[R, h, w]``, spread evenly over the model's input.

        Raises:
            UserError: the model gives NaN or infinity.
        """
        inputs = self.preprocess.normalize_tensor(paddle.to_tensor(images))
        maps = self._gradcam(inputs, findings) if self.kind == "gradcam" else self._of_words(inputs, findings)
        if not np.isfinite(maps).all():
            raise UserError("模型输出 NaN 或 Inf，画不出定位图；请换用训练正常的检查点（checkpoint）")
        return maps

    @paddle.no_grad()
    def _of_words(self, inputs: Tensor, findings: np.ndarray) -> np.ndarray:
        found: np.ndarray | float = 0.0
        for number, part in enumerate(self._parts):
            share = self._share[findings, number * _TEXTS:(number + 1) * _TEXTS]
            if share.any():
                maps = self.model.region_similarity if self.kind == "similarity" else self._attention
                found = found + np.einsum("rthw,rt->rhw", maps(inputs, part).numpy(), share)
        return found

    def _attention(self, inputs: Tensor, texts: Features) -> Tensor:
        """Mean over the words of each text, ``[R, T, h, w]``."""
        mask = texts["word_mask"]
        looks = self.model.attention(self.model.encode_image(inputs)["regions"], texts["words"], mask)  # [R, T, W, …]
        share = mask.astype("float32") / mask.sum(axis=1, keepdim=True).clip(min=1).astype("float32")
        maps = (looks * share.unsqueeze(2)).sum(axis=2)
        return maps.reshape([*maps.shape[:2], *self.model.region_grid(*inputs.shape[2:])])

    def _gradcam(self, inputs: Tensor, findings: np.ndarray) -> np.ndarray:
        prompts = paddle.to_tensor(self._share) @ paddle.concat([part["global"] for part in self._parts])  # [K, D]
        return grad_cam(_AsClassifier(self.model, prompts), inputs, findings, self.layer)


class _AsClassifier(nn.Layer):
    """A model of two towers as Grad-CAM wants it: the "logit" of a finding is the cosine of image and prompt."""

    def __init__(self, model: nn.Layer, prompts: Tensor) -> None:
        super().__init__()
        self.model, self.prompts = model, prompts.detach()

    def forward_features(self, images: Tensor) -> dict[str, Tensor]:
        side = getattr(self.model, "enlarge", None)
        if side:  # as GLoRIA does itself
            images = F.interpolate(images, [side, side], mode="bilinear", align_corners=True)
        return self.model.image_encoder.forward_features(images)

    def forward_head(self, layer4: Tensor) -> Tensor:
        head = self.model.image_head if hasattr(self.model, "image_head") else self.model.global_head
        return F.normalize(head(self.model.image_encoder.forward_head(layer4))) @ self.prompts.T
