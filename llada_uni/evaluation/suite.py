"""What an evaluation suite is: questions that a model is asked, and how each answer is judged.

A suite is made by a plug-in (`SUITES`: name to a function that is given the name) or in code, as records.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from llada_uni import plugins
from llada_uni.errors import UserError

LIMIT = 200
Calls = dict[str, dict[str, Any]]
"""Keyword arguments of the model's calls, by the name of the call."""


@dataclass
class Judged:
    """One judged answer. scores: numbers, 0 to 1 each, "right" being the headline; prompt, wanted, got: for people;
    pictures: (caption, image) pairs for the page. suite, part (of the suite, or ""), key (its class), seconds and error are
    filled in by the runner."""

    prompt: str
    scores: dict[str, float]
    wanted: str = ""
    got: str = ""
    pictures: list[tuple[str, Image.Image]] = field(default_factory=list)
    suite: str = ""
    part: str = ""
    key: str = ""
    seconds: float = 0.0
    error: bool = False

    @property
    def score(self) -> float:
        return self.scores["right"]

    def to_json(self) -> dict[str, Any]:
        """Everything but the images."""
        return {name: value for name, value in vars(self).items() if name != "pictures"}


@dataclass(frozen=True)
class Question:
    """One question: its part of the suite ("" where there are none), its class, its words, and who asks a model and judges."""

    part: str
    key: str
    prompt: str
    ask: Callable[[Any], Judged]


@dataclass(frozen=True)
class Plan:
    """How a suite is run. limit: samples at most (None: LIMIT, or all of what is finite); seed: of samples and answers; split:
    one of the suite's; calls: changes to the suite's own arguments of calls."""

    limit: int | None = LIMIT
    seed: int = 0
    split: str = "heldout"
    calls: Calls = field(default_factory=dict)


class Suite(Protocol):
    """A set of questions. name: in reports; meaning: what the overall score is, in words; splits: allowed names, () for any;
    head: the part that the overall score is taken from, None for the mean of the parts. A class of suites that needs what the
    program does not bring has `by_name_only = True`: "all" leaves it out."""

    name: str
    meaning: str
    splits: tuple[str, ...]
    head: str | None

    def questions(self, plan: Plan) -> Sequence[Question] | Iterator[Question]: ...

    def total(self, plan: Plan) -> int:
        """How many questions there are."""
        ...

    def calls(self, plan: Plan) -> Calls:
        """The arguments that the calls are made with, for the report."""
        ...

    def facts(self, judged: Sequence[Judged]) -> dict[str, Any]:
        """More for the suite's entry of the report: scores over all answers together, what was left out."""
        ...


def find_suites(names: Iterable[str]) -> list[Suite]:
    """The suites of plug-ins by name; "all" is every one that is not `by_name_only`. UserError for unknown names."""
    known = plugins.table("suites")
    asked = [name for given in names for name in (_usual(known) if given == "all" else (given,))]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise UserError(f"unknown suites {', '.join(unknown) or 'none'}; known: {', '.join(known)}")
    return [plugins.load("suites", name)(name) for name in dict.fromkeys(asked)]


def _usual(known: Iterable[str]) -> list[str]:
    """Those that "all" means. To know it each is imported, and torch with some: so only where "all" is asked for."""
    return [name for name in known if not getattr(plugins.load("suites", name), "by_name_only", False)]


def with_changes(calls: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> Calls:
    """`calls` with the changes to single arguments; changes to other calls are passed over."""
    return {call: {**how, **changes.get(call, {})} for call, how in calls.items()}
