"""What a trained language model leaves behind: backbone, tokenizer and settings of a model directory, and adapters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llada_uni.backbone import Backbone
from llada_uni.backbone.quantized_formats import Scheme
from llada_uni.checkpoint.load import save_backbone
from llada_uni.checkpoint.source import Source
from llada_uni.config import BackboneConfig
from llada_uni.files.model_dir import SETTINGS
from llada_uni.files.weights import read_json, write_json
from llada_uni.text.tokenizer import TextTokenizer
from llada_uni.training.language.adapter_merge import merge_quantized
from llada_uni.training.language.lora import LoraOptions, add_lora, load_trained, merge_lora, save_adapter

GENERATION = SETTINGS.marker


def export_language_model(
    folder: Path,
    state: Mapping[str, Tensor],
    config: BackboneConfig,
    lora: LoraOptions | None,
    dtype: torch.dtype,
    text: TextTokenizer,
    generation: Mapping[str, Any],
    seed: int = 0,
) -> None:
    """config.json, the weights, tokenizer.json, generation_config.json; of adapters also `adapter/`, merged in the weights.

    state: of a stage whose network is called `model`; what else it holds is left out. dtype: of the weights that are written.
    """
    with torch.device("meta"):
        model: Any = Backbone(config)
        if lora is not None:
            model = add_lora(model, lora, seed)
    own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    model.load_state_dict(own, assign=True)
    if lora is not None:
        save_adapter(model, folder / "adapter")
        model = merge_lora(model)
    save_backbone(model, folder, dtype=dtype)
    text.save(folder / "tokenizer.json")
    write_json(folder / GENERATION, dict(generation))


def export_quantized(
    folder: Path,
    state: Mapping[str, Tensor],
    trained: nn.Module,
    init: str,
    lora: LoraOptions,
    scheme: Scheme,
    text: TextTokenizer,
    generation: Mapping[str, Any],
) -> None:
    """The same of a network with adapters on quantized experts (`trained`, whose tensors `state` has under `model`): the
    weights of the directory `init`, its experts rounded again with the adapters in them. A warning says what this costs."""
    with torch.device("meta"):
        model = add_lora(Backbone(Source(init).config), lora)
    load_trained(model, trained, {name.removeprefix("model."): value for name, value in state.items()})
    save_adapter(model, folder / "adapter")
    warnings.warn(str(merge_quantized(init, folder / "adapter", folder, scheme)), stacklevel=3)
    text.save(folder / "tokenizer.json")
    write_json(folder / GENERATION, dict(generation))


def generation_of(init: str | None) -> dict[str, Any]:
    """The content of generation_config.json of a model directory: one without the file is a published one, and stays so."""
    if init is None:
        return {}
    before = Path(init) / GENERATION
    return read_json(before) if before.is_file() else {"profile": "published"}
