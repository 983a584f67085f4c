"""ConVIRT: an image and a sentence of its report become two vectors, near each other where they belong together.

    image → ResNet → average over the map        → head → v   ┐
                                                              ├ cos(v, u) / τ
    text  → BERT   → maximum over the real words → head → u   ┘

A head is linear, ReLU, linear.  Nobody labels anything: that the report was written about this very image is the label.

Reference: Zhang, Jiang, Miura, Manning and Langlotz, "Contrastive Learning of Medical Visual Representations from
Paired Images and Text" (2020), arXiv:2010.00747, section 2.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_cxr.errors import UserError
from paddle_cxr.models.resnet import ResNet
from paddle_cxr.models.text_encoder import TextEncoder

Features = dict[str, Tensor]
_LOWEST = -1e30  # stands for minus infinity, whose product with a gradient of 0 would be NaN


class ConVIRT(nn.Layer):
    """Two towers and a head on each.

    Args:
        image_encoder: without a classification head (``class_num`` 0).
        text_encoder: the text tower.
        dim: length of the common vectors.
        temperature: τ; similarities are cosines divided by it.

    Attributes:
        arch: the method's name.
        compared: names of the matrices of :meth:`similarities`.

    Raises:
        UserError: ``temperature`` or ``dim`` not above 0.
    """

    arch = "ConVIRT"
    compared = ("global",)

    def __init__(self, image_encoder: ResNet, text_encoder: TextEncoder, dim: int = 512, temperature: float = 0.1
                 ) -> None:
        super().__init__()
        if dim < 1 or temperature <= 0:
            raise UserError(f"Arch：dim（{dim}）和 temperature（{temperature}）应大于 0")
        self.image_encoder, self.text_encoder, self.temperature = image_encoder, text_encoder, temperature
        self.image_head = projection(image_encoder.feature_dim, dim)
        self.text_head = projection(text_encoder.hidden_size, dim)

    def encode_image(self, images: Tensor) -> Features:
        """Normalised images [N, C, H, W] → ``global``: unit vectors [N, dim]."""
        return {"global": unit(self.image_head(self.image_encoder(images)))}

    def encode_text(self, ids: Tensor, attention: Tensor, words: Tensor) -> Features:
        """Tokens → ``global``: unit vectors [N, dim].

        Args:
            ids: int64 [N, L].
            attention: int64 [N, L], 1 for a token, 0 for padding.
            words: int64 [N, L], number of the word a token is a piece of, -1 for special tokens and padding.
        """
        words = with_a_word(words, attention)
        hidden = self.text_encoder(ids, attention)[-1].astype("float32") + lowest_where(words < 0).unsqueeze(2)
        # topk and not max, whose way back takes Paddle 200 times as long on a CPU: more than all the rest of the tower.
        pooled = hidden.topk(1, axis=1)[0].squeeze(1)  # [N, H]
        return {"global": unit(self.text_head(pooled))}

    def region_similarity(self, images: Tensor, texts: Features) -> Tensor:
        """Where every text fits every image: cosines [N, texts, h, w] on the grid of ``layer4``.

        Each place of the map goes through the head by itself, as if the image were that place only.

        Args:
            images: normalised, [N, C, H, W].
            texts: of :meth:`encode_text`.
        """
        places = self.image_encoder.forward_features(images)["layer4"].transpose([0, 2, 3, 1])  # [N, h, w, F]
        cosines = F.normalize(self.image_head(places), axis=3) @ texts["global"].T
        return cosines.transpose([0, 3, 1, 2])

    def similarities(self, images: Features, texts: Features) -> Features:
        """What the loss compares: ``global`` [images, texts], cosine / τ."""
        return {"global": images["global"] @ texts["global"].T / self.temperature}

    def score(self, images: Features, texts: Features) -> Tensor:
        """How well every text fits every image [images, texts], for retrieval and zero-shot: as in training."""
        return self.similarities(images, texts)["global"]


def lowest_where(absent: Tensor) -> Tensor:
    """What to add to numbers so that a maximum or a softmax does not see those that are ``absent`` (bool)."""
    return absent.astype("float32") * _LOWEST


def unit(vectors: Tensor) -> Tensor:
    """``vectors`` [N, D] at length 1, in float32: in half precision (AMP) cosines would have but three digits."""
    return F.normalize(vectors.astype("float32"))


def with_a_word(words: Tensor, attention: Tensor) -> Tensor:
    """``words`` [N, L] where a text that has no word gets one, number 0: its special tokens.

    Nothing is left of a report of characters that the tokenizer drops (zero-width ones, say).  A maximum or a softmax
    over nothing would spoil the whole batch that it is in.
    """
    silent = (words < 0).all(axis=1, keepdim=True) & (attention > 0)
    return paddle.where(silent, paddle.zeros_like(words), words)


def projection(inputs: int, outputs: int) -> nn.Sequential:
    """The paper's head: W₂ · relu(W₁ · h)."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))
