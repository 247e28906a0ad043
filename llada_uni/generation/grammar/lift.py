"""An automaton over bytes -> one over the tokens of a vocabulary, as arrays that the dynamic programme of a block reads.

Tokens that no state tells apart form a class; the classes that lead from one state to another form a label. A block then needs
one maximum (or sum) a class and position, one a label, and one an edge (arXiv:2505.23061; classes and labels are ours).
Axes: S states, V tokens of the grammar, C classes, L labels, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llada_uni.generation.grammar.expression import DEAD, ByteAutomaton

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Groups:
    """Members of groups side by side: group g has members[starts[g] : starts[g + 1]]; starts has one entry more than groups."""

    members: Ints
    starts: Ints

    def of(self, group: int) -> Ints:
        return self.members[self.starts[group] : self.starts[group + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True, eq=False)
class Edges:
    """Edges in one order, those with the same end (of `ends`) side by side from `starts` on: their label and other state."""

    ends: Ints
    starts: Ints
    label: Ints
    others: Ints

    @staticmethod
    def by(key: Ints, label: Ints, others: Ints) -> Edges:
        order = np.argsort(key, kind="stable")
        ends, starts = np.unique(key[order], return_index=True)
        return Edges(ends, starts, label[order], others[order])


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """What a block is held to. State 0 is the first, `end` the last: the end token leads there from where the text may end, and
    from there to itself.

    classes: tokens of each class; labels: classes of each label. source, label, target [E]: an edge for every two states that
    tokens connect, by rising target. distance [S]: fewest tokens to `end`, that end token included.
    """

    states: int
    end: int
    end_token: int
    classes: Groups
    labels: Groups
    source: Ints
    label: Ints
    target: Ints
    distance: Ints

    @property
    def shortest(self) -> int:
        """Tokens of the shortest answer, the end token included."""
        return int(self.distance[0])

    @cached_property
    def kinds(self) -> Ints:
        """The class of each member of `classes`."""
        return np.repeat(np.arange(len(self.classes)), np.diff(self.classes.starts))

    @cached_property
    def class_of(self) -> dict[int, int]:
        """The class of each token of the grammar."""
        return dict(zip(self.classes.members.tolist(), self.kinds.tolist(), strict=True))

    @cached_property
    def labels_of(self) -> Groups:
        """The labels that each class is in."""
        return _groups(self.labels.members, np.repeat(np.arange(len(self.labels)), np.diff(self.labels.starts)))

    @cached_property
    def by_target(self) -> Edges:
        return Edges.by(self.target, self.label, self.source)

    @cached_property
    def by_source(self) -> Edges:
        return Edges.by(self.source, self.label, self.target)

    @cached_property
    def by_label(self) -> Edges:
        """Edges by their label; `others` are their sources, and `label` holds their targets."""
        return Edges.by(self.label, self.target, self.source)

    @cached_property
    def _behind(self) -> list[dict[int, int]]:
        """For every state, the state behind each class."""
        found: list[dict[int, int]] = [{} for _ in range(self.states)]
        for source, label, target in zip(self.source.tolist(), self.label.tolist(), self.target.tolist(), strict=True):
            found[source].update(dict.fromkeys(self.labels.of(label).tolist(), target))
        return found

    def leaving(self, state: int) -> list[tuple[int, int]]:
        """(class, the state behind it) of all steps from a state."""
        return list(self._behind[state].items())

    def step(self, state: int, token: int) -> int:
        """The state behind a token; DEAD where the token is not allowed."""
        kind = self.class_of.get(token)
        return DEAD if kind is None or state == DEAD else self._behind[state].get(kind, DEAD)


class Vocabulary:
    """Tokens of text for grammars. spelled: the bytes of each, none empty; end_token: ends a text. `lift` is the way in."""

    def __init__(self, spelled: Mapping[int, bytes], end_token: int) -> None:
        self.spelled, self.end_token = dict(spelled), end_token
        self._ids, self._trie = np.array(sorted(spelled), np.int64), _Trie.of(spelled)

    def lift(self, automaton: ByteAutomaton) -> TokenAutomaton:
        """The automaton over these tokens."""
        return _lifted(automaton, _triples(automaton, self._trie, self._ids), self.end_token)


def _lifted(automaton: ByteAutomaton, triples: tuple[Ints, Ints, Ints], end_token: int) -> TokenAutomaton:
    source, token, target = triples
    states, end = len(automaton.next) + 1, len(automaton.next)
    final = np.append(np.flatnonzero(automaton.final), end)
    source = np.concatenate([source, final])
    token = np.concatenate([token, np.full(len(final), end_token)])
    target = np.concatenate([target, np.full(len(final), end)])
    distance = _distances(states, end, source, target)
    alive = distance[target] < states  # bytes may lead on where no token does
    source, token, target = source[alive], token[alive], target[alive]
    random = np.random.default_rng(0)
    ends = random.integers(0, 2**64, (states, 2), np.uint64)
    signs = _mixed(ends[source, 0] + np.uint64(3) * ends[target, 1])
    tokens, at = np.unique(token, return_inverse=True)
    kind = _alike(at, signs, len(tokens))
    classes = _groups(kind, tokens)
    pairs, pair = np.unique(source * states + target, return_inverse=True)
    # One entry for every class of a pair of states: all tokens of a class go the same ways.
    entries = np.unique(np.stack([pair, kind[at]]), axis=1)
    marks = random.integers(0, 2**64, len(classes), np.uint64)
    name = _alike(entries[0], _mixed(marks[entries[1]]), len(pairs))
    _, example = np.unique(name, return_index=True)
    place = np.flatnonzero(np.isin(entries[0], example))
    labels = _groups(name[entries[0][place]], entries[1][place])
    source, target = pairs // states, pairs % states
    order = np.lexsort((source, target))
    return TokenAutomaton(states, end, end_token, classes, labels, source[order], name[order], target[order], distance)


@dataclass(frozen=True, eq=False)
class _Trie:
    """Prefixes of all tokens, as nodes; 0 is the root. children: nodes of each node; byte: the last of each node; tokens: the
    places, among the sorted ids, of the tokens that end in each node.
    """

    children: Groups
    byte: NDArray[np.uint8]
    tokens: Groups

    @staticmethod
    def of(spelled: Mapping[int, bytes]) -> _Trie:
        words = [spelled[token] for token in sorted(spelled)]
        length = np.array([len(word) for word in words])
        text = np.frombuffer(b"".join(words), np.uint8)
        begin = np.cumsum(length) - length
        ends, count = np.zeros(len(words), np.int64), 1
        parents, letters = [], []
        for depth in range(int(length.max())):
            going = np.flatnonzero(length > depth)
            steps = ends[going] * 256 + text[begin[going] + depth]
            new, place = np.unique(steps, return_inverse=True)
            parents.append(new // 256)
            letters.append(new % 256)
            ends[going] = count + place
            count += len(new)
        parent, byte = np.concatenate(parents), np.concatenate([[0], *letters]).astype(np.uint8)
        children = _groups(parent, np.arange(1, count), count)
        return _Trie(children, byte, _groups(ends, np.arange(len(ends)), count))


def _triples(automaton: ByteAutomaton, trie: _Trie, ids: Ints) -> tuple[Ints, Ints, Ints]:
    """(states, tokens, the states behind them) of all steps there are: all states walk down the trie at once."""
    first = at = np.arange(len(automaton.next))
    node = np.zeros(len(at), np.int64)
    found = []
    while len(at):
        walker, node = _members(trie.children, node)
        first, at = first[walker], automaton.next[at[walker], trie.byte[node]].astype(np.int64)
        alive = at != DEAD
        first, at, node = first[alive], at[alive], node[alive]
        walker, place = _members(trie.tokens, node)
        found.append((first[walker], ids[place], at[walker]))
    source, token, target = (np.concatenate(part) for part in zip(*found, strict=True))
    return source, token, target


def _members(groups: Groups, chosen: Ints) -> tuple[Ints, Ints]:
    """The members of each chosen group: (index in `chosen`, member)."""
    counts = groups.starts[chosen + 1] - groups.starts[chosen]
    owner = np.repeat(np.arange(len(chosen)), counts)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, groups.members[groups.starts[chosen][owner] + offset]


def _groups(group: Ints, members: Ints, count: int | None = None) -> Groups:
    """Members by the number of their group, in each group in the order given."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=count or 0)
    return Groups(members[order], np.concatenate([[0], np.cumsum(sizes)]))


def _alike(owner: Ints, signs: NDArray[np.uint64], count: int) -> Ints:
    """[count]: owners of equal sets of signs get equal numbers. Sets are told apart by two random sums of 64 bits."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(count))
    sums = [np.add.reduceat(part[order], starts) for part in (signs, _mixed(signs))]
    return np.unique(np.stack(sums), axis=1, return_inverse=True)[1].reshape(-1)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers that look random, the same for the same (splitmix64's finalizer)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _distances(states: int, end: int, source: Ints, target: Ints) -> Ints:
    """[S]: fewest tokens from each state to the end; `states` where there is no way."""
    pairs = np.unique(source * states + target)
    source, target = pairs // states, pairs % states
    starts = np.flatnonzero(np.diff(source, prepend=-1))
    found = np.full(states, states, np.int64)
    found[end] = 0
    while True:
        closer = np.minimum.reduceat(found[target] + 1, starts)
        if (closer >= found[source[starts]]).all():
            return found
        found[source[starts]] = np.minimum(found[source[starts]], closer)
