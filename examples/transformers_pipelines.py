"""Questions and conversations through transformers' pipelines, and a streamed answer.

python examples/transformers_pipelines.py picture.png "what is at the top left?" --model models/world
"""

from __future__ import annotations

import argparse

import torch
from transformers import TextStreamer, pipeline

import llada_uni.adapters.transformers_auto  # noqa: F401  (makes transformers know the model; no remote code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture")
    parser.add_argument("question")
    parser.add_argument("--model", default="models/world")
    given = parser.parse_args()
    ask = pipeline("image-text-to-text", model=given.model, device="cpu", dtype=torch.float32)
    print(ask(images=given.picture, text=given.question, return_full_text=False)[0]["generated_text"].strip())

    chat = [
        {"role": "user", "content": [{"type": "image", "path": given.picture}, {"type": "text", "text": given.question}]},
    ]
    answer = ask(text=chat, max_new_tokens=64)[0]["generated_text"]  # the conversation with the answer at its end
    chat = [*answer, {"role": "user", "content": [{"type": "text", "text": "what color is the background?"}]}]
    print(ask(text=chat, return_full_text=False)[0]["generated_text"].strip())

    write = pipeline("text-generation", model=ask.model, tokenizer=ask.tokenizer, device="cpu")
    turns = [{"role": "user", "content": "what is two plus one?"}]
    print(write(turns, do_sample=False, return_full_text=False)[0]["generated_text"].strip())

    inputs = ask.processor(images=given.picture, text=given.question)
    ask.model.generate(**inputs, streamer=TextStreamer(ask.tokenizer, skip_prompt=True, skip_special_tokens=True))


if __name__ == "__main__":
    main()
