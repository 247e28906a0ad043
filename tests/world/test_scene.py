from __future__ import annotations

import json
import random
from itertools import combinations

import pytest

from llada_uni.errors import UserError
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.scene import Scene, Thing, sample_scene
from llada_uni.world.split import held_out_pairs, held_out_positions, held_out_styles, is_held_out

CAT = Thing("cat", "flat")


def test_the_world_is_as_large_as_promised() -> None:
    assert len(CONCEPTS) >= 40 and len(STYLES) == 3 and len(COLORS) == 6 and len(POSITIONS) == 4
    assert all(name == c.name for name, c in CONCEPTS.items())
    assert len({c.codepoint for c in CONCEPTS.values()}) == len(CONCEPTS)


def test_cells_colors_and_json() -> None:
    scene = Scene((CAT, None, None, CAT), ("blue", "pink"), "columns")
    assert scene.things() == [(0, CAT), (3, CAT)]
    assert [scene.color_of(i) for i in range(4)] == ["blue", "pink", "blue", "pink"]
    rows = Scene(scene.cells, ("blue", "pink"), "rows")
    assert [rows.color_of(i) for i in range(4)] == ["blue", "blue", "pink", "pink"]
    assert scene.with_background("gray") == Scene(scene.cells, ("gray",))
    assert scene.replace_cell(0, None).things() == [(3, CAT)]
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
    assert len({scene, Scene.from_json(scene.to_json())}) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ((CAT,),),
        ((Thing("zebra", "flat"), None, None, None),),
        ((Thing("cat", "oil"), None, None, None),),
        ((None,) * 4, ("red",)),
        ((None,) * 4, ("blue", "pink")),
        ((None,) * 4, ("blue",), "rows"),
        ((None,) * 4, ("blue",), "diagonal"),
    ],
)
def test_impossible_scenes(arguments: tuple) -> None:
    with pytest.raises(UserError):
        Scene(*arguments)


@pytest.mark.parametrize("split", ["train", "seen", "heldout", "any"])
def test_splits(split: str) -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng, split) for _ in range(3000)]
    held = sum(is_held_out(s) for s in scenes)
    assert {"train": held == 0, "seen": held == 0, "heldout": held == 3000, "any": 0 < held < 3000}[split]
    assert {len(s.things()) for s in scenes} == {1, 2, 3, 4}


def test_is_held_out_finds_each_kind() -> None:
    name, style = sorted(held_out_styles())[0]
    other = next(s for s in STYLES if s != style)
    free = [i for i in range(4) if (name, i) not in held_out_positions()]
    empty = Scene((None,) * 4)
    assert is_held_out(empty.replace_cell(free[0], Thing(name, style)))
    assert not is_held_out(empty.replace_cell(free[0], Thing(name, other)))
    placed, cell = sorted(held_out_positions())[0]
    fine = next(s for s in STYLES if (placed, s) not in held_out_styles())
    assert is_held_out(empty.replace_cell(cell, Thing(placed, fine)))
    assert not is_held_out(empty.replace_cell((cell + 1) % 4, Thing(placed, fine)))


def test_pairs_alone_are_enough_and_every_concept_can_be_trained() -> None:
    found = 0
    for one, two in (sorted(p) for p in held_out_pairs()):
        options = [
            [(Thing(n, s), i) for s in STYLES for i in range(4) if not _alone(Thing(n, s), i)]
            for n in (one, two)
        ]
        (a, i), (b, j) = next((x, y) for x in options[0] for y in options[1] if x[1] != y[1])
        assert is_held_out(Scene((None,) * 4).replace_cell(i, a).replace_cell(j, b))
        found += 1
    assert found == len(list(combinations(CONCEPTS, 2))) // 10
    trained = {t.concept for k in range(2000) for _, t in sample_scene(random.Random(k), "train").things()}
    assert trained == set(CONCEPTS)


def _alone(thing: Thing, cell: int) -> bool:
    return is_held_out(Scene((None,) * 4).replace_cell(cell, thing))


def test_sampling_is_seeded_and_follows_its_arguments() -> None:
    assert sample_scene(random.Random(5)) == sample_scene(random.Random(5))
    rng = random.Random(6)
    for count in (1, 2, 3, 4):
        assert all(len(sample_scene(rng, "any", things=count).things()) == count for _ in range(50))
    assert all(sample_scene(rng, two_tone=1.0).axis for _ in range(50))
    assert not any(sample_scene(rng).axis for _ in range(50))
    for _ in range(100):
        assert len({t.style for _, t in sample_scene(rng, mixed_styles=0.0).things()}) == 1


@pytest.mark.parametrize("arguments", [{"split": "test"}, {"things": 0}, {"things": 5}])
def test_bad_arguments(arguments: dict) -> None:
    with pytest.raises(UserError):
        sample_scene(random.Random(0), **arguments)
