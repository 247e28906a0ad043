"""What trains transformers' models trains ours: its Trainer, checkpointed activations, LoRA of peft, longer vocabularies."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoProcessor, Trainer, TrainingArguments

import llada_uni.adapters.transformers_auto  # noqa: F401
from llada_uni.errors import UserError
from llada_uni.model import UniModel

IDS = torch.randint(0, 400, (2, 20), generator=torch.Generator().manual_seed(0))
LORA = dict(r=4, lora_alpha=8, target_modules=["query_key_value", "dense"], task_type="CAUSAL_LM")


@pytest.fixture
def lm(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


def test_embeddings_in_place_of_ids(lm):
    want = lm(IDS).logits
    assert torch.equal(lm(inputs_embeds=lm.get_input_embeddings()(IDS)).logits, want)
    with pytest.raises(UserError, match="one of the two"):
        lm(IDS, inputs_embeds=lm.get_input_embeddings()(IDS))
    with pytest.raises(UserError, match="one of the two"):
        lm()


def test_the_states_of_every_layer(lm):
    out = lm(IDS, output_hidden_states=True)
    assert len(out.hidden_states) == 3 and torch.equal(lm.lm_head(out.hidden_states[-1]).float(), out.logits)
    assert torch.equal(out.hidden_states[0], lm.get_input_embeddings()(IDS))
    assert lm(IDS).hidden_states is None
    logits, states = lm(IDS, output_hidden_states=True, return_dict=False)
    assert torch.equal(logits, out.logits) and len(states) == 3


def test_usual_arguments_of_forward(lm):
    want = lm(IDS).logits
    assert torch.equal(lm(IDS, use_cache=True, output_attentions=False, past_key_values=None).logits, want)
    torch.testing.assert_close(lm(IDS, logits_to_keep=3).logits, want[:, -3:])
    torch.testing.assert_close(lm(IDS, logits_to_keep=torch.tensor([1, 5])).logits, want[:, [1, 5]])
    for name, value in (("output_attentions", True), ("past_key_values", ()), ("pixel_values", IDS)):
        with pytest.raises(UserError, match=name):
            lm(IDS, **{name: value})


def test_the_loss_of_a_batch_in_pieces(lm):
    labels = torch.where(IDS % 3 == 0, IDS, -100)
    logits = lm(IDS).logits
    total = F.cross_entropy(logits[labels >= 0], labels[labels >= 0], reduction="sum")
    torch.testing.assert_close(lm(IDS, labels=labels, num_items_in_batch=7).loss, total / 7)
    torch.testing.assert_close(lm(IDS, labels=labels, num_items_in_batch=torch.tensor(7)).loss, total / 7)


def gradients(lm) -> list[torch.Tensor]:
    lm.zero_grad()
    lm(IDS, labels=IDS).loss.backward()
    return [parameter.grad.clone() for parameter in lm.parameters()]


def test_checkpointed_activations_give_the_same_gradients(lm):
    want = gradients(lm.train())
    lm.activation_checkpointing_enable()
    assert lm.model.gradient_checkpointing
    for one, other in zip(gradients(lm), want, strict=True):
        torch.testing.assert_close(one, other)
    lm.eval()
    assert lm(IDS).logits.grad_fn is not None


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_implementations_of_attention(folder, lm, name):
    other = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=name)
    assert torch.equal(other(IDS).logits, lm(IDS).logits)
    with pytest.raises((ValueError, ImportError)):
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="flash_attention_2")


def test_a_longer_vocabulary(lm, folder, tmp_path):
    inputs = AutoProcessor.from_pretrained(folder)(text="what is there?")
    before, was = lm(IDS).logits, lm.generate(**inputs, max_new_tokens=4)
    lm.resize_token_embeddings(560, mean_resizing=False)
    assert lm.config.vocab_size == 560 and lm.get_output_embeddings().weight.shape[0] == 560
    torch.testing.assert_close(lm(IDS).logits[..., :544], before)
    assert lm(torch.full((1, 3), 559)).logits.shape == (1, 3, 560)
    with torch.no_grad():
        lm.lm_head.weight[544:] = -lm.lm_head.weight[544:].abs()
    assert lm.generate(**inputs, max_new_tokens=4).shape == was.shape
    lm.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(IDS).logits, lm(IDS).logits)


def test_lora_of_peft_trains_saves_loads_and_merges(lm, folder, tmp_path):
    torch.manual_seed(0)
    inputs = AutoProcessor.from_pretrained(folder)(text="what is there?")
    model = get_peft_model(lm, LoraConfig(**LORA))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    model.eval()
    after, said = model(input_ids=IDS).logits, model.generate(**inputs, max_new_tokens=6)
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "adapter").eval()
    torch.testing.assert_close(loaded(input_ids=IDS).logits, after)
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=6), said)
    merged = loaded.merge_and_unload()
    torch.testing.assert_close(merged(IDS).logits, after, rtol=1e-4, atol=1e-4)
    merged.save_pretrained(tmp_path / "merged")
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path / "merged")
    assert UniModel.from_pretrained(tmp_path / "merged", "cpu").parts.backbone is not None


def rows():
    return [{"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in IDS.repeat(4, 1)]


def trainer(model, out, **more) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(out), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=4, learning_rate=1e-3,
        logging_steps=1, save_steps=2, report_to=[], use_cpu=True, seed=0, **more,
    )  # fmt: skip
    return Trainer(model=model, args=arguments, train_dataset=rows())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_trainer_trains_saves_and_resumes(lm, folder, tmp_path, checkpointing):
    one = trainer(lm, tmp_path, activation_checkpointing=checkpointing)
    one.train()
    losses = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    assert len(losses) == 4 and losses[-1] < losses[0]
    first = AutoModelForCausalLM.from_pretrained(folder)(IDS, labels=IDS).loss.item()
    assert abs(losses[0] - first) < 0.05, "the mean over the tokens of all pieces, not their sum"
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4")
    torch.testing.assert_close(saved(IDS).logits, lm.eval()(IDS).logits)
    again = trainer(AutoModelForCausalLM.from_pretrained(folder), tmp_path, activation_checkpointing=checkpointing)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    torch.testing.assert_close(again.model.eval()(IDS).logits, lm(IDS).logits, rtol=1e-4, atol=1e-4)
