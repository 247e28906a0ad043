"""Options: checked from Python and from plain values alike, and every mistake is one line."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pytest
from pydantic import Field

from llada_uni.errors import UserError
from llada_uni.options import AtLeastOne, Share, describe, from_plain, options, to_plain


@options
class Inner:
    share: Share = 0.5
    kind: Literal["round", "flat"] = "round"


@options
class Outer:
    data: dict[str, float]
    size: AtLeastOne | None = None
    power: Annotated[float, Field(gt=0, lt=1)] = 0.5
    pair: tuple[float, float] = (0.0, 1.0)
    inner: Inner = dataclasses.field(default_factory=Inner)
    other: Inner | None = None

    def __post_init__(self) -> None:
        if self.pair[0] > self.pair[1]:
            raise UserError(f"pair is {self.pair}; allowed: the smaller one first")


def test_values_are_converted_and_read_back_equal():
    made = from_plain(Outer, {"data": {"a": 1}, "pair": [0, 2], "power": "1e-1", "other": {"kind": "flat"}}, "options")
    assert made == Outer({"a": 1.0}, pair=(0.0, 2.0), power=0.1, other=Inner(kind="flat"))
    assert from_plain(Outer, to_plain(made), "options") == made
    assert dataclasses.replace(made, size=3).size == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "data is missing"),
        ({"data": 3}, "data is 3; should be a valid dictionary"),
        ({"data": {"a": "x"}}, "data.a is 'x'; should be a valid number"),
        ({"data": {}, "size": 0}, "size is 0; allowed: at least 1"),
        ({"data": {}, "power": 1}, "power is 1; allowed: above 0 and less than 1"),
        ({"data": {}, "inner": {"share": 2}}, "inner.share is 2; allowed: 0 to 1"),
        ({"data": {}, "other": {"kind": "long"}}, "other.kind is 'long'; allowed: round, flat"),
        ({"data": {}, "other": {"knd": "flat"}}, "unknown key other.knd (did you mean kind?); allowed: share, kind"),
        ({"data": {}, "inner": 5}, "inner is 5; allowed: the keys share, kind"),
        ({"data": {}, "sizes": 5}, "unknown key sizes (did you mean size?); allowed: data, size, power"),
        ({"data": {}, "pair": (2, 1)}, "pair is (2.0, 1.0); allowed: the smaller one first"),
    ],
)
def test_a_mistake_is_the_same_line_from_python_and_from_plain_values(values, said):
    with pytest.raises(UserError) as from_python:
        Outer(**values)
    with pytest.raises(UserError) as from_recipe:
        from_plain(Outer, values, "options")
    assert str(from_python.value).startswith(said)
    assert said.removeprefix("unknown key ") in str(from_recipe.value) and "options" in str(from_recipe.value)
    assert "\n" not in str(from_python.value) + str(from_recipe.value)


def test_a_positional_argument_is_named():
    with pytest.raises(UserError, match="share is 'x'; should be a valid number"):
        Inner("x")


def test_plain_dataclasses_are_refused_because_they_let_unknown_keys_pass():
    with pytest.raises(TypeError, match="Loose must be made by @options"):
        from_plain(dataclasses.make_dataclass("Loose", ["a"]), {"b": 1}, "options")


def test_every_field_is_described():
    assert list(describe(Inner, "x")) == ["x.share: float = 0.5", "x.kind: Literal['round', 'flat'] = 'round'"]
    assert "x.data: dict[str, float] (must be given)" in list(describe(Outer, "x"))
