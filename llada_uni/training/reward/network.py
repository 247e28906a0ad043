"""What training from rewards and from preferences have in common: a network that goes on from a model directory, and its twin.

A model directory -> the network, all of it trained or adapters only -> log-likelihoods of answers (likelihood.py), by the
network as it is and by the reference it began as -> a model directory. With adapters the reference is the same network without
them; else it is a second copy, and only there where the objective needs one. Routers keep their bias.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.backbone.forms import as_trained
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, IMAGE_TOKENIZER, backbone_folder
from llada_uni.files.shipped import named_model
from llada_uni.files.weights import read_json
from llada_uni.options import AtLeastOne, options
from llada_uni.tasks.defaults import Defaults
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.language.exported import export_language_model, generation_of
from llada_uni.training.language.initial_weights import fill_backbone
from llada_uni.training.language.lora import LoraOptions, add_lora
from llada_uni.training.loop.prefetch import to_device
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.loop.stage import Stage
from llada_uni.training.recipes.sizes import sizes_of
from llada_uni.training.reward.likelihood import (
    Likelihood,
    Part,
    Scored,
    Written,
    elbo_parts,
    log_likelihoods,
    pack_parts,
    rates,
)


@options
class NetworkOptions:
    """init: the model directory to go on from. sizes: as for the stage backbone; without them those of init.

    likelihood: elbo | trace (likelihood.py); levels: rates of masks an answer, or steps a block; rates, image_rates: from which
    to which share of a block is masked, of texts and of images (elbo). length: positions of a packed sequence; chunk: logits of
    so many positions are held at a time. lora: train adapters only. dtype: of the exported weights.
    """

    init: str
    sizes: str | dict[str, Any] | None = None
    lora: LoraOptions | None = None
    likelihood: Likelihood = "elbo"
    levels: AtLeastOne = 4
    rates: tuple[float, float] = (0.0, 1.0)
    image_rates: tuple[float, float] = (0.5, 1.0)
    length: AtLeastOne = 1024
    chunk: AtLeastOne = 4096
    dtype: Literal["float32", "float16", "bfloat16"] = "float16"

    def __post_init__(self) -> None:
        self.init = str(named_model(self.init))
        for name in ("rates", "image_rates"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 1 or high == 0:
                raise UserError(f"{name} are {low} to {high}; allowed: a range inside 0 to 1")
        if self.lora is not None and self.lora.dropout:
            raise UserError("lora.dropout must be 0 here: answers would be likelier or not by chance")

    def config(self) -> BackboneConfig:
        """The config of the network."""
        if self.sizes is not None:
            return BackboneConfig.from_json(sizes_of(self.sizes))
        return BackboneConfig.from_json(backbone_folder(Path(self.init)) / BACKBONE.marker)

    def build_model(self) -> Backbone:
        """The network with random values (none on the meta device)."""
        return Backbone(self.config())

    def first_model(self, seed: int) -> nn.Module:
        """The network with its first weights and its adapters."""
        with torch.device("meta"):
            model = self.build_model()
        model = model.to_empty(device="cpu")
        fill_backbone(model, self.init, seed)
        return model if self.lora is None else add_lora(model.requires_grad_(False), self.lora, seed)


class NetworkStage(Stage):
    """A network whose answers are scored. model: a Backbone, or one with adapters; compared: whether a reference is needed;
    temperature: at which answers are drawn, and so scored."""

    model: Any  # peft's wrapper hands on what it does not know

    def __init__(
        self,
        model: nn.Module,
        options: NetworkOptions,
        processes: Processes,
        seed: int,
        compared: bool,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(processes)
        self.model, self.options, self.seed = model, options, seed
        self.temperature = temperature
        folder = Path(options.init)
        self.text = TextTokenizer.from_file(folder / "tokenizer.json")
        self.defaults = Defaults.from_folder(folder)
        offset = self.backbone.config.image_token_offset
        self.codes = (offset, offset + self._codebook_size(folder))
        self.form = PromptFormat(self.text, offset)
        twin = copy.deepcopy(model).requires_grad_(False).eval() if compared and options.lora is None else None
        self._twin = (twin,)  # a tuple: it is no part of the state, because init has it

    @property
    def backbone(self) -> Backbone:
        """The network itself, adapters inside it or not."""
        return self.model if isinstance(self.model, Backbone) else self.model.get_base_model()

    @property
    def block(self) -> int:
        return self.defaults.block_length

    def _codebook_size(self, folder: Path) -> int:
        config = self.backbone.config
        path = IMAGE_TOKENIZER.path(folder) / IMAGE_TOKENIZER.marker
        rest = config.vocab_size - config.image_token_offset
        return int(read_json(path).get("vq_config", {}).get("num_embeddings", rest)) if path.is_file() else rest

    def bound_parts(self, number: int, prompt: int, ids: np.ndarray, image: bool, noise: np.random.Generator) -> list[Part]:
        """The blocks of an answer, noised as the options say (`elbo_parts`). image: whether its tokens are codes."""
        low, high = self.options.image_rates if image else self.options.rates
        levels = rates(self.options.levels, low, high, self.block, float(noise.random()))
        return elbo_parts(number, prompt, ids, self.block, -1 if image else self.text.eos_id, noise, levels)

    def packed(self, groups: Sequence[Sequence[Written]]) -> Scored:
        """Answers for one forward, on this process's device (`pack_parts`)."""
        found = pack_parts(groups, self.block, self.options.length, self.text.mask_id, self.text.pad_id)
        return to_device(found, self.processes.torch_device)

    def likelihoods(self, scored: Scored) -> tuple[Tensor, Tensor]:
        """Log-likelihoods and entropies of answers [A] by the network as it is (likelihood.py)."""
        return self._likelihoods(self.model, scored)

    @torch.no_grad()
    def reference_likelihoods(self, scored: Scored) -> Tensor:
        """Log-likelihoods of answers [A] by the network that training began with."""
        with self._reference() as model, as_trained():
            return self._likelihoods(model, scored)[0]

    @contextmanager
    def _reference(self) -> Iterator[Any]:
        (twin,) = self._twin
        if self.options.lora is not None:
            with self.model.disable_adapter():
                yield self.model
        else:
            assert twin is not None, "a reference was not asked for"
            yield twin.to(self.processes.torch_device)

    def _likelihoods(self, model: Any, scored: Scored) -> tuple[Tensor, Tensor]:
        packed = scored.packed
        hidden = model.hidden(packed.ids, packed.positions, packed.mask(), only=scored.at)
        chunk, mask = self.options.chunk, self.text.mask_id
        return log_likelihoods(hidden, scored, model.logits, self.codes, mask, self.temperature, chunk)

    def shard_units(self) -> list[nn.Module]:
        return list(self.backbone.model.layers)

    def compile_units(self) -> list[nn.Module]:
        """None: the engine, which answers, goes through the same layers in many shapes."""
        return []

    def fingerprint(self) -> dict[str, Any]:
        lora = self.options.lora
        adapters = [lora.rank, lora.attention, lora.experts] if lora is not None else None
        return {"config": self.backbone.config.to_json(), "block": self.block, "lora": adapters}

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """See `export_language_model`."""
        options = self.options
        export_language_model(
            folder,
            state,
            self.backbone.config,
            options.lora,
            getattr(torch, options.dtype),
            self.text,
            generation_of(options.init),
            self.seed,
        )
