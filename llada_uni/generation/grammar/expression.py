"""A regular expression -> the smallest automaton over bytes that accepts exactly the texts it matches as a whole.

The automaton is built by outlines-core (Rust's regex-automata), in a process of its own: an expression whose automaton explodes
then costs bounded time and memory, whoever sent it. Here it is made as small as it can be (Moore's partition refinement).
S states, B = 256 bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llada_uni.errors import UserError

SECONDS, MEMORY = 10, 2**31  # what building one automaton may take
MOST_STATES = 20_000
LONGEST = 400_000  # characters of an expression
DEAD = -1
BUILD = f"""
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
except ImportError:
    pass
from outlines_core import Index, Vocabulary
bytes_alone = Vocabulary(256, {{bytes([b]): [b] for b in range(256)}})
try:
    index = Index(sys.stdin.buffer.read().decode(), bytes_alone)
except ValueError as error:
    print(json.dumps({{"error": str(error)}}))
else:
    edges = [(q, b, r) for q, row in index.get_transitions().items() for b, r in row.items() if b < 256]
    print(json.dumps({{"start": index.get_initial_state(), "final": list(index.get_final_states()), "edges": edges}}))
"""


@dataclass(frozen=True, eq=False)
class ByteAutomaton:
    """next [S, 256] int32: the state behind each byte, DEAD for none; final [S] bool. State 0 is the first; from every state
    a final one can be reached.
    """

    next: NDArray[np.int32]
    final: NDArray[np.bool_]

    def accepts(self, text: bytes) -> bool:
        """Whether the text is matched as a whole."""
        state = 0
        for byte in text:
            state = int(self.next[state, byte])
            if state == DEAD:
                return False
        return bool(self.final[state])


@lru_cache(maxsize=64)
def automaton_of(regex: str) -> ByteAutomaton:
    """The automaton of an expression in Rust's syntax. UserError for one that is broken, matches nothing, or is too large."""
    if len(regex) > LONGEST:
        raise UserError(f"the expression has {len(regex)} characters; allowed: {LONGEST}")
    try:
        text = unanchored(regex).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the regex is not valid Unicode (it holds half a surrogate pair)") from None
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", BUILD], input=text, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"the regex {_shown(regex)} is too large: its automaton took over {SECONDS} seconds") from None
    if done.returncode != 0 or not done.stdout:
        if b"ModuleNotFoundError" in done.stderr:
            raise UserError("grammars need the package outlines-core: pip install outlines-core")
        raise UserError(f"the regex {_shown(regex)} is too large: its automaton takes over {MEMORY >> 20} MB")
    found = json.loads(done.stdout)
    if "error" in found:
        raise UserError(_explained(regex, found["error"]))
    return _smallest(*_table(found))


def unanchored(regex: str) -> str:
    """The expression without `^` before it and `$` behind it: it is matched as a whole anyway."""
    body = regex.removeprefix("^")
    if body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1:
        body = body[:-1]
    return body


def _explained(regex: str, reason: str) -> str:
    if "incompatible with the regex" in reason:
        return f"the regex {_shown(regex)} cannot be matched: nothing matches it, or a part of it"
    if "anchored universal" in reason or "look" in reason.lower():
        return f"the regex {_shown(regex)} looks around (^, $, \\b inside, or (?=...)); allowed: expressions without"
    detail = reason.removeprefix("Failed to build DFA ").removeprefix("error ").strip().splitlines()[0][:160]
    return f"the regex {_shown(regex)} cannot be read ({detail}); look-around and back references are not allowed"


def _shown(regex: str) -> str:
    return repr(regex if len(regex) <= 80 else regex[:77] + "...")


def _table(found: dict) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(next, final) of what was built, states numbered from 0, which is the first."""
    edges = np.array(found["edges"], np.int64).reshape(-1, 3)
    names = np.unique(np.concatenate([edges[:, 0], edges[:, 2], found["final"], [found["start"]]]).astype(np.int64))
    if len(names) > MOST_STATES:
        raise UserError(f"the grammar is too large: its automaton has {len(names)} states; allowed: {MOST_STATES}")
    table = np.full((len(names), 256), DEAD, np.int32)
    table[np.searchsorted(names, edges[:, 0]), edges[:, 1]] = np.searchsorted(names, edges[:, 2])
    final = np.isin(names, found["final"])
    first = int(np.searchsorted(names, found["start"]))
    order = np.concatenate([[first], np.delete(np.arange(len(names)), first)])
    return _chosen(table, final, order)


def _chosen(
    table: NDArray[np.int32], final: NDArray[np.bool_], order: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The states of `order` alone, numbered by their place in it; edges to others are gone."""
    number = np.full(len(table) + 1, DEAD, np.int32)
    number[order] = np.arange(len(order))
    return number[table[order]], final[order]  # DEAD is the last number, which is DEAD


def _smallest(table: NDArray[np.int32], final: NDArray[np.bool_]) -> ByteAutomaton:
    """States that accept the same continuations become one; those from which no end can be reached go."""
    alive = final.copy()
    while True:
        more = alive | np.append(alive, False)[table].any(1)
        if (more == alive).all():
            break
        alive = more
    if not alive[0]:
        raise UserError("the regex cannot be matched: there is no text that it matches")
    table, final = _chosen(table, final, np.flatnonzero(alive))
    columns = np.unique(table, axis=1)  # bytes that nothing tells apart count once
    weight = np.random.default_rng(0).integers(1, 2**63, columns.shape[1] + 1, np.uint64)
    group = final.astype(np.int64)
    while True:
        behind = np.append(group, DEAD)[columns] + 2
        signs = (behind.astype(np.uint64) * weight[:-1]).sum(1) + weight[-1] * group.astype(np.uint64)
        _, first, finer = np.unique(signs, return_index=True, return_inverse=True)
        if len(first) == len(np.unique(group)):
            break
        group = finer
    numbers, first, group = np.unique(group, return_index=True, return_inverse=True)
    merged = np.append(group, DEAD)[columns]
    assert (merged == merged[first][group]).all(), "states were merged that are not alike"
    start = int(group[0])
    order = np.concatenate([[start], np.delete(np.arange(len(numbers)), start)])
    small = np.append(group, DEAD)[table[first]].astype(np.int32)
    return ByteAutomaton(*_chosen(small, final[first], order))
