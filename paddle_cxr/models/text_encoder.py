"""The text tower: a BERT that turns the tokens of a report into vectors, new or from a published folder.

    build_text_encoder   a small BERT with random weights and a vocabulary of its own, from nothing but the reports
    load_text_encoder    BioClinicalBERT, ERNIE-Health and other BERT, ELECTRA and ERNIE models from a local folder
    save_text_encoder    such a folder, for transformers and PaddleNLP as well

The networks are PaddleNLP's.  Nothing is downloaded, nothing is written into a folder that is read, and nothing in it
is run.

Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2018),
arXiv:1810.04805; Clark et al., "ELECTRA" (2020), arXiv:2003.10555; Alsentzer et al., "Publicly Available Clinical BERT
Embeddings" (2019), arXiv:1904.03323; Wang et al., "Building Chinese Biomedical Language Models via Multi-Level Text
Discrimination" (2021), arXiv:2110.07244 (ERNIE-Health, an ELECTRA).
"""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import paddle
import pydantic
from paddle import Tensor, nn
from pydantic import Field

from paddle_cxr.errors import UserError
from paddle_cxr.files import write_json
from paddle_cxr.models.clip_tokenizer import read_json
from paddle_cxr.models.text_weights import (
    TENSORS,
    TowerWeights,
    read_tower_weights,
    to_paddle,
    to_torch,
    weight_files,
)
from paddle_cxr.models.wordpiece import MAX_TOKENS, ReportTokenizer, read_report_tokenizer, train_wordpiece
from paddle_cxr.quiet import importing
from paddle_cxr.schema import Section, checked
from paddle_cxr.weights import apply_weights, write_safetensors

CONFIG, OLD_CONFIG = "config.json", "model_config.json"
# What a config.json says → PaddleNLP's class. CXR-BERT is a BERT with a head of its own; Chinese "RoBERTa" models with
# a WordPiece vocabulary call themselves BERT.
_CLASSES = {"bert": "Bert", "cxr-bert": "Bert", "electra": "Electra", "ernie": "Ernie"}
_ARCHITECTURES = re.compile(r"(CXRBert|Bert|ErnieHealth|Electra|Ernie)(Model|For|Discriminator|Generator)")
_BLOCKED = -1e4  # added to the attention on padding, whose softmax is then exactly 0; half precision can write it
_NEEDED = "文本塔（text encoder）需要 PaddleNLP", "请运行 pip install -e \".[nlp]\""
_MOST_NUMBERS = 2_000_000_000  # of a text tower; BERT-large has 340 million

Size = Annotated[int, Field(ge=1, le=2**24)]
Probability = Annotated[float, Field(ge=0, lt=1)]


class TextConfig(pydantic.BaseModel, frozen=True, extra="ignore"):
    """The keys of a ``config.json`` that shape the network, with the defaults they have in transformers.

    The limits are far above any published model: they keep a damaged or hostile file from asking for endless work.

    Raises:
        pydantic.ValidationError: a key is missing, or has a value that no network can be built from.
    """

    model_type: Literal["bert", "electra", "ernie"]
    vocab_size: Size
    hidden_size: Size
    num_hidden_layers: int = Field(ge=1, le=200)
    num_attention_heads: Size
    intermediate_size: Size
    hidden_act: Literal["gelu", "relu"] = "gelu"
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.1
    max_position_embeddings: int = Field(default=512, ge=3, le=32768)
    type_vocab_size: Size = 2
    layer_norm_eps: float = Field(default=1e-12, gt=0, lt=1)
    pad_token_id: int = Field(default=0, ge=0)
    embedding_size: Size | None = None  # ELECTRA's; None: hidden_size
    use_task_id: bool = False  # ERNIE 2 and 3: an embedding for the task, here always the first
    task_type_vocab_size: Size = 3
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False

    @pydantic.model_validator(mode="after")
    def _fitting(self) -> TextConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size must be a multiple of num_attention_heads")
        if self.pad_token_id >= self.vocab_size:
            raise ValueError("pad_token_id must be smaller than vocab_size")
        return self


class NewTextEncoder(Section):
    """A small BERT with random weights."""

    hidden_size: int = Field(128, ge=8, le=4096)
    num_hidden_layers: int = Field(2, ge=1, le=100)
    num_attention_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(256, ge=8, le=16384)
    max_position_embeddings: int | None = Field(None, ge=3, le=32768)
    vocab_size: int = Field(2000, ge=1, le=1_000_000)
    dropout: float = Field(0.1, ge=0, lt=1)


class TextEncoder(nn.Layer):
    """Tokens → vectors.

    Args:
        config: the shape; weights are random (Paddle's random numbers: seed them before).

    Attributes:
        hidden_size: H, the length of a token's vector.
        frozen_layers: see :meth:`freeze_layers`.

    Raises:
        UserError: PaddleNLP is missing.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        network = _paddlenlp_network(config)
        # Not its pooler: that has weights which no loss of ours reaches.
        self.embeddings, self.encoder = network.embeddings, network.encoder
        self.embeddings_project = getattr(network, "embeddings_project", None) or nn.Identity()  # ELECTRA's
        self.config, self.hidden_size = config, config.hidden_size
        self.frozen_layers: int | None = None

    def forward(self, ids: Tensor, attention: Tensor) -> list[Tensor]:
        """Hidden states, each [N, L, H]: the embeddings first, then the output of every layer.

        Args:
            ids: int64 [N, L], at most ``config.max_position_embeddings`` long.
            attention: int64 [N, L], 1 for a token, 0 for padding, which no token then sees.
        """
        for part in self._frozen():
            for layer in part.sublayers(include_self=True):
                layer.training = False  # train() of the whole model has set it
        hidden = self.embeddings_project(self.embeddings(ids))
        mask = (1 - attention.astype(hidden.dtype)).unsqueeze([1, 2]) * _BLOCKED  # [N, 1, 1, L]
        states = [hidden]
        for layer in self.encoder.layers:
            states.append(layer(states[-1], mask))
        return states

    def freeze_layers(self, count: int | None) -> None:
        """Keep the embeddings and the first ``count`` layers as they are, their dropout off; None: train everything.

        Raises:
            UserError: there are not so many layers.
        """
        check_frozen(count, len(self.encoder.layers))
        self.frozen_layers = count
        for parameter in self.parameters():
            parameter.stop_gradient = False
        for part in self._frozen():
            for parameter in part.parameters():
                parameter.stop_gradient = True

    def _frozen(self) -> list[nn.Layer]:
        if self.frozen_layers is None:
            return []
        return [self.embeddings, self.embeddings_project, *list(self.encoder.layers)[:self.frozen_layers]]


def check_frozen(count: int | None, layers: int) -> None:
    """Refuse to freeze more layers than there are; raises :class:`UserError`."""
    if count is not None and (type(count) is not int or not 0 <= count <= layers):
        raise UserError(f"Arch.text.frozen_layers：应为 0 到 {layers} 的整数（文本塔有 {layers} 层；0 只冻结词嵌入），"
                        f"或 null（不冻结），现在是 {count!r}")


def _paddlenlp_network(config: TextConfig) -> nn.Layer:
    with importing(*_NEEDED):
        from paddlenlp import transformers
    logging.getLogger("PaddleNLP").setLevel(logging.ERROR)  # INFO lines of no use to a student
    own = {"electra": {"embedding_size"}, "ernie": {"use_task_id", "task_type_vocab_size"}}
    skipped = {"model_type", "position_embedding_type", "is_decoder", *set().union(*own.values())} \
        - own.get(config.model_type, set())
    arguments = config.model_dump(exclude=skipped)
    if config.model_type == "electra":
        arguments["embedding_size"] = config.embedding_size or config.hidden_size
    name = _CLASSES[config.model_type]
    network = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**arguments))
    for layer in network.sublayers():
        if isinstance(layer, nn.LayerNorm):
            # PaddleNLP sets it while it draws random weights only, and never for ERNIE.
            layer._epsilon = config.layer_norm_eps
    return network


# --- a new one ---------------------------------------------------------------------------------------------------

def build_text_encoder(config: Mapping[str, Any], texts: Iterable[str], max_tokens: int = MAX_TOKENS
                       ) -> tuple[TextEncoder, ReportTokenizer]:
    """A small BERT with random weights (Paddle's random numbers: seed them before), and a vocabulary for ``texts``.

    Args:
        config: ``hidden_size`` (128), ``num_hidden_layers`` (2), ``num_attention_heads`` (4), ``intermediate_size``
            (256), ``max_position_embeddings`` (``max_tokens``), ``vocab_size`` (2000), ``dropout`` (0.1).
        texts: what the vocabulary is trained on; see :func:`paddle_cxr.models.wordpiece.train_wordpiece`.
        max_tokens: of one text, [CLS] and [SEP] among them.

    Raises:
        UserError: an unknown key, a value out of range, no text, or more tokens than positions.
    """
    shape = checked(config, NewTextEncoder)
    if shape.hidden_size % shape.num_attention_heads:
        raise UserError(f"hidden_size（{shape.hidden_size}）应是 num_attention_heads（{shape.num_attention_heads}）"
                        "的倍数")
    tokenizer = train_wordpiece(texts, shape.vocab_size, max_tokens)
    full = TextConfig(
        model_type="bert", vocab_size=tokenizer.size, hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers, num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size, hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        max_position_embeddings=shape.max_position_embeddings or max_tokens)
    _check_fit(full, tokenizer, "max_position_embeddings")
    return TextEncoder(full), tokenizer


# --- folders -----------------------------------------------------------------------------------------------------

def load_text_encoder(folder: str | Path, max_tokens: int = MAX_TOKENS, weights: bool = True
                      ) -> tuple[TextEncoder, ReportTokenizer]:
    """The text tower of a local folder, in evaluation mode.

    Args:
        folder: in the Hugging Face layout (config.json, vocab.txt or tokenizer.json, tokenizer_config.json,
            model.safetensors, its shards or pytorch_model.bin) or in Paddle's (config.json or model_config.json,
            vocab.txt, model_state.pdparams); pre-training heads are left out.
        max_tokens: of one text, [CLS] and [SEP] among them; 97 in GLoRIA.
        weights: False leaves random weights, for those that are loaded from elsewhere.

    Raises:
        UserError: a file is missing or damaged, weights that are a program, another architecture, names or shapes that
            do not fit, a vocabulary longer than the embedding, or more tokens than positions.
    """
    folder, config = _described(folder)
    found = read_tower_weights(folder) if weights else None
    tokenizer = read_report_tokenizer(folder, max_tokens, split_symbols=found is not None and not found.from_torch)
    _check_fit(config, tokenizer, str(folder))
    encoder = _encoder_with(config, found) if found else TextEncoder(_bounded(config, folder))
    encoder.eval()
    return encoder, tokenizer


def check_paddlenlp() -> None:
    """Refuse to go on without PaddleNLP; raises :class:`UserError`.  It is looked for, not loaded."""
    if importlib.util.find_spec("paddlenlp") is None:
        raise UserError("；".join(_NEEDED))


def check_text_folder(folder: str | Path, max_tokens: int = MAX_TOKENS, frozen_layers: int | None = None) -> None:
    """Refuse what :func:`load_text_encoder` and ``freeze_layers`` would refuse, but for the weights' content.

    It takes a moment, and so comes before the images are read.
    """
    folder, config = _described(folder)
    weight_files(folder)
    _check_fit(config, read_report_tokenizer(folder, max_tokens), str(folder))
    check_frozen(frozen_layers, config.num_hidden_layers)


def _described(folder: str | Path) -> tuple[Path, TextConfig]:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"找不到文本模型文件夹 {folder}；程序不会自动下载，请先下载到本地，再用 -o Arch.text.folder=… "
                        "指向它")
    return folder, _read_config(folder)


def _bounded(config: TextConfig, folder: Path) -> TextConfig:
    """Refuse a size that no text tower has, where no weights are read that would show it before memory is taken."""
    width = config.hidden_size
    rows = config.vocab_size + config.type_vocab_size + config.task_type_vocab_size + config.max_position_embeddings
    numbers = rows * max(width, config.embedding_size or 0) + (
        config.num_hidden_layers * width * (4 * width + 2 * config.intermediate_size))
    if numbers > _MOST_NUMBERS:
        raise UserError(f"{folder / CONFIG}：按它建的网络有 {numbers / 1e8:.0f} 亿个参数，不是文本塔；文件可能已损坏，"
                        "请重新训练或下载")
    return config


def _encoder_with(config: TextConfig, weights: TowerWeights) -> TextEncoder:
    with importing(*_NEEDED):
        from paddlenlp.transformers.model_utils import no_init_weights

    # Lazily: memory is taken by the weights of the file once they are seen to fit, not by what a config claims.
    with paddle.LazyGuard(), no_init_weights():
        encoder = TextEncoder(config)
    apply_weights(encoder, to_paddle(encoder, weights), {}, path=weights.file)
    return encoder


def save_text_encoder(folder: str | Path, encoder: TextEncoder, tokenizer: ReportTokenizer, weights: bool = True
                      ) -> None:
    """Write a folder that :func:`load_text_encoder`, transformers and PaddleNLP read.

    Args:
        folder: made if absent.
        weights: False writes what describes network and tokenizer only, for a folder whose weights hold more.
    """
    folder = Path(folder)
    tokenizer.write(folder)
    name = _CLASSES[encoder.config.model_type]
    write_json(folder / CONFIG, {"architectures": [f"{name}Model"], **encoder.config.model_dump(exclude_none=True)})
    if weights:
        write_safetensors(folder / TENSORS, to_torch(encoder), {"format": "pt"})


def _check_fit(config: TextConfig, tokenizer: ReportTokenizer, where: str) -> None:
    if tokenizer.size > config.vocab_size:
        raise UserError(f"{where}：词表有 {tokenizer.size} 个词，多于词嵌入的 {config.vocab_size}（vocab_size）；"
                        "词表和权重不属于同一个模型，请重新下载整个文件夹")
    if tokenizer.max_tokens > config.max_position_embeddings:
        raise UserError(f"{where}：max_tokens 是 {tokenizer.max_tokens}，多于文本编码器的位置数 "
                        f"{config.max_position_embeddings}（max_position_embeddings）；请把 max_tokens 改小")


def _read_config(folder: Path) -> TextConfig:
    file = folder / CONFIG
    if not file.is_file() and (folder / OLD_CONFIG).is_file():
        file = folder / OLD_CONFIG
    content = _flattened(read_json(file))
    try:
        return TextConfig.model_validate({**{key: value for key, value in content.items() if value is not None},
                                          "model_type": _model_type(content, file)})
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "config"
        raise UserError(f"{file}：{key} 的值不受支持（{first['msg']}）；请重新下载，或换成同一结构的模型") from None


def _flattened(content: dict[str, Any]) -> dict[str, Any]:
    """A ``model_config.json`` of PaddleNLP before 2.5, whose keys may lie in nested ``init_args``, made flat."""
    inner, depth = content, 0
    while isinstance(inner.get("init_args"), list) and depth < 8:
        inner = next((one for one in inner["init_args"] if isinstance(one, dict)), {})
        content, depth = {**inner, **content}, depth + 1
    return content


def _model_type(content: Mapping[str, Any], file: Path) -> str:
    kind, names = content.get("model_type"), content.get("architectures")
    names = [str(one) for one in (names if isinstance(names, list) else [content.get("init_class")])]
    found = _CLASSES.get(str(kind)) or next((match[1] for match in map(_ARCHITECTURES.match, names) if match), None)
    families = {"CXRBert": "bert", "Bert": "bert", "ErnieHealth": "electra", "Electra": "electra", "Ernie": "ernie"}
    if found is None and not kind and names == ["None"]:
        raise UserError(f"{file}：没有写明是哪种网络（model_type）；2020 年以前的 BERT 多是这样，若是 BERT，"
                        "请在文件里加上 \"model_type\": \"bert\"")
    if found is None or (kind and str(kind) not in _CLASSES):
        raise UserError(f"{file}：不支持 {kind or '、'.join(names)}；文本塔支持 BERT、ELECTRA（ERNIE-Health 即是）和 "
                        "ERNIE（model_type 为 bert、electra、ernie），词表为 WordPiece")
    return families[found]
