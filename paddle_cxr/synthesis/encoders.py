"""Image → a vector whose direction says what the image looks like: for the similarity filter and the fidelity figures.

    RadDino          RAD-DINO from a local folder: what the SynCXR paper (arXiv:2410.13523) compares images with
    ResNetFeatures   pooled features of a classifier trained with this project: no download, other similarities

An encoder has ``title``, ``dim`` and ``encode(images)``.  The same threshold does not suit two encoders: see
:func:`paddle_cxr.plots.similarity.plot_similarity`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import numpy as np
import pydantic
from PIL import Image

from paddle_cxr.data.preprocess import Preprocess
from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.quiet import import_paddle
from paddle_cxr.registry import find, register
from paddle_cxr.synthesis.device import enough_memory, use_device
from paddle_cxr.synthesis.model_folder import WEIGHTS, require_files
from paddle_cxr.weights import apply_weights, load_weights, read_safetensors

if TYPE_CHECKING:
    from paddle import Tensor

    from paddle_cxr.models.dinov2 import Dinov2

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"

Pixels = Annotated[int, pydantic.Field(ge=1, le=4096)]
Channels = tuple[pydantic.FiniteFloat, pydantic.FiniteFloat, pydantic.FiniteFloat]
Checked = TypeVar("Checked", bound=pydantic.BaseModel)


class Encoder(Protocol):
    """Turns images into vectors.

    Attributes:
        title: what tables and figures name it.
        dim: length of a vector.
    """

    title: str
    dim: int

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, uint8 ``[H, W]`` (or ``[H, W, 3]``) of any size → float32 ``[N, dim]``, any real numbers."""


# --- RAD-DINO ----------------------------------------------------------------------------------------------------

class _ShortestEdge(pydantic.BaseModel):
    shortest_edge: Pixels


class _Size(pydantic.BaseModel):
    height: Pixels
    width: Pixels


class ImagePreprocessing(pydantic.BaseModel, frozen=True, extra="ignore"):
    """What a ``preprocessor_config.json`` of Hugging Face's ``BitImageProcessor`` asks for, and doing it.

    The shorter side is resized to ``shortest_edge``, the middle is cut out (padded with black where it is too small),
    and grey levels are scaled, shifted and divided.

    Raises:
        pydantic.ValidationError: another procedure, or a value out of range.
    """

    do_resize: Literal[True] = True
    size: _ShortestEdge
    resample: int = pydantic.Field(default=3, ge=0, le=5)  # as Pillow numbers its filters; 3 is bicubic
    do_center_crop: Literal[True] = True
    crop_size: _Size
    do_rescale: Literal[True] = True
    rescale_factor: pydantic.FiniteFloat = pydantic.Field(default=1 / 255, gt=0)
    do_normalize: Literal[True] = True
    image_mean: Channels
    image_std: Annotated[Channels, pydantic.AfterValidator(lambda std: _all_positive(std))]

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 ``[H, W]`` or ``[H, W, 3]`` → float32 ``[3, crop height, crop width]``; grey fills all channels."""
        picture = _without_far_ends(Image.fromarray(image))
        wanted = self.size.shortest_edge
        scaled = [wanted * side // min(picture.size) for side in picture.size]
        levels = np.asarray(picture.resize(scaled, Image.Resampling(self.resample)))
        levels = _middle(_middle(levels, self.crop_size.height, 0), self.crop_size.width, 1)
        levels = levels.reshape(*levels.shape[:2], -1).transpose(2, 0, 1) * self.rescale_factor  # [1 or 3, h, w]
        mean, std = (np.reshape(values, (3, 1, 1)) for values in (self.image_mean, self.image_std))
        return ((levels - mean) / std).astype(np.float32)


def _all_positive(values: Channels) -> Channels:
    if min(values) <= 0:
        raise ValueError("must be greater than 0")
    return values


def _without_far_ends(picture: Image.Image) -> Image.Image:
    """Cut a strip to 16 times its shorter side: only the middle is used, and all of it would be resized to millions."""
    longest = 16 * min(picture.size)
    left, top = (max(0, side - longest) // 2 for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


def _middle(levels: np.ndarray, size: int, axis: int) -> np.ndarray:
    """The middle ``size`` places along ``axis``, with zeros around where there are fewer."""
    spare = levels.shape[axis] - size
    if spare >= 0:
        return levels.take(range(spare // 2, spare // 2 + size), axis)
    around, after = [(0, 0)] * levels.ndim, -spare // 2
    around[axis] = (-spare - after, after)  # the larger half of an odd number goes before, as in the original
    return np.pad(levels, around)


@register("encoder")
class RadDino:
    """RAD-DINO (Pérez-García et al., arXiv:2401.10815), or any DINOv2 in the Hugging Face layout.

    An image's vector is the CLS token of the last layer, as the model's authors use it.

    Args:
        folder: with config.json, model.safetensors and preprocessor_config.json (published: microsoft/rad-dino).
        batch_size: images at a time; at 518 x 518 pixels each takes about 0.3 GB.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the folder's name.
        dim: 768 for the published model.

    Raises:
        UserError: a file is missing or damaged, another architecture, weights that do not fit, or no such device.
    """

    def __init__(self, folder: str, batch_size: int = 4, device: str = "auto") -> None:
        _check_batch_size("RadDino", batch_size)
        path = Path(folder)
        require_files(path, (CONFIG, WEIGHTS, PREPROCESSING), "RAD-DINO", "（microsoft/rad-dino）")
        import_paddle()
        from paddle_cxr.models.dinov2 import Dinov2Config

        config = read_json_as(path / CONFIG, Dinov2Config, {"model_type": "dinov2"})
        self._preprocess = read_json_as(path / PREPROCESSING, ImagePreprocessing)
        if config.num_channels != 3:
            raise UserError(f"{path / CONFIG}：num_channels 应为 3，现在是 {config.num_channels}")
        crop = self._preprocess.crop_size
        if min(crop.height, crop.width) < config.patch_size:
            raise UserError(f"{path / PREPROCESSING}：crop_size {crop.height}×{crop.width} 小于 {CONFIG} 的 patch_size "
                            f"{config.patch_size}；两个文件不属于同一个模型，请重新下载整个文件夹")
        self.title, self.dim = path.resolve().name, config.hidden_size
        self._weights, self._batch_size = path / WEIGHTS, batch_size
        use_device(device)
        self._model = _read_dinov2(self._weights, config)

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, uint8 ``[H, W]`` or ``[H, W, 3]`` → CLS embeddings, float32 ``[N, dim]``.

        Raises:
            UserError: the weights produce values that are no numbers.
        """
        return _in_batches("RadDino", images, self._batch_size, self.dim, self._weights,
                           lambda batch: np.stack([self._preprocess(image) for image in batch]),
                           lambda x: self._model(x)[:, 0])


def read_json_as(file: Path, kind: type[Checked], required: dict[str, str] | None = None) -> Checked:
    """The content of ``file`` as ``kind``, with ``required`` values at some keys."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("应为一个对象（object）")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"模型说明损坏或无法读取：{file}（{one_line(error)}）；请重新下载") from None
    for key, value in (required or {}).items():
        if content.get(key) != value:
            raise UserError(f"{file}：{key} 应为 {value}，现在是 {content.get(key)!r}；请换成 {value} 的权重")
    try:
        return kind.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "config"
        raise UserError(f"{file}：{key} 的值不受支持（{first['msg']}）；请重新下载，或换成同一结构的模型") from None


def _read_dinov2(file: Path, config: Any) -> Dinov2:
    import paddle

    from paddle_cxr.models.dinov2 import Dinov2, weights_from_torch

    # Lazily: the memory is taken by the weights of the file once they are seen to fit, not by what a config claims.
    with paddle.LazyGuard():
        model = Dinov2(config)
    apply_weights(model, weights_from_torch(model, read_safetensors(file)[0]), {}, path=file)
    model.eval()
    return model


# --- the project's own classifier --------------------------------------------------------------------------------

@register("encoder")
class ResNetFeatures:
    """The last maps of a ResNet that was trained with this project, averaged over the image.

    They are never negative, so that the cosine of any two images is: their similarities lie higher and closer together
    than RAD-DINO's, and need a threshold of their own.

    Args:
        checkpoint: a training's output folder (its best weights are taken), or one of its checkpoints.
        batch_size: images at a time.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the architecture, and that it saw only phantoms where it did.
        dim: 512 for ResNet-18 and -34, else 2048.

    Raises:
        UserError: no checkpoint, a damaged one, another network than a ResNet, or no such device.
    """

    def __init__(self, checkpoint: str, batch_size: int = 32, device: str = "auto") -> None:
        _check_batch_size("ResNetFeatures", batch_size)
        import_paddle()
        self._weights = _checkpoint(Path(checkpoint))
        state, meta = load_weights(self._weights)
        architecture = meta.get("architecture")
        if not str(architecture).startswith("ResNet"):
            raise UserError(f"{self._weights}：ResNetFeatures 需要本项目训练的 ResNet，"
                            f"它的网络结构（architecture）是 {architecture!r}")
        self._preprocess = _recorded_preprocessing(meta, self._weights)
        use_device(device)
        channels = self._preprocess.image_shape[0]
        self._model = find("arch", architecture, f"{self._weights} 的 architecture")(class_num=0, in_channels=channels)
        apply_weights(self._model, state, meta, path=self._weights, allow_head_mismatch=True)
        self._model.eval()
        self.title = architecture + ("（phantom）" if meta.get("demo_data") else "")
        self.dim, self._batch_size = self._model.feature_dim, batch_size

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Images, uint8 ``[H, W]`` or ``[H, W, 3]`` → pooled features ≥ 0, float32 ``[N, dim]``.

        Raises:
            UserError: the weights produce values that are no numbers.
        """
        preprocess = self._preprocess
        return _in_batches("ResNetFeatures", images, self._batch_size, self.dim, self._weights, lambda batch: (
            preprocess.normalize(np.stack([preprocess.geometry(image) for image in batch]))), self._model)


def _checkpoint(path: Path) -> Path:
    """The weights a folder stands for: those a training kept, or the folder (or file) itself."""
    if not (path / "checkpoints").is_dir():
        return path
    from paddle_cxr.engine.run import kept_weights

    return kept_weights(path, "best")


def _recorded_preprocessing(meta: dict[str, Any], weights: Path) -> Preprocess:
    try:
        return Preprocess.from_dict(meta["preprocess"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{weights} 的 model.json 没有可用的预处理记录 preprocess（{one_line(error)}）；"
                        "请换一个本项目训练的检查点（checkpoint）") from None


# --- what both share ---------------------------------------------------------------------------------------------

def _check_batch_size(name: str, batch_size: int) -> None:
    if batch_size < 1:
        raise UserError(f"{name} 的 batch_size 应 ≥ 1，现在是 {batch_size}")


def _in_batches(name: str, images: Sequence[np.ndarray], size: int, dim: int, weights: Path,
                prepare: Callable[[Sequence[np.ndarray]], np.ndarray], model: Callable[[Tensor], Tensor]) -> np.ndarray:
    """Features float32 ``[N, dim]`` of ``images``, ``size`` at a time, by encoder ``name``; refuses NaN."""
    import paddle

    features = np.zeros((len(images), dim), np.float32)
    for start in range(0, len(images), size):
        batch = prepare(images[start:start + size])
        with paddle.no_grad(), enough_memory(f"{name}.batch_size", "请把它改小；重新运行同一条命令就接着算"):
            features[start:start + size] = model(paddle.to_tensor(batch)).numpy()
    if not np.isfinite(features).all():
        raise UserError(f"{weights}：算出的特征（feature）含 NaN 或无穷大，权重可能已损坏；请重新下载，或换一个检查点")
    return features
