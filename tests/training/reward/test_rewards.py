"""Reward functions by name: ours, those with an argument, anybody's; and the parts of a record that they judge by."""

from __future__ import annotations

import pytest

from llada_uni.data.records import Conversation, parse_record
from llada_uni.errors import UserError
from llada_uni.training.reward.rewards import Answer, Failed, Rewards, find_reward
from tests.training.reward import small


def record(answer: str = "A red fox.", **meta) -> Conversation:
    messages = [{"role": "user", "content": "what is it?"}, {"role": "assistant", "content": answer}]
    return parse_record({"task": "text", "messages": messages, "meta": meta}, "here:1", lambda name: None)


def said(text: str, finished: bool = True) -> Answer:
    return Answer(text, None, finished, len(text))


@pytest.mark.parametrize(
    "name, meta, right, wrong",
    [
        ("exact", {}, " a  red FOX. ", "a red ox."),
        ("contains:fox", {}, "a fox", "a dog"),
        ("contains", {"contains": "fox"}, "a fox", "a dog"),
        ("regex:[a-z]+: \\d+", {}, "cats: 12", "cats: many"),
        ("regex", {"regex": "yes|no"}, "no", "no!"),
        ("schema", {"schema": {"type": "object", "required": ["n"]}}, '{"n": 1}', '{"m": 1}'),
        ('schema:{"type": "integer"}', {}, "7", "seven"),
    ],
)
def test_ours(name, meta, right, wrong):
    if name.startswith("schema"):
        pytest.importorskip("jsonschema_rs")
    reward = find_reward(name)
    assert reward(record(**meta), said(right)) == 1.0
    assert reward(record(**meta), said(wrong)) == 0.0


def test_rewards_are_added_up_by_their_weights_and_told_apart():
    rewards = Rewards({"contains:fox": 2.0, f"{small.__name__}:same": 1.0}, unfinished=-1.0)
    assert rewards(record(), said("a fox")) == (2.5, {"contains:fox": 1.0, f"{small.__name__}:same": 0.5})
    assert rewards(record(), said("a fox", finished=False)) == (-1.0, {})
    assert Rewards({"contains:fox": 2.0}, None)(record(), said("a fox", finished=False))[0] == 2.0


@pytest.mark.parametrize("name, why", [("broken", "raised KeyError"), ("nothing", "gave nan"), ("words", "gave 'good'")])
def test_a_function_that_fails_is_named(name, why):
    with pytest.raises(Failed, match=f"{name} {why} for here:1"):
        Rewards({f"{small.__name__}:{name}": 1.0}, None)(record(), said(""))


@pytest.mark.parametrize(
    "name, meta, why",
    [
        ("regex", {}, 'here:1: its "meta" has no "regex"'),
        ("regex:(", {}, "is no regular expression"),
        ("schema", {"schema": []}, 'has no "schema"'),
    ],
)
def test_a_record_without_what_its_reward_needs_is_a_mistake(name, meta, why):
    with pytest.raises(UserError, match=why):
        Rewards({name: 1.0}, None)(record(**meta), said("x"))


def test_an_argument_that_is_not_taken():
    with pytest.raises(UserError, match="exact takes no argument"):
        find_reward("exact:fox")
