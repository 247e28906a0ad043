"""How transformers' users ask for text: keywords of `generate` and a GenerationConfig -> one checked request.

A keyword comes first, then the GenerationConfig of the call, then that of the model, then the model directory's own defaults.
What block diffusion has no such thing as (beams, penalties, processors of next-token logits) is refused in one line, unless its
value is the one that changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llada_uni.errors import UserError
from llada_uni.generation.params import Blocks, UnderstandSettings
from llada_uni.generation.settings import StepEvent
from llada_uni.requests import Request, accepts

# Keywords of transformers' that say nothing here, with the values that change nothing. None never does.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_beam_groups": (1,), "diversity_penalty": (0.0,), "length_penalty": (1.0,),
    "early_stopping": (False,),
    "repetition_penalty": (1.0,), "encoder_repetition_penalty": (1.0,), "no_repeat_ngram_size": (0,), "bad_words_ids": ([],),
    "penalty_alpha": (0, 0.0), "min_p": (0, 0.0), "typical_p": (1.0,), "top_h": (), "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "min_length": (0,), "min_new_tokens": (0,), "renormalize_logits": (False,), "output_scores": (False,),
    "output_logits": (False,), "output_attentions": (False,), "output_hidden_states": (False,), "synced_gpus": (False,),
    "logits_processor": ([],), "stopping_criteria": ([],), "prefix_allowed_tokens_fn": (), "assistant_model": (),
    "negative_prompt_ids": (), "custom_generate": (), "cache_implementation": (), "past_key_values": (), "stop_strings": ([],),
    "guidance_scale": (1, 1.0), "forced_bos_token_id": (), "forced_eos_token_id": (), "suppress_tokens": ([],), "max_time": (),
    "inputs_embeds": (), "generation_mode": ("text",), "token_type_ids": (),
}  # fmt: skip
# These say how, not what: blocks are kept in a cache either way; `tokenizer` only serves stop strings.
WITHOUT_EFFECT = ("use_cache", "tokenizer", "bos_token_id", "trust_remote_code")
SAMPLING = ("temperature", "top_k", "top_p")


@accepts(UnderstandSettings, Blocks, text="")
class TextRequest(Request, init=False):
    """The settings of text behind a prompt of ids: those that `requests.Understand` has."""

    section = "understand"


@dataclass(frozen=True)
class Asked:
    """What a call of `generate` asks for. answers: of each prompt; stop_ids, pad_id: None for the model's own.

    as_output: give an output with `sequences`, not the bare ids.
    """

    request: TextRequest
    answers: int = 1
    stop_ids: tuple[int, ...] | None = None
    pad_id: int | None = None
    as_output: bool = False


def read_keywords(given: Mapping[str, Any], configs: Sequence[Any], prompt_length: int) -> Asked:
    """The request of a call. configs: GenerationConfigs, the one that counts more first. UserError for what cannot be done."""
    values = dict(given)
    for name, neutral in NEUTRAL.items():
        value = values.pop(name, None)
        for one in (value, *(getattr(config, name, None) for config in configs)):
            if one is not None and not any(one is same or (type(one) is not Tensor and one == same) for same in neutral):
                raise UserError(_nothing_like(name, one))
    for name in WITHOUT_EFFECT:
        values.pop(name, None)

    def take(name: str) -> Any:
        found = values.pop(name, None)
        return found if found is not None else next(filter(_known, (getattr(one, name, None) for one in configs)), None)

    length, new = take("max_length"), take("max_new_tokens")
    if new is None and length is not None:
        new = length - prompt_length
        if new < 1:
            raise UserError(f"max_length is {length}, but the prompt has {prompt_length} tokens; allowed: more than these")
    sample = take("do_sample")
    wanted = {name: take(name) for name in SAMPLING}
    if sample is False:
        wanted = {"temperature": 0.0}
    elif sample and wanted["temperature"] is None:
        wanted["temperature"] = 1.0
    answers, stops, pad, as_output = (
        take(name) for name in ("num_return_sequences", "eos_token_id", "pad_token_id", "return_dict_in_generate")
    )
    settings = {**{name: value for name, value in wanted.items() if value is not None}, **values}
    if new is not None:
        settings["max_tokens"] = new
    if answers is not None and (not isinstance(answers, int) or answers < 1):
        raise UserError(f"num_return_sequences is {answers!r}; allowed: a whole number from 1 on")
    stop_ids = None if stops is None else tuple(stops) if isinstance(stops, list | tuple) else (int(stops),)
    return Asked(TextRequest(**settings), answers or 1, stop_ids, pad, bool(as_output))


def _known(value: Any) -> bool:
    return value is not None


def _nothing_like(name: str, value: Any) -> str:
    shown = value if isinstance(value, int | float | str) else type(value).__name__
    return (
        f"{name}={shown}: block diffusion has nothing like it; leave it out (allowed: max_new_tokens, do_sample, temperature, "
        "top_k, top_p, num_return_sequences, streamer, generation_config and the settings of requests.Understand)"
    )


class Streamed:
    """Gives a streamer of transformers the tokens of one answer as they become final, without the stop_ids that end it."""

    def __init__(self, streamer: Any, prompt: Tensor, stop_ids: Sequence[int]) -> None:
        self.streamer, self.stop_ids = streamer, frozenset(stop_ids)
        self._ids: list[int] = []
        self._sent = 0
        streamer.put(prompt.cpu())

    def __call__(self, event: StepEvent) -> None:
        """Hears a step of the engine: what is accepted with no mask before it stays."""
        del self._ids[event.block_start :]
        for token, accepted in zip(event.tokens, event.accepted, strict=True):
            if not accepted or token in self.stop_ids or self._ended(event.block_start):
                break
            self._ids.append(token)
        self._send(self._ids)

    def end(self, tokens: Sequence[int]) -> None:
        """The rest of a finished answer."""
        self._send([token for token in tokens if token not in self.stop_ids])
        self.streamer.end()

    def _ended(self, block_start: int) -> bool:
        return len(self._ids) < block_start  # a block before it ended the answer

    def _send(self, ids: Sequence[int]) -> None:
        new, self._sent = ids[self._sent :], max(self._sent, len(ids))
        if new:
            self.streamer.put(torch.tensor(new))
