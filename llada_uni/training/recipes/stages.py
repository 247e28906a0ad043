"""Every training stage by name: a dataclass of options whose `build(processes, seed)` gives the stage."""

from __future__ import annotations

from importlib import import_module

from llada_uni import plugins
from llada_uni.errors import UserError

STAGES = {
    "siglip": "llada_uni.training.tokenizer.siglip:SiglipOptions",
    "quantizer": "llada_uni.training.tokenizer.quantizer:QuantizerOptions",
    "vae": "llada_uni.training.decoder.vae:VaeOptions",
    "backbone": "llada_uni.training.language.stage:BackboneOptions",
    "reward": "llada_uni.training.reward.stage:RewardOptions",
    "preference": "llada_uni.training.reward.preference:PreferenceOptions",
    "decoder": "llada_uni.training.decoder.stage:DecoderOptions",
    "distill": "llada_uni.training.decoder.distill:DistillOptions",
}


def stage_options(name: str) -> type:
    """The options dataclass of a stage, of this table or of a plug-in; UserError for an unknown name."""
    added = plugins.table("stages")
    if name in added:
        return plugins.load("stages", name)
    if name not in STAGES:
        raise UserError(f"unknown stage {name!r}; allowed: {', '.join((*STAGES, *added))}")
    module, attribute = STAGES[name].split(":")
    return getattr(import_module(module), attribute)
