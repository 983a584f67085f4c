"""GLoRIA: not only image and report belong together, but every word and the region it speaks of.

    image → ResNet → layer3 → 1x1 convolution  → regions v   [N, R, D]
                   → layer4 → average → linear → global      [N, D]
    text  → BERT   → last four layers summed, word pieces summed to words → words t [N, W, D]
                   → mean over the real words                             → global  [N, D]

    attention of word i on region j:  s_ij = t_i · v_j, softmax over the words, then softmax over the regions of γ₁ s
    what word i sees:                 c_i  = Σ_j a_ij v_j
    local similarity:                 Z    = log Σ_i exp(γ₂ cos(c_i, t_i)) / γ₂
    compared by the loss:             γ₃ Z, and γ₃ cos of the global vectors

Training, retrieval and zero-shot use these same lines.  The softmax over words is not in GLoRIA's own formula but in
its code and in AttnGAN's (equation 8), which the temperature 4 comes from: without it the products of long vectors
saturate the second softmax.  The root of AttnGAN's equation 10 (1 / γ₂) is the paper's, and missing in its code.

References: Huang, Shen, Lungren and Yeung, "GLoRIA: A Multimodal Global-Local Representation Learning Framework for
Label-efficient Medical Image Recognition" (ICCV 2021); Xu et al., "AttnGAN" (2018), arXiv:1711.10485, section 3.2.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from paddle_cxr.errors import UserError
from paddle_cxr.models.convirt import Features, lowest_where, unit, with_a_word
from paddle_cxr.models.resnet import ResNet
from paddle_cxr.models.text_encoder import TextEncoder

_SMALLEST = 1e-8


class GLoRIA(nn.Layer):
    """Two towers; global and local similarities.

    Args:
        image_encoder: without a classification head (``class_num`` 0).
        text_encoder: the text tower.
        dim: D, length of the common vectors; where it is not the text tower's width, words and reports are projected.
        temperatures: γ₁, γ₂, γ₃ above.
        layers: so many last layers of the text tower are summed, all of them where it has fewer.
        enlarge: side in pixels to which images are enlarged first (the paper: 299, which gives 19 x 19 regions), or
            None.

    Attributes:
        arch, compared: as of :class:`~paddle_cxr.models.convirt.ConVIRT`.

    Raises:
        UserError: an argument out of range.
    """

    arch = "GLoRIA"
    compared = ("global", "local")

    def __init__(self, image_encoder: ResNet, text_encoder: TextEncoder, dim: int = 768,
                 temperatures: tuple[float, float, float] = (4.0, 5.0, 10.0), layers: int = 4,
                 enlarge: int | None = None) -> None:
        super().__init__()
        if dim < 1 or len(temperatures) != 3 or min(temperatures) <= 0 or layers < 1 or (enlarge or 32) < 32:
            raise UserError(f"Arch：dim（{dim}）、layers（{layers}）应大于 0，temperatures（{list(temperatures)}）"
                            f"应为三个正数，enlarge（{enlarge}）应为 null 或不小于 32")
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.temperatures, self.layers, self.enlarge = tuple(temperatures), layers, enlarge
        self.local_head = nn.Conv2D(image_encoder.stage_dims["layer3"], dim, 1, bias_attr=False)
        self.global_head = nn.Linear(image_encoder.feature_dim, dim)
        width = text_encoder.hidden_size
        self.word_head = nn.Linear(width, dim) if width != dim else None
        self.report_head = nn.Linear(width, dim) if width != dim else None

    def encode_image(self, images: Tensor) -> Features:
        """Normalised images [N, C, H, W] → ``global`` unit vectors [N, D], ``regions`` [N, R, D], row by row."""
        if self.enlarge:
            images = F.interpolate(images, [self.enlarge, self.enlarge], mode="bilinear", align_corners=True)
        maps = self.image_encoder.forward_features(images)
        regions = self.local_head(maps["layer3"])  # [N, D, h, w]
        return {"global": unit(self.global_head(self.image_encoder.forward_head(maps["layer4"]))),
                "regions": regions.flatten(2).transpose([0, 2, 1])}

    def region_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the regions of images of this size: ``layer3`` is 16 times smaller, rounded up."""
        side = (self.enlarge, self.enlarge) if self.enlarge else (height, width)
        return -(-side[0] // 16), -(-side[1] // 16)

    def encode_text(self, ids: Tensor, attention: Tensor, words: Tensor) -> Features:
        """Tokens → ``global`` unit vectors [N, D], ``words`` [N, W, D], ``word_mask`` int64 [N, W] (1: there is one).

        Arguments as of :meth:`paddle_cxr.models.convirt.ConVIRT.encode_text`.
        """
        hidden = sum(self.text_encoder(ids, attention)[-self.layers:])  # [N, L, H]
        merged, mask = merge_pieces(hidden, with_a_word(words, attention))
        mean = merged.sum(axis=1) / mask.sum(axis=1, keepdim=True).clip(min=1).astype(merged.dtype)
        if self.word_head is not None:
            merged, mean = self.word_head(merged), self.report_head(mean)
        return {"global": unit(mean), "words": merged, "word_mask": mask}

    def region_similarity(self, images: Tensor, texts: Features) -> Tensor:
        """Where every text fits every image: mean cosine over its words, [N, texts, h, w] on the grid of ``layer3``.

        Args:
            images: normalised, [N, C, H, W].
            texts: of :meth:`encode_text`.
        """
        regions = F.normalize(self.encode_image(images)["regions"], axis=2)  # [N, R, D]
        mask = texts["word_mask"].astype(regions.dtype)
        # The mean of cosines is the product with the mean of the unit vectors.
        words = F.normalize(texts["words"], axis=2) * mask.unsqueeze(2)
        means = words.sum(axis=1) / mask.sum(axis=1, keepdim=True).clip(min=1)  # [T, D]
        cosines = (regions @ means.T).transpose([0, 2, 1])
        return cosines.reshape([*cosines.shape[:2], *self.region_grid(*images.shape[2:])])

    def similarities(self, images: Features, texts: Features) -> Features:
        """What the loss compares, each [images, texts]: ``global`` γ₃ cos, ``local`` γ₃ Z."""
        return {"global": images["global"] @ texts["global"].T * self.temperatures[2],
                "local": self._local(images["regions"], texts["words"], texts["word_mask"]) * self.temperatures[2]}

    def score(self, images: Features, texts: Features) -> Tensor:
        """How well every text fits every image [images, texts], for retrieval and zero-shot: the mean of both."""
        found = self.similarities(images, texts)
        return (found["global"] + found["local"]) / 2

    def attention(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """How much every word of every text looks at every region of every image.

        Args:
            regions: [I, R, D]; words: [T, W, D]; mask: int64 [T, W].

        Returns:
            [I, T, W, R], sums to 1 over the regions; meaningless where ``mask`` is 0.
        """
        _, weights = self._looks(regions, words, mask)
        return (weights / weights.sum(axis=1, keepdim=True)).transpose([0, 2, 3, 1])

    def _looks(self, regions: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Products s, and exp(γ₁ softmax(s) - γ₁): the attention but for a factor a word; both [I, R, T, W]."""
        (images, count, dim), (texts, length) = regions.shape, mask.shape
        products = regions.reshape([images * count, dim]) @ words.reshape([texts * length, dim]).T
        products = products.reshape([images, count, texts, length])
        of_words = F.softmax(products + lowest_where(mask == 0), axis=3)
        return products, ((of_words - 1) * self.temperatures[0]).exp()  # - 1: at most exp(0), whatever γ₁ is

    def _local(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """Z [I, T]; see the top of the file.

        The vectors c are never made: D numbers for every word, text and image would be most of the work.  As cosines
        do not change with length, c = Σ_j e_j v_j serves with e not divided by its sum, and then
        c · t = Σ_j e_j s_j and |c|² = Σ_jk e_j (v_j · v_k) e_k.
        """
        products, weights = self._looks(regions, words, mask)  # s, e: [I, R, T, W]
        images, count, texts, length = products.shape
        gram = regions @ regions.transpose([0, 2, 1])  # v_j · v_k: [I, R, R]
        spread = (gram @ weights.reshape([images, count, texts * length])).reshape(products.shape)
        seen = (spread * weights).sum(axis=1).clip(min=_SMALLEST**2).sqrt()  # |c|: [I, T, W]
        cosines = (weights * products).sum(axis=1) / (seen * words.norm(axis=2)).clip(min=_SMALLEST)
        scaled = cosines * self.temperatures[1] + lowest_where(mask == 0)
        return paddle.logsumexp(scaled, axis=2) / self.temperatures[1]


def merge_pieces(hidden: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the vectors of each word's pieces.

    Args:
        hidden: [N, L, H].
        words: int64 [N, L], a word's number, -1 for tokens that belong to none.

    Returns:
        Words [N, W, H], and which there are, int64 [N, W]; W is the longest text's number of words.
    """
    count = max(int(words.max()) + 1, 1)
    belongs = (words.unsqueeze(2) == paddle.arange(count).reshape([1, 1, count])).astype(hidden.dtype)  # [N, L, W]
    return belongs.transpose([0, 2, 1]) @ hidden, (belongs.sum(axis=1) > 0).astype("int64")
