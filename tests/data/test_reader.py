"""Reading token shards: each record once an epoch over all micro-batches, exact resume, weights, nothing lost silently."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_uni.data.order import chance, shuffled
from llada_uni.data.reader import Part, TokenReader
from llada_uni.data.shards import TokenShard, write_shard
from llada_uni.errors import UserError
from tests.data.helpers import number_of, token_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """37 records of a, 20 of b, 6 of c, mixed over 4 shards (c is not in all of them)."""
    rng = random.Random(0)
    tasks = ["a"] * 37 + ["b"] * 20 + ["c"] * 6
    rng.shuffle(tasks)
    records = [(task, 2 + n % 9) for n, task in enumerate(tasks)]
    return token_folder(tmp_path_factory.mktemp("tokens"), [records[:30], records[30:31], records[31:60], records[60:]])


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 600), key=st.text(max_size=5))
def test_the_shuffled_order_is_a_permutation(size, key):
    assert sorted(shuffled(position, size, key) for position in range(size)) == list(range(size))


def test_the_shuffled_order_is_shuffled_and_never_changes():
    orders = {key: [shuffled(position, 1000, key) for position in range(1000)] for key in ("x", "y")}
    for order in orders.values():
        assert sorted(order) == list(range(1000))
        near = sum(abs(a - b) < 100 for a, b in pairwise(order))
        assert 140 < near < 240  # of a random order, 19 %
    assert sum(a == b for a, b in zip(*orders.values(), strict=True)) < 10
    assert [shuffled(position, 10, "x") for position in range(10)] == [7, 4, 8, 0, 2, 5, 6, 3, 9, 1]
    assert 0.45 < sum(chance(str(n)) for n in range(2000)) / 2000 < 0.55
    assert shuffled(0, 1, "x") == 0


@settings(max_examples=20, deadline=None)
@given(micro_batches=st.integers(1, 9), seed=st.integers(0, 5))
def test_each_record_comes_once_an_epoch_over_all_micro_batches(folder, micro_batches, seed):
    reader = TokenReader(folder, {"a": 1.0}, seed=seed, micro_batches=micro_batches)
    draws = [number_of(reader.draw(n % micro_batches)) for n in range(37 * 3)]
    for epoch in range(3):
        assert len(set(draws[epoch * 37 : (epoch + 1) * 37])) == 37
    if micro_batches == 1:
        assert draws[:37] != draws[37:74]


@settings(max_examples=20, deadline=None)
@given(data=st.data(), micro_batches=st.integers(1, 4))
def test_micro_batches_are_disjoint_and_do_not_depend_on_each_other(folder, data, micro_batches):
    """However micro-batches take turns (processes run at their own pace), each sees the same, and no epoch repeats a record."""
    alone = [TokenReader(folder, micro_batches=micro_batches) for _ in range(micro_batches)]
    expected = [[number_of(reader.draw(one)) for _ in range(40)] for one, reader in enumerate(alone)]
    together = TokenReader(folder, micro_batches=micro_batches)
    seen: list[list[int]] = [[] for _ in range(micro_batches)]
    for one in data.draw(st.permutations([one for one in range(micro_batches) for _ in range(40)])):
        seen[one].append(number_of(together.draw(one)))
    assert seen == expected
    early = [number for numbers in seen for number in numbers[: 6 // micro_batches]]
    assert len(early) == len(set(early))


@settings(max_examples=20, deadline=None)
@given(before=st.lists(st.integers(0, 2), max_size=60), after=st.lists(st.integers(0, 2), max_size=40))
def test_a_saved_state_goes_on_exactly(folder, before, after):
    weights = {"a": 1.0, "b": 2.0, "c": 0.3}
    first = TokenReader(folder, weights, longest=8, seed=4, micro_batches=3)
    second = TokenReader(folder, weights, longest=8, seed=4, micro_batches=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in before:
            first.draw(one)
        states = json.loads(json.dumps({one: first.state(one) for one in range(3)}))
        for one, state in states.items():
            second.load_state(int(one), state)
        assert [number_of(first.draw(one)) for one in after] == [number_of(second.draw(one)) for one in after]


def test_tasks_are_drawn_by_their_weights(folder):
    for weights, expected in (
        ({"a": 3.0, "c": 1.0}, {"a": 0.75, "c": 0.25}),
        (None, {"a": 37 / 63, "b": 20 / 63, "c": 6 / 63}),
        ({"b": 1.0, "a": 0}, {"b": 1.0}),
    ):
        reader = TokenReader(folder, weights, micro_batches=2)
        counts = Counter(reader.draw(n % 2).task for n in range(2000))
        assert set(counts) == set(expected)
        assert all(abs(counts[task] / 2000 - share) < 0.04 for task, share in expected.items())


def test_records_come_back_as_they_were_written(folder):
    reader = TokenReader(folder, micro_batches=1)
    record = reader.draw(0)
    assert (record.ids.dtype, record.kinds.dtype) == ("int32", "int8")
    assert len(record.ids) == len(record.kinds) == 2 + number_of(record) % 9
    assert (reader.image_token_offset, reader.codebook_size, reader.tasks) == (512, 16, ["a", "b", "c"])
    assert reader.text.encode("red")


def test_long_records_are_counted_and_named_once(folder):
    reader = TokenReader(folder, {"a": 1.0}, longest=5)
    with pytest.warns(UserWarning, match=r"a record of 'a' has \d+ tokens, more than 5: left out") as caught:
        draws = [reader.draw(0) for _ in range(100)]
    assert len(caught) == 1
    assert reader.dropped > 50 and max(len(record.ids) for record in draws) == 5
    with pytest.raises(UserError, match="every record of the task 'a' has more than 1 tokens; allowed: at least 2"):
        TokenReader(folder, {"a": 1.0}, longest=1)


def test_missing_shards_stop_or_are_left_out(folder, tmp_path):
    copy = token_folder(tmp_path / "copy", [[("a", 3)] * 5, [("a", 3)] * 5 + [("b", 3)]])
    state = TokenReader(copy).state(0)
    (copy / "tokens-00001.safetensors").unlink()
    with pytest.raises(UserError, match=r"1 of 2 token shards are missing .*tokens-00001.safetensors"):
        TokenReader(copy)
    with pytest.warns(UserWarning, match="their records are left out"):
        reader = TokenReader(copy, on_missing="skip")
    assert {number_of(reader.draw(0)) for _ in range(5)} == set(range(5))
    with pytest.warns(UserWarning, match="the order of records changes"):
        reader.load_state(0, state)
    with pytest.warns(UserWarning), pytest.raises(UserError, match=r"no records of the task 'b' .* allowed: a"):
        TokenReader(copy, {"b": 1}, on_missing="skip")
    (copy / "tokens-00000.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"tokens-00000.safetensors is no usable token shard"), pytest.warns(UserWarning):
        TokenReader(copy, on_missing="skip").draw(0)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"weights": {"d": 1.0}}, "no records of the task 'd' .* allowed: a, b, c"),
        ({"weights": {"a": -1.0}}, "the weight of the task 'a' is -1.0"),
        ({"weights": {"a": 0.0}}, "no task of .* has a weight above 0"),
        ({"on_missing": "hope"}, "allowed: stop, skip"),
    ],
)
def test_wrong_arguments(folder, arguments, reason):
    with pytest.raises(UserError, match=reason):
        TokenReader(folder, **arguments)


def test_wrong_micro_batches_states_and_folders(folder, tmp_path):
    reader = TokenReader(folder, micro_batches=2)
    with pytest.raises(UserError, match="micro-batch 2 of a reader for 2"):
        reader.draw(2)
    with pytest.raises(UserError, match="made with 3 micro-batches, now there are 2"):
        reader.load_state(0, TokenReader(folder, micro_batches=3).state(0))
    with pytest.raises(UserError, match=r"manifest.json is missing\): run llada-uni data extract"):
        TokenReader(tmp_path)


def test_an_empty_shard_is_a_shard(tmp_path):
    write_shard(tmp_path / "tokens-00000.safetensors", [], ["x:1: why"])
    shard = TokenShard(tmp_path / "tokens-00000.safetensors")
    assert (len(shard), shard.tokens, shard.tasks, shard.skipped) == (0, 0, {}, ["x:1: why"])


@settings(max_examples=20, deadline=None)
@given(before=st.integers(1, 5), after=st.integers(1, 5), drawn=st.integers(0, 36))
def test_another_number_of_micro_batches_goes_on_about_there(folder, before, after, drawn):
    """Of an epoch of 37, what was drawn before the change comes again at most once a micro-batch, and none is passed over."""
    first = TokenReader(folder, {"a": 1.0}, micro_batches=before)
    seen = [number_of(first.draw(n % before)) for n in range(drawn)]
    second = TokenReader(folder, {"a": 1.0}, micro_batches=after)
    shared = second.share_again([first.state(k) for k in range(before)], after)
    for k in range(after):
        second.load_state(k, json.loads(json.dumps(shared)))
    rest = [number_of(second.draw(n % after)) for n in range(37 - drawn // after * after)]
    assert len(set(rest)) == len(rest) and len(set(seen) | set(rest)) == 37
    assert len(set(seen) & set(rest)) < after


@settings(max_examples=20, deadline=None)
@given(every=st.integers(2, 40), micro_batches=st.integers(1, 3))
def test_what_is_held_out_is_not_trained_on(folder, every, micro_batches):
    def all_of(part: Part, task: str) -> set[int]:
        reader = TokenReader(folder, {task: 1.0}, part=part, micro_batches=micro_batches)
        return {number_of(reader.draw(n % micro_batches)) for n in range(4 * 40)}

    everything = {task: all_of(Part(), task) for task in ("a", "b", "c")}
    for task, numbers in everything.items():
        train, held = (all_of(Part(name, every), task) for name in ("train", "held"))
        assert not train & held and train | held == numbers and len(held) == max(1, len(numbers) // every)
