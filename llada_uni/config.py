"""The backbone's configuration: one frozen dataclass with the released field names, read from and written to
config.json.

Config.json -> BackboneConfig -> every size the backbone, the checkpoint code and
generation need. Fields this code does not use (training switches, class names for other loaders) are kept in
`extra` and written back, so that a directory read and saved again loses nothing. The other parts of a model
directory are described by the configuration classes of transformers and diffusers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from llada_uni.errors import UserError
from llada_uni.files.configs import read_json


@dataclass(frozen=True)
class BackboneConfig:
    """Sizes and constants of the mixture-of-experts backbone (released configuration, config.json).

    Fields without a default must be in the file. Lengths are in tokens, sizes in features.
    Raises UserError when a value describes a network that this code does not compute.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    image_token_offset: int
    num_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 1
    norm_topk_prob: bool = True
    score_function: str = "sigmoid"
    hidden_act: str = "silu"
    use_qk_norm: bool = True
    use_bias: bool = False
    use_qkv_bias: bool = False
    tie_word_embeddings: bool = False
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 8192
    rope_theta: float = 600000.0
    partial_rotary_factor: float = 0.5
    initializer_range: float = 0.02
    pad_token_id: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UserError(f"config: {name} is {value!r}; allowed: a whole number of at least 1")
        for name, allowed in _ONLY.items():
            if getattr(self, name) != allowed:
                raise UserError(f"config: {name} is {getattr(self, name)!r}; allowed: {allowed!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"config: num_attention_heads {self.num_attention_heads} is no multiple of "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if self.num_experts % self.n_group or not 1 <= self.topk_group <= self.n_group:
            raise UserError(
                f"config: {self.num_experts} experts in n_group {self.n_group} groups with topk_group "
                f"{self.topk_group} kept; allowed: equal groups, 1 to n_group of them kept"
            )
        reachable = self.num_experts // self.n_group * self.topk_group
        if self.num_experts_per_tok > reachable:
            raise UserError(
                f"config: num_experts_per_tok is {self.num_experts_per_tok}; allowed: at most {reachable}, "
                "the experts in the kept groups"
            )
        if self.rotary_dim < 2 or self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise UserError(
                f"config: partial_rotary_factor {self.partial_rotary_factor} of head_dim {self.head_dim} "
                f"rotates {self.rotary_dim} features; allowed: an even number from 2 to head_dim"
            )

    @property
    def rotary_dim(self) -> int:
        """Features at the start of each head that carry the rotary positions."""
        return int(self.head_dim * self.partial_rotary_factor)

    def is_dense(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) has one dense feed-forward network in place of experts."""
        return layer < self.first_k_dense_replace

    @classmethod
    def from_json(cls, source: str | os.PathLike[str] | Mapping[str, Any]) -> BackboneConfig:
        """Read a config from a file, from a directory that holds config.json, or from its parsed content.

        Raises UserError for an unreadable file, a missing field (named), or a network this code does not
        compute.
        """
        if isinstance(source, Mapping):
            content, where = dict(source), "config"
        else:
            path = Path(source)
            path = path / "config.json" if path.is_dir() else path
            content, where = read_json(path), str(path)
        kind = content.get("model_type")
        if kind is not None and not str(kind).startswith(MODEL_TYPE):
            raise UserError(f"{where} describes a model of type {kind!r}; allowed: {MODEL_TYPE} and what begins with it")
        _take_rope(content, where)
        known = [f for f in fields(cls) if f.name != "extra"]
        missing = [f.name for f in known if f.default is MISSING and f.name not in content]
        if missing:
            raise UserError(f"{where}: the field {', '.join(missing)} is missing")
        for name, allowed in _ONLY_WHERE_STATED.items():
            if content.get(name, allowed) != allowed:
                said = "null" if allowed is None else repr(allowed)
                raise UserError(f"{where}: {name} is {content[name]!r}; allowed: {said}")
        values = {f.name: content.pop(f.name) for f in known if f.name in content}
        return cls(**values, extra=content)

    def to_json(self) -> dict[str, Any]:
        """The fields as config.json holds them, `extra` included; `from_json` of it gives an equal config."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        return {**self.extra, **own}

    @classmethod
    def released_16b(cls) -> BackboneConfig:
        """The released LLaDA2.0-Uni backbone: 16 B parameters, about 1.4 B active a token (released
        configuration).
        """
        return cls(
            vocab_size=173568,
            hidden_size=2048,
            intermediate_size=5120,
            num_hidden_layers=20,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=128,
            num_experts=256,
            num_experts_per_tok=8,
            moe_intermediate_size=512,
            image_token_offset=157184,
            n_group=8,
            topk_group=4,
            routed_scaling_factor=2.5,
            pad_token_id=156892,
            extra={"architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe"},
        )


def _take_rope(content: dict[str, Any], where: str) -> None:
    """Puts what `rope_parameters` says (transformers' newer spelling) into the fields of ours that are not there.

    UserError for another kind of rotary positions, and where the two spellings disagree.
    """
    rope = content.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"{where}: rope_parameters has rope_type {rope['rope_type']!r}; allowed: 'default'")
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in rope and content.setdefault(name, rope[name]) != rope[name]:
            raise UserError(f"{where}: {name} is {content[name]} and {rope[name]} in rope_parameters; they must be equal")


MODEL_TYPE = "llada2_moe"  # the published directory says llada2_moe_veomni
_POSITIVE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "num_shared_experts",
    "n_group",
    "topk_group",
    "max_position_embeddings",
)
# Fields that may be absent; another value would be another network.
_ONLY_WHERE_STATED = {
    "rope_scaling": None,
    "sliding_window": None,
    "moe_router_enable_expert_bias": True,
    "router_dtype": "fp32",
}
# Fields of a config.json that this code knows and has no use for, or reads elsewhere (quantization).
UNUSED_FIELDS = (
    *_ONLY_WHERE_STATED, "architectures", "attention_dropout", "auto_map", "bos_token_id", "dtype", "eos_token_id",
    "mask_token_id", "model_type", "output_router_logits", "quantization_config", "rope_parameters", "torch_dtype",
    "transformers_version", "use_cache", "use_fp8_experts",
)  # fmt: skip
# The released network fixes these; another value would be another network.
_ONLY = {
    "score_function": "sigmoid",
    "hidden_act": "silu",
    "use_qk_norm": True,
    "use_bias": False,
    "use_qkv_bias": False,
    "tie_word_embeddings": False,
}
