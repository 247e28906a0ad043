"""Samples of every task: the split holds, words and pictures agree, wordings are kept apart."""

from __future__ import annotations

import random
import re

import pytest

from llada_uni.errors import UserError
from llada_uni.world.checker import Reading
from llada_uni.world.concepts import CELLS, COLORS, CONCEPTS, DIGITS, POSITIONS, STYLES, THINGS
from llada_uni.world.evaluation.scoring import score_drawing
from llada_uni.world.rewording import mistyped
from llada_uni.world.samples import pinned, wanted
from llada_uni.world.scene import Scene
from llada_uni.world.split import held_out_pairs, held_out_positions, held_out_styles, is_held_out
from llada_uni.world.tasks import KINDS, TASKS, Sample, corpus, sample_task, texts
from llada_uni.world.wordings import TEMPLATES, Speaker, article, joined

SAMPLES = 900


def many(task: str, split: str, count: int = SAMPLES, seed: int = 7, wordings: str = "train") -> list[Sample]:
    rng = random.Random(seed)
    return [sample_task(rng, task, split, wordings) for _ in range(count)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("split", ["train", "seen"])
def test_training_samples_hold_no_held_out_combination(task: str, split: str) -> None:
    for sample in many(task, split):
        assert not any(is_held_out(scene) for scene in sample.scenes()), sample


@pytest.mark.parametrize("task", TASKS)
def test_held_out_samples_hold_one(task: str) -> None:
    for sample in many(task, "heldout", 400):
        assert any(is_held_out(scene) for scene in sample.scenes())
        if task in ("edit", "inpaint"):
            assert is_held_out(sample.expect["scene"])
        if task == "story":
            assert pinned([wanted(name, sample.expect["style"]) for name in sample.expect["characters"]])
        if task in ("t2i", "think"):  # and the prompt itself asks for it
            assert pinned(sample.expect["objects"], sample.expect["number"]), sample


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_samples(task: str) -> None:
    assert many(task, "heldout", 50, seed=3) == many(task, "heldout", 50, seed=3)
    assert many(task, "heldout", 50, seed=3) != many(task, "heldout", 50, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_texts_are_short_and_plain(task: str) -> None:
    for sample in many(task, "train"):
        for text in texts(sample):
            assert re.fullmatch(r"[a-z0-9 ,:?]+", text), text
            assert text == " ".join(text.split())
            assert 1 <= len(text.split()) <= 40, text
        assert {t.role for t in sample.turns} <= {"user", "assistant"}
        assert sample.turns[-1].role == "user"


def test_the_vocabulary_is_small_and_held_out_wordings_add_no_word() -> None:
    def words(wordings: str) -> set[str]:
        found: set[str] = set()
        for task in TASKS:
            for sample in many(task, "train", 2500, wordings=wordings):
                for text in texts(sample):
                    found |= set(re.findall(r"[a-z]+", text))
        return found

    train = words("train")
    assert len(train) <= 560
    assert words("heldout") <= train


def _skeleton(text: str) -> str:
    """A text with every name replaced, so that only the wording is left."""
    text = re.sub(r"\d+", "N", text.rstrip("?"))
    for position in POSITIONS:
        text = text.replace(position, "P")
    names = {n: "X" for c in CONCEPTS.values() for n in (c.name, c.plural)}
    names |= {s: "S" for s in STYLES} | {c: "C" for c in COLORS} | {"an": "a", "things": "X"}
    skeleton = " ".join(names.get(w, w) for w in text.split())
    return skeleton.replace("S X", "X")


@pytest.mark.parametrize("task", ["understand", "edit", "reasoning"])
def test_held_out_wordings_never_occur_in_training(task: str) -> None:
    def skeletons(wordings: str) -> set[str]:
        return {_skeleton(s.turns[-1].parts[-1]) for s in many(task, "train", 3000, wordings=wordings)}

    train, heldout = skeletons("train"), skeletons("heldout")
    assert not train & heldout
    assert len(train) >= 8 and len(heldout) >= 6


def test_no_template_is_both_trained_and_held_out() -> None:
    for kind, templates in TEMPLATES.items():
        assert templates.train and templates.heldout, kind
        assert not set(templates.train) & set(templates.heldout), kind


@pytest.mark.parametrize("task", TASKS)
def test_the_same_things_can_be_asked_in_other_words(task: str) -> None:
    for seed in range(200):
        plain, other = (sample_task(random.Random(seed), task, "heldout", wordings) for wordings in ("train", "heldout"))
        if task != "dialogue":  # where a question must not come twice, other words may lead elsewhere
            assert plain.expect == other.expect and plain.answer == other.answer
            assert plain.scenes() == other.scenes()
    assert any(
        sample_task(random.Random(seed), task, wordings="train").turns
        != sample_task(random.Random(seed), task, wordings="heldout").turns
        for seed in range(5)
    )


@pytest.mark.parametrize("task", ["t2i", "think"])
def test_the_sample_fulfils_its_own_prompt(task: str) -> None:
    for sample in many(task, "train") + many(task, "heldout", 400):
        scores = score_drawing(sample.expect, Reading.of(sample.answer[-1]))
        assert set(scores.values()) == {1.0}, sample


def test_what_a_prompt_fixes_stands_in_its_words() -> None:
    for sample in many("t2i", "train"):
        text = sample.turns[0].parts[0]
        for asked in sample.expect["objects"]:
            concept = CONCEPTS[asked["concept"]]
            assert concept.name in text or concept.plural in text
            assert (asked["style"] is None) or asked["style"] in text
            assert (asked["position"] is None) or POSITIONS[asked["position"]] in text
        color, number = sample.expect["background"], sample.expect["number"]
        assert (color is not None) == any(c in re.findall("[a-z]+", text) for c in COLORS)
        assert color is None or color in text.split()
        assert number is None or number in text.split()
        if any(p in text for p in POSITIONS):
            assert all(a["position"] is not None for a in sample.expect["objects"])
        if any(s in text.split() for s in STYLES):
            assert all(a["style"] is not None for a in sample.expect["objects"])


def test_equal_words_mean_equal_places() -> None:
    """A picture follows from its prompt, but for style and color where they are left open."""
    places: dict[str, tuple] = {}
    for sample in many("t2i", "train", 6000):
        text, scene = sample.turns[0].parts[0], sample.answer[0]
        cells = tuple(t and t.concept for t in scene.cells)
        assert places.setdefault(text, cells) == cells


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
        assert sample.expect["key"] in (None, sample.answer[0].rpartition(": ")[2])
    for sample in many("edit", "train", 300):
        assert sample.answer == [sample.expect["scene"]]
        assert sample.expect["source"] in sample.turns[0].parts
        assert sample.expect["scene"] != sample.expect["source"]
    for sample in many("inpaint", "train", 300):
        kept = [i for i in CELLS if i not in sample.expect["cells"]]
        assert sample.answer == [sample.expect["scene"]]
        assert sample.expect["source"].background == sample.expect["scene"].background
        assert all(sample.expect["source"].cells[i] == sample.expect["scene"].cells[i] for i in kept)
        assert 1 <= len(sample.expect["cells"]) <= 2


def test_dialogues_alternate_and_say_what_every_answer_must_be() -> None:
    drawn = 0
    for sample in many("dialogue", "train", 500):
        assert [t.role for t in sample.turns] == ["user", "assistant"] * (len(sample.turns) // 2) + ["user"]
        answers = [t.parts[0] for t in sample.turns[1::2]] + sample.answer
        assert 2 <= len(answers) == len(sample.expect["turns"]) <= 3
        for answer, expect in zip(answers, sample.expect["turns"], strict=True):
            assert isinstance(answer, Scene) == ("answer" not in expect)
            if isinstance(answer, str):
                assert answer == expect["answer"]
            elif "scene" in expect:
                assert answer == expect["scene"]
            else:
                assert score_drawing(expect, Reading.of(answer))["right"] == 1.0
        assert isinstance(sample.turns[0].parts[0], Scene) == (sample.kind != "draw")
        drawn += sample.kind == "draw"
    assert drawn > 80


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


def test_small_words() -> None:
    assert (article("cat"), article("apple"), article("3d apple")) == ("a cat", "an apple", "a 3d apple")
    assert (article("umbrella"), article("unicorn")) == ("an umbrella", "a unicorn")
    assert [joined(list("xyz"[:n])) for n in range(4)] == ["", "x", "x and y", "x, y and z"]


def test_what_a_speaker_says_leaves_the_things_alone() -> None:
    states = []
    for wordings in ("train", "heldout"):
        rng = random.Random(0)
        say = Speaker(rng, wordings)
        said = [say.pick("draw") for _ in range(20)]
        assert set(said) <= set(getattr(TEMPLATES["draw"], wordings))
        states.append(rng.getstate())
    assert states[0] == states[1]


def test_typing_mistakes_spare_the_names() -> None:
    rng, changed = random.Random(0), 0
    for sample in many("t2i", "train", 300) + many("edit", "train", 300):
        text = sample.turns[-1].parts[-1]
        wrong = mistyped(rng, text)
        changed += wrong != text
        assert len(wrong.split()) == len(text.split()) and abs(len(wrong) - len(text)) <= 1
        for one, other in zip(text.split(), wrong.split(), strict=True):
            if one.strip(",?") in {*THINGS, *DIGITS, *COLORS, *STYLES}:
                assert one == other
    assert changed > 300
    assert mistyped(rng, "a cat") == "a cat"
