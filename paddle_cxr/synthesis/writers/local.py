"""A language model on this machine: Llama, Qwen2 and the like, run by PaddleNLP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.registry import register
from paddle_cxr.synthesis.writers.answers import AnswerError, read_answer
from paddle_cxr.synthesis.writers.base import Reply, Request
from paddle_cxr.synthesis.writers.language_model import check_folder, load_language_model
from paddle_cxr.synthesis.writers.prompts import Prompts

if TYPE_CHECKING:
    from paddle import Tensor


@register("writer")
class LocalWriter:
    """Writes reports with a causal language model from a local folder.

    Each row of a batch is sampled with its own request's seed, so that a text depends neither on what else is in the
    batch nor on what was written before (but for rounding, which differs a little with the padding).

    Args:
        folder: ``config.json``, the tokenizer's files and safetensors, in the Hugging Face or the Paddle layout.
        prompts: folder of the prompt files (:mod:`paddle_cxr.synthesis.writers.prompts`).
        batch_size: reports written at once.
        max_new_tokens: longest answer.
        temperature: 0 (always the likeliest word) to 2.
        top_p: sample among the likeliest words that together have this probability, 0 < top_p ≤ 1 (nucleus sampling,
            Holtzman et al., arXiv 1904.09751).
        dtype: of the weights in memory; ``auto``: bfloat16 on a GPU that has it, else float32.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``.

    Attributes:
        title: the folder's name.
        prompts_hash: SHA-256 of the prompt files.

    Raises:
        UserError: PaddleNLP is not installed, an argument is out of range, or the folder holds no such model.
    """

    def __init__(self, folder: str, prompts: str, batch_size: int = 8, max_new_tokens: int = 512,
                 temperature: float = 0.7, top_p: float = 0.95,
                 dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto", device: str = "auto") -> None:
        ranges = {"batch_size": (batch_size, 1, 4096), "max_new_tokens": (max_new_tokens, 1, 32_768),
                  "temperature": (temperature, 0, 2), "top_p": (top_p, 0.01, 1)}
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise UserError(f"Writer.{name}：应在 {low:g} 与 {high:g} 之间，现在是 {value}")
        self._prompts = Prompts(prompts)
        self.prompts_hash = self._prompts.hash
        place = Path(folder)
        weights = check_folder(place)
        self.title = place.resolve().name
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        self._temperature, self._top_p = temperature, top_p
        self._model, self._tokenizer = load_language_model(place, weights, dtype, device)
        self._ends = _end_tokens(self._model, self._tokenizer)
        padding = self._tokenizer.pad_token_id
        self._padding = self._ends[0] if padding is None else padding

    def write(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply a request, in the same order; see :class:`Writer`.

        Raises:
            UserError: the prompts do not fit into the model's context, or its tokenizer belongs to another model.
        """
        replies: list[Reply] = []
        for start in range(0, len(requests), self._batch_size):
            replies += self._write_batch(requests[start:start + self._batch_size])
        return replies

    def _write_batch(self, requests: Sequence[Request]) -> list[Reply]:
        import paddle

        prompts = [self._encode(request) for request in requests]
        self._check_prompts(prompts)
        ids, mask = _left_padded(prompts, self._padding)
        if self._temperature > 0:
            seeds = [request.seed for request in requests]
            # PaddleNLP's place for it; greedy search then finds one token to choose, so that it samples.
            self._model.adjust_logits_during_generation = NucleusSampling(seeds, self._temperature, self._top_p)
        with paddle.no_grad():
            written, _ = self._model.generate(
                paddle.to_tensor(ids), attention_mask=paddle.to_tensor(mask),
                position_ids=paddle.to_tensor(np.maximum(mask.cumsum(axis=1) - 1, 0)),
                decode_strategy="greedy_search", max_new_tokens=self._max_new_tokens, repetition_penalty=1.0,
                pad_token_id=self._padding, eos_token_id=self._ends)
        return [self._reply(request, len(prompt), row)
                for request, prompt, row in zip(requests, prompts, written.tolist(), strict=True)]

    def _encode(self, request: Request) -> list[int]:
        """The tokens of a request's prompt, in the model's own chat format where it has one."""
        system, user = self._prompts.messages(request)
        whole = f"{system['content']}\n\n{user['content']}\n"
        if not self._tokenizer.chat_template:
            return self._tokenizer(whole)["input_ids"]
        try:
            text = self._tokenizer.apply_chat_template([system, user], tokenize=False)
        except Exception:  # some templates know no system role, and each says so in its own way
            text = self._tokenizer.apply_chat_template([{"role": "user", "content": whole}], tokenize=False)
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def _check_prompts(self, prompts: Sequence[Sequence[int]]) -> None:
        config = self._model.config
        length, context = max(map(len, prompts)), getattr(config, "max_position_embeddings", None)
        if context and length + self._max_new_tokens > context:
            raise UserError(f"Writer.max_new_tokens：提示词有 {length} 个 token，再写 {self._max_new_tokens} 个就超过"
                            f"模型的上下文长度 {context}；请改小 max_new_tokens，或缩短提示词（prompts）")
        if max(map(max, prompts)) >= config.vocab_size:
            raise UserError(f"Writer.folder：{self.title} 的分词器（tokenizer）词号超出模型的词表 {config.vocab_size}；"
                            "它们不属于同一个模型，请重新下载")

    def _reply(self, request: Request, prompt_tokens: int, row: list[int]) -> Reply:
        length = next((place for place, token in enumerate(row) if token in self._ends), len(row))
        answer = self._tokenizer.decode(row[:length], skip_special_tokens=True)
        counted = {"prompt_tokens": prompt_tokens, "completion_tokens": length}
        try:
            text = read_answer(answer, request.section, self._prompts.wants_json(request.section), length == len(row))
        except AnswerError as error:
            return Reply(error=str(error), **counted)
        return Reply(text=text, **counted)


class NucleusSampling:
    """Draws each row's next token with that row's own random numbers.

    Called with logits [rows, vocabulary], it returns float32 of that shape: 1 for the drawn token, 0 for all others.

    Args:
        seeds: one a row.
        temperature: logits are divided by it.
        top_p: only the likeliest tokens that together reach this probability can be drawn, the first one always.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._streams = [np.random.default_rng(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, logits: Tensor) -> Tensor:
        import paddle

        logits = logits.astype("float32") / self._temperature
        order = paddle.argsort(logits, axis=-1, descending=True)
        chances = paddle.nn.functional.softmax(paddle.take_along_axis(logits, order, axis=-1), axis=-1)
        nucleus = (paddle.cumsum(chances, axis=-1) - chances < self._top_p).astype("float32")
        reached = paddle.cumsum(chances * nucleus, axis=-1)
        drawn = np.array([[stream.random()] for stream in self._streams], dtype=np.float32)
        rank = (reached <= paddle.to_tensor(drawn) * reached[:, -1:]).astype("float32").sum(axis=-1, keepdim=True)
        rank = paddle.minimum(rank, nucleus.sum(axis=-1, keepdim=True) - 1)  # a draw of nearly 1 may round up to 1
        token = paddle.take_along_axis(order, rank.astype("int64"), axis=-1)
        return paddle.nn.functional.one_hot(token.squeeze(-1), logits.shape[-1])


def _left_padded(prompts: Sequence[Sequence[int]], padding: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask (1 = real), int64 [rows, longest]; padded on the left, as rows grow to the right."""
    width = max(map(len, prompts))
    ids = np.full((len(prompts), width), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt):] = prompt
        mask[row, width - len(prompt):] = 1
    return ids, mask


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the generation configuration's, else the model's, else the tokenizer's."""
    for value in (model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id):
        if value is not None:
            return list(value) if isinstance(value, (list, tuple)) else [value]
    raise UserError("Writer.folder：模型没有结束符（eos_token_id）；请检查 config.json 或 generation_config.json")
