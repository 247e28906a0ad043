"""The backbone through transformers' Auto classes: answers by block diffusion, and a loss to train on.

python examples/transformers_backbone.py --model models/world picture.png "what is at the top left?"
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoModelForCausalLM, AutoProcessor

import llada_uni.adapters.transformers_auto  # noqa: F401  (makes transformers know the model; no remote code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture")
    parser.add_argument("question")
    parser.add_argument("--model", default="models/world")
    given = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32, device_map={"": "cpu"})
    processor = AutoProcessor.from_pretrained(given.model)

    content = [{"type": "image", "path": given.picture}, {"type": "text", "text": given.question}]
    inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True, return_dict=True)
    out = model.generate(**inputs, max_new_tokens=64)
    answer = out[:, inputs["input_ids"].shape[1] :]
    print(processor.decode(answer[0]).strip())

    # How well does the model predict its own answer when all of it is masked? Labels stand at their own places.
    masked = torch.full_like(answer, model.generation_config.mask_token_id)
    labels = torch.cat((torch.full_like(inputs["input_ids"], -100), answer), 1)
    with torch.no_grad():
        loss = model(torch.cat((inputs["input_ids"], masked), 1), labels=labels).loss
    print(f"loss {loss:.3f}")


if __name__ == "__main__":
    main()
