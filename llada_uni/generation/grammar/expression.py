"""A regular expression -> the smallest automaton over bytes that accepts exactly the texts it matches as a whole.

The automaton over characters is built by interegular, in a process of its own: an expression whose automaton explodes then
costs bounded time and memory, whoever sent it. Here its characters become bytes (utf8.py), and it is made as small as it can
be (Moore's partition refinement).
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
from llada_uni.generation.grammar.utf8 import over_bytes

SECONDS, MEMORY = 10, 2**31  # of the processor and in bytes, what building one automaton may take
WAIT = 6  # times as long on a busy machine
MOST_STATES = 20_000
LONGEST = 400_000  # characters of an expression
DEAD = -1
BUILD = """
import json, sys
try:
    import resource
    seconds, memory = map(int, sys.argv[1:])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
except ImportError:
    pass
from interegular import InvalidSyntax, Unsupported, parse_pattern
try:
    fsm = parse_pattern(sys.stdin.buffer.read().decode()).to_fsm()
except (InvalidSyntax, Unsupported, ValueError, IndexError) as error:
    print(json.dumps({"error": f"{type(error).__name__} {error}"}))
else:
    kinds = {}
    for letter, kind in fsm.alphabet.items():
        kinds.setdefault(kind, []).append(letter if isinstance(letter, str) else None)
    names = {state: number for number, state in enumerate([fsm.initial, *(s for s in fsm.states if s != fsm.initial)])}
    rows = [[] for _ in names]
    for state, row in fsm.map.items():
        rows[names[state]] = [(kind, names[target]) for kind, target in row.items()]
    print(json.dumps({"final": [names[s] for s in fsm.finals], "rows": rows, "kinds": list(kinds.items())}))
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
    """The automaton of an expression in Python's syntax. UserError for one that is broken, matches nothing, or is too large."""
    if len(regex) > LONGEST:
        raise UserError(f"the expression has {len(regex)} characters; allowed: {LONGEST}")
    try:
        text = unanchored(regex).encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the regex is not valid Unicode (it holds half a surrogate pair)") from None
    try:
        limits = [str(SECONDS), str(MEMORY)]
        command = [sys.executable, "-I", "-c", BUILD, *limits]
        done = subprocess.run(command, input=text, capture_output=True, timeout=SECONDS * WAIT, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"the regex {_shown(regex)} is too large: its automaton took over {SECONDS * WAIT} seconds") from None
    if done.returncode != 0 or not done.stdout:
        if b"ModuleNotFoundError" in done.stderr:
            raise UserError("grammars need the package interegular: pip install interegular")
        bound = f"{SECONDS} seconds or {MEMORY >> 20} MB"
        raise UserError(f"the regex {_shown(regex)} is too large: its automaton takes over {bound}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise UserError(_explained(regex, found["error"]))
    if len(found["rows"]) > MOST_STATES:
        raise UserError(f"the grammar is too large: its automaton has {len(found['rows'])} states; allowed: {MOST_STATES}")
    return _smallest(*over_bytes(found["rows"], found["final"], found["kinds"]))


def unanchored(regex: str) -> str:
    """The expression without `^` before it and `$` behind it: it is matched as a whole anyway."""
    body = regex.removeprefix("^")
    if body.endswith("$") and (len(body) - len(body[:-1].rstrip("\\"))) % 2 == 1:
        body = body[:-1]
    return body


def _explained(regex: str, reason: str) -> str:
    detail = " ".join(reason.split())[:160].strip()
    return f"the regex {_shown(regex)} cannot be read ({detail}); ^ and $ inside, \\b and back references are not allowed"


def _shown(regex: str) -> str:
    return repr(regex if len(regex) <= 80 else regex[:77] + "...")


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
        raise UserError("the regex cannot be matched: nothing matches it")
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
