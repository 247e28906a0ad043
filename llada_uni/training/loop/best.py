"""The best evaluation of a run: which checkpoint is kept for it, and when it is time to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from llada_uni.errors import UserError


class Best:
    """Follows one metric of the evaluations, lower being better ("-NAME": higher).

    patience: evaluations without a better one after which a run ends; 0: never. step: of the best one, None before the first.
    """

    def __init__(self, watch: str, patience: int) -> None:
        self.name, self.sign = watch.removeprefix("-"), -1.0 if watch.startswith("-") else 1.0
        self.patience = patience
        self.value, self.step, self.since = math.inf, None, 0

    step: int | None

    def saw(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Takes an evaluation; whether it is the best so far. UserError when it lacks the metric."""
        if self.name not in metrics:
            raise UserError(f"loop.watch is {self.name!r}, but an evaluation of this stage has: {', '.join(sorted(metrics))}")
        value = self.sign * metrics[self.name]
        if value < self.value:
            self.value, self.step, self.since = value, step, 0
            return True
        self.since += 1
        return False

    @property
    def over(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.since

    def state(self) -> dict[str, Any]:
        """Plain JSON, for a checkpoint."""
        return {"value": None if math.isinf(self.value) else self.value, "step": self.step, "since": self.since}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.value = math.inf if state["value"] is None else state["value"]
        self.step, self.since = state["step"], state["since"]
