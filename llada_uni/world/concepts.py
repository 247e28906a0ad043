"""The words of the world: concepts, styles, colours and places, in fixed orders that other files index into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """A drawable thing.

    name, plural: English words; category: animal | food | plant | vehicle | thing;
    codepoint: Unicode code point in lower-case hex, which is the name of the art in every emoji set.
    """

    name: str
    plural: str
    category: str
    codepoint: str


_TABLE = """
cat cats animal 1f431
dog dogs animal 1f436
fox foxes animal 1f98a
bear bears animal 1f43b
panda pandas animal 1f43c
lion lions animal 1f981
cow cows animal 1f42e
pig pigs animal 1f437
frog frogs animal 1f438
monkey monkeys animal 1f435
owl owls animal 1f989
duck ducks animal 1f986
penguin penguins animal 1f427
fish fishes animal 1f41f
turtle turtles animal 1f422
bee bees animal 1f41d
butterfly butterflies animal 1f98b
apple apples food 1f34e
banana bananas food 1f34c
lemon lemons food 1f34b
strawberry strawberries food 1f353
carrot carrots food 1f955
pizza pizzas food 1f355
donut donuts food 1f369
cake cakes food 1f382
tree trees plant 1f333
cactus cacti plant 1f335
sunflower sunflowers plant 1f33b
mushroom mushrooms plant 1f344
car cars vehicle 1f697
bus buses vehicle 1f68c
rocket rockets vehicle 1f680
boat boats vehicle 26f5
ball balls thing 26bd
guitar guitars thing 1f3b8
key keys thing 1f511
gift gifts thing 1f381
robot robots thing 1f916
star stars thing 2b50
ghost ghosts thing 1f47b
"""

CONCEPTS: dict[str, Concept] = {row.split()[0]: Concept(*row.split()) for row in _TABLE.strip().splitlines()}
"""Concepts by name; the order is the order of the sprites in the art sheets."""

STYLES: tuple[str, ...] = ("cartoon", "flat", "3d")
"""cartoon = Noto Emoji, flat = Twemoji, 3d = Fluent Emoji 3D."""

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "yellow": (255, 226, 110),
    "green": (150, 216, 146),
    "blue": (138, 192, 246),
    "pink": (250, 172, 204),
    "gray": (168, 172, 180),
}
"""Background colours, sRGB 0..255."""

POSITIONS: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
"""Names of the four cells of the 2 x 2 layout, row by row."""
