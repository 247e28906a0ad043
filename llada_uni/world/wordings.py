"""Every template of the world's texts. `train` wordings may be trained on; `heldout` ones never are.

A held-out wording uses only words that train wordings use too: what is new is how they are put together.
Slots: {x} {y} concept names, {a} a concept with article (and style), {xs} a plural, {p} a position, {c} a
colour, {s} a style, {r} a relation, {d} a description.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from llada_uni.errors import UserError

NUMBERS = ("zero", "one", "two", "three", "four")


class Wordings(NamedTuple):
    """Templates of one kind of sentence."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


def pick(rng: random.Random, kind: str, wordings: str) -> str:
    """A template of `kind` from the wanted set, "train" or "heldout" (UserError for another name)."""
    if wordings not in ("train", "heldout"):
        raise UserError(f"unknown wordings {wordings!r}; known: train, heldout")
    return rng.choice(getattr(TEMPLATES[kind], wordings))


TEMPLATES: dict[str, Wordings] = {
    # text to image: a shell around a description, and the pieces of a description
    "draw": Wordings(
        ("{d}", "{d}", "draw {d}", "a picture of {d}", "show {d}", "please draw {d}"),
        ("please show {d}", "draw a picture of {d}"),
    ),
    "at": Wordings(("{a} at the {p}",), ("{a} in the {p}",)),
    "on": Wordings(("on {c}", "on {c}", "on a {c} background"), ("with a {c} background",)),
    # questions
    "what": Wordings(
        (
            "what is at the {p}",
            "which thing is at the {p}",
            "tell me what is at the {p}",
            "what do you see at the {p}",
        ),
        ("tell me which thing is at the {p}", "what is in the {p}"),
    ),
    "where": Wordings(
        ("where is the {x}", "where do you see the {x}", "find the {x}"),
        ("tell me where the {x} is",),
    ),
    "count": Wordings(
        ("how many {xs} are there", "how many {xs} do you see", "count the {xs}"),
        ("tell me how many {xs} there are", "how many {xs} are in the picture"),
    ),
    "background": Wordings(
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
    "list": Wordings(
        ("name the things", "which things are there", "which things do you see"),
        ("name the things in the picture",),
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
        ("move the {x} to the {p}", "put the {x} at the {p}", "bring the {x} to the {p}"),
        ("please move the {x} to the {p}", "take the {x} to the {p}"),
    ),
    "recolor": Wordings(
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
    # stories and dialogues
    "story": Wordings(
        (
            "tell a story about {d}",
            "tell me a story about {d}",
            "a story about {d}",
            "please tell a story about {d}",
        ),
        ("please tell me a story about {d}", "a picture story about {d}"),
    ),
    "style of it": Wordings(
        ("which style is it", "what style is it", "tell me the style of it"),
        ("in which style is it",),
    ),
}


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" before it."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def joined(phrases: list[str]) -> str:
    """ "x", "x and y", "x , y and z" without the space before the comma."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
