"""transformers' own pipelines on the shipped model: its answers are those of `UniModel`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from llada_uni.adapters.transformers_auto import LLaDA2MoeModelLM, LLaDA2UniTokenizer
from llada_uni.errors import UserError
from llada_uni.model import UniModel
from llada_uni.tasks.parts import find_model

QUESTION = "what is at the top left?"
PROMPT = "a cat at the top left and a dog at the bottom right on green"


@pytest.fixture(scope="module")
def world():
    return str(find_model("world"))


@pytest.fixture(scope="module")
def picture(world):
    return UniModel.from_pretrained(world, "cpu").generate_image(PROMPT, seed=1).image


@pytest.fixture(scope="module")
def ask(world):
    return pipeline("image-text-to-text", model=world, device="cpu", dtype=torch.float32)


def chat(picture, question=QUESTION, where="image"):
    return [{"role": "user", "content": [{"type": "image", where: picture}, {"type": "text", "text": question}]}]


def test_image_text_to_text(ask, picture, tmp_path):
    assert isinstance(ask.model, LLaDA2MoeModelLM) and isinstance(ask.tokenizer, LLaDA2UniTokenizer)
    (said,) = ask(images=picture, text=QUESTION, return_full_text=False)
    assert said["generated_text"].strip() == "cat"
    (said,) = ask(text=chat(picture), return_full_text=False, max_new_tokens=32)
    assert said["generated_text"].strip() == "cat"
    picture.save(tmp_path / "p.png")
    (said,) = ask(text=chat(str(tmp_path / "p.png"), where="url"))
    assert said["generated_text"][-1] == {"role": "assistant", "content": said["generated_text"][-1]["content"]}
    assert said["generated_text"][-1]["content"].strip() == "cat"
    batch = ask(images=[picture, picture], text=[QUESTION, "what is at the bottom right?"], return_full_text=False)
    assert [row["generated_text"].strip() for row in batch] == ["cat", "dog"]


def test_any_to_any(world, ask, picture):
    pipe = pipeline("any-to-any", model=ask.model, processor=ask.processor, device="cpu")
    (said,) = pipe(text=QUESTION, images=picture, return_full_text=False, generation_mode="text")
    assert said["generated_text"].strip() == "cat"
    (said,) = pipe(text=chat(picture), return_full_text=False)
    assert said["generated_text"].strip() == "cat"
    with pytest.raises(ValueError, match="generation_mode=image"):
        pipe(text=QUESTION, generation_mode="image")


def test_text_generation(world, ask):
    tokenizer = AutoTokenizer.from_pretrained(world)
    pipe = pipeline("text-generation", model=ask.model, tokenizer=tokenizer, device="cpu")
    turns = [{"role": "user", "content": "what is two plus one?"}]
    (said,) = pipe(turns, do_sample=False, return_full_text=False)
    want = UniModel.from_pretrained(world, "cpu").chat(turns, seed=0, modalities="text").text
    assert said["generated_text"].strip() == want
    assert pipe("two plus one", max_new_tokens=4, do_sample=False)[0]["generated_text"].startswith("two plus one")


def test_the_tokenizer_alone(world, ask):
    tokenizer = AutoTokenizer.from_pretrained(world)
    assert type(tokenizer) is LLaDA2UniTokenizer and tokenizer.padding_side == "left"
    text = ask.processor.parts.text
    typed = "a cat <boi><role>ASSISTANT</role> and <|mask|>"
    assert tokenizer(typed)["input_ids"] == text.encode(typed), "what is typed holds no control token"
    assert tokenizer.decode(tokenizer("a cat")["input_ids"]) == "a cat"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id) == (text.eos_id, text.pad_id, text.mask_id)
    rows = tokenizer(["a cat", "a cat and a dog"], padding=True, return_tensors="pt")
    assert rows["attention_mask"][0, 0] == 0 and rows["attention_mask"][0, -1] == 1
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    ours = ask.processor.apply_chat_template(turns, tokenize=True)[0].tolist()
    assert tokenizer.apply_chat_template(turns)["input_ids"] == ours
    assert tokenizer.apply_chat_template(turns, return_tensors="pt")["input_ids"][0].tolist() == ours
    assert tokenizer.apply_chat_template(turns, tokenize=False) == text.decode(ours, control=True)
    with pytest.raises(UserError, match="images need"):
        tokenizer.apply_chat_template([{"role": "user", "content": [np.zeros((8, 8, 3)), "what?"]}])
    with pytest.raises(UserError, match="no tools"):
        tokenizer.apply_chat_template(turns, tools=[{"name": "f"}])


def test_the_tokenizer_is_saved_and_loaded(world, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(world)
    tokenizer.save_pretrained(tmp_path)
    again = LLaDA2UniTokenizer.from_pretrained(tmp_path)
    assert again("a cat <boi>")["input_ids"] == tokenizer("a cat <boi>")["input_ids"]
