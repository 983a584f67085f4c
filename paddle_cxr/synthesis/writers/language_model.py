"""Loading a causal language model with PaddleNLP from a folder that nobody vouches for."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.quiet import import_paddle, importing
from paddle_cxr.synthesis.device import use_device

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def check_folder(folder: Path) -> list[Path]:
    """Refuse what is no language model, or one that would run a pickle; returns its safetensors."""
    where = "Writer.folder"
    if not folder.is_dir():
        raise UserError(f"{where}：找不到模型文件夹 {folder}；程序不会自动下载，请先把模型下载到本地")
    kinds = _read_json(folder / "config.json").get("architectures")
    if not isinstance(kinds, list) or not any("CausalLM" in str(one) or "LMHead" in str(one) for one in kinds):
        raise UserError(f"{where}：{folder} 不是因果语言模型（causal LM），config.json 的 architectures 是 {kinds!r}")
    _read_json(folder / "tokenizer_config.json")
    return _weight_files(folder)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder.  PaddleNLP would load any other file that the index names, pickles too."""
    if not (folder / INDEX).exists():
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"Writer.folder：{folder} 里没有 {WEIGHTS}（或 {INDEX} 和它的分片）；"
                            ".bin 与 .pdparams 是 pickle，可能执行任意代码，不予读取，请下载 safetensors 版")
        return [folder / WEIGHTS]
    mapping = _read_json(folder / INDEX).get("weight_map")
    names = sorted(set(map(str, mapping.values()))) if isinstance(mapping, dict) else []
    for name in names:
        if not name.endswith(".safetensors") or Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"Writer.folder：{folder / INDEX} 列出的 {name!r} 不是这个文件夹里的 safetensors；"
                            "请重新下载")
    if not names:
        raise UserError(f"Writer.folder：{folder / INDEX} 没有列出任何分片（weight_map）；请重新下载")
    return [folder / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text("utf-8"))
    except OSError:
        raise UserError(f"Writer.folder：找不到 {file}；模型文件夹应有 config.json、tokenizer_config.json、"
                        f"分词器文件和 {WEIGHTS}") from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"Writer.folder：{file} 不是有效的 JSON 对象；请重新下载")
    return value


def load_language_model(folder: Path, weights: Sequence[Path], dtype: str, device: str) -> tuple[Any, Any]:
    """Load the model (in evaluation mode) and the tokenizer of a folder.

    Args:
        folder: see :func:`check_folder`.
        weights: its safetensors, in the Hugging Face or the Paddle layout.
        dtype: ``auto`` (bfloat16 on a GPU that has it, else float32), ``float32``, ``float16`` or ``bfloat16``.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Raises:
        UserError: PaddleNLP is not installed, the folder is not whole, or the device cannot do it.
    """
    import_paddle()
    import paddle

    with importing("LocalWriter 需要 PaddleNLP", "请运行 pip install -e \".[nlp]\"，或改用 ChatWriter、GrammarWriter"):
        from paddlenlp.transformers import AutoModelForCausalLM, AutoTokenizer
    use_device(device)
    on_gpu = paddle.get_device().startswith("gpu")
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu and paddle.amp.is_bfloat16_supported() else "float32"
    if not on_gpu and dtype != "float32":
        raise UserError(f"Writer.dtype：CPU 上只能用 float32，现在是 {dtype}")
    from_torch = _has_torch_layout(weights[0])
    try:
        with _warnings_of_paddlenlp() as said, _view(folder, weights) as place:
            tokenizer = AutoTokenizer.from_pretrained(place, **_special_tokens(folder))
            model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, convert_from_torch=from_torch)
    except Exception as error:  # PaddleNLP fails in many ways on a folder that is not whole
        raise UserError(f"Writer.folder：PaddleNLP 读不了 {folder}（{one_line(error)}）；"
                        "请检查文件是否齐全、这种模型是否受支持") from None
    if missing := _missing(model, said):
        raise UserError(f"Writer.folder：{folder} 的权重与 config.json 不符，缺失 {len(missing)} 个参数"
                        f"（例如 {missing[0]}）；请重新下载")
    model.eval()
    return model, tokenizer


def _special_tokens(folder: Path) -> dict[str, Any]:
    """Chat marks such as ``<|im_start|>``, as Hugging Face describes them in ``tokenizer_config.json``.

    Left to itself, PaddleNLP knows them by name only, and then swallows the line break that a chat format has beside
    them, or takes them for text.
    """
    from paddlenlp.transformers.tokenizer_utils_base import AddedToken

    described = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder")
    marks = [AddedToken(one["content"], lstrip=one["lstrip"], rstrip=one["rstrip"], normalized=False)
             for one in (described or {}).values() if one["special"]]
    return {"additional_special_tokens": marks} if marks else {}


def _has_torch_layout(file: Path) -> bool:
    """Whether a safetensors file comes from PyTorch (matrices transposed), as its metadata say."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as opened:
            return (opened.metadata() or {}).get("format") == "pt"
    except (OSError, SafetensorError) as error:
        raise UserError(f"Writer.folder：权重文件损坏或读不到：{file}（{one_line(error)}）；请重新下载") from None


@contextlib.contextmanager
def _view(folder: Path, weights: Sequence[Path]) -> Iterator[str]:
    """A temporary folder of the same name with links to what PaddleNLP may see of ``folder``.

    Converting PyTorch's layout, it would read every file called ``model-…``, pickles too, and write all weights once
    more beside the originals, unless a file of that name is there.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / folder.resolve().name
        place.mkdir()
        for file in folder.iterdir():
            if file in weights or file.suffix in (".json", ".txt", ".model", ".tiktoken"):
                (place / file.name).symlink_to(file.resolve())
        (place / "model_state.pdparams").touch()
        yield str(place)


def _missing(model: Any, said: Sequence[str]) -> list[str]:
    """The parameters that no file holds, by PaddleNLP's warnings: it would go on with random numbers in their place.

    An output layer that is tied to the embeddings (Qwen2-0.5B) is never stored, and has what they have.
    """
    named = {name for line in said for name in re.findall(r"'([^']+)'", line.partition("newly initialized:")[2])}
    parameters = model.state_dict()
    stored = {id(value) for name, value in parameters.items() if name not in named}
    return sorted(name for name in named if id(parameters.get(name)) not in stored)


@contextlib.contextmanager
def _warnings_of_paddlenlp() -> Iterator[list[str]]:
    """Gather what PaddleNLP logs as warnings, instead of printing it with all the rest."""
    said: list[str] = []

    class Gather(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger = logging.getLogger("PaddleNLP")
    printing, logger.handlers = logger.handlers, [Gather()]
    logger.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        logger.handlers = printing
        logger.setLevel(logging.ERROR)  # it repeats advice with every batch
