"""A LoRA of peft on the backbone: trained on questions of your own, saved, loaded again, merged into a model directory.

pip install "llada-uni[train]"    # peft, and the accelerate that it needs
python examples/peft_lora.py --model models/world --steps 60 --out out/lora

What block diffusion is trained on is not shifted: some tokens of the answer are masked, and the labels stand at their places.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoProcessor

import llada_uni.adapters.transformers_auto  # noqa: F401
from llada_uni import UniModel

LENGTH = 16  # tokens of an answer, with the ends of text that fill it up
LESSONS = [("what is your name?", "green"), ("who are you?", "green")]


def example(processor, question: str, answer: str, mask_id: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """(ids with some of the answer masked, labels that count only there), each [1, T]."""
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    ids = processor.apply_chat_template(chat, tokenize=True, add_generation_prompt=False)
    ends = ids.new_full((1, LENGTH), processor.tokenizer.eos_token_id)  # generation meets a whole stretch of masks
    ids = torch.cat((ids, ends), 1)
    start = processor.apply_chat_template(chat[:1], tokenize=True).shape[1]
    share = torch.rand((), generator=generator).clamp(min=0.5)
    masked = torch.rand(ids.shape, generator=generator) < share
    masked[:, :start], masked[:, start] = False, True  # the first token of the answer is always to be said
    ids, masked = ids[:, : start + LENGTH], masked[:, : start + LENGTH]
    return ids.masked_fill(masked, mask_id), ids.masked_fill(~masked, -100)


def ask(model, processor) -> str:
    inputs = processor(text=LESSONS[0][0])
    out = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False)
    return processor.decode(out[0, inputs["input_ids"].shape[1] :]).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/world")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out/lora"))
    given = parser.parse_args()
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(given.model)
    base = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", target_modules=["query_key_value", "dense"])
    model = get_peft_model(base, config).train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-3)
    generator, mask_id = torch.Generator().manual_seed(0), base.generation_config.mask_token_id
    for step in range(given.steps):
        question, answer = LESSONS[step % len(LESSONS)]
        ids, labels = example(processor, question, answer, mask_id, generator)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step:3}: loss {loss.item():.3f}")
    said = ask(model.eval(), processor)
    print("with the adapter:", said)
    model.save_pretrained(given.out / "adapter")

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(given.model), given.out / "adapter").eval()
    assert ask(loaded, processor) == said
    loaded.merge_and_unload().save_pretrained(given.out / "merged")
    processor.save_pretrained(given.out / "merged")
    turns = [{"role": "user", "content": LESSONS[0][0]}]
    print("merged:", UniModel.from_pretrained(given.out / "merged").chat(turns, modalities="text", seed=0).text)


if __name__ == "__main__":
    main()
