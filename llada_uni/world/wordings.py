"""Every template of the world's texts. `train` wordings may be trained on; `heldout` ones never are.

A held-out wording uses only words that train wordings use too: what is new is how they are put together.
Slots: {x} {y} concept names, {a} a concept with article (and style), {xs} a plural, {p} a position, {c} a
colour, {ac} a colour with article, {s} a style, {r} a relation, {n} a number, {row} a row, {d} a description.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple

from llada_uni.errors import UserError

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SETS = ("train", "heldout")


class Wordings(NamedTuple):
    """Templates of one kind of sentence."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


class Speaker:
    """Chooses words from one of the SETS, with randomness of its own: the same things can be said in other words."""

    def __init__(self, rng: random.Random, wordings: str) -> None:
        """Takes one number from `rng`, whatever is said later. UserError for a set of another name."""
        if wordings not in SETS:
            raise UserError(f"unknown wordings {wordings!r}; known: {', '.join(SETS)}")
        self.rng, self.wordings = random.Random(rng.getrandbits(64)), wordings

    def pick(self, kind: str) -> str:
        """A template of `kind`."""
        return self.rng.choice(getattr(TEMPLATES[kind], self.wordings))

    def chance(self, share: float) -> bool:
        """True so often."""
        return self.rng.random() < share


TEMPLATES: dict[str, Wordings] = {
    # text to image: a shell around a description, the order of its clauses, and their pieces
    "draw": Wordings(
        ("{d}", "{d}", "{d}", "draw {d}", "a picture of {d}", "show {d}", "please draw {d}", "show me {d}"),
        ("please show {d}", "draw me a picture of {d}"),
    ),
    "clauses": Wordings(
        ("{d} {style} {ground}", "{d} {style} {ground}", "{d} {ground} {style}", "{ground} {d} {style}"),
        ("{style} {d} {ground}", "{ground} {style} {d}"),
    ),
    "at": Wordings(("{a} at the {p}",), ("{a} in the {p}",)),
    "on": Wordings(("on {c}", "on {c}", "on {ac} background"), ("with {ac} background",)),
    "in style": Wordings(("in {s} style",), ("in the {s} style",)),
    "number": Wordings(("the number {n}", "the number {n}", "number {n}"), ("a number {n}",)),
    "in row": Wordings(("in the {row} row",), ("at the {row} row",)),
    # questions
    "what": Wordings(
        ("what is at the {p}", "which thing is at the {p}", "tell me what is at the {p}", "what do you see at the {p}"),
        ("tell me which thing is at the {p}", "what is in the {p}"),
    ),
    "where": Wordings(
        ("where is the {x}", "where do you see the {x}", "find the {x}"),
        ("tell me where the {x} is",),
    ),
    "counting": Wordings(
        ("how many {xs} are there", "how many {xs} do you see", "count the {xs}"),
        ("tell me how many {xs} there are", "how many {xs} are in the picture"),
    ),
    "colour": Wordings(
        ("which color is the background", "what color is the background", "tell me the background color"),
        ("tell me which color the background is",),
    ),
    "style": Wordings(
        ("which style is the {x}", "what style is the {x}", "tell me the style of the {x}"),
        ("in which style is the {x}", "tell me which style the {x} is"),
    ),
    "presence": Wordings(
        ("is there {a}", "do you see {a}", "is there {a} in the picture"),
        ("do you see {a} in the picture",),
    ),
    "relation": Wordings(
        ("is the {x} {r} the {y}", "do you see the {x} {r} the {y}"),
        ("is the {x} {r} the {y} in the picture",),
    ),
    "caption": Wordings(
        ("describe the picture", "what do you see", "tell me what you see", "describe this"),
        ("describe what you see", "tell me what is in the picture"),
    ),
    "read": Wordings(
        ("which number do you see", "which number is it", "read the number"),
        ("read which number it is", "tell me the number"),
    ),
    "has": Wordings(
        ("which picture has {a}", "in which picture is there {a}"),
        ("in which picture do you see {a}",),
    ),
    "both": Wordings(
        ("what is in both pictures", "which thing is in both pictures"),
        ("what do you see in both pictures",),
    ),
    "same ground": Wordings(
        ("do both pictures have the same background", "is the background the same"),
        ("is the background the same in both pictures",),
    ),
    "style of it": Wordings(
        ("which style is it", "what style is it", "tell me the style of it"),
        ("in which style is it",),
    ),
    # edits
    "add": Wordings(
        ("add {a} at the {p}", "put {a} at the {p}", "place {a} at the {p}"),
        ("please add {a} in the {p}",),
    ),
    "remove": Wordings(
        ("remove the {x}", "take away the {x}", "delete the {x}"),
        ("please remove the {x}", "take the {x} away"),
    ),
    "replace": Wordings(
        ("replace the {x} with {a}", "swap the {x} for {a}", "turn the {x} into {a}"),
        ("change the {x} into {a}", "please replace the {x} with {a}"),
    ),
    "move": Wordings(
        ("move the {x} to the {p}", "bring the {x} to the {p}", "put the {x} at the {p}"),
        ("please move the {x} to the {p}", "take the {x} to the {p}"),
    ),
    "background": Wordings(
        ("make the background {c}", "change the background to {c}", "paint the background {c}"),
        ("turn the background {c}", "please make the background {c}"),
    ),
    "restyle": Wordings(
        ("make the {x} {s}", "change the {x} to {s} style", "draw the {x} in {s} style"),
        ("turn the {x} into {s} style", "please make the {x} {s}"),
    ),
    "restyle all": Wordings(
        ("make everything {s}", "change everything to {s} style", "draw everything in {s} style"),
        ("turn everything into {s} style", "please make everything {s}"),
    ),
    "renumber": Wordings(
        ("change the number to {n}", "make the number {n}", "replace the number with {n}"),
        ("please change the number to {n}", "turn the number into {n}"),
    ),
    "extract": Wordings(
        ("extract the {x}", "keep only the {x}", "extract only the {x}"),
        ("please keep the {x} only", "please extract the {x}"),
    ),
    "bring over": Wordings(
        (
            "put the {x} of the first picture at the {p} of the second",
            "add the {x} of the first picture at the {p} of the second",
        ),
        ("bring the {x} of the first picture to the {p} of the second",),
    ),
    "borrow ground": Wordings(
        ("give the first picture the background of the second", "draw the first picture with the background of the second"),
        ("put the first picture on the background of the second",),
    ),
    # stories and step-by-step reasoning
    "story": Wordings(
        ("tell a story about {d}", "tell me a story about {d}", "a story about {d}", "please tell a story about {d}"),
        ("please tell me a story about {d}", "a picture story about {d}"),
    ),
    "sort": Wordings(
        ("sort the numbers", "sort the numbers step by step", "put the numbers in order"),
        ("put the numbers in order step by step", "please sort the numbers"),
    ),
    "pattern": Wordings(
        ("continue the pattern", "fill the pattern", "continue the pattern step by step"),
        ("fill the pattern step by step", "please continue the pattern"),
    ),
    "walk": Wordings(
        ("bring the {x} to the {y}", "bring the {x} to the {y} step by step", "the {x} wants the {y}"),
        ("please bring the {x} to the {y}", "take the {x} to the {y} step by step"),
    ),
}


def normal(text: str) -> str:
    """Lower case, single spaces, no space before a comma or colon, no full stop at the end."""
    text = re.sub(r"\s+", " ", text.lower()).strip()
    return re.sub(r"\s+([,:])", r"\1", text).rstrip(". ")


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it."""
    vowel = phrase[0] in "aeio" or (phrase[0] in "u" and not phrase.startswith("uni"))
    return f"an {phrase}" if vowel else f"a {phrase}"


def joined(phrases: list[str]) -> str:
    """ "x", "x and y", "x, y and z"."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
