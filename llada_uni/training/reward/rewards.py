"""Rewards: functions of a record and the model's answer to it, by name, and what is done with one that fails.

`NAME`, `NAME:ARGUMENT` or `module:function` in a recipe -> `(Conversation, Answer) -> float` -> the weighted sum of all.
NAME is one of ours (REWARDS) or of a plug-in (plugins.py); any other function is named by its module. What an answer is judged
by comes from the record: its own answer, and whatever the field "meta" holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

from llada_uni import plugins
from llada_uni.data.records import Conversation
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes


@dataclass(frozen=True)
class Answer:
    """What the model answered. text: "" for an image; image: None for text; finished: whether a text came to its end; tokens:
    how many, the end included.
    """

    text: str
    image: ImageCodes | None
    finished: bool
    tokens: int


Reward = Callable[[Conversation, Answer], float]


def exact(record: Conversation, answer: Answer) -> float:
    """1 for the record's own text, up to case and spaces around words."""
    return float(_plain(answer.text) == _plain(record.messages[-1].text()))


def contains(record: Conversation, answer: Answer, wanted: str = "") -> float:
    """1 for a text in which the argument, or else meta's "contains", stands."""
    return float((wanted or _meta(record, "contains", str)) in answer.text)


def matches(record: Conversation, answer: Answer, pattern: str = "") -> float:
    """1 for a text that as a whole matches the argument, or else meta's "regex" (Python's syntax)."""
    return float(_pattern(pattern or _meta(record, "regex", str)).fullmatch(answer.text.strip()) is not None)


def follows_schema(record: Conversation, answer: Answer, schema: str = "") -> float:
    """1 for JSON that follows the schema in the argument (JSON text), or else meta's "schema"."""
    wanted = schema or json.dumps(_meta(record, "schema", dict), sort_keys=True)
    try:
        said = json.loads(answer.text)
    except ValueError:
        return 0.0
    return float(_validator(wanted).is_valid(said))


REWARDS: dict[str, Callable[..., float]] = {
    "exact": exact,
    "contains": contains,
    "regex": matches,
    "schema": follows_schema,
}
"""Ours, by name; all but the first take an argument behind a colon."""


def find_reward(name: str) -> Reward:
    """The function of a name in a recipe. UserError when there is none, or when it is no function."""
    word, colon, rest = name.partition(":")
    if word in REWARDS:
        return partial(REWARDS[word], **{_argument(word): rest}) if colon else REWARDS[word]
    added = plugins.table("rewards")
    if name in added:
        return plugins.load("rewards", name)
    allowed = f"allowed: {', '.join((*REWARDS, *added))}, or module:function"
    if not colon:
        raise UserError(f"unknown reward {name!r}; {allowed}")
    try:
        found = getattr(import_module(word), rest)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"the reward {name!r} cannot be imported ({error}); {allowed}") from None
    if not callable(found):
        raise UserError(f"the reward {name!r} is no function; {allowed}")
    return found


def _argument(name: str) -> str:
    takes = {"contains": "wanted", "regex": "pattern", "schema": "schema"}
    if name not in takes:
        raise UserError(f"the reward {name} takes no argument")
    return takes[name]


class Failed(Exception):
    """A reward that cannot be used; the text says which and why."""


class Rewards:
    """The weighted sum of several rewards.

    weights: name -> weight. unfinished: the reward of a text that was cut off before its end, whatever it says; None: judged
    like others. Of each name its own mean is kept for the log.
    """

    def __init__(self, weights: Mapping[str, float], unfinished: float | None) -> None:
        if not weights:
            raise UserError("rewards is empty; allowed: at least one name with its weight")
        self.functions = {name: find_reward(name) for name in weights}
        self.weights, self.unfinished = dict(weights), unfinished

    def __call__(self, record: Conversation, answer: Answer) -> tuple[float, dict[str, float]]:
        """(reward, that of each name). Failed when a function raises, or gives something else than a finite number."""
        if self.unfinished is not None and not answer.finished:
            return self.unfinished, {}
        found = {name: self._one(name, record, answer) for name in self.functions}
        return sum(self.weights[name] * value for name, value in found.items()), found

    def _one(self, name: str, record: Conversation, answer: Answer) -> float:
        try:
            value: Any = self.functions[name](record, answer)
        except UserError:
            raise  # of a record without what its reward needs: nothing that comes later mends it
        except Exception as error:  # whatever a stranger's function does must not end a run
            said = " ".join(str(error).split())[:160]
            raise Failed(f"the reward {name} raised {type(error).__name__} for {record.where}: {said}") from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise Failed(f"the reward {name} gave {value!r} for {record.where}; allowed: a number") from None
        if not math.isfinite(number):
            raise Failed(f"the reward {name} gave {number} for {record.where}; allowed: a finite number")
        return number


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _meta(record: Conversation, name: str, kind: type) -> Any:
    value = record.meta.get(name)
    if not isinstance(value, kind):
        raise UserError(f'{record.where}: its "meta" has no "{name}", by which the reward judges; or give it behind the name')
    return value


@lru_cache(maxsize=256)
def _pattern(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"the pattern {pattern!r} of a reward is no regular expression ({error})") from None


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(json.loads(schema))
    except ValueError as error:  # of JSON and of schemas alike
        raise UserError(f"the schema of a reward is none ({' '.join(str(error).split())[:160]})") from None
