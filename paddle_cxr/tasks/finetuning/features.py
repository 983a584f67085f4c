"""What a frozen image tower makes of each image: computed once, kept on disk, used by every linear probe after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle

from paddle_cxr.data.cache import cache_key
from paddle_cxr.data.labelled import LabelledData
from paddle_cxr.data.sampler import EvalSampler
from paddle_cxr.engine.distributed import World, gather_arrays, wait_for_all
from paddle_cxr.errors import UserError
from paddle_cxr.tasks.finetuning.start import digest_of
from paddle_cxr.weights import read_safetensors, write_safetensors

_VERSION = 1  # raised by hand when the features of the same tower and images change
_FEATURES = "features"


class TowerFeatures:
    """Pooled features of a network's last map, with running statistics in BatchNorm and no augmentation.

    Args:
        model: with ``forward_features`` and ``feature_dim``; put into evaluation mode.
        data: the images.
        batch_size: images at a time.
        world: the ranks, which share the images.
        folder: where features are kept; None keeps none.
        say: receives a line where there is something to wait for.
    """

    def __init__(self, model: paddle.nn.Layer, data: LabelledData, batch_size: int, world: World,
                 folder: Path | None, say: Callable[[str], None]) -> None:
        self._model, self._data, self._batch, self._world = model, data, batch_size, world
        self._folder, self._say = folder, say
        model.eval()
        tower = {name: tensor.numpy() for name, tensor in model.state_dict().items()
                 if not name.startswith(f"{model.head}.")}
        self.tower = digest_of(tower)
        self._key = "" if folder is None else f"{_VERSION} {self.tower} {cache_key(data.source, data.preprocess)} " \
                                              f"{sorted(data.preprocess.to_dict().items())}"

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Features of the images at ``positions``, float32 ``[n, D]``, the same on every rank.

        Raises:
            UserError: the network gives NaN or infinity.
        """
        file = None
        if self._folder is not None:
            told = f"{self._key} {np.asarray(positions, np.int64).tobytes().hex()}"
            file = self._folder / f"features-{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
        found = self._read(file, len(positions))
        if found is None:
            self._say(f"计算 {len(positions)} 张图的特征（feature），只算一次……")
            found = self._compute(positions)
            if file is not None and self._world.is_main:
                write_safetensors(file, {_FEATURES: found})
        return found

    def _read(self, file: Path | None, count: int) -> np.ndarray | None:
        """What an earlier run kept; the ranks agree whether it is there, as computing takes all of them."""
        found = None
        if file is not None and file.is_file():
            try:
                found = read_safetensors(file)[0].get(_FEATURES)
            except UserError:  # damaged: computed anew
                found = None
        whole = found is not None and found.shape == (count, self._model.feature_dim)
        wait_for_all(self._world)
        agreed = gather_arrays({"whole": np.array([whole])}, self._world)["whole"].all()
        return found if agreed else None

    @paddle.no_grad()
    def _compute(self, positions: np.ndarray) -> np.ndarray:
        rows = [np.zeros((0, self._model.feature_dim), np.float32)]
        places = [np.zeros(0, np.int64)]
        for keys in EvalSampler(len(positions), self._batch, self._world.rank, self._world.size):
            mine = np.array([key.position for key in keys])
            pixels = paddle.to_tensor(np.stack([self._data.images[position] for position in positions[mine]]))
            last = self._model.forward_features(self._data.preprocess.normalize_tensor(pixels))["layer4"]
            rows.append(last.mean(axis=[2, 3]).astype("float32").numpy())
            places.append(mine)
        wait_for_all(self._world)  # the exchange itself waits half a minute only for a slower rank
        found = gather_arrays({"rows": np.concatenate(rows), "places": np.concatenate(places)}, self._world)
        features = found["rows"][np.argsort(found["places"])]
        if not np.isfinite(features).all():
            raise UserError("起点的图像塔输出 NaN 或 Inf，不能做线性探针（linear probe）；请换 Model.checkpoint")
        return features
