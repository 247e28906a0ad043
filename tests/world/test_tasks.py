from __future__ import annotations

import random
import re
import time

import pytest

from llada_uni.errors import UserError
from llada_uni.evaluation.scoring import score_objects
from llada_uni.world.checker import Reading
from llada_uni.world.concepts import COLORS, CONCEPTS, POSITIONS, STYLES
from llada_uni.world.samples import arrange, pinned, wanted
from llada_uni.world.scene import Scene
from llada_uni.world.split import held_out_pairs, held_out_positions, held_out_styles, is_held_out
from llada_uni.world.tasks import KINDS, TASKS, Sample, corpus, sample_task, texts
from llada_uni.world.wordings import TEMPLATES, article, joined

SAMPLES = 1500


def many(task: str, split: str, count: int = SAMPLES, seed: int = 7, wordings: str = "train") -> list[Sample]:
    rng = random.Random(seed)
    return [sample_task(rng, task, split, wordings) for _ in range(count)]


def reading_of(scene: Scene) -> Reading:
    return Reading(scene, (1.0,) * 4, (False,) * 4, (0.0,) * 4)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "seen"])
def test_training_samples_hold_no_held_out_combination(task: str, split: str) -> None:
    for sample in many(task, split):
        assert not any(is_held_out(scene) for scene in sample.scenes()), sample


@pytest.mark.parametrize("task", TASKS)
def test_held_out_samples_hold_one(task: str) -> None:
    for sample in many(task, "heldout"):
        if task == "story":
            assert any(is_held_out(scene) for scene in sample.expect["scenes"])
            assert pinned([wanted(c["concept"], c["style"]) for c in sample.expect["characters"]])
        elif task in ("edit", "inpaint") or (task == "dialogue" and sample.kind == "edit"):
            assert is_held_out(sample.expect["scene"])
        else:
            assert any(is_held_out(scene) for scene in sample.scenes())
        if task in ("t2i", "think"):  # and the prompt itself asks for it
            assert pinned(sample.expect["objects"]), sample


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_samples(task: str) -> None:
    assert many(task, "heldout", 50, seed=3) == many(task, "heldout", 50, seed=3)
    assert many(task, "heldout", 50, seed=3) != many(task, "heldout", 50, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_texts_are_short_and_plain(task: str) -> None:
    for sample in many(task, "train"):
        for text in texts(sample):
            assert re.fullmatch(r"[a-z0-9 ,?]+", text), text
            assert text == " ".join(text.split())
            assert 1 <= len(text.split()) <= 19, text
        assert {t.role for t in sample.turns} <= {"user", "assistant"}
        assert sample.turns[-1].role == "user"


def test_the_vocabulary_is_small_and_held_out_wordings_add_no_word() -> None:
    def words(wordings: str) -> set[str]:
        found: set[str] = set()
        for task in TASKS:
            for sample in many(task, "train", 2500, wordings=wordings):
                for text in texts(sample):
                    found |= set(re.findall(r"[a-z0-9]+", text))
        return found

    train = words("train")
    assert len(train) <= 350
    assert words("heldout") <= train


def _skeleton(text: str) -> str:
    """A text with every name replaced, so that only the wording is left."""
    text = text.rstrip("?")
    for position in POSITIONS:
        text = text.replace(position, "P")
    names = {n: "X" for c in CONCEPTS.values() for n in (c.name, c.plural)}
    names |= {s: "S" for s in STYLES} | {c: "C" for c in COLORS} | {"an": "a", "things": "X"}
    skeleton = " ".join(names.get(w, w) for w in text.split())
    return skeleton.replace("S X", "X")


@pytest.mark.parametrize("task", ["understand", "edit"])
def test_held_out_wordings_never_occur_in_training(task: str) -> None:
    def skeletons(wordings: str) -> set[str]:
        return {_skeleton(s.turns[-1].parts[-1]) for s in many(task, "train", 4000, wordings=wordings)}

    train, heldout = skeletons("train"), skeletons("heldout")
    assert not train & heldout
    assert len(train) >= 15 and len(heldout) >= 8


def test_prompts_in_held_out_wordings_open_in_ways_that_are_never_trained() -> None:
    openings = tuple(t.split("{")[0] for kind in ("draw", "story") for t in TEMPLATES[kind].heldout)
    for task in ("t2i", "think", "inpaint", "story"):
        assert all(
            s.turns[0].parts[-1].startswith(openings) for s in many(task, "train", 300, wordings="heldout")
        )
        assert not any(s.turns[0].parts[-1].startswith(openings) for s in many(task, "train"))


def test_no_template_is_both_trained_and_held_out() -> None:
    for kind, templates in TEMPLATES.items():
        assert templates.train and templates.heldout, kind
        assert not set(templates.train) & set(templates.heldout), kind


@pytest.mark.parametrize("task", ["t2i", "think", "inpaint"])
def test_the_sample_fulfils_its_own_prompt(task: str) -> None:
    for sample in many(task, "train") + many(task, "heldout", 500):
        scores = score_objects(sample.expect, reading_of(sample.answer[-1]))
        assert set(scores.values()) == {1.0}, sample


def test_what_a_prompt_fixes_stands_in_its_words() -> None:
    for sample in many("t2i", "train"):
        text = sample.turns[0].parts[0]
        for asked in sample.expect["objects"]:
            concept = CONCEPTS[asked["concept"]]
            assert concept.name in text or concept.plural in text
            assert (asked["style"] is None) or asked["style"] in text
            assert (asked["position"] is None) or POSITIONS[asked["position"]] in text
        color = sample.expect["background"]
        assert (color is not None) == any(c in text.split() for c in COLORS)
        assert color is None or color in text.split()
        if any(p in text for p in POSITIONS):
            assert all(a["position"] is not None for a in sample.expect["objects"])
        if any(s in text.split() for s in STYLES):
            assert all(a["style"] is not None for a in sample.expect["objects"])


def test_kinds_are_drawn_by_their_weights_and_on_request() -> None:
    for task, kinds in KINDS.items():
        assert abs(sum(kinds.values()) - 1) < 1e-9
        drawn = [s.kind for s in many(task, "train", 2000)]
        for kind, weight in kinds.items():
            assert abs(drawn.count(kind) / 2000 - weight) < 0.05
            assert sample_task(random.Random(1), task, kind=kind).kind == kind


def test_expect_and_answer_agree() -> None:
    for sample in many("understand", "train", 300):
        assert sample.answer == [sample.expect["answer"]]
    for sample in many("edit", "train", 300):
        assert sample.answer == [sample.expect["scene"]]
        assert sample.turns[0].parts[0] == sample.expect["source"]
        assert sample.expect["scene"] != sample.expect["source"]
    for sample in many("inpaint", "train", 300):
        kept = [i for i in range(4) if i not in sample.expect["cells"]]
        assert sample.answer == [sample.expect["scene"]]
        assert sample.expect["source"].background == sample.expect["scene"].background
        assert all(sample.expect["source"].cells[i] == sample.expect["scene"].cells[i] for i in kept)
        assert 1 <= len(sample.expect["cells"]) <= 2


def test_dialogues_are_about_one_picture_and_alternate() -> None:
    for sample in many("dialogue", "train", 500):
        assert [t.role for t in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2) + ["user"]
        assert 3 <= len(sample.turns) <= 5
        assert isinstance(sample.turns[0].parts[0], Scene)
        assert all(isinstance(p, str) for t in sample.turns[1:] for p in t.parts)
        assert isinstance(sample.answer[0], Scene) == (sample.kind == "edit")


def test_corpus_is_training_text() -> None:
    lines = list(corpus(140))
    assert len(lines) > 200
    assert lines == list(corpus(140))


def test_pinned_needs_the_combination_itself() -> None:
    name, style = next(iter(sorted(held_out_styles())))
    assert pinned([wanted(name, style)])
    assert not pinned([wanted(name)])
    other, cell = next(iter(sorted(held_out_positions())))
    assert pinned([wanted(other, None, cell)])
    assert not pinned([wanted(other, None, None)])
    assert pinned([wanted(n) for n in next(iter(held_out_pairs()))])


def test_samples_are_fast() -> None:
    rng = random.Random(0)
    for task in TASKS:
        sample_task(rng, task)
    started = time.process_time()
    for i in range(3500):
        sample_task(rng, TASKS[i % len(TASKS)])
    assert 3500 / (time.process_time() - started) > 3000  # about 20000 on the machine it was written on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poem",), "known: t2i"),
        (("t2i", "test"), "known: train"),
        (("t2i", "train", "all"), "known: train, heldout"),
        (("t2i", "train", "train", "poem"), "known: single"),
    ],
)
def test_unknown_names(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sample_task(random.Random(0), *arguments)


def test_arrange_refuses_more_things_than_cells() -> None:
    with pytest.raises(UserError, match="at most 4"):
        arrange(random.Random(0), "train", [3, 2])


def test_small_words() -> None:
    assert (article("cat"), article("apple"), article("3d apple")) == ("a cat", "an apple", "a 3d apple")
    assert [joined(list("xyz"[:n])) for n in range(4)] == ["", "x", "x and y", "x, y and z"]
