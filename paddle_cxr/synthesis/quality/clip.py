"""A CLIP model from a local folder: images and sentences as vectors that can be compared.

CLIP (Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv:2103.00020) is run
by PaddleNLP; what is read from the folder is read here, by name and shape, and nothing in it is executed or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.quiet import import_paddle, importing
from paddle_cxr.synthesis.device import enough_memory, use_device
from paddle_cxr.synthesis.encoders import CONFIG, PREPROCESSING, ImagePreprocessing, read_json_as
from paddle_cxr.synthesis.model_folder import WEIGHTS, require_files
from paddle_cxr.weights import apply_weights, load_weights

VOCABULARY, MERGES, PADDLE_WEIGHTS = "vocab.json", "merges.txt", "model_state.pdparams"

# Far above any published model: they keep a damaged or hostile file from asking for endless memory.
Width = Annotated[int, pydantic.Field(ge=1, le=8192)]
Count = Annotated[int, pydantic.Field(ge=1, le=100)]


class _Tower(pydantic.BaseModel, extra="ignore"):
    num_attention_heads: Count
    hidden_size: Width
    intermediate_size: Annotated[int, pydantic.Field(ge=1, le=32768)]
    num_hidden_layers: Count = 12
    hidden_act: Literal["quick_gelu", "gelu", "relu"] = "quick_gelu"
    layer_norm_eps: Literal[1e-5] = 1e-5

    @pydantic.model_validator(mode="after")
    def _fitting(self) -> _Tower:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        return self


class _Text(_Tower):
    num_attention_heads: Count = 8
    hidden_size: Width = 512
    intermediate_size: Annotated[int, pydantic.Field(ge=1, le=32768)] = 2048
    vocab_size: Annotated[int, pydantic.Field(ge=3, le=2**20)] = 49408
    max_position_embeddings: Annotated[int, pydantic.Field(ge=3, le=4096)] = 77


class _Vision(_Tower):
    num_attention_heads: Count = 12
    hidden_size: Width = 768
    intermediate_size: Annotated[int, pydantic.Field(ge=1, le=32768)] = 3072
    image_size: Annotated[int, pydantic.Field(ge=1, le=2048)] = 224
    patch_size: Annotated[int, pydantic.Field(ge=1, le=2048)] = 32
    num_channels: Literal[3] = 3

    @pydantic.model_validator(mode="after")
    def _has_patches(self) -> _Vision:
        if self.patch_size > self.image_size:
            raise ValueError("patch_size must not exceed image_size")
        return self


class ClipConfig(pydantic.BaseModel, extra="ignore"):
    """The keys of a ``config.json`` that shape the network, with the defaults they have in Hugging Face's CLIP."""

    text_config: _Text = pydantic.Field(default_factory=_Text)
    vision_config: _Vision = pydantic.Field(default_factory=_Vision)
    projection_dim: Width = 512


class ClipPreprocessing(ImagePreprocessing):
    """CLIP's ``preprocessor_config.json``; older ones give the sizes as plain numbers."""

    @pydantic.field_validator("size", mode="before")
    @classmethod
    def _edge(cls, value: Any) -> Any:
        return {"shortest_edge": value} if isinstance(value, int) else value

    @pydantic.field_validator("crop_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        return {"height": value, "width": value} if isinstance(value, int) else value


class Clip:
    """A CLIP model of any size.

    Args:
        folder: config.json, preprocessor_config.json, vocab.json, merges.txt and the weights: model.safetensors with
            Hugging Face's or PaddleNLP's names, or PaddleNLP's model_state.pdparams (read by an allow-list).
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the folder's name.
        longest: tokens that a sentence may have.
        scale: what similarities are multiplied by before a softmax; published models have 100.

    Raises:
        UserError: PaddleNLP is not installed, a file is missing or damaged, weights that do not fit, no such device.
    """

    def __init__(self, folder: str, device: str = "auto") -> None:
        path = Path(folder)
        paddle_layout = (path / PADDLE_WEIGHTS).is_file() and not (path / WEIGHTS).is_file()
        weights = PADDLE_WEIGHTS if paddle_layout else WEIGHTS
        require_files(path, (CONFIG, PREPROCESSING, VOCABULARY, MERGES, weights), "CLIP",
                      "（例如 openai/clip-vit-base-patch16）")
        config = read_json_as(path / CONFIG, ClipConfig, {"model_type": "clip"})
        self._preprocess = read_json_as(path / PREPROCESSING, ClipPreprocessing)
        size, crop = config.vision_config.image_size, self._preprocess.crop_size
        if (crop.height, crop.width) != (size, size):
            raise UserError(f"{path / PREPROCESSING}：crop_size {crop.height}×{crop.width} 与 {CONFIG} 的 image_size "
                            f"{size} 不符；两个文件不属于同一个模型，请重新下载整个文件夹")
        self.title, self._file = path.resolve().name, path / weights
        import_paddle()
        with importing("LocalJudge 需要 PaddleNLP",
                       "请运行 pip install -e \".[nlp]\"，或改用 MeasuredJudge、ChatJudge"):
            import paddlenlp.transformers as nlp
        self._tokenizer = _tokenizer(nlp, path)
        self.longest = config.text_config.max_position_embeddings
        if len(self._tokenizer) > config.text_config.vocab_size:
            raise UserError(f"{path / VOCABULARY} 有 {len(self._tokenizer)} 个词，{CONFIG} 的 vocab_size 是 "
                            f"{config.text_config.vocab_size}；两个文件不属于同一个模型，请重新下载整个文件夹")
        use_device(device)
        self._model = _read_model(nlp, self._file, config, self._tokenizer.eos_token_id)
        self.scale = float(np.exp(self._finite(self._model.logit_scale.numpy())).item())

    def tokens(self, text: str) -> int:
        """How many tokens a sentence has, its marks of beginning and end included."""
        return len(self._tokenizer(text)["input_ids"])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Sentences of at most :attr:`longest` tokens → float32 ``[N, D]``, of length 1.

        One by one: padding would have to be masked, and there are few.

        Raises:
            UserError: the weights produce values that are no numbers.
        """
        import paddle

        with paddle.no_grad():
            rows = [self._model.get_text_features(paddle.to_tensor([self._tokenizer(text)["input_ids"]])).numpy()[0]
                    for text in texts]
        return self._directions(np.stack(rows))

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """A batch of images, uint8 ``[H, W]`` or ``[H, W, 3]`` of any size → float32 ``[N, D]``, of length 1.

        Raises:
            UserError: the weights produce values that are no numbers.
        """
        import paddle

        pixels = np.stack([self._preprocess(image) for image in images])
        with paddle.no_grad(), enough_memory("Judge.batch_size", "请把它改小；重新运行同一条命令就接着算"):
            return self._directions(self._model.get_image_features(paddle.to_tensor(pixels)).numpy())

    def _directions(self, vectors: np.ndarray) -> np.ndarray:
        self._finite(vectors)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise UserError(f"{self._file}：算出的特征（feature）含 NaN 或无穷大，权重可能已损坏；请重新下载")
        return values


def _tokenizer(nlp: Any, folder: Path) -> Any:
    try:
        return nlp.CLIPTokenizer(str(folder / VOCABULARY), str(folder / MERGES))
    except Exception as error:  # it checks neither of the files
        raise UserError(f"分词器损坏：{folder / VOCABULARY} 或 {MERGES}（{one_line(error)}）；请重新下载") from None


def _read_model(nlp: Any, file: Path, config: ClipConfig, end: int) -> Any:
    """The model in evaluation mode.

    Args:
        end: the token that ends a sentence, whose place holds the sentence's vector (old files name another by
            mistake).
    """
    sizes = config.model_dump()
    sizes["text_config"]["eos_token_id"] = end
    shape = nlp.CLIPConfig(**sizes)
    mapping = nlp.CLIPModel._get_name_mappings(shape)
    state = load_weights(file)[0]
    if any(name.startswith("text_model.embeddings.") for name in state):
        state = _from_torch(state, mapping)
    if missing := sorted({one.target_name for one in mapping} - set(state)):  # before memory is taken for them
        raise UserError(f"权重与模型不符：{file} 缺少（missing）{len(missing)} 个参数，例如 {missing[0]}；"
                        f"它与 {CONFIG} 不属于同一个模型，请重新下载整个文件夹")
    state["logit_scale"] = np.reshape(state["logit_scale"], [1])
    model = nlp.CLIPModel(shape)
    apply_weights(model, state, {}, path=file)
    model.eval()
    return model


def _from_torch(state: dict[str, np.ndarray], mapping: Sequence[Any]) -> dict[str, np.ndarray]:
    """Hugging Face's names and transposed matrices → PaddleNLP's; position numbers, saved by old versions, left out."""
    targets = {one.source_name: one for one in mapping}
    found = {}
    for name, value in state.items():
        if name.endswith("position_ids"):
            continue
        one = targets.get(name)
        found[one.target_name if one else name] = value.T if one and one.action == "transpose" else value
    return found
