"""Trains the mixture-of-experts backbone on token records of the world (see records.py, batches.py).

    python -m llada_uni.training.backbone --records runs/records.pt --out runs/backbone --steps 14000

S packed sequences, T places, M masked places, V vocabulary.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_uni.backbone.model import Backbone
from llada_uni.config import BackboneConfig
from llada_uni.errors import UserError
from llada_uni.text import TextTokenizer
from llada_uni.training.balance import max_over_mean, update_bias
from llada_uni.training.batches import Masker, pack
from llada_uni.training.loop import LoopConfig, run
from llada_uni.training.tokenizer import QUANTIZER

BLOCK = 32


def small_config(text: TextTokenizer, image_token_offset: int) -> BackboneConfig:
    """The shipped model: the released architecture, smaller."""
    return BackboneConfig.from_json(
        {
            "architectures": ["LLaDA2MoeModelLM"],
            "model_type": "llada2_moe",
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "use_qk_norm": True,
            "norm_topk_prob": True,
            "score_function": "sigmoid",
            "router_dtype": "fp32",
            "moe_router_enable_expert_bias": True,
            "torch_dtype": "float32",
            "sliding_window": None,
            "output_router_logits": False,
            "initializer_range": 0.04,
            "image_token_offset": image_token_offset,
            "vocab_size": image_token_offset + QUANTIZER["num_embeddings"],
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "num_experts": 8,
            "num_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 2.5,
            "moe_intermediate_size": 160,
            "first_k_dense_replace": 1,
            "use_bias": False,
            "use_qkv_bias": False,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 1024,
            "rope_theta": 10000,
            "partial_rotary_factor": 0.5,
            "pad_token_id": text.pad_id,
            "attention_dropout": 0.0,
            "use_cache": False,
        }
    )


class RecordSource:
    """Draws records evenly from the files of `records.py`; those that do not fit into a packed sequence are left out."""

    def __init__(self, paths: list[str], longest: int) -> None:
        files = [torch.load(path, weights_only=True) for path in paths]
        offsets = {int(f["image_token_offset"]) for f in files}
        if len(offsets) != 1:
            raise UserError(f"the record files have different image_token_offset: {sorted(offsets)}")
        self.ids = torch.cat([f["ids"] for f in files]).numpy()
        self.kinds = torch.cat([f["kinds"] for f in files]).numpy()
        lengths = [torch.diff(f["ends"], prepend=torch.zeros(1, dtype=f["ends"].dtype)) for f in files]
        ends = torch.cat(lengths).cumsum(0).numpy()
        self.spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
        fits = (self.spans[:, 1] - self.spans[:, 0]) <= longest
        self.dropped = int((~fits).sum())
        self.spans = self.spans[fits]
        self.image_token_offset = offsets.pop()

    def draw(self, rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
        """ids and kinds of one record."""
        start, end = self.spans[rng.randrange(len(self.spans))]
        return self.ids[start:end], self.kinds[start:end]


class BackboneObjective:
    """Weighted cross-entropy on masked places, summed and divided by the summed weights of the batch."""

    def __init__(self, model: Backbone, source: RecordSource, text: TextTokenizer, samples: int, length: int) -> None:
        self.model, self.source, self.samples, self.length = model, source, samples, length
        self.masker = Masker(BLOCK, text.mask_id, text.eos_id)
        self.pad_id, self.eos_id = text.pad_id, text.eos_id

    def loss(self, step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        rows = []
        for _ in range(self.samples):
            rows += self.masker.rows(*self.source.draw(rng), rng)
        batch = pack(rows, self.length, BLOCK, self.pad_id)
        hidden = self.model.hidden(batch.ids, position_ids=batch.positions, attention_mask=batch.attention)
        learnt = batch.targets >= 0
        logits = self.model.logits(hidden[learnt])
        target, weight = batch.targets[learnt], batch.weights[learnt]
        each = F.cross_entropy(logits, target, reduction="none")
        loss = (each * weight).sum() / weight.sum()
        with torch.no_grad():
            right = (logits.argmax(-1) == target).float()
            code = target >= self.source.image_token_offset
            word = ~code & (target != self.eos_id)
            numbers = {
                "code_acc": right[code].mean().item() if code.any() else 0.0,
                "text_acc": right[word].mean().item() if word.any() else 0.0,
                "places": float(batch.ids.numel()),
            }
        return loss, numbers


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", nargs="+", default=["runs/records.pt"], help="files, drawn from by their sizes")
    parser.add_argument("--text", default="runs/tokenizer.json")
    parser.add_argument("--out", default="runs/backbone")
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--samples", type=int, default=14, help="samples a step; each gives up to two rows")
    parser.add_argument("--length", type=int, default=192, help="places of a packed sequence")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--balance", type=float, default=0.002, help="step of the router bias")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    text = TextTokenizer.from_file(args.text)
    source = RecordSource(args.records, args.length)
    model = Backbone(small_config(text, source.image_token_offset)).train()
    total = sum(p.numel() for p in model.parameters())
    print(f"{total / 1e6:.2f} M parameters, {len(source.spans)} records, {source.dropped} too long", flush=True)
    objective = BackboneObjective(model, source, text, args.samples, args.length)
    routers = model.routers()

    def loss(step: int, rng: random.Random) -> tuple[Tensor, dict[str, float]]:
        value, numbers = objective.loss(step, rng)
        numbers["max_load"] = max(max_over_mean(r.load) for r in routers)
        return value, numbers

    def after_step(step: int) -> None:
        for router in routers:
            update_bias(router.expert_bias, router.load, args.balance)
        model.reset_load()

    config = LoopConfig(
        args.steps, args.lr, args.out, warmup=200, decay="wsd", decay_fraction=0.25, weight_decay=0.05, save_seconds=180
    )
    run(nn.ModuleDict({"model": model}), loss, config, after_step)


if __name__ == "__main__":
    main()
