"""Every template of the world's texts. `train` wordings may be trained on; `heldout` ones never are.

A held-out wording uses only words that train wordings use too: what is new is how they are put together.
Slots: {x} {y} concept names, {a} a concept with article (and style), {xs} a plural, {p} a position, {c} a
color, {ac} a color with article, {s} a style, {r} a relation, {n} a number, {row} a row, {d} a description.
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
        (
            "{d}", "{d}", "{d}", "{d}", "{d}", "{d}", "draw {d}", "a picture of {d}", "show {d}", "please draw {d}",
            "show me {d}", "draw me {d}", "make a picture of {d}", "please make a picture of {d}", "show a picture of {d}",
            "show me a picture of {d}", "please show me {d}", "give me a picture of {d}", "please draw a picture of {d}",
            "draw this: {d}", "a drawing of {d}", "make {d}",
        ),
        ("please show {d}", "draw me a picture of {d}"),
    ),
    "clauses": Wordings(
        (
            "{d} {style} {ground}", "{d} {style} {ground}", "{d} {ground} {style}", "{ground} {d} {style}",
            "{style} {ground} {d}",
        ),
        ("{style} {d} {ground}", "{ground} {style} {d}"),
    ),
    "at": Wordings(
        ("{a} at the {p}", "{a} at the {p}", "{a} to the {p}", "{a} that is at the {p}", "{a} by the {p}", "{a} {p}"),
        ("{a} in the {p}",),
    ),
    "on": Wordings(
        (
            "on {c}", "on {c}", "on {ac} background", "and {ac} background", "over {c}", "on the color {c}",
            "in front of {c}", "with {c} below", "with the background {c}",
        ),
        ("with {ac} background",),
    ),
    "in style": Wordings(
        (
            "in {s} style", "in {s} style", "with {s} style", "in style {s}", "all {s}", "as {s} pictures",
            "the style is {s}",
        ),
        ("in the {s} style",),
    ),
    "number": Wordings(
        ("the number {n}", "the number {n}", "number {n}", "this number {n}", "the digits {n}"),
        ("a number {n}",),
    ),
    "in row": Wordings(
        ("in the {row} row", "in the {row} row", "on the {row} row", "in row {row}", "to the {row} row"),
        ("at the {row} row",),
    ),
    # questions
    "what": Wordings(
        (
            "what is at the {p}", "which thing is at the {p}", "tell me what is at the {p}", "what do you see at the {p}",
            "what thing is at the {p}", "what is there at the {p}", "which thing do you see at the {p}",
            "tell me the thing at the {p}", "what do you find at the {p}", "at the {p} is what", "find what is at the {p}",
            "read what is at the {p}", "which thing is in the {p}", "what do you see in the {p}",
            "what thing do you find in the {p}", "describe what is at the {p}", "tell me what you see at the {p}",
        ),
        ("tell me which thing is at the {p}", "what is in the {p}"),
    ),
    "where": Wordings(
        (
            "where is the {x}", "where do you see the {x}", "find the {x}", "where do you find the {x}",
            "where can you see the {x}", "tell me the place of the {x}", "at which place is the {x}",
            "what is the place of the {x}", "find where the {x} is", "where in the picture is the {x}", "please find the {x}",
            "the {x} is where",
        ),
        ("tell me where the {x} is",),
    ),
    "counting": Wordings(
        (
            "how many {xs} are there", "how many {xs} do you see", "count the {xs}", "how many {xs} do you find",
            "how many {xs} can you see", "tell me the number of {xs}", "what is the number of {xs}", "count all the {xs}",
            "please count the {xs}", "count how many {xs} there are", "count the {xs} in the picture",
            "there are how many {xs}", "how many {xs} does the picture show",
        ),
        ("tell me how many {xs} there are", "how many {xs} are in the picture"),
    ),
    "color": Wordings(
        (
            "which color is the background", "what color is the background", "tell me the background color",
            "what is the background color", "which color do you see in the background", "tell me the color of the background",
            "what is the color of the background", "which background color is it", "describe the background",
        ),
        ("tell me which color the background is",),
    ),
    "style": Wordings(
        (
            "which style is the {x}", "what style is the {x}", "tell me the style of the {x}", "what is the style of the {x}",
            "which style has the {x}", "describe the style of the {x}", "what style do you see for the {x}",
            "the {x} is which style", "which is the style of the {x}", "in what style do you see the {x}",
        ),
        ("in which style is the {x}", "tell me which style the {x} is"),
    ),
    "presence": Wordings(
        (
            "is there {a}", "do you see {a}", "is there {a} in the picture", "can you see {a}", "do you find {a}",
            "can you find {a}", "is {a} there", "is {a} in the picture", "does the picture show {a}",
            "tell me if there is {a}",
        ),
        ("do you see {a} in the picture",),
    ),
    "relation": Wordings(
        (
            "is the {x} {r} the {y}", "do you see the {x} {r} the {y}", "can you see the {x} {r} the {y}",
            "is it the {x} that is {r} the {y}", "do you find the {x} {r} the {y}",
            "does the picture show the {x} {r} the {y}", "tell me if the {x} is {r} the {y}",
            "is the place of the {x} {r} the {y}",
        ),
        ("is the {x} {r} the {y} in the picture",),
    ),
    "caption": Wordings(
        (
            "describe the picture", "what do you see", "tell me what you see", "describe this", "describe this picture",
            "describe all that you see", "what is in the picture", "what is in this picture", "what does the picture show",
            "tell me what the picture shows", "tell me about the picture", "describe what the picture shows",
            "describe everything", "please describe the picture", "what do you see in the picture",
            "tell me all that is there", "describe what is there", "tell me everything you see",
            "describe what is in the picture", "tell me what is there",
        ),
        ("describe what you see", "tell me what is in the picture"),
    ),
    "read": Wordings(
        (
            "which number do you see", "which number is it", "read the number", "what number is it", "what number do you see",
            "what is the number", "which number is there", "please read the number", "tell me what number you see",
            "tell me which number it is", "which number does the picture show", "read the digits",
        ),
        ("read which number it is", "tell me the number"),
    ),
    "has": Wordings(
        (
            "which picture has {a}", "in which picture is there {a}", "in which picture is {a}", "which picture shows {a}",
            "which picture is it that has {a}", "tell me which picture has {a}", "which of the pictures has {a}",
            "in which picture can you see {a}", "where is there {a}", "find the picture with {a}",
        ),
        ("in which picture do you see {a}",),
    ),
    "both": Wordings(
        (
            "what is in both pictures", "which thing is in both pictures", "what do both pictures have",
            "what thing do both pictures show", "tell me what is in both pictures",
            "which thing do you find in both pictures", "find the thing in both pictures", "what thing is in both",
            "which thing do both pictures have", "tell me the thing in both pictures",
        ),
        ("what do you see in both pictures",),
    ),
    "same ground": Wordings(
        (
            "do both pictures have the same background", "is the background the same", "is it the same background",
            "do you see the same background in both pictures", "is the background color the same",
            "do both have the same background", "do the pictures have the same background",
            "is the color of the background the same", "tell me if the background is the same",
        ),
        ("is the background the same in both pictures",),
    ),
    "style of it": Wordings(
        (
            "which style is it", "what style is it", "tell me the style of it", "what is the style of it",
            "which style does it have", "describe the style of it", "which style do you see",
        ),
        ("in which style is it",),
    ),
    # edits
    "add": Wordings(
        (
            "add {a} at the {p}", "put {a} at the {p}", "place {a} at the {p}", "please add {a} at the {p}",
            "draw {a} at the {p}", "make {a} at the {p}", "at the {p} add {a}", "put {a} into the {p}",
            "place {a} in the {p}", "please put {a} at the {p}", "bring {a} to the {p}",
        ),
        ("please add {a} in the {p}",),
    ),
    "remove": Wordings(
        (
            "remove the {x}", "take away the {x}", "delete the {x}", "please take away the {x}", "please delete the {x}",
            "make the picture with no {x}", "take the {x} out", "put the {x} away", "take out the {x}",
            "remove the {x} from the picture",
        ),
        ("please remove the {x}", "take the {x} away"),
    ),
    "replace": Wordings(
        (
            "replace the {x} with {a}", "swap the {x} for {a}", "turn the {x} into {a}", "make the {x} into {a}",
            "replace the {x} by {a}", "put {a} where the {x} is", "swap the {x} with {a}", "make {a} of the {x}",
            "please turn the {x} into {a}", "take the {x} out and put {a} there", "please swap the {x} for {a}",
            "change the {x} to {a}",
        ),
        ("change the {x} into {a}", "please replace the {x} with {a}"),
    ),
    "move": Wordings(
        (
            "move the {x} to the {p}", "bring the {x} to the {p}", "put the {x} at the {p}", "please put the {x} at the {p}",
            "place the {x} at the {p}", "move the {x} into the {p}", "the {x} goes to the {p}",
            "please bring the {x} to the {p}", "put the {x} to the {p}", "make the {x} go to the {p}",
            "to the {p} move the {x}",
        ),
        ("please move the {x} to the {p}", "take the {x} to the {p}"),
    ),
    "background": Wordings(
        (
            "make the background {c}", "change the background to {c}", "paint the background {c}",
            "please paint the background {c}", "the background is {c}", "please change the background to {c}",
            "make it {c} in the background", "put {c} in the background", "change the background color to {c}",
            "draw the background {c}", "the background to {c}",
        ),
        ("turn the background {c}", "please make the background {c}"),
    ),
    "restyle": Wordings(
        (
            "make the {x} {s}", "change the {x} to {s} style", "draw the {x} in {s} style",
            "please draw the {x} in {s} style", "make the style of the {x} {s}", "change the style of the {x} to {s}",
            "turn the {x} {s}", "paint the {x} in {s} style", "turn the {x} to {s} style",
            "please change the {x} to {s} style", "the {x} in {s} style",
        ),
        ("turn the {x} into {s} style", "please make the {x} {s}"),
    ),
    "restyle all": Wordings(
        (
            "make everything {s}", "change everything to {s} style", "draw everything in {s} style", "make all of it {s}",
            "please draw everything in {s} style", "turn everything {s}", "change the style of everything to {s}",
            "make the style of everything {s}", "paint everything in {s} style", "please change everything to {s} style",
        ),
        ("turn everything into {s} style", "please make everything {s}"),
    ),
    "renumber": Wordings(
        (
            "change the number to {n}", "make the number {n}", "replace the number with {n}", "make it the number {n}",
            "turn the number to {n}", "replace the number by {n}", "please make the number {n}", "put {n} for the number",
            "change it to the number {n}", "please replace the number with {n}",
        ),
        ("please change the number to {n}", "turn the number into {n}"),
    ),
    "extract": Wordings(
        (
            "extract the {x}", "keep only the {x}", "extract only the {x}", "only keep the {x}", "please keep only the {x}",
            "take only the {x}", "keep the {x} and delete everything more", "show only the {x}", "draw only the {x}",
            "please extract only the {x}",
        ),
        ("please keep the {x} only", "please extract the {x}"),
    ),
    "bring over": Wordings(
        (
            "put the {x} of the first picture at the {p} of the second",
            "add the {x} of the first picture at the {p} of the second",
            "place the {x} of the first picture at the {p} of the second",
            "move the {x} of the first picture to the {p} of the second",
            "please put the {x} of the first picture at the {p} of the second",
            "take the {x} of the first picture to the {p} of the second",
            "draw the {x} of the first picture at the {p} of the second",
        ),
        ("bring the {x} of the first picture to the {p} of the second",),
    ),
    "borrow ground": Wordings(
        (
            "give the first picture the background of the second", "draw the first picture with the background of the second",
            "make the first picture with the background of the second",
            "paint the first picture on the background of the second",
            "show the first picture on the background of the second",
            "take the background of the second for the first picture",
            "please give the first picture the background of the second",
        ),
        ("put the first picture on the background of the second",),
    ),
    # stories and step-by-step reasoning
    "story": Wordings(
        (
            "tell a story about {d}", "tell me a story about {d}", "a story about {d}", "please tell a story about {d}",
            "tell the story of {d}", "a story of {d}", "make a story about {d}", "show a story about {d}",
            "draw a story about {d}", "show me a story about {d}", "give me a story about {d}",
            "please make a story about {d}",
        ),
        ("please tell me a story about {d}", "a picture story about {d}"),
    ),
    "sort": Wordings(
        (
            "sort the numbers", "sort the numbers step by step", "put the numbers in order", "sort these numbers",
            "bring the numbers into order", "sort the digits", "please put the numbers in order",
            "make the numbers go in order", "sort all the numbers", "order the numbers step by step",
            "bring the digits in order step by step",
        ),
        ("put the numbers in order step by step", "please sort the numbers"),
    ),
    "pattern": Wordings(
        (
            "continue the pattern", "fill the pattern", "continue the pattern step by step", "go on with the pattern",
            "fill in the pattern", "please fill the pattern", "make the pattern whole", "what is next in the pattern",
            "find the next of the pattern", "continue this pattern",
        ),
        ("fill the pattern step by step", "please continue the pattern"),
    ),
    "walk": Wordings(
        (
            "bring the {x} to the {y}", "bring the {x} to the {y} step by step", "the {x} wants the {y}",
            "the {x} goes to the {y}", "move the {x} to the {y} step by step", "the {x} walks to the {y}",
            "take the {x} to the {y}", "find the way of the {x} to the {y}", "how does the {x} get to the {y}",
            "please take the {x} to the {y}",
        ),
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
