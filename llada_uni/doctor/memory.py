"""How much memory a model needs, form by form, and which form fits this machine.

parts (checkpoint/info.py), configs, settings -> bytes of weights and of what a call works with -> a table; sizes of the
machine -> the best form that fits, and its options.

A call works in phases: the image tokenizer reads, the backbone writes, the decoder decodes. `all`: everything stays in
memory. `offload`: the decoder's transformer and VAE are there by turns. `two steps`: codes and image are made by two
commands, each with its own networks alone. On a CPU tensors whose dtype is the file's are mapped: they are read from the disk
when they are used, and the system may drop them, so only the largest phase must fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from llada_uni.backbone.quantized_formats import FORMATS
from llada_uni.checkpoint.info import BYTES, PartInfo
from llada_uni.config import BackboneConfig
from llada_uni.files.model_dir import BACKBONE, CODE_FEATURES, DECODER, IMAGE_TOKENIZER, TURBO, VAE

FORMS = (*BYTES, *FORMATS)
BRANCHES = 3  # of guidance, at the most: an edit has three
_COPIES = 4  # float32 tables of logits that exist at a time while tokens are chosen
_FEATURE_MAPS = 6  # maps of the VAE's widest stage that exist at a time
_STATES = 16  # tensors of the width of a state that exist at a time in a layer of the decoder
_PATCHES = 8  # side in pixels of one latent of the VAE, times two: of one position of the decoder
_GPU_SHARE, _CPU_SHARE = 0.94, 0.9  # of its memory that a process may count on
_FLOAT8_CAPABILITY = (9, 0)  # from here on float8 is multiplied as it is


@dataclass(frozen=True)
class Need:
    """Bytes in one form: of the weights of each phase, and of what a call works with in its phase."""

    form: str
    backbone: int
    image_tokenizer: int
    features: int
    vae: int
    transformer: int
    cache: int
    pixels: int

    @property
    def writing(self) -> int:
        return self.backbone + self.cache

    @property
    def decoding(self) -> int:
        return self.features + self.vae + self.transformer + self.pixels

    @property
    def all(self) -> int:
        """With everything in memory."""
        weights = self.backbone + self.image_tokenizer + self.features + self.vae + self.transformer
        return weights + max(self.cache, self.pixels)

    @property
    def offload(self) -> int:
        """With transformer and VAE by turns."""
        return self.all - min(self.vae, self.transformer)

    @property
    def two_steps(self) -> int:
        """With codes and image by two commands."""
        return max(self.writing + self.image_tokenizer, self.decoding)

    @property
    def mapped(self) -> int:
        """Where every file is mapped: the largest phase."""
        return max(self.writing, self.decoding, self.image_tokenizer)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mapped": self.mapped, "all": self.all, "offload": self.offload, "two_steps": self.two_steps}


@dataclass(frozen=True)
class Device:
    """Memory of one processor, in bytes: all of it, and what is free now (None: not known)."""

    name: str
    kind: str
    memory: int
    free: int | None = None
    float8: bool = False

    @property
    def usable(self) -> int:
        return int(self.memory * (_CPU_SHARE if self.kind == "cpu" else _GPU_SHARE))


@dataclass(frozen=True)
class Fit:
    """A way to run the model here. options: of a command line; quantize: it is written in this form first, so that it can be
    mapped; two_steps: `generate --decoder none`, then `decode`.
    """

    device: Device
    form: str
    needed: int
    options: tuple[str, ...]
    quantize: bool = False
    two_steps: bool = False


def needs(parts: Sequence[PartInfo], config: BackboneConfig | None, side: int, tile: int) -> list[Need]:
    """What each form needs. side: pixels of the image that is drawn; tile: see `ImageDecoder`.

    Of the two decoders the larger is counted: a call uses one. config: the backbone's, None where there is none.
    """
    named = {part.name: part for part in parts}

    def weights(part: Any, form: str) -> int:
        return named[part.name].memory[form] if part.name in named else 0

    found = []
    for form in FORMS:
        size = BYTES.get(form, BYTES["bfloat16"])
        found.append(
            Need(
                form,
                weights(BACKBONE, form),
                weights(IMAGE_TOKENIZER, form),
                weights(CODE_FEATURES, form),
                weights(VAE, form),
                max(weights(DECODER, form), weights(TURBO, form)),
                0 if config is None else _writing(config, size),
                _decoding(named, side, tile, size),
            )
        )
    return found


def _writing(config: BackboneConfig, size: int) -> int:
    """Keys and values of the longest sequence under every branch, the logits of a block, the states of a prompt."""
    length = config.max_position_embeddings
    keys_and_values = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * length * size
    logits = 32 * config.vocab_size * 4 * _COPIES
    states = length * config.hidden_size * size * _STATES
    return BRANCHES * (keys_and_values + logits) + states


def _decoding(named: dict[str, PartInfo], side: int, tile: int, size: int) -> int:
    if VAE.name not in named:
        return 0
    positions = (side // (2 * _PATCHES)) ** 2 * 2  # of the image and of its condition
    return min(side, tile) ** 2 * 128 * size * _FEATURE_MAPS + positions * 3840 * size * _STATES


def this_machine() -> list[Device]:
    """The GPUs, the one with the most memory first, then the CPU."""
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        float8 = torch.cuda.get_device_capability(number) >= _FLOAT8_CAPABILITY
        name = "cuda" if number == 0 else f"cuda:{number}"
        found.append(Device(f"{name} ({about.name})", name, total, free, float8))
    found.sort(key=lambda device: -device.memory)
    page = os.sysconf("SC_PAGE_SIZE")
    free_pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else None
    available = None if free_pages is None else free_pages * page
    return [*found, Device("cpu", "cpu", os.sysconf("SC_PHYS_PAGES") * page, available)]


def best_fit(table: Sequence[Need], device: Device, stored: str | None) -> Fit | None:
    """The best form that fits the device, None where none does. stored: the form the backbone's files have.

    Better is one command before two steps; then wider numbers before narrower ones, and everything in memory before by turns.
    """
    by_form = {need.form: need for need in table}
    ways = [way for form in _order(device, stored) for way in _ways(by_form[form], device, stored)]
    fitting = [way for way in ways if way.needed <= device.usable]
    return next((way for way in fitting if not way.two_steps), fitting[0] if fitting else None)


def _ways(need: Need, device: Device, stored: str | None) -> list[Fit]:
    """The ways to run one form, the most comfortable first."""
    form, options = need.form, _options(device, need.form, stored)
    by_turns = (*options, "--offload")
    if device.kind != "cpu":
        found = [Fit(device, form, need.all, options), Fit(device, form, need.offload, by_turns)]
    elif form == "float32":
        found = [Fit(device, form, need.all, options)]
    elif form == (stored or "bfloat16"):
        found = [Fit(device, form, need.mapped, options)]
    else:
        written = _options(device, form, form)
        found = [
            Fit(device, form, need.backbone + max(need.cache, need.decoding, need.image_tokenizer), options),
            Fit(device, form, need.mapped, written, quantize=True),
        ]
    return [*found, Fit(device, form, need.two_steps, options, two_steps=True)]


def _order(device: Device, stored: str | None) -> list[str]:
    """Forms worth trying, the best first. What is stored smaller is not made wider; a CPU converts float8 slowly."""
    if stored == "float8":
        return ["int8", "int4", "float8"] if device.kind == "cpu" else ["float8", "int4"]
    if stored is not None:
        return [stored]
    if device.kind == "cpu":
        return ["float32", "bfloat16", "int8", "int4"]
    return ["bfloat16", *(["float8"] if device.float8 else []), "int8", "int4"]


def _options(device: Device, form: str, stored: str | None) -> tuple[str, ...]:
    chosen = ["--device", device.kind]
    if device.kind == "cpu" and form != "float32":
        chosen += ["--dtype", "bfloat16"]
    if form in FORMATS and form != stored:
        chosen += ["--quantization", form]
    return tuple(chosen)
