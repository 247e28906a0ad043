from __future__ import annotations

import json
import random
from itertools import combinations

import pytest

from llada_uni.errors import UserError
from llada_uni.world.arrangement import PIPS, RELATED, RELATIONS, cells_of
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, DIGITS, POSITIONS, STYLES, THINGS
from llada_uni.world.sampling import any_number, crowded_scene, number_scene, sample_scene
from llada_uni.world.scene import MOST_DIFFERENT, Scene, Thing, placed
from llada_uni.world.split import (
    held_out_numbers,
    held_out_pairs,
    held_out_positions,
    held_out_styles,
    in_split,
    is_held_out,
)

CAT = Thing("cat", "flat")


def test_the_world_is_as_large_as_promised() -> None:
    assert len(CONCEPTS) >= 100 and len(DIGITS) == 10 and len(THINGS) == len(CONCEPTS) - 10
    assert len(STYLES) == 3 and len(COLORS) == 8 and len(POSITIONS) == 9
    assert all(name == c.name for name, c in CONCEPTS.items())
    assert len({c.codepoint for c in CONCEPTS.values()}) == len(CONCEPTS)
    plurals = {c.plural for c in CONCEPTS.values()}
    assert len(plurals) == len(CONCEPTS) and not plurals & set(CONCEPTS)


def test_cells_colors_and_json() -> None:
    scene = placed({0: CAT, 8: CAT}, "blue")
    assert scene.things() == [(0, CAT), (8, CAT)] and scene.names() == ["cat", "cat"]
    assert scene.empty() == [1, 2, 3, 4, 5, 6, 7]
    assert scene.with_background("gray") == Scene(scene.cells, "gray")
    assert scene.replace_cell(0, None).things() == [(8, CAT)]
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    assert len({scene, Scene.from_json(scene.to_json())}) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ((CAT,),),
        ((Thing("zebra", "flat"), *(None,) * 8),),
        ((Thing("cat", "oil"), *(None,) * 8),),
        ((None,) * 9, "red"),
    ],
)
def test_impossible_scenes(arguments: tuple) -> None:
    with pytest.raises(UserError):
        Scene(*arguments)


def test_numbers_are_read_from_the_left_end_of_a_row() -> None:
    rng = random.Random(0)
    for digits in ("7", "40", "407"):
        for row in range(3):
            scene = number_scene(rng, digits, row, others=2)
            assert scene.number() == digits and len(scene.things()) == len(digits) + 2
    assert sample_scene(rng).number() is None
    assert placed({1: Thing("7", "flat")}, "blue").number() is None  # not at the left end
    assert placed({0: Thing("7", "flat"), 2: Thing("1", "flat")}, "blue").number() is None
    found = {any_number(rng) for _ in range(3000)}
    assert all(n == str(int(n)) and len(n) <= 3 for n in found) and "0" in found


@pytest.mark.parametrize("split", ["train", "seen", "heldout", "any"])
def test_splits(split: str) -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng, split, numbers=0.1) for _ in range(2000)]
    held = sum(is_held_out(s) for s in scenes)
    assert {"train": held == 0, "seen": held == 0, "heldout": held == 2000, "any": 0 < held < 2000}[split]
    assert {len({t.concept for _, t in s.things() if t.concept in THINGS}) for s in scenes} >= set(range(1, MOST_DIFFERENT))


def test_is_held_out_finds_each_kind() -> None:
    free_styles = {name: [s for s in STYLES if (name, s) not in held_out_styles()] for name in THINGS}
    free_cells = {name: [i for i in CELLS if (name, i) not in held_out_positions()] for name in THINGS}
    name, style = sorted(held_out_styles())[0]
    assert is_held_out(placed({free_cells[name][0]: Thing(name, style)}, "white"))
    assert not is_held_out(placed({free_cells[name][0]: Thing(name, free_styles[name][0])}, "white"))
    name, cell = sorted(held_out_positions())[0]
    assert is_held_out(placed({cell: Thing(name, free_styles[name][0])}, "white"))
    number = sorted(held_out_numbers())[0]
    assert is_held_out(number_scene(random.Random(0), number, 0))
    for one, two in (sorted(pair) for pair in held_out_pairs()):
        i, j = next((i, j) for i in free_cells[one] for j in free_cells[two] if i != j)
        scene = placed({i: Thing(one, free_styles[one][0]), j: Thing(two, free_styles[two][0])}, "white")
        assert is_held_out(scene) and in_split(scene, "heldout") and not in_split(scene, "train")


def test_how_much_is_held_out() -> None:
    assert len(held_out_pairs()) == round(0.03 * len(list(combinations(THINGS, 2))))
    assert (len(held_out_styles()), len(held_out_positions()), len(held_out_numbers())) == (24, 40, 99)
    trained = {t.concept for k in range(4000) for _, t in sample_scene(random.Random(k), "train").things()}
    assert trained == set(THINGS)


def test_sampling_is_seeded_and_follows_its_arguments() -> None:
    assert sample_scene(random.Random(5)) == sample_scene(random.Random(5))
    rng = random.Random(6)
    for count in CELLS[1:]:
        assert all(len(sample_scene(rng, "any", things=count).things()) == count for _ in range(30))
    assert all(sample_scene(rng, numbers=1.0).number() for _ in range(30))
    for _ in range(100):
        assert len({t.style for _, t in sample_scene(rng, mixed_styles=0.0).things()}) == 1
    crowds = [crowded_scene(rng) for _ in range(400)]
    assert {t for scene in crowds for _, t in scene.things()} == {Thing(c, s) for c in CONCEPTS for s in STYLES}


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"things": 0}, {"things": 10}])
def test_bad_arguments(arguments: dict) -> None:
    with pytest.raises(UserError):
        sample_scene(random.Random(0), **arguments)


def test_open_places_are_always_the_same() -> None:
    for count, cells in PIPS.items():
        assert len(set(cells)) == count and cells_of([count]) == [cells]
        assert {len(CELLS) - 1 - cell for cell in cells} == set(cells)  # symmetrical, like the pips of a die
    assert cells_of([1, 2]) == [(1,), (6, 8)]
    assert cells_of([3, 1, 2]) == [(0, 1, 2), (4,), (6, 8)]
    for name, (i, j) in RELATED.items():
        assert [other for other, holds in RELATIONS.items() if holds(i, j)] == [name]
