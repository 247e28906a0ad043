"""The words of the world: concepts, styles, colors and places, in fixed orders that other files index into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """A drawable thing.

    name, plural: English words; category: animal | food | plant | vehicle | thing | digit;
    codepoint: Unicode code point(s) in lower-case hex, which is the name of the art in every emoji set.
    """

    name: str
    plural: str
    category: str
    codepoint: str


_TABLE = """
animal cat cats 1f431, dog dogs 1f436, fox foxes 1f98a, bear bears 1f43b, panda pandas 1f43c, lion lions 1f981
animal cow cows 1f42e, pig pigs 1f437, frog frogs 1f438, monkey monkeys 1f435, owl owls 1f989, duck ducks 1f986
animal penguin penguins 1f427, fish fishes 1f41f, turtle turtles 1f422, bee bees 1f41d, butterfly butterflies 1f98b
animal tiger tigers 1f42f, mouse mice 1f42d, rabbit rabbits 1f430, wolf wolves 1f43a, horse horses 1f434
animal elephant elephants 1f418, koala koalas 1f428, chicken chickens 1f414, snake snakes 1f40d, whale whales 1f433
animal octopus octopuses 1f419, snail snails 1f40c, crab crabs 1f980, ladybug ladybugs 1f41e, unicorn unicorns 1f984
animal dragon dragons 1f432, parrot parrots 1f99c, giraffe giraffes 1f992, hedgehog hedgehogs 1f994
food apple apples 1f34e, banana bananas 1f34c, lemon lemons 1f34b, strawberry strawberries 1f353, carrot carrots 1f955
food pizza pizzas 1f355, donut donuts 1f369, cake cakes 1f382, pear pears 1f350, peach peaches 1f351
food cherry cherries 1f352, watermelon watermelons 1f349, pineapple pineapples 1f34d, tomato tomatoes 1f345
food corn corns 1f33d, cheese cheeses 1f9c0, egg eggs 1f95a, burger burgers 1f354, cookie cookies 1f36a
food broccoli broccolis 1f966
plant tree trees 1f333, cactus cacti 1f335, sunflower sunflowers 1f33b, mushroom mushrooms 1f344, rose roses 1f339
plant tulip tulips 1f337, palm palms 1f334, clover clovers 1f340
vehicle car cars 1f697, bus buses 1f68c, rocket rockets 1f680, boat boats 26f5, tractor tractors 1f69c
vehicle train trains 1f682, bicycle bicycles 1f6b2, helicopter helicopters 1f681
thing ball balls 26bd, guitar guitars 1f3b8, key keys 1f511, gift gifts 1f381, robot robots 1f916, star stars 2b50
thing ghost ghosts 1f47b, book books 1f4d5, bulb bulbs 1f4a1, umbrella umbrellas 2614, balloon balloons 1f388
thing drum drums 1f941, trumpet trumpets 1f3ba, camera cameras 1f4f7, magnet magnets 1f9f2, bell bells 1f514
thing crown crowns 1f451, hat hats 1f3a9, shoe shoes 1f45f, dress dresses 1f457, lock locks 1f512, moon moons 1f319
thing sun suns 1f31e, rainbow rainbows 1f308, fire fires 1f525, snowman snowmen 26c4, house houses 1f3e0
thing trophy trophies 1f3c6
digit 0 zeros 0030-fe0f-20e3, 1 ones 0031-fe0f-20e3, 2 twos 0032-fe0f-20e3, 3 threes 0033-fe0f-20e3
digit 4 fours 0034-fe0f-20e3, 5 fives 0035-fe0f-20e3, 6 sixes 0036-fe0f-20e3, 7 sevens 0037-fe0f-20e3
digit 8 eights 0038-fe0f-20e3, 9 nines 0039-fe0f-20e3
"""


def _rows() -> list[Concept]:
    found = []
    for line in _TABLE.strip().splitlines():
        category, _, rest = line.partition(" ")
        for entry in rest.split(", "):
            name, plural, codepoint = entry.split()
            found.append(Concept(name, plural, category, codepoint))
    return found


CONCEPTS: dict[str, Concept] = {concept.name: concept for concept in _rows()}
"""Concepts by name, digits last; the order is the order of the sprites in the art sheets."""

THINGS: tuple[str, ...] = tuple(name for name, c in CONCEPTS.items() if c.category != "digit")
DIGITS: tuple[str, ...] = tuple(name for name, c in CONCEPTS.items() if c.category == "digit")

STYLES: tuple[str, ...] = ("cartoon", "flat", "3d")
"""cartoon = Noto Emoji, flat = Twemoji, 3d = Fluent Emoji 3D."""

COLORS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "yellow": (255, 226, 110),
    "green": (150, 216, 146),
    "blue": (138, 192, 246),
    "pink": (250, 172, 204),
    "gray": (168, 172, 180),
    "orange": (255, 178, 102),
    "purple": (190, 160, 236),
}
"""Background colors, sRGB 0..255."""

SIDE = 3
"""Cells along a side of a picture."""

ROWS: tuple[str, ...] = ("top", "middle", "bottom")
COLUMNS: tuple[str, ...] = ("left", "center", "right")
POSITIONS: tuple[str, ...] = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
"""Names of the nine cells, row by row; each is a word for the row and one for the column, so none is part of another."""

CELLS: tuple[int, ...] = tuple(range(SIDE * SIDE))
"""Numbers of the cells, row by row."""
