"""LoRA on the backbone, through peft: small adapters are trained, the weights themselves stay as they are.

    model = add_lora(backbone, LoraOptions(rank=16, alpha=32))    # trained like the backbone itself
    save_adapter(model, "my-adapter"); save_backbone(merge_lora(model), "my-model")

Backbone -> the same network with low-rank products beside its matrices -> an adapter folder in peft's
format, or a plain Backbone with the products added in. Attention's projections are adapted as layers; the stacked experts as
parameters (peft's `target_parameters`), each expert with a product of its own.

Cost of adapted experts: peft adds the products to all E experts of a layer before each forward pass, so a layer holds a second
copy of its expert weights [E, I, D] until its backward pass is done, and the gradient of that copy meanwhile. Recompute
activations (parallel options) where that is too much, or adapt the attention alone: `experts=False`.

Axes: E experts, I inner features of an expert, D width. Source of the method: arXiv:2106.09685.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from llada_uni.backbone.model import Backbone
from llada_uni.errors import UserError
from llada_uni.files.folders import new_folder
from llada_uni.options import AtLeastOne, options

if TYPE_CHECKING:
    from peft import PeftModel

_ATTENTION = ["attention.query_key_value", "attention.dense"]
_EXPERTS = ["mlp.experts.gate_proj", "mlp.experts.up_proj", "mlp.experts.down_proj"]


@options
class LoraOptions:
    """rank of the products, which are scaled by alpha / rank; dropout before them (attention only);
    attention, experts: what is adapted.
    """

    rank: AtLeastOne = 16
    alpha: float = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention: bool = True
    experts: bool = True

    def __post_init__(self) -> None:
        if not (self.attention or self.experts):
            raise UserError("lora has nothing to adapt; set attention or experts")
        if self.experts and self.dropout:
            raise UserError("lora dropout needs experts: false (the input of a stacked expert cannot be dropped)")


def add_lora(backbone: Backbone, options: LoraOptions, seed: int = 0) -> PeftModel:
    """The backbone with adapters that change nothing yet; only they want gradients.

    `backbone` itself is changed. The model answers to all that a Backbone answers to (`hidden`, `logits`, `routers`,
    `reset_load`, `config`). seed: of the starting values.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # peft divides by it; any number will do
        lora_dropout=options.dropout,
        target_modules=_ATTENTION if options.attention else [],
        target_parameters=_EXPERTS if options.experts else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(backbone, config)


def merge_lora(model: PeftModel) -> Backbone:
    """The plain backbone with the adapters added to its weights. `model` is used up."""
    merged = model.merge_and_unload(safe_merge=True)
    return merged.eval().requires_grad_(False)


def save_adapter(model: PeftModel, folder: str | os.PathLike[str]) -> Path:
    """Writes the adapters in peft's format (adapter_config.json, adapter_model.safetensors), in one step."""
    with new_folder(folder, replaces=("adapter_config.json",)) as temporary:
        model.save_pretrained(str(temporary), save_embedding_layers=False)
    return Path(folder)


def load_adapter(backbone: Backbone, folder: str | os.PathLike[str], trainable: bool = False) -> PeftModel:
    """The backbone with the adapters of a folder that `save_adapter` (or peft) wrote.

    UserError when the folder holds no adapter, or one of another network.
    """
    from peft import PeftModel

    if not (Path(folder) / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds no adapter (adapter_config.json is missing)")
    try:
        return PeftModel.from_pretrained(backbone, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the adapter in {folder} does not fit this backbone ({' '.join(str(error).split())[:160]})") from error
