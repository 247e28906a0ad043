"""Strings and numbers of a JSON schema -> regular expressions; ranges, patterns and formats included.

Every text that an expression here matches is valid JSON, and the value it stands for is one that the keywords allow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

META = frozenset("\\.+*?()|[]{}^$")  # characters with a meaning in expressions
UNSAFE = r"\"\\\x00-\x1F"  # inside a class: what a JSON string must write in another way
LETTER = rf"[^{UNSAFE}\x7F]"
ESCAPE = r'\\["\\/bfnrt]'
ASCII = {"\\d": "0-9", "\\w": "A-Za-z0-9_", "\\s": " "}  # what every reading of a pattern allows
_SPACES = " \\x7F\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
# What every reading of \\S, \\D and \\W allows and JSON does not escape: of the last two, letters of ASCII alone.
NOT = {"\\S": f"[^{UNSAFE}{_SPACES}]", "\\D": "[ !#-/:-\\[\\]-~]", "\\W": "[ !#-/:-@\\[\\]\\^`{-~]"}
DIGITS = 15  # of a number without bounds
FRACTION = rf"\.[0-9]{{0,{DIGITS - 1}}}[1-9]"  # above 0
_YEAR = "[12][0-9]{3}"
_DAY = r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[a-z0-9]{1,20}(-[a-z0-9]{1,10}){0,2}"
FORMATS = {
    "date": f"{_YEAR}-{_DAY}",
    "time": _TIME,
    "date-time": f"{_YEAR}-{_DAY}T{_TIME}",
    "uuid": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "email": rf"[a-z0-9]{{1,20}}([._+\-][a-z0-9]{{1,10}}){{0,3}}@({_LABEL}\.){{1,3}}[a-z]{{2,8}}",
    "uri": rf"https?://{_LABEL}(\.{_LABEL}){{0,3}}(/[A-Za-z0-9_.~\-]*)*",
}


def escaped(text: str) -> str:
    """The expression that matches this text alone."""
    return "".join("\\" + letter if letter in META else letter for letter in text)


# --- strings ---


def string(schema: Mapping[str, Any]) -> str:
    """A JSON string with minLength, maxLength, or a pattern, or a format. ValueError says what is not supported."""
    given = [word for word in ("pattern", "format") if word in schema]
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 0 for n in (least, *(() if most is None else (most,)))):
        raise ValueError("minLength and maxLength must be whole numbers from 0")
    if most is not None and most < least:
        raise ValueError(f"minLength {least} is more than maxLength {most}")
    if given and (len(given) > 1 or least or most is not None):
        raise ValueError(f"{given[0]} together with {given[1] if len(given) > 1 else 'a length'} is not supported")
    if "pattern" in schema:
        return f'"({pattern(schema["pattern"])})"'
    if "format" in schema:
        if schema["format"] not in FORMATS:
            raise ValueError(f"the format {schema['format']!r} is not supported; supported: {', '.join(FORMATS)}")
        return f'"{FORMATS[schema["format"]]}"'
    letter = f"({LETTER}|{ESCAPE})"
    if most is None:
        return f'"{letter}{"*" if least == 0 else f"{{{least},}}"}"'
    return f'"{letter}{{{least},{most}}}"' if most else '""'


def pattern(regex: Any) -> str:
    """The expression of a `pattern`, matched as a whole, that writes no character which a JSON string must escape.

    `.`, negated classes and the classes of what is no word, digit or space leave such characters out; ValueError for an
    expression that names one.
    """
    if not isinstance(regex, str):
        raise ValueError("pattern must be a string")
    body = regex.removeprefix("^")
    if body.endswith("$") and not body.endswith("\\$"):
        body = body[:-1]
    out, inside, at = [], False, 0
    while at < len(body):
        piece = body[at : at + 2] if body[at] == "\\" else body[at]
        at += len(piece)
        if piece in ('"', "\\\\", '\\"') or (piece[0] == "\\" and piece[1:] in tuple("nrtfv0xupPkb")):
            raise ValueError(f"pattern: {piece!r} stands for characters that JSON escapes, or is not supported")
        if piece in ASCII:
            piece = ASCII[piece] if inside else f"[{ASCII[piece]}]"
        elif piece in NOT:
            if inside:
                raise ValueError(f"pattern: {piece!r} inside a class is not supported")
            piece = NOT[piece]
        elif piece == "[" and not inside:
            inside, negated = True, body[at : at + 1] == "^"
            at += negated
            piece = f"[^{UNSAFE}" if negated else "["
        elif piece == "]" and inside:
            inside = False
        elif piece == "." and not inside:
            piece = f"[^{UNSAFE}\\x7F\x85\u2028\u2029]"
        out.append(piece)
    found = "".join(out)
    for start, end in re.findall(r"(?<!\\)([^\\\[\]])-([^\\\]])", regex):
        if any(start <= bad <= end for bad in '"\\'):
            raise ValueError(f"pattern: the range {start}-{end} holds characters that JSON escapes")
    return found


# --- numbers ---


def number(schema: Mapping[str, Any], whole: bool) -> str:
    """A JSON number between the bounds of a schema, ends included or not. ValueError says what is not supported."""
    bounds = {word: schema[word] for word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if word in schema}
    if any(not isinstance(bound, int | float) or isinstance(bound, bool) for bound in bounds.values()):
        raise ValueError("minimum, maximum and the exclusive ones must be numbers")
    if not bounds:
        integer = f"-?(0|[1-9][0-9]{{0,{DIGITS - 1}}})"
        return integer if whole else rf"{integer}(\.[0-9]{{1,{DIGITS}}})?([eE][+\-]?[0-9]{{1,2}})?"
    largest = 10**DIGITS - 1
    if any(abs(bound) > largest for bound in bounds.values()):
        raise ValueError(f"bounds of numbers must be within {DIGITS} digits")
    low = max(bounds.get("minimum", -largest), bounds.get("exclusiveMinimum", -largest))
    high = min(bounds.get("maximum", largest), bounds.get("exclusiveMaximum", largest))
    first, last = _ceil(low), _floor(high)
    ways = []
    if not whole and first < last:
        # i.f with f above 0 lies between i and i + 1.
        if last > max(first, 0):
            ways.append(_range(max(first, 0), last - 1) + FRACTION)
        if first < min(last, 0):
            ways.append("-" + _range(max(0, -last), -first - 1) + FRACTION)
    first += bounds.get("exclusiveMinimum") == first
    last -= bounds.get("exclusiveMaximum") == last
    if first <= last:
        if first < 0:
            ways.append("-" + _range(max(1, -last), -first))
        if last >= 0:
            ways.append(_range(max(0, first), last))
    if not ways:
        raise ValueError(f"no {'whole number' if whole else 'two whole numbers'} between {low} and {high}")
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"


def _ceil(x: float) -> int:
    return int(x) + (x > int(x))


def _floor(x: float) -> int:
    return int(x) - (x < int(x))


def _range(low: int, high: int) -> str:
    """Whole numbers from low to high, both from 0 on, without leading zeros."""
    ways = []
    while low <= high:
        end = min(high, 10 ** len(str(low)) - 1)  # those with as many digits as low
        ways.append(_digits(str(low), str(end)))
        low = end + 1
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"


def _digits(low: str, high: str) -> str:
    """Numbers of equally many digits from low to high."""
    if low == high:
        return low
    if len(low) == 1:
        return f"[{low}-{high}]"
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    if first == last:
        return low[0] + _digits(low[1:], high[1:])
    ways = []
    if low[1:] != "0" * rest:
        ways.append(low[0] + _digits(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        ways.append(high[0] + _digits("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        ways.append((f"[{first}-{last}]" if first < last else str(first)) + f"[0-9]{{{rest}}}")
    return ways[0] if len(ways) == 1 else f"({'|'.join(ways)})"
