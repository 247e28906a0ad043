"""The backbone as a model of transformers: config, bare model and language model, loaded and saved by transformers itself.

Input_ids [B, T] (+ padding mask) -> block-causal attention -> states or logits; prompts -> `generate` ->
prompts with their answers. The network is `llada_uni.backbone`; here it only gets transformers' signatures. Weights come
in the released layout (one tensor an expert) or ours (stacked): transformers stacks and unstacks them by the table that
`CONVERSION` gives it, so dtype, device_map and sharding are transformers' own.
Axes: B rows, T places, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.core_model_loading import MergeModulelist, WeightConverter, WeightRenaming
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.utils.hub import cached_file

from llada_uni.adapters.seeds import seeds_of
from llada_uni.backbone.masks import block_causal
from llada_uni.backbone.model import Backbone
from llada_uni.backbone.moe import Router
from llada_uni.backbone.quantized import use_quantized_experts
from llada_uni.checkpoint.source import own_scheme
from llada_uni.config import MODEL_TYPE, BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.weights import read_json
from llada_uni.generation.batch import BatchEngine, Request
from llada_uni.generation.params import Blocks, TextSampling, UnderstandSettings
from llada_uni.generation.settings import Settings
from llada_uni.requests import Request as Asked
from llada_uni.requests import accepts
from llada_uni.tasks.common import settings_of
from llada_uni.tasks.defaults import FILE, Defaults
from llada_uni.text.tokenizer import END_OF_TEXT, MASK

PUBLISHED_TYPE = f"{MODEL_TYPE}_veomni"  # of the published config.json
SPECIAL_IDS = {MASK: "mask_token_id", END_OF_TEXT: "eos_token_id"}  # what generation needs -> its name in transformers
HUB_ARGUMENTS = ("cache_dir", "local_files_only", "revision", "subfolder", "token")  # of from_pretrained: where files are
# released layout -> ours; transformers applies it backwards when it saves
CONVERSION: list[WeightConverter | WeightRenaming] = [
    WeightConverter(f"mlp.experts.*.{name}_proj.weight", f"mlp.experts.{name}_proj", [MergeModulelist(dim=0)])
    for name in ("gate", "up", "down")
]


@accepts(UnderstandSettings, Blocks, text="")
class TextRequest(Asked, init=False):
    """The settings of text behind a prompt of ids: those that `requests.Understand` has."""

    section = "understand"


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

    def places(self, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """(positions [B or 1, T], mask [B or 1, 1, T, T] bool, True = may attend) of padded rows.

        attention_mask: [B, T], 0 at padding, on either side; or [B, 1, T, T] bool, taken as it is. Positions count from
        the first token that is no padding; a place sees its own block and those before it.
        """
        length = input_ids.shape[1]
        if attention_mask is not None and attention_mask.dim() == 2:
            real = attention_mask.bool()
            if position_ids is None:
                position_ids = (real.cumsum(1) - 1).clamp(min=0)
        elif position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device)[None]
        if attention_mask is not None and attention_mask.dim() == 4:
            return position_ids, attention_mask.bool()
        seen = block_causal(position_ids, position_ids, self.defaults.block_length)
        if attention_mask is not None:
            alone = torch.eye(length, dtype=torch.bool, device=seen.device)  # padding sees itself: no empty row
            seen = (seen & real[:, None, :] & real[:, :, None]) | alone
        return position_ids, seen[:, None]


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
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        return self.word_embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[Tensor]:
        """States after the final norm [B, T, D]; arguments as for the language model."""
        positions, mask = self.places(input_ids, attention_mask, position_ids)
        states = self._backbone[0].hidden(input_ids, positions, mask)
        return (states,) if return_dict is False else BaseModelOutput(last_hidden_state=states)


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

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.lm_head
        return head

    def read_directory(self, read: Callable[[str], dict[str, Any]]) -> None:
        """Also the ids of the mask and of the end of text, into `generation_config`."""
        super().read_directory(read)
        self.model.defaults = self.defaults
        for token in read("tokenizer.json").get("added_tokens", []):
            if token["content"] in SPECIAL_IDS:
                setattr(self.generation_config, SPECIAL_IDS[token["content"]], token["id"])

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutput | tuple[Tensor, ...]:
        """Logits [B, T, V] float32 with block-causal attention. A logit speaks about its own place, not the next one.

        attention_mask: [B, T], 0 at padding; or [B, 1, T, T] bool for any other pattern. labels [B, T]: the true token at
        each place, unshifted, -100 where it does not count (block diffusion counts the masked places); then with `loss`,
        the mean cross-entropy.
        """
        states = self.model(input_ids, attention_mask, position_ids).last_hidden_state
        logits = self._network().logits(states)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(  # type: ignore[override]  # block diffusion takes what it can do, and no more
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        allowed_token_ids: Sequence[int] | None = None,
        **settings: Any,
    ) -> Tensor:
        """Block diffusion: prompts [B, T] -> prompts with their answers [B, T + longest answer], padded at the right.

        All rows go through the model together; each gets what it would get alone. attention_mask: 0 at the padding of
        shorter prompts. settings: temperature, text_steps and the others of `TextRequest`; None is the directory's own for
        answers (generation_config.json). temperature 0 is greedy; otherwise every row has a seed of its own, drawn from
        `generator` (adapters/seeds.py). allowed_token_ids: only
        these may be chosen, and exactly max_new_tokens of them come (a grid of image codes); guidance is the business of
        `UniModel`. An answer ends with the end of text. UserError for settings and lengths the model does not have.
        """
        asked = TextRequest(max_tokens=max_new_tokens, **settings)
        if asked.seed is not None:
            generator = torch.Generator().manual_seed(asked.seed)
        text, blocks = settings_of(asked, self.defaults.understand).text, settings_of(asked, self.defaults)
        prompts = [row.tolist() for row in input_ids]
        if attention_mask is not None:
            prompts = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        rows = [self._settings(text, blocks, prompt, allowed_token_ids) for prompt in prompts]
        generators: list[torch.Generator | None] = [None] * len(prompts)
        if text.temperature > 0:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds_of(generator, len(prompts))]
        engine = BatchEngine(self._network())
        made = engine.run(
            [Request(prompt, one, generator=own) for prompt, one, own in zip(prompts, rows, generators, strict=True)]
        )
        answers = [torch.tensor(one.tokens, dtype=input_ids.dtype) for one in made]
        padded = nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=self._special_id("eos_token_id"))
        return torch.cat((input_ids, padded.to(input_ids.device)), 1)

    def _network(self) -> Backbone:
        """The backbone with the head as it is now: transformers and peft may put another in its place."""
        backbone = self._backbone[0]
        backbone.lm_head = self.lm_head
        return backbone

    def _settings(
        self, text: TextSampling, blocks: Blocks, prompt: Sequence[int], allowed: Sequence[int] | None
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
            stop_ids=() if allowed is not None else (self._special_id("eos_token_id"),),
            allowed=allowed,
            **text.sampling(),
        )

    def _special_id(self, name: str) -> int:
        found = getattr(self.generation_config, name, None)
        if found is None:
            raise UserError(f"generation_config.{name} is not known: the directory has no tokenizer.json; set it")
        return int(found)


def _json_of(name: Any, file: str, where: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of a model directory or repository; {} when it is not there."""
    path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **where)
    return {} if path is None else read_json(Path(path))
