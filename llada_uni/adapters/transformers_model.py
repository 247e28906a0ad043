"""The backbone as a model of transformers: config, bare model and language model, loaded and saved by transformers itself.

Input_ids [B, T] (+ padding mask) -> block-causal attention -> states or logits; prompts -> `generate` ->
prompts with their answers. The network is `llada_uni.backbone`; here it only gets transformers' signatures. Weights come
in the released layout (one tensor an expert) or ours (stacked): transformers stacks and unstacks them by the table that
`CONVERSION` gives it, so dtype, device_map and sharding are transformers' own.
Axes: B rows, T places, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.core_model_loading import MergeModulelist, WeightConverter, WeightRenaming
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.utils.hub import cached_file

from llada_uni.adapters.seeds import seeds_of
from llada_uni.adapters.transformers_generate import Streamed, read_keywords
from llada_uni.adapters.transformers_tokenizer import HUB_ARGUMENTS
from llada_uni.backbone.masks import block_causal
from llada_uni.backbone.model import Backbone
from llada_uni.backbone.moe import Router
from llada_uni.backbone.quantized import use_quantized_experts
from llada_uni.backbone.rope import rotary_tables
from llada_uni.checkpoint.source import own_scheme
from llada_uni.config import MODEL_TYPE, BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.params import Blocks, TextSampling
from llada_uni.generation.settings import Settings
from llada_uni.tasks.common import settings_of
from llada_uni.tasks.defaults import FILE, Defaults
from llada_uni.text.tokenizer import END_OF_TEXT, MASK

PUBLISHED_TYPE = f"{MODEL_TYPE}_veomni"  # of the published config.json
SPECIAL_IDS = {MASK: "mask_token_id", END_OF_TEXT: "eos_token_id"}  # what generation needs -> its name in transformers
# Arguments of `forward` that others pass, and the values that can be had. None always can.
FORWARD: Mapping[str, tuple[Any, ...]] = {
    "use_cache": (True, False), "output_attentions": (False,), "past_key_values": (), "cache_position": (),
    "token_type_ids": (), "output_router_logits": (False,),
}  # fmt: skip
_EXPERT = re.compile(r"(.*mlp\.experts)\.(\d+)\.((?:gate|up|down)_proj)\.weight")  # a tensor of the released layout
# released layout -> ours; transformers applies it backwards when it saves
CONVERSION: list[WeightConverter | WeightRenaming] = [
    WeightConverter(f"mlp.experts.*.{name}_proj.weight", f"mlp.experts.{name}_proj", [MergeModulelist(dim=0)])
    for name in ("gate", "up", "down")
]


class LLaDA2MoeConfig(PreTrainedConfig):
    """config.json of a model directory, fields as released. Without arguments: the released 16 B model."""

    model_type = MODEL_TYPE
    tie_word_embeddings = False

    def __init__(self, **fields: Any) -> None:
        super().__init__(**(fields or BackboneConfig.released_16b().to_json()))

    def backbone(self) -> BackboneConfig:
        """The same as our own class. UserError for a field that is missing, or a network this code does not compute."""
        return BackboneConfig.from_json(self.to_dict())

    def network(self) -> Backbone:
        """A backbone of these sizes, its experts held as `llada-uni quantize` stored them, if it did. UserError for
        experts that others quantized.
        """
        sizes = self.backbone()
        network, scheme = Backbone(sizes), own_scheme(sizes)
        if scheme is not None:
            use_quantized_experts(network, scheme)
        elif sizes.extra.get("quantization_config"):
            raise UserError(
                "transformers cannot read these quantized experts; UniModel can, and llada-uni convert makes them plain"
            )
        return network


class LLaDA2MoePublishedConfig(LLaDA2MoeConfig):
    """The same under the model type of the published directory, which is kept when it is saved."""

    model_type = PUBLISHED_TYPE


LLaDA2MoePublishedConfig.__name__ = LLaDA2MoeConfig.__name__  # by which transformers tells whether a model takes a config


class LLaDA2MoePreTrainedModel(PreTrainedModel):
    """What the bare model and the language model share: starting values, and the block-causal mask."""

    config_class = LLaDA2MoeConfig
    base_model_prefix = "model"
    _no_split_modules = ["Layer"]  # noqa: RUF012  # transformers' own type
    _supports_sdpa = True  # the only attention there is; "eager" means the same
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # `num_items_in_batch`, of transformers' Trainer
    _keep_in_fp32_modules_strict = ["mlp.gate.weight", "mlp.gate.expert_bias"]  # noqa: RUF012  # the router decides in float32
    defaults = Defaults()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As `Backbone.init_weights`; transformers leaves what it has loaded alone."""
        if isinstance(module, Router):
            module.reset_load()
            bias = module.expert_bias
            assert isinstance(bias, Tensor), "a buffer"
            init.zeros_(bias)
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 1:
                init.ones_(parameter)
            else:
                init.normal_(parameter, 0.0, self.config.initializer_range)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, and then what the directory's other files say (`read_directory`)."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        where = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        model.read_directory(lambda file: _json_of(pretrained_model_name_or_path, file, where))
        return loaded

    def read_directory(self, read: Callable[[str], dict[str, Any]]) -> None:
        """Take block length and settings from generation_config.json; `read`: the content of a file, {} without one."""
        self.defaults = Defaults.from_json(read(FILE))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """torch's own, also for the released layout, which `save_pretrained` writes and the Trainer resumes from."""
        return super().load_state_dict(_stacked(state_dict), strict, assign)

    def places(self, length: int, device: torch.device, mask: Tensor | None, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """(positions [B or 1, T], mask [B or 1, 1, T, T] bool, True = may attend) of padded rows of `length` places.

        mask: [B, T], 0 at padding, on either side; or [B, 1, T, T] bool, taken as it is. Positions count from the first token
        that is no padding; a place sees its own block and those before it.
        """
        if mask is not None and mask.dim() == 2:
            real = mask.bool()
            if positions is None:
                positions = (real.cumsum(1) - 1).clamp(min=0)
        elif positions is None:
            positions = torch.arange(length, device=device)[None]
        if mask is not None and mask.dim() == 4:
            return positions, mask.bool()
        seen = block_causal(positions, positions, self.defaults.block_length)
        if mask is not None:
            alone = torch.eye(length, dtype=torch.bool, device=seen.device)  # padding sees itself: no empty row
            seen = (seen & real[:, None, :] & real[:, :, None]) | alone
        return positions, seen[:, None]


class LLaDA2MoeModel(LLaDA2MoePreTrainedModel):
    """Embedding, layers and final norm: ids to states."""

    _keys_to_ignore_on_load_unexpected = ["lm_head.weight"]  # noqa: RUF012

    def __init__(self, config: LLaDA2MoeConfig, backbone: Backbone | None = None) -> None:
        """backbone: the network whose trunk this is; None makes one."""
        super().__init__(config)
        backbone = backbone or config.network()
        trunk = backbone.model
        self.word_embeddings, self.layers, self.norm = trunk.word_embeddings, trunk.layers, trunk.norm
        self._backbone = [backbone]  # in a list: its parts are registered above, under the released names
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another embedding, such as a longer one (`resize_token_embeddings`)."""
        self.word_embeddings = value  # type: ignore[assignment]
        self._backbone[0].model.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """States after the final norm [B, T, D]; arguments as for the language model."""
        check_others(others)
        if (input_ids is None) == (inputs_embeds is None):
            raise UserError("give input_ids or inputs_embeds, one of the two")
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        positions, mask = self.places(x.shape[1], x.device, attention_mask, position_ids)
        sizes = self._backbone[0].config
        rotary = rotary_tables(positions, sizes.rotary_dim, sizes.rope_theta, x.dtype)
        every = [x]
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = self._gradient_checkpointing_func(layer.__call__, x, rotary, mask, None)
            else:
                x = layer(x, rotary, mask, None)
            every.append(x)
        every[-1] = self.norm(x)
        if output_hidden_states is None:
            output_hidden_states = getattr(self.config, "output_hidden_states", False)
        shown = tuple(every) if output_hidden_states else None
        if return_dict is False:
            return (every[-1],) if shown is None else (every[-1], shown)
        return BaseModelOutput(last_hidden_state=every[-1], hidden_states=shown)


class LLaDA2MoeModelLM(LLaDA2MoePreTrainedModel, GenerationMixin):
    """The block-diffusion language model (the released class name). `GenerationMixin` only for what transformers asks of
    a model that generates: `generate` is our own.
    """

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__(config)
        backbone = config.network()
        self.model = LLaDA2MoeModel(config, backbone)
        self.lm_head = backbone.lm_head
        self._backbone = [backbone]
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.model.word_embeddings
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.lm_head
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def read_directory(self, read: Callable[[str], dict[str, Any]]) -> None:
        """Also the ids of the mask and of the end of text, into `generation_config`."""
        super().read_directory(read)
        self.model.defaults = self.defaults
        for token in read("tokenizer.json").get("added_tokens", []):
            if token["content"] in SPECIAL_IDS:
                setattr(self.generation_config, SPECIAL_IDS[token["content"]], token["id"])

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Logits [B, T, V] float32 with block-causal attention. A logit speaks about its own place, not the next one.

        attention_mask: [B, T], 0 at padding; or [B, 1, T, T] bool for any other pattern. labels [B, T]: the true token at
        each place, unshifted, -100 where it does not count (block diffusion counts the masked places); then with `loss`,
        the mean cross-entropy, or with num_items_in_batch the sum over it divided by that. inputs_embeds [B, T, D]: in place of
        input_ids. output_hidden_states: with the states of every layer. logits_to_keep: logits of the last so many places
        only (0: all), or of the places it lists. others: `use_cache` has no effect (`generate` has a cache of its own);
        UserError for what is not there, such as output_attentions.
        """
        found = self.model(
            input_ids,
            attention_mask,
            position_ids,
            inputs_embeds=inputs_embeds,
            output_hidden_states=output_hidden_states,
            **others,
        )
        states = found.last_hidden_state
        if labels is not None or not isinstance(logits_to_keep, int):
            kept = states if isinstance(logits_to_keep, int) else states[:, logits_to_keep]
        else:
            kept = states[:, -logits_to_keep:]
        logits = self._network().logits(kept)
        loss = None if labels is None else _loss(logits, labels, num_items_in_batch)
        if return_dict is False:
            rest = (logits,) if found.hidden_states is None else (logits, found.hidden_states)
            return rest if loss is None else (loss, *rest)
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=found.hidden_states)

    @torch.no_grad()
    def generate(  # type: ignore[override]  # block diffusion takes what it can do, and no more
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        allowed_token_ids: Sequence[int] | None = None,
        generation_config: GenerationConfig | None = None,
        streamer: Any = None,
        inputs: Tensor | None = None,
        **settings: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Block diffusion: prompts [B, T] -> prompts with their answers [B, T + longest answer], padded at the right.

        All rows go through the model together; each gets what it would get alone. attention_mask: 0 at the padding of
        shorter prompts. settings: temperature, text_steps and the others of `TextRequest`, and transformers' keywords as far as
        they mean something here (adapters/transformers_generate.py), also in a generation_config; what nobody says is the
        directory's own for answers (generation_config.json). temperature 0 is greedy; otherwise every row has a seed of its
        own, drawn from `generator` (adapters/seeds.py). allowed_token_ids: only these may be chosen, and exactly max_new_tokens
        of them come (a grid of image codes); guidance is the business of `UniModel`. streamer: gets the tokens of a single row
        as they become final. An answer ends with the end of text. UserError for settings and lengths the model does not have.
        """
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is None or input_ids.shape[1] == 0:
            raise UserError("generate needs input_ids [B, T] with at least one token: block diffusion writes behind a prompt")
        configs = [one for one in (generation_config, self.generation_config) if one is not None]
        asked = read_keywords({"max_new_tokens": max_new_tokens, **settings}, configs, input_ids.shape[1])
        request = asked.request
        if request.seed is not None:
            generator = torch.Generator().manual_seed(request.seed)
        text, blocks = settings_of(request, self.defaults.understand).text, settings_of(request, self.defaults)
        if asked.answers > 1:
            input_ids = input_ids.repeat_interleave(asked.answers, 0)
            attention_mask = None if attention_mask is None else attention_mask.repeat_interleave(asked.answers, 0)
        prompts = [row.tolist() for row in input_ids]
        if attention_mask is not None:
            prompts = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        self._special_id("mask_token_id")
        stops = () if allowed_token_ids is not None else asked.stop_ids or (self._special_id("eos_token_id"),)
        rows = [self._settings(text, blocks, prompt, allowed_token_ids, stops) for prompt in prompts]
        generators: list[torch.Generator | None] = [None] * len(prompts)
        if text.temperature > 0:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds_of(generator, len(prompts))]
        if streamer is not None and len(prompts) > 1:
            raise UserError(f"a streamer shows one answer, not {len(prompts)}")
        heard = None if streamer is None else Streamed(streamer, input_ids[0], stops)
        engine = BatchEngine(self._network())
        made = engine.run(
            [
                Request(prompt, one, generator=own, on_step=heard)
                for prompt, one, own in zip(prompts, rows, generators, strict=True)
            ]
        )
        if failed := next((one.failure for one in made if one.failure is not None), None):
            raise failed
        if heard is not None:
            heard.end(made[0].tokens)
        answers = [torch.tensor(one.tokens, dtype=input_ids.dtype) for one in made]
        pad = self._special_id("eos_token_id") if asked.pad_id is None else asked.pad_id
        padded = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=pad)
        whole = torch.cat((input_ids, padded.to(input_ids.device)), 1)
        return GenerateDecoderOnlyOutput(sequences=whole) if asked.as_output else whole  # type: ignore[arg-type]

    def _network(self) -> Backbone:
        """The backbone with the head as it is now: transformers and peft may put another in its place."""
        backbone = self._backbone[0]
        backbone.lm_head = self.lm_head
        if backbone.config.vocab_size != self.config.vocab_size:  # resize_token_embeddings
            backbone.config = dataclasses.replace(backbone.config, vocab_size=self.config.vocab_size)
        return backbone

    def _settings(
        self,
        text: TextSampling,
        blocks: Blocks,
        prompt: Sequence[int],
        allowed: Sequence[int] | None,
        stop_ids: Sequence[int],
    ) -> Settings:
        """How one row is generated; its length is what the context has room for."""
        context = self.config.max_position_embeddings
        length = min(text.max_tokens, context - len(prompt))
        if length < 1:
            raise UserError(f"the prompt has {len(prompt)} tokens; the context of this model is {context} tokens")
        return Settings(
            mask_id=self._special_id("mask_token_id"),
            block_length=blocks.block_length,
            gen_length=length,
            stop_ids=tuple(stop_ids),
            allowed=allowed,
            **text.sampling(),
        )

    def _special_id(self, name: str) -> int:
        found = getattr(self.generation_config, name, None)
        if found is None:
            raise UserError(f"generation_config.{name} is not known: the directory has no tokenizer.json; set it")
        return int(found)


def _stacked(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same tensors with those of single experts stacked, as the networks hold them."""
    out: dict[str, Any] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        if found := _EXPERT.fullmatch(name):
            experts.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = tensor
        else:
            out[name] = tensor
    return out | {name: torch.stack([found[number] for number in sorted(found)]) for name, found in experts.items()}


def check_others(others: Mapping[str, Any]) -> None:
    """UserError for an argument of `forward` that asks for something this model does not give."""
    for name, value in others.items():
        if name not in FORWARD:
            raise UserError(f"forward has no argument {name!r}")
        if value is not None and value not in FORWARD[name]:
            shown = value if isinstance(value, bool) else type(value).__name__
            raise UserError(f"forward: {name}={shown} is not possible here")


def _loss(logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Mean cross-entropy over the labels that count; items: what the sum is divided by, in place of their number."""
    flat, true = logits.flatten(0, 1), labels.flatten().to(logits.device)
    if items is None:
        return F.cross_entropy(flat, true)
    return F.cross_entropy(flat, true, reduction="sum") / (items.to(flat.device) if isinstance(items, Tensor) else items)


def _json_of(name: Any, file: str, where: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of a model directory or repository; {} when it is not there."""
    path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)
    return {} if path is None else read_json(Path(path))
