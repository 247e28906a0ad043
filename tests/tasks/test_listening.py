"""Progress of the tasks: certain text, grids of codes, stop strings, settings of chats and stories (tiny model)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.model import UniModel
from llada_uni.results import NO_CODE, EndEvent, ImageEvent, TextEvent
from llada_uni.tasks.listening import CertainText, cut
from llada_uni.tasks.messages import read_messages
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden):
    return UniModel.from_pretrained(make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", golden), device="cpu")


PICTURE = Image.new("RGB", (32, 32), (250, 240, 120))
ASK = [{"role": "user", "content": "what is there?"}]
HOT = {"temperature": 1.0, "seed": 1}


def test_the_words_of_the_steps_are_the_words_of_the_result(model):
    steps = []
    result = model.understand(PICTURE, "what?", 30, on_progress=steps.append, **HOT)
    assert "".join(step.text for step in steps) == result.text and result.text
    assert all(step.codes == step.accepted == step.confidences == () for step in steps if step.stage == "text")
    thinking = []
    drawn = model.generate_image("a cat", thinking=True, on_progress=thinking.append, **HOT)
    assert "".join(step.text for step in thinking if step.stage == "text") == drawn.thinking


def test_codes_come_as_the_whole_grid(model):
    steps = []
    result = model.generate_image(
        "a cat", 16, 48, seed=1, decoder="none", block_length=4, threshold=1.0, on_progress=steps.append
    )
    assert all(step.grid == (2, 6) and step.total == 12 for step in steps)
    assert all(len(step.codes) == len(step.accepted) == len(step.confidences) == 12 for step in steps)
    assert steps[0].codes[4:] == (NO_CODE,) * 8 and not any(steps[0].accepted[4:]), "later blocks hold nothing yet"
    for before, after in pairwise(steps):
        kept = zip(before.codes, before.accepted, after.codes, strict=True)
        assert all(new == old for old, accepted, new in kept if accepted), "accepted codes stay"
        assert before.done == sum(before.accepted) <= after.done
    assert steps[-1].codes == result.codes.codes and all(steps[-1].accepted)
    with pytest.raises(UserError, match="codes only"):
        _ = result.image


@pytest.mark.parametrize("how", [{"preset": "speed"}, {"rule": "t2m", "edit_threshold": 0.9}])
def test_nothing_that_a_rule_may_still_edit_is_shown_as_final(model, how):
    steps = []
    result = model.understand(PICTURE, "what?", 60, on_progress=steps.append, edit_rounds=4, block_length=8, **how, **HOT)
    assert "".join(step.text for step in steps) == result.text and result.text
    steps.clear()
    drawn = model.generate_image(
        "a cat", 16, 48, seed=1, decoder="none", block_length=4, on_progress=steps.append, edit_rounds=4, **how
    )
    for before, after in pairwise(steps):
        kept = zip(before.codes, before.accepted, after.codes, strict=True)
        assert all(new == old for old, accepted, new in kept if accepted), "accepted codes stay"
        assert before.done == sum(before.accepted) <= after.done
    assert {after.done - before.done for before, after in pairwise(steps)} - {0, 4} <= {2}, "a block is final as a whole"
    assert any(step.codes[0] != NO_CODE and not step.accepted[0] for step in steps), "until then it is a proposal"
    assert steps[-1].codes == drawn.codes.codes and all(steps[-1].accepted)


def test_a_stop_string_ends_words_and_saves_steps(model):
    plain = model.chat(ASK, max_tokens=60, modalities="text", **HOT)
    stop = plain.text[5:7]
    cut = model.chat(ASK, max_tokens=60, modalities="text", stop=stop, **HOT)
    assert cut.text == plain.text[: plain.text.find(stop)].strip() and cut.end.reason == "stop"
    assert cut.end.evaluations.backbone < plain.end.evaluations.backbone
    assert model.understand(PICTURE, "what?", 60, stop=[stop], **HOT).text.find(stop) == -1


def test_a_chat_in_words_equals_the_question_asked_alone(model):
    messages = [{"role": "user", "content": [PICTURE, "what is there?"]}]
    alone = model.understand(PICTURE, "what is there?", 20, **HOT)
    assert model.chat(messages, max_tokens=20, modalities=("text",), **HOT).text == alone.text
    short = model.chat(messages, max_tokens=1, modalities=("text",), text_steps=1, block_length=4, **HOT)
    assert short.end.evaluations.backbone == 1
    for wrong in (("image",), ("text", "sound")):
        with pytest.raises(UserError, match="modalities"):
            model.chat(messages, modalities=wrong)
    with pytest.raises(UserError, match="stepz"):
        model.chat(messages, stepz=1)


def test_a_story_takes_settings_and_stops(model):
    plain = list(model.interleave("tell a story", 1, max_tokens=40, top_k=5, **HOT))
    again = list(model.interleave("tell a story", 1, max_tokens=40, top_k=5, **HOT))
    assert [type(event) for event in plain] == [type(event) for event in again] and isinstance(plain[-1], EndEvent)
    first = next(event for event in plain if isinstance(event, TextEvent))
    stop = first.text[3:5]
    events = list(model.interleave("tell a story", 1, max_tokens=40, top_k=5, stop=[stop], **HOT))
    assert events[-1].reason == "stop" and not any(isinstance(event, ImageEvent) for event in events)
    assert "".join(event.text for event in events[:-1]) == first.text[: first.text.find(stop)].strip()
    with pytest.raises(UserError, match="block_length"):
        model.interleave("tell a story", block_length=0)


def test_system_words_go_before_the_users_next_words(model):
    system = {"role": "system", "content": " be brief "}
    (turn,) = read_messages(model.parts, [system, {"role": "user", "content": [PICTURE, "what?"]}])
    assert turn.role == "user" and turn.parts[0] == "be brief\n" and turn.parts[2] == "what?"
    for wrong, words in (
        ([system], "role 'user'"),
        ([{"role": "system", "content": [PICTURE]}, *ASK], "words only"),
        ([system, {"role": "user", "content": [PICTURE]}], "needs words"),
    ):
        with pytest.raises(UserError, match=words):
            read_messages(model.parts, wrong)


def test_less_memory_on_request(model):
    folder, codes = model.folder, model.encode_image(PICTURE)
    small = UniModel.from_pretrained(folder, device="cpu", quantization="int8", offload=True, tile=64)
    assert small.decode_codes(codes, seed=1).image.tobytes() == model.decode_codes(codes, seed=1).image.tobytes()
    assert (small.parts.decoder.offload, small.parts.decoder.tile) == (True, 64)
    with pytest.raises(UserError, match="tile"):
        UniModel.from_pretrained(folder, device="cpu", tile=8)
    with pytest.raises(UserError, match="unknown quantization"):
        UniModel.from_pretrained(folder, device="cpu", quantization="int1").generate_image("a cat")


# --- text that is certain, without a model ---


class Letters:
    """A tokenizer with a token for every byte."""

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")


def pieces(text: str, stops=(), step: int = 1) -> tuple[list[str], bool]:
    """What comes out while the bytes of `text` are accepted, `step` at a time, and at the end."""
    ids, certain, out = list(text.encode()), CertainText(Letters(), stops), []
    for end in range(step, len(ids) + step, step):
        out.append(certain.take(ids[:end]))
        if certain.stopped:
            break
    out.append(certain.end(cut(text, stops)[0]))
    return [piece for piece in out if piece], certain.stopped


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "text", ["a cat and a dog", "  spaces around  ", "héllo — 猫と犬 🐈", "\n\nlines\n\nmore\n", "", "\ufffd odd \ufffd"]
)
def test_the_pieces_are_the_text(text, step):
    found, stopped = pieces(text, (), step)
    assert "".join(found) == text.strip() and not stopped


@pytest.mark.parametrize("step", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("one. two. three", (".",), "one"),
        ("one END two", ("END",), "one"),
        ("one EN two END three", ("END",), "one EN two"),
        ("one two EN", ("END",), "one two EN"),
        ("\n\nfirst\n\nsecond", ("\n\n",), ""),
        ("a xaby", ("ab", "xaby"), "a x"),
        ("aab", ("ab", "aab"), ""),
    ],
)
def test_stop_strings_never_appear_and_do_not_depend_on_the_steps(text, stops, left, step):
    found, stopped = pieces(text, stops, step)
    assert "".join(found) == left and stopped == (left != text)


def test_characters_come_whole():
    assert pieces("é猫")[0] == ["é", "猫"]


def test_what_may_be_the_beginning_of_a_stop_is_held_back():
    certain = CertainText(Letters(), ("END",))
    assert certain.take(b"one EN") == "one" and certain.take(b"one ENE") == " EN" and certain.take(b"one ENEN") == ""
    assert certain.take(b"one ENEND") == "" and certain.stopped
