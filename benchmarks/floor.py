"""The least time a step can take on this machine: the weights it touches have to be read, its products computed.

floor = max(bytes / measured bandwidth, FLOP / measured rate of a large product). A step drafts the open blocks of some
requests: every projection, the shared experts, those routed experts that any token chose, the head at the open places,
and the keys and values of the prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

from llada_uni.config import BackboneConfig

FLOAT = 4  # bytes of a float32


@dataclass(frozen=True)
class Step:
    """rows: requests in the step; block: tokens each; prefix: places before them; choices: rows of the head in use."""

    rows: int
    block: int
    prefix: int
    choices: int

    @property
    def tokens(self) -> int:
        return self.rows * self.block


def busy_experts(experts: int, top_k: int, tokens: int) -> float:
    """How many experts `tokens` tokens touch if they choose evenly."""
    return experts * (1 - (1 - top_k / experts) ** tokens)


def step_bytes(config: BackboneConfig, step: Step) -> float:
    """Bytes that must be read."""
    width, head, groups = config.hidden_size, config.head_dim, config.num_key_value_heads
    attention = width * head * (2 * config.num_attention_heads + 2 * groups)
    expert = 3 * width * config.moe_intermediate_size
    mixed = sum(not config.is_dense(layer) for layer in range(config.num_hidden_layers))
    busy = busy_experts(config.num_experts, config.num_experts_per_tok, step.tokens) + config.num_shared_experts
    dense = (config.num_hidden_layers - mixed) * 3 * width * config.intermediate_size
    cache = step.rows * config.num_hidden_layers * 2 * groups * head * step.prefix
    router = mixed * width * config.num_experts
    numbers = config.num_hidden_layers * attention + mixed * busy * expert + dense + router + step.choices * width + cache
    return FLOAT * numbers


def step_flops(config: BackboneConfig, step: Step) -> float:
    """Operations of its products (a multiplication and an addition are two)."""
    width, head = config.hidden_size, config.head_dim
    attention = width * head * 2 * (config.num_attention_heads + config.num_key_value_heads)
    scores = 2 * config.num_attention_heads * head * (step.prefix + step.block)
    mixed = sum(not config.is_dense(layer) for layer in range(config.num_hidden_layers))
    chosen = config.num_experts_per_tok + config.num_shared_experts
    experts = mixed * (3 * width * config.moe_intermediate_size * chosen + width * config.num_experts)
    dense = (config.num_hidden_layers - mixed) * 3 * width * config.intermediate_size
    per_token = config.num_hidden_layers * (attention + scores) + experts + dense + step.choices * width
    return 2 * step.tokens * per_token


def floor_seconds(config: BackboneConfig, step: Step, bandwidth: float, rate: float) -> float:
    """The floor of a step; bandwidth in bytes a second, rate in FLOP a second."""
    return max(step_bytes(config, step) / bandwidth, step_flops(config, step) / rate)
