"""Recorded checks of the backbone: logits, hidden states, router, generations.

Axes: B batch, T tokens, V vocabulary, D width, E experts, K experts a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.checkpoint.load import load_backbone
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE
from llada_uni.files.weights import WeightFiles
from llada_uni.verify.compare import Result, Row, difference, has_part, mismatches, natural


class BackboneChecks:
    """Rows of `forward.safetensors` and `generation.json`, which lie beside the backbone's weights."""

    def __init__(self, folder: Path, device: torch.device, tolerance: float, dtype: torch.dtype = torch.float32) -> None:
        inner = folder / "backbone"
        self.top, self.folder = folder, inner if inner.is_dir() else folder
        self.device, self.tolerance, self.dtype = device, tolerance, dtype

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.top, self.device, self.dtype)

    def forward_rows(self) -> Iterator[Row]:
        file = self.folder / "forward.safetensors"
        if not file.is_file() or not has_part(self.folder, BACKBONE):
            return
        recorded = WeightFiles(file.parent, file.name)
        for name in sorted(recorded):
            if match := re.fullmatch(r"logits\.(full|block\d+)\.logits", name):
                yield f"backbone.{name}", self.tolerance, partial(self._logits, recorded, match.group(1))
        traced = sorted((n for n in recorded if re.fullmatch(r"(hidden|router)\..*", n)), key=natural)
        for name in traced:
            exact = name.endswith(".topk")
            yield (
                f"backbone.{name}",
                0.0 if exact else self.tolerance,
                partial(self._traced, recorded, name),
            )

    @torch.no_grad()
    def _logits(self, recorded: WeightFiles, kind: str) -> Result:
        ids = recorded.tensor(f"logits.{kind}.input_ids").to(self.device)
        found = self.backbone(ids, attention_mask=self._mask(kind, ids.shape[1]))
        return difference(found, recorded.tensor(f"logits.{kind}.logits"))

    def _mask(self, kind: str, length: int) -> torch.Tensor | None:
        return (
            None
            if kind == "full"
            else block_causal_square(length, int(kind.removeprefix("block")), self.device)
        )

    def _traced(self, recorded: WeightFiles, name: str) -> Result:
        want = recorded.tensor(name)
        found = self._trace(recorded)
        if name not in found:
            raise UserError(f"the backbone has no {name} ({self.backbone.config.num_hidden_layers} layers)")
        if not name.endswith(".topk"):
            return difference(found[name], want)
        if found[name].shape != want.shape:
            raise UserError(f"the shape is {list(found[name].shape)}, recorded is {list(want.shape)}")
        return mismatches(found[name].flatten().tolist(), want.flatten().tolist(), "choices")

    @torch.no_grad()
    def _trace(self, recorded: WeightFiles) -> dict[str, torch.Tensor]:
        """Hidden states and router outputs of the recorded run: the first row of the ids under blocks of
        8."""
        if "trace" in self.__dict__:
            return self.__dict__["trace"]
        kinds = [n.split(".")[1] for n in recorded if re.fullmatch(r"logits\.block\d+\.input_ids", n)]
        length = next(recorded.shapes[n][1] for n in recorded if n.startswith("hidden."))
        fits = [
            k for k in ("block8", *kinds) if recorded.shapes.get(f"logits.{k}.input_ids", (0, 0))[1] == length
        ]
        if not fits:
            raise UserError(f"no recorded ids are {length} tokens long, as the recorded hidden states are")
        kind = fits[0]
        ids = recorded.tensor(f"logits.{kind}.input_ids")[:1].to(self.device)
        model, hooks = self.backbone, []
        found: dict[str, torch.Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            return lambda _module, _inputs, output: found.__setitem__(name, output)

        def keep_routing(name: str) -> Callable[..., None]:
            def hook(_module: Any, _inputs: Any, output: Any) -> None:
                found[f"{name}.logits"] = output.logits[None]
                found[f"{name}.topk"] = output.experts.sort(-1).values[None]

            return hook

        trunk = model.model
        hooks.append(trunk.word_embeddings.register_forward_hook(keep("hidden.0")))
        for i, layer in enumerate(trunk.layers[:-1]):
            hooks.append(layer.register_forward_hook(keep(f"hidden.{i + 1}")))
        hooks.append(trunk.norm.register_forward_hook(keep(f"hidden.{len(trunk.layers)}")))
        for i, router in enumerate(model.routers()):
            hooks.append(router.register_forward_hook(keep_routing(f"router.{i}")))
        try:
            model.hidden(ids, attention_mask=self._mask(kind, ids.shape[1]))
        finally:
            for hook in hooks:
                hook.remove()
        self.__dict__["trace"] = found
        return found

    def generation_rows(self) -> Iterator[Row]:
        file = self.folder / "generation.json"
        if not file.is_file() or not has_part(self.folder, BACKBONE):
            return
        entries = json.loads(file.read_text(encoding="utf-8"))
        for i, entry in enumerate(entries):
            yield f"backbone.generation.{i}.{entry.get('kind', '')}", 0.0, partial(self._generation, entry)

    def _generation(self, entry: dict[str, Any]) -> Result:
        from llada_uni.generation.engine import Engine
        from llada_uni.generation.settings import Guidance, Settings

        stop = entry["eos_id"] if entry["kind"] == "text" else entry["eoi_id"]
        scale = entry.get("cfg_scale", 1.0)
        guided = "uncond_prompt" in entry and scale != 1.0
        settings = Settings(
            block_length=entry["block_length"],
            steps=entry["steps"],
            threshold=entry["threshold"],
            gen_length=entry["gen_length"],
            mask_id=entry["mask_id"],
            stop_ids=(stop,),
            early_stop=entry.get("eos_early_stop", True),
            guidance=Guidance("simple", scale=scale) if guided else None,
        )
        branches = {"uncond": entry["uncond_prompt"]} if guided else None
        result = Engine(self.backbone).generate(entry["prompt"], settings, branches=branches)
        return mismatches(list(result.tokens), entry["output"], "tokens")
