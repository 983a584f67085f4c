"""A language model on this machine: Llama, Qwen2 and the like, run by PaddleNLP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paddle_cxr.errors import UserError
from paddle_cxr.pdparams import one_line
from paddle_cxr.registry import register
from paddle_cxr.synthesis.device import enough_memory
from paddle_cxr.synthesis.endpoint import check_ranges
from paddle_cxr.synthesis.writers.answers import AnswerError, read_answer
from paddle_cxr.synthesis.writers.base import Reply, Request
from paddle_cxr.synthesis.writers.language_model import check_folder, load_language_model
from paddle_cxr.synthesis.writers.prompts import Prompts

if TYPE_CHECKING:
    from paddle import Tensor

_OUT_OF_MEMORY = ("Writer.batch_size", "请改小 Writer.batch_size 或 Writer.max_new_tokens，或换小一点的模型；"
                                       "重新运行同一条命令就接着写")


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
        check_ranges("Writer", batch_size=(batch_size, 1, 4096), max_new_tokens=(max_new_tokens, 1, 32_768),
                     temperature=(temperature, 0, 2), top_p=(top_p, 0.01, 1))
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
            UserError: the prompts do not fit into the model's context, its tokenizer or chat template is of no use, or
                the memory does not suffice.
        """
        prompts = [self._encode(request) for request in requests]
        replies = [Reply(error=self._too_long(request, prompt))
                   for request, prompt in zip(requests, prompts, strict=True)]
        short = [place for place, reply in enumerate(replies) if not reply.error]
        for start in range(0, len(short), self._batch_size):
            places = short[start:start + self._batch_size]
            written = self._write_batch([requests[place] for place in places], [prompts[place] for place in places])
            for place, reply in zip(places, written, strict=True):
                replies[place] = reply
        return replies

    def _write_batch(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> list[Reply]:
        import paddle

        ids, mask = _left_padded(prompts, self._padding)
        if self._temperature > 0:
            seeds = [request.seed for request in requests]
            # PaddleNLP's place for it; greedy search then finds one token to choose, so that it samples.
            self._model.adjust_logits_during_generation = NucleusSampling(seeds, self._temperature, self._top_p)
        with paddle.no_grad(), enough_memory(*_OUT_OF_MEMORY):
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
            return self._checked(self._tokenizer(whole)["input_ids"])
        try:
            text = self._tokenizer.apply_chat_template([system, user], tokenize=False)
        except Exception:  # some templates know no system role, and each says so in its own way
            text = self._from_one_message(whole)
        return self._checked(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _from_one_message(self, whole: str) -> str:
        try:
            return self._tokenizer.apply_chat_template([{"role": "user", "content": whole}], tokenize=False)
        except Exception as error:  # a template is a program from the model's folder, run in a sandbox
            raise UserError(f"Writer.folder：{self.title} 的对话模板（chat_template）用不了（{one_line(error)}）；"
                            "请重新下载 tokenizer_config.json") from None

    def _checked(self, tokens: list[int]) -> list[int]:
        size = self._model.config.vocab_size
        if not tokens or max(tokens) >= size:
            raise UserError(f"Writer.folder：{self.title} 的分词器（tokenizer）没有给出词号，或词号超出模型的词表 "
                            f"{size}；它们不属于同一个模型，请重新下载")
        return tokens

    def _too_long(self, request: Request, prompt: Sequence[int]) -> str:
        """Why a prompt leaves no room for an answer, or an empty string.

        What FINDINGS are asked with comes from the recipe, which has to change.  The other prompts hold what the model
        wrote itself: one long text must not end a run of thousands.
        """
        context = getattr(self._model.config, "max_position_embeddings", None)
        if not context or len(prompt) + self._max_new_tokens <= context:
            return ""
        if request.section == "findings" and not request.feedback:
            raise UserError(f"Writer.max_new_tokens：提示词有 {len(prompt)} 个 token，再写 {self._max_new_tokens} 个"
                            f"就超过模型的上下文长度 {context}；请改小 max_new_tokens，或缩短提示词（prompts）")
        return "提示词过长（prompt exceeds the context）"

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
            ends = list(value) if isinstance(value, (list, tuple)) else [value]
            if ends and all(type(one) is int and one >= 0 for one in ends):
                return ends
            raise UserError(f"Writer.folder：结束符（eos_token_id）应为词号，现在是 {value!r}；"
                            "请检查 config.json 或 generation_config.json")
    raise UserError("Writer.folder：模型没有结束符（eos_token_id）；请检查 config.json 或 generation_config.json")
