"""What may differ between a run and its continuation: freely, or because the person said so (`--allow-change`).

Two resolved recipes -> the keys that differ -> those that need a word; and for each that was allowed what
is no longer exact from then on. What would not fit the checkpoint's tensors cannot be allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llada_uni.errors import UserError

# How long it runs, how it is spread out, what it reports and keeps.
_PACE = ("steps", "threads", "prefetch", "tensorboard", "wandb", "on_nan", "max_skips", "patience", "watch")
_REPORTS = ("log_every", "evaluate_every", "save_every", "save_seconds", "keep", "keep_best", "samples_every")
_LOOKED_AT = ("options.heldout", "options.heldout_samples", "options.preview")
_FREE = ("out", "parallel", *_LOOKED_AT, *(f"loop.{name}" for name in (*_PACE, *_REPORTS)))
_SKIPPED = ("on_bad", "max_bad")  # by the last part of their name, wherever a stage has them

_RATE = "the learning rate is that of the new schedule, from the step under way on"
_MOMENTS = "the optimizer keeps its moments, which were gathered under the old settings"
_CONSEQUENCES = {
    **dict.fromkeys(("loop.lr", "loop.schedule", "loop.warmup", "loop.decay_fraction", "loop.min_lr_fraction"), _RATE),
    **dict.fromkeys(("loop.optimizer", "loop.muon_scale", "loop.betas", "loop.eps", "loop.weight_decay"), _MOMENTS),
    "loop.clip": "gradients are cut off elsewhere",
    "loop.micro_batches": "a step is another batch, and records are shared out again: a few come twice, a few later",
    **dict.fromkeys(("loop.precision", "loop.compile"), "sums are rounded otherwise"),
    "loop.ema": "averages go on with another decay",
    "seed": "noise is drawn anew, and records come in another order",
    "options.data": "folders that stay go on about where they were, new ones begin",
    "options.tasks": "records are drawn by the new weights",
    "options": "batches are other ones than an uninterrupted run would see",
}
_NEVER = ("stage", "options.sizes", "options.lora", "options.init", "options.vision", "options.book")
READERS = ("loop.micro_batches", "options.data", "options.tasks", "seed")
"""Keys after whose change readers cannot go on exactly."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Keys in which two recipes (plain values) differ and that may not differ freely, in words for a person."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [key for key in old | new if old.get(key) != new.get(key) and not _is_free(key)]


def described(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`key (old there, new here)`."""
    return f"{key} ({dict(_leaves(before)).get(key)!r} there, {dict(_leaves(after)).get(key)!r} here)"


def is_allowed(key: str, allowed: Collection[str]) -> bool:
    """Whether `key`, or a section that it is in, is among those allowed. UserError for one that can never change."""
    found = any(_within(key, name) for name in allowed)
    if found and any(_within(key, name) for name in _NEVER):
        raise UserError(f"{key} cannot be changed in a run: its checkpoints hold other weights; give another run directory")
    return found


def consequence(key: str) -> str:
    """What is no longer exact when `key` changes."""
    return next(said for name, said in _CONSEQUENCES.items() if _within(key, name))


def touches_readers(keys: Collection[str]) -> bool:
    """Whether readers cannot go on exactly after a change of these keys."""
    return any(_within(key, name) for key in keys for name in READERS)


def parse_allowed(text: str | None) -> tuple[str, ...]:
    """`loop.lr,loop.micro_batches` -> its keys."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _is_free(key: str) -> bool:
    return key.rpartition(".")[2] in _SKIPPED or any(_within(key, free) for free in _FREE)
