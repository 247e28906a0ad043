"""transformers' Trainer on the backbone, with checkpointed activations; a checkpoint is a model directory, and goes on.

pip install "llada-uni[train]"    # the Trainer needs accelerate
python examples/transformers_trainer.py --model models/world --steps 8 --out out/trainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoProcessor, Trainer, TrainingArguments

import llada_uni.adapters.transformers_auto  # noqa: F401

LESSONS = [("what is two plus one?", "three"), ("what is one plus one?", "two"), ("what is three plus one?", "four")]


class Masked(torch.utils.data.Dataset):
    """Conversations of which each draw masks another share of the answer; labels stand at the masks, not shifted."""

    def __init__(self, processor, mask_id: int) -> None:
        self.rows = []
        self.mask_id = mask_id
        for question, answer in LESSONS:
            chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            ids = processor.apply_chat_template(chat, tokenize=True, add_generation_prompt=False)[0]
            self.rows.append((ids, processor.apply_chat_template(chat[:1], tokenize=True).shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        ids, start = self.rows[place]
        masked = torch.rand(ids.shape) < torch.rand(()).clamp(min=0.3)
        masked[:start], masked[-1] = False, True
        return {"input_ids": ids.masked_fill(masked, self.mask_id), "labels": ids.masked_fill(~masked, -100)}


def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One batch: padded at the right, labels with -100."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [row["input_ids"] for row in rows]
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": pad([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad([row["labels"] for row in rows], batch_first=True, padding_value=-100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/world")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("out/trainer"))
    given = parser.parse_args()
    processor = AutoProcessor.from_pretrained(given.model)

    def trainer() -> Trainer:
        model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
        arguments = TrainingArguments(
            output_dir=str(given.out), max_steps=given.steps, save_steps=max(1, given.steps // 2), logging_steps=1,
            per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e-4, activation_checkpointing=True,
            report_to=[], use_cpu=not torch.cuda.is_available(), seed=0,
        )  # fmt: skip
        rows = Masked(processor, model.generation_config.mask_token_id)
        return Trainer(model=model, args=arguments, train_dataset=rows, data_collator=padded)

    first = trainer()
    first.train()
    print("losses:", *[round(float(one["loss"]), 3) for one in first.state.log_history if "loss" in one])
    again = trainer()
    again.train(resume_from_checkpoint=str(given.out / f"checkpoint-{max(1, given.steps // 2)}"))
    print("went on to step", again.state.global_step)
    processor.save_pretrained(given.out / f"checkpoint-{given.steps}")  # now `UniModel` opens it, too


if __name__ == "__main__":
    main()
