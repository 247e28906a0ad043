"""The keywords of transformers' `generate`: what they mean here, what changes nothing, and what is refused in one line."""

from __future__ import annotations

import copy
from threading import Thread

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoProcessor, GenerationConfig, TextIteratorStreamer, TextStreamer

import llada_uni.adapters.transformers_auto  # noqa: F401
from llada_uni.errors import UserError


@pytest.fixture(scope="module")
def lm(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def processor(folder):
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def inputs(processor):
    return processor(text="what is at the top left?")


def test_greedy_in_every_way_to_say_it(lm, inputs):
    want = lm.generate(**inputs, max_new_tokens=8, temperature=0.0)
    for more in (
        {"do_sample": False},
        {"do_sample": False, "temperature": 0.7, "top_p": 0.9},
        {"num_beams": 1, "use_cache": True, "repetition_penalty": 1.0, "logits_processor": [], "stopping_criteria": None},
        {"generation_config": GenerationConfig(do_sample=False)},
        {"return_dict_in_generate": False, "synced_gpus": False, "min_new_tokens": 0},
    ):
        assert torch.equal(lm.generate(**inputs, max_new_tokens=8, **more), want), more
    length = inputs["input_ids"].shape[1]
    assert torch.equal(lm.generate(**inputs, max_length=length + 8), want)
    assert torch.equal(lm.generate(inputs["input_ids"], generation_config=GenerationConfig(max_new_tokens=8)), want)
    assert torch.equal(lm.generate(inputs=inputs["input_ids"], max_new_tokens=8), want)
    assert torch.equal(lm.generate(**inputs, max_new_tokens=8, return_dict_in_generate=True).sequences, want)


def test_sampling(lm, inputs):
    def draw(**more):
        return lm.generate(**inputs, max_new_tokens=8, seed=3, **more)

    want = draw(temperature=1.0)
    assert torch.equal(draw(do_sample=True), want)
    assert torch.equal(draw(generation_config=GenerationConfig(do_sample=True, temperature=1.0)), want)
    assert torch.equal(draw(do_sample=True, temperature=2.0, top_k=3), draw(temperature=2.0, top_k=3))


def test_the_order_of_what_counts(lm, inputs):
    model = copy.deepcopy(lm)
    model.generation_config.max_new_tokens = 5
    length = inputs["input_ids"].shape[1]

    def written(**more):
        return model.generate(**inputs, allowed_token_ids=range(480, 544), **more).shape[1] - length

    assert written() == 5
    assert written(generation_config=GenerationConfig(max_new_tokens=6)) == 6
    assert written(generation_config=GenerationConfig(max_new_tokens=6), max_new_tokens=7) == 7


def test_several_answers_and_other_special_tokens(lm, inputs):
    out = lm.generate(**inputs, max_new_tokens=6, num_return_sequences=3, do_sample=True, seed=1)
    assert out.shape[0] == 3
    first = lm.generate(**inputs, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :].tolist()
    ended = lm.generate(**inputs, max_new_tokens=8, eos_token_id=[first[2], 543])[0, inputs["input_ids"].shape[1] :].tolist()
    assert ended == first[: first.index(first[2]) + 1]


@pytest.mark.parametrize(
    "given",
    [
        {"num_beams": 4}, {"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 3}, {"logits_processor": [len]},
        {"stopping_criteria": [len]}, {"stop_strings": ["x"]}, {"output_scores": True}, {"assistant_model": object()},
        {"inputs_embeds": torch.zeros(1, 2, 3)}, {"min_p": 0.1}, {"generation_mode": "image"},
        {"generation_config": GenerationConfig(num_beams=2)},
    ],
)  # fmt: skip
def test_what_there_is_nothing_like_is_one_line(lm, inputs, given):
    with pytest.raises(UserError, match="block diffusion has nothing like it") as caught:
        lm.generate(**inputs, **given)
    assert "\n" not in str(caught.value)


def test_other_mistakes(lm, inputs):
    for given, words in (
        ({"max_length": 3}, "max_length is 3"),
        ({"num_return_sequences": 0}, "num_return_sequences is 0"),
        ({"max_new_token": 3}, "unknown setting 'max_new_token'"),
    ):
        with pytest.raises(UserError, match=words):
            lm.generate(**inputs, **given)
    for nothing in (None, torch.zeros(1, 0, dtype=torch.int64)):
        with pytest.raises(UserError, match="at least one token"):
            lm.generate(nothing)


def test_streamers(lm, processor, inputs, capsys):
    want = lm.generate(**inputs, max_new_tokens=12)
    text = processor.tokenizer.decode(want[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    pieces: list[torch.Tensor] = []

    class Kept:
        ended = False

        def put(self, value):
            pieces.append(value)

        def end(self):
            self.ended = True

    kept = Kept()
    assert torch.equal(lm.generate(**inputs, max_new_tokens=12, streamer=kept), want) and kept.ended
    assert torch.equal(pieces[0], inputs["input_ids"][0]), "the prompt comes first"
    stop = processor.tokenizer.eos_token_id
    assert torch.cat(pieces[1:]).tolist() == [token for token in want[0, len(pieces[0]) :].tolist() if token != stop]
    assert len(pieces) > 2, "as they become final, not all at once"
    shown = TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    lm.generate(**inputs, max_new_tokens=12, streamer=shown)
    assert capsys.readouterr().out.strip() == text.strip()
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    thread = Thread(target=lm.generate, kwargs={**inputs, "max_new_tokens": 12, "streamer": streamer})
    thread.start()
    assert "".join(streamer).strip() == text.strip()
    thread.join()
    with pytest.raises(UserError, match="one answer, not 2"):
        lm.generate(inputs["input_ids"].repeat(2, 1), streamer=kept)


def test_the_processor_pads_and_ends_as_asked(processor):
    texts = ["a cat?", "nothing is there. what is at the top left?"]
    padded = processor(text=texts, padding=True, return_tensors="pt")
    assert padded["input_ids"].shape == padded["attention_mask"].shape
    wide, length = processor(text=texts, padding="max_length", max_length=64)["input_ids"], padded["input_ids"].shape[1]
    assert wide.shape == (2, 64) and torch.equal(wide[:, -length:], padded["input_ids"])
    lists = processor(text=texts, padding=False, return_tensors=None)["input_ids"]
    assert lists[0] == padded["input_ids"][0][padded["attention_mask"][0].bool()].tolist()
    assert processor(text=texts, return_tensors="np")["input_ids"].tolist() == padded["input_ids"].tolist()
    for wrong, words in (
        ({"padding": False}, "different lengths"), ({"padding": "max_length", "max_length": 3}, "at least"),
        ({"truncation": True}, "truncation"), ({"return_tensors": "tf"}, "'tf'"), ({"do_resize": True}, "do_resize"),
        ({"padding": "left"}, "padding='left'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            processor(text=texts, **wrong)
    user = [{"role": "user", "content": "hello"}]
    answered = [*user, {"role": "assistant", "content": "a cat"}]
    text = processor.parts.text

    def ids(chat, **more):
        return processor.apply_chat_template(chat, tokenize=True, **more)[0].tolist()

    mark = text.encode_control("<role>ASSISTANT</role>")
    assert ids(user, add_generation_prompt=False) + mark == ids(user)
    assert ids(answered, add_generation_prompt=False) == ids(user) + text.encode("a cat") + [text.eos_id]
    assert ids(answered, continue_final_message=True) == ids(user) + text.encode("a cat")
    with pytest.raises(UserError, match="ends with the user's turn"):
        ids(answered)


def test_images_of_an_answer_are_decoded(processor, model):
    codes = model.encode_image(torch.rand(3, 32, 32))
    form = processor.parts.format
    row = [*form.text.encode("see"), *form.image_block(codes)]
    ((image,), none) = processor.post_process_images([row, form.text.encode("see")], seed=1)
    assert image.tobytes() == model.decode_codes(codes, seed=1).image.tobytes() and none == []
