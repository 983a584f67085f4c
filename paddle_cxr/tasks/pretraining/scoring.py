"""How well every text fits every image, for retrieval and zero-shot, on all ranks and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle

from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.sampler import EvalSampler
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.errors import UserError
from paddle_cxr.models.text_encoder import ReportTokenizer
from paddle_cxr.tasks.pretraining.whole_batch import Features, some_of, text_slices


@paddle.no_grad()
def encode_texts(model: paddle.nn.Layer, tokenizer: ReportTokenizer, texts: Sequence[str], batch_size: int
                 ) -> list[Features]:
    """Features of ``texts``, a batch at a time."""
    batches = (texts[start:start + batch_size] for start in range(0, len(texts), batch_size))
    return [model.encode_text(*map(paddle.to_tensor, tokenizer.batch(list(batch)))) for batch in batches]


@paddle.no_grad()
def encode_images(model: paddle.nn.Layer, data: LabelledData, positions: np.ndarray) -> Features:
    """Features of the images at ``positions``."""
    pixels = paddle.to_tensor(np.stack([data.images[position] for position in positions]))
    return model.encode_image(data.preprocess.normalize_tensor(pixels))


@paddle.no_grad()
def scores_of(model: paddle.nn.Layer, tokenizer: ReportTokenizer, data: LabelledData, positions: np.ndarray,
              texts: Sequence[str], batch_size: int, world: World) -> np.ndarray:
    """``model.score`` of images with texts, float32 [images, texts], the same on every rank.

    The ranks share the images; each holds the features of all texts, and of one batch of images at a time.  Batches are
    compared as in training, no more texts at a time than fit (``whole_batch.TABLE``).

    Raises:
        UserError: the model gives NaN or infinity.
    """
    training = model.training
    model.eval()
    encoded = encode_texts(model, tokenizer, texts, batch_size)
    rows, places = [np.zeros((0, len(texts)), np.float32)], [np.zeros(0, np.int64)]
    for keys in EvalSampler(len(positions), batch_size, world.rank, world.size):
        mine = np.array([key.position for key in keys])
        images = encode_images(model, data, positions[mine])
        found = [model.score(images, some_of(part, chosen)) for part in encoded for chosen in text_slices(images, part)]
        rows.append(np.concatenate([one.astype("float32").numpy() for one in found], axis=1))
        places.append(mine)
    if training:
        model.train()
    wait_for_all(world)  # the exchange itself waits half a minute only for a slower rank
    gathered = gather_arrays({"rows": np.concatenate(rows), "places": np.concatenate(places)}, world)
    scores = gathered["rows"][np.argsort(gathered["places"])]
    if not np.isfinite(scores).all():
        raise UserError("模型输出 NaN 或 Inf：训练已发散，检查点未被覆盖。可减小学习率，或加 Optimizer.clip_norm")
    return scores
