"""A text-to-image model's folder in the layout of diffusers (Stable Diffusion, RoentGen …): reading and writing it.

    folder/model_index.json                                   which classes the parts are
    folder/unet/          config.json, diffusion_pytorch_model.safetensors
    folder/vae/           config.json, diffusion_pytorch_model.safetensors
    folder/text_encoder/  config.json, model.safetensors
    folder/tokenizer/     vocab.json, merges.txt …
    folder/scheduler/     scheduler_config.json

Weights may be sharded, in half precision (``….fp16.safetensors``), Paddle's (``model_state.pdparams``, or
``diffusion_paddle_model.safetensors``) or PyTorch's ``.bin``, as models were published in 2022: a pickle, of which
nothing is run (:mod:`paddle_cxr.torch_bin`).  Nothing is written into a folder that is read, and nothing is downloaded.
Written folders are in PyTorch's layout, so that diffusers reads them too.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from paddle_cxr.errors import UserError, did_you_mean
from paddle_cxr.files import write_json
from paddle_cxr.models.clip_tokenizer import read_json
from paddle_cxr.models.patch_autoencoder import PatchAutoencoder
from paddle_cxr.models.shards import shards_of
from paddle_cxr.models.torch_layout import linear_transposed
from paddle_cxr.pdparams import one_line, read_pdparams
from paddle_cxr.registry import accepted_arguments
from paddle_cxr.torch_bin import read_torch_bin
from paddle_cxr.weights import apply_weights, read_safetensors, write_safetensors

if TYPE_CHECKING:
    from paddle.nn import Layer

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler/scheduler_config.json"
# The parts that must be there, with the classes that are understood. Which library they are said to be from is ignored:
# ppdiffusers and diffusers write different names for the same thing.
CLASSES = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL", "PatchAutoencoder"),
           "text_encoder": ("CLIPTextModel",), "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast")}
_SUPPORTED = "只支持 Stable Diffusion 1、2 的结构（RoentGen 即是），不支持 SDXL、SD3 等"
IGNORED = ("safety_checker", "feature_extractor", "scheduler")

# Arguments of UNet2DConditionModel that add inputs besides image, time and text.
_UNSUPPORTED = ("encoder_hid_dim", "encoder_hid_dim_type", "class_embed_type", "addition_embed_type",
                "num_class_embeds", "time_cond_proj_dim")


def import_ppdiffusers() -> None:
    """Import ppdiffusers and PaddleNLP quietly; raises :class:`UserError` where they are missing or do not work."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import paddlenlp.transformers  # noqa: F401
            import ppdiffusers  # noqa: F401
    except Exception as error:  # beside releases they do not know, they fail in many ways
        raise UserError(f"扩散模型（diffusion）需要 ppdiffusers 和 paddlenlp，但导入失败（{one_line(error)}）；"
                        "请运行 pip install -e \".[diffusion]\"") from None
    for name in ("PaddleNLP", "ppdiffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)  # INFO lines of no use to a student


# --- building the networks ---------------------------------------------------------------------------------------

def build_part(part: str, config: Mapping[str, Any], where: str) -> Layer:
    """One network with random weights.

    Args:
        part: ``unet``, ``vae`` or ``text_encoder``.
        config: the constructor's arguments; names that begin with ``_`` and those it does not know are left out.
        where: file or YAML path, for messages.

    Raises:
        UserError: an argument out of range, or one that wants more inputs than image, time and text.
    """
    import_ppdiffusers()
    from paddlenlp.transformers import CLIPTextConfig, CLIPTextModel
    from ppdiffusers import AutoencoderKL, UNet2DConditionModel

    if part == "unet" and (given := [name for name in _UNSUPPORTED if config.get(name) is not None]):
        raise UserError(f"{where}：不支持 {given[0]}: {config[given[0]]!r}；{_SUPPORTED}")
    kinds: dict[str, Callable[..., Layer]] = {
        "unet": UNet2DConditionModel.from_config,
        "vae": _build_patch_autoencoder if PatchAutoencoder.__name__ in _names(config) else AutoencoderKL.from_config,
        "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config))}
    known = {name: value for name, value in config.items()
             if not name.startswith("_") and name not in ("name", "architectures", "model_type", "torch_dtype", "dtype",
                                                          "transformers_version")}
    try:
        network = kinds[part](known)
        _check_groups(network)
        return network
    except Exception as error:  # a wrong value makes the constructors raise nearly anything
        raise UserError(f"{where}：这些值搭不出 {part} 网络（{one_line(error)}）；请检查各参数，或重新下载") from None


def check_arguments(part: str, config: Mapping[str, Any], where: str) -> None:
    """Refuse a name that a network does not know, in a recipe; a published ``config.json`` may hold others."""
    import_ppdiffusers()
    from paddlenlp.transformers import CLIPTextConfig
    from ppdiffusers import AutoencoderKL, UNet2DConditionModel

    vae = PatchAutoencoder if PatchAutoencoder.__name__ in _names(config) else AutoencoderKL
    kind = {"unet": UNet2DConditionModel, "vae": vae, "text_encoder": CLIPTextConfig}[part]
    known = [*accepted_arguments(kind), *(["name"] if part == "vae" else [])]
    for key in config:
        if key not in known:
            raise UserError(f"{where}.{key}：{kind.__name__} 没有参数 {key!r}{did_you_mean(key, known)}"
                            f"（可用参数：{'、'.join(known)}）")


def _names(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a recipe and a ``config.json`` call the class."""
    return config.get("name"), config.get("_class_name")


def _build_patch_autoencoder(config: Mapping[str, Any]) -> PatchAutoencoder:
    return PatchAutoencoder(config["patch"], config["channels"])


def downsampling(vae: Layer) -> int:
    """By how much an autoencoder divides the sides of an image."""
    if isinstance(vae, PatchAutoencoder):
        return vae.config["patch"]
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def class_of_vae(vae: Layer) -> list[str]:
    """Library and class for ``model_index.json``; diffusers does not know this project's."""
    return ["paddle_cxr" if isinstance(vae, PatchAutoencoder) else "diffusers", type(vae).__name__]


def _check_groups(network: Layer) -> None:
    """Paddle divides channels into groups without asking whether they can be."""
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.GroupNorm) and layer._num_channels % layer._num_groups:
            raise ValueError(f"norm_num_groups {layer._num_groups}: {layer._num_channels} channels")


def read_part(folder: Path, part: str) -> Layer:
    """The network in the sub-folder ``part`` with its weights, float32, in evaluation mode."""
    import_ppdiffusers()
    from paddlenlp.transformers.model_utils import no_init_weights

    config = read_json(folder / part / CONFIG)
    # Lazily: memory is taken by the weights of the file once they are seen to fit, not by what a config claims.
    with paddle.LazyGuard(), no_init_weights():
        network = build_part(part, config, str(folder / part / CONFIG))
    files, is_torch = weight_files(folder / part)
    state: dict[str, np.ndarray] = {}
    for file in files:
        state |= _READERS[file.suffix](file)
    if part == "text_encoder":
        is_torch = not any(".transformer.layers." in name for name in state)  # one file name for both layouts
    if is_torch:
        state = from_torch(network, state)
    apply_weights(network, {name: value.astype(np.float32, copy=False) for name, value in state.items()}, {},
                  path=files[0] if len(files) == 1 else f"{folder / part}（{len(files)} 个分片）")
    network.eval()
    return network


# --- weights -----------------------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": lambda file: read_safetensors(file)[0], ".pdparams": read_pdparams, ".bin": read_torch_bin}


def weight_files(folder: Path) -> tuple[list[Path], bool]:
    """The weights of a part (one file, or shards), and whether they are in PyTorch's layout.

    Raises:
        UserError: none, only a pickle, or an index that names files elsewhere.
    """
    for stem, is_torch in (("diffusion_pytorch_model", True), ("model", True), ("diffusion_paddle_model", False)):
        for variant in ("", ".fp16", ".bf16"):
            for file in (folder / f"{stem}{variant}.safetensors",
                         folder / f"{stem}.safetensors.index{variant}.json",
                         folder / f"{stem}{variant}.safetensors.index.json"):
                if file.is_file():
                    return (shards_of(file) if file.suffix == ".json" else [file]), is_torch
    for name, is_torch in (("model_state.pdparams", False), ("model_state.fp16.pdparams", False),
                           *((f"{stem}{variant}.bin", True) for stem in ("diffusion_pytorch_model", "pytorch_model")
                             for variant in ("", ".fp16"))):
        if (folder / name).is_file():
            return [folder / name], is_torch
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise UserError(f"{folder} 里没有认识的权重文件，只有别的 .bin / .ckpt；请换成 safetensors"
                        "（发布页上有，或用 diffusers 的 save_pretrained(safe_serialization=True) 转换）")
    raise UserError(f"模型文件夹不完整：{folder} 里没有权重（diffusion_pytorch_model.safetensors、model.safetensors 或 "
                    "model_state.pdparams）；请重新下载")


# PaddleNLP's names of CLIP's layers and Hugging Face's.
_CLIP_NAMES = (("text_model.token_embedding.", "text_model.embeddings.token_embedding."),
               ("text_model.positional_embedding.", "text_model.embeddings.position_embedding."),
               ("text_model.ln_final.", "text_model.final_layer_norm."),
               (".transformer.layers.", ".encoder.layers."), (".linear1.", ".mlp.fc1."), (".linear2.", ".mlp.fc2."),
               (".norm1.", ".layer_norm1."), (".norm2.", ".layer_norm2."))
# What an autoencoder's attention was called before 2023; the published Stable Diffusion 1 and RoentGen still say it.
_OLD_ATTENTION = (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0"))


def from_torch(network: Layer, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors as PyTorch saved them → the names and the layout of ``network``."""
    renamed = {_name_from_torch(network, name): value for name, value in state.items()
               if not name.endswith("position_ids")}  # a constant that old releases saved
    wanted = network.state_dict()
    for name, value in renamed.items():
        if value.ndim == 4 and value.shape[2:] == (1, 1) and name in wanted and len(wanted[name].shape) == 2:
            renamed[name] = value[:, :, 0, 0]  # old autoencoders save attention's linear layers as 1 x 1 convolutions
    return linear_transposed(network, renamed)


def to_torch(network: Layer) -> dict[str, np.ndarray]:
    """The tensors of ``network`` under PyTorch's names, in its layout."""
    is_clip = hasattr(network, "text_model")
    state = linear_transposed(network, {name: value.numpy() for name, value in network.state_dict().items()})
    return {_replace(name, _CLIP_NAMES) if is_clip else name: value for name, value in state.items()}


def _name_from_torch(network: Layer, name: str) -> str:
    if hasattr(network, "text_model"):
        full = name if name.startswith("text_model.") else f"text_model.{name}"  # transformers 5 leaves it out
        return _replace(full, [(theirs, ours) for ours, theirs in _CLIP_NAMES])
    match = re.fullmatch(r"(.*\.mid_block\.attentions\.\d+)\.(\w+)\.(weight|bias)", name)
    new = dict(_OLD_ATTENTION).get(match[2]) if match else None
    return f"{match[1]}.{new}.{match[3]}" if match and new else name


def _replace(name: str, pairs: Any) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


# --- the folder --------------------------------------------------------------------------------------------------

def check_index(folder: Path) -> None:
    """Refuse what is no folder of the kind of Stable Diffusion 1 and 2.

    Raises:
        UserError: no folder, no ``model_index.json``, or parts of other classes (which).
    """
    if not folder.is_dir():
        raise UserError(f"找不到扩散模型文件夹 {folder}；程序不会自动下载，请先下载权重，再把 folder 改为它的路径")
    if not (folder / INDEX).is_file():
        if (folder / "model" / INDEX).is_file():  # a training's output folder
            raise UserError(f"{folder} 里没有 {INDEX}；训练出的模型在 {folder / 'model'}，请把 folder 改成它")
        raise UserError(f"{folder} 不是 diffusers 布局的文件夹：缺 {INDEX}；应有 unet/、vae/、text_encoder/、"
                        "tokenizer/、scheduler/（单个 .ckpt 或 .safetensors 请先用 diffusers 转换）")
    index = read_json(folder / INDEX)
    described = {name: value for name, value in index.items() if not name.startswith("_") and isinstance(value, list)}
    for part, accepted in CLASSES.items():
        found = (described.get(part) or [None])[-1]
        if found not in accepted:
            raise UserError(f"{folder / INDEX}：{part} 应为 {' 或 '.join(accepted)}，现在是 {found!r}；{_SUPPORTED}，"
                            f"这个文件夹是 {index.get('_class_name')}")
    more = [name for name, value in described.items() if name not in (*CLASSES, *IGNORED) and any(value)]
    if more:
        raise UserError(f"{folder / INDEX}：不支持 {'、'.join(more)}（{index.get('_class_name')}）；{_SUPPORTED}")


def write_part(folder: Path, part: str, network: Layer) -> None:
    """Write one network as ``folder/part``."""
    is_text = part == "text_encoder"
    name = "model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"
    write_safetensors(folder / part / name, to_torch(network), {"format": "pt"})
    write_json(folder / part / CONFIG, config_of(network))


# What transformers and PaddleNLP both read from a text encoder's config.json.
_TEXT_KEYS = ("vocab_size", "hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers",
              "num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps", "attention_dropout",
              "initializer_range", "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id")


def config_of(network: Layer) -> dict[str, Any]:
    """The content of the ``config.json`` from which :func:`build_part` builds this network again."""
    if hasattr(network, "text_model"):
        return {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "torch_dtype": "float32",
                **{key: getattr(network.config, key) for key in _TEXT_KEYS}}
    # data_format is Paddle's own, and always its default here.
    return {"_class_name": type(network).__name__, "_diffusers_version": "0.29.0",
            **{key: value for key, value in network.config.items() if not key.startswith("_") and key != "data_format"}}
