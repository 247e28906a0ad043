"""What the decoder stages train: code features and transformer as one module, and the probes that help a small one.

Codes [B, h, w] -> every code 2 x 2 times -> features [B, L, F] (SigVQ) -> transformer with a noised
state [B, C, 1, H, W] -> velocity of the same shape. Built fresh from sizes, or read from a run or model directory.
B pictures, C latent channels, L = 2h * 2w condition positions, F their features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from torch import Tensor, nn

from llada_uni.decoder.decode import UPSCALE
from llada_uni.decoder.model import build_transformer, released_decoder_config, save_transformer, to_module_name
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.decoder.transformer import context_of, to_dtype_of, velocity
from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES, DECODER
from llada_uni.files.weights import WeightFiles, check_names, check_shape, read_json
from llada_uni.options import options
from llada_uni.training.export import model_folder
from llada_uni.training.loop.ema import local_part
from llada_uni.training.loop.sharded_load import own_rows

PRESETS: dict[str, dict[str, Any]] = {
    "released": released_decoder_config(),
    "world": {
        "all_patch_size": [4], "all_f_patch_size": [1], "in_channels": 8, "dim": 256, "n_layers": 4,
        "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4, "norm_eps": 1e-5, "qk_norm": True,
        "cap_feat_dim": 128, "rope_theta": 256.0, "t_scale": 1000.0, "axes_dims": [24, 20, 20],
        "axes_lens": [512, 64, 64],
    },
}  # fmt: skip
"""Sizes of the transformer: the 6 B decoder (released configuration) and the shipped model's."""
_SIZES = ("all_patch_size", "in_channels", "dim", "n_layers", "n_refiner_layers", "n_heads", "cap_feat_dim", "axes_dims")


@options
class DecoderSizes:
    """preset: world | released; transformer: fields of its config that differ; codebook: number of codes."""

    preset: Literal["released", "world"] = "world"
    transformer: dict[str, Any] = field(default_factory=dict)
    codebook: int = 64

    def config(self) -> dict[str, Any]:
        """The transformer's config; UserError for unknown names."""
        base = PRESETS[self.preset]
        for name in self.transformer:
            if name not in base:
                raise UserError(f"sizes.transformer has no field {name!r}; allowed: {', '.join(base)}")
        return {**base, **self.transformer}


class Conditioned(nn.Module):
    """Codes and a noised state to a velocity. `sigvq` and `transformer` are the parts that a model directory keeps."""

    def __init__(self, sigvq: SigVQ, transformer: ZImageTransformer2DModel) -> None:
        super().__init__()
        self.sigvq, self.transformer = sigvq, transformer

    @classmethod
    def from_sizes(cls, sizes: DecoderSizes) -> Conditioned:
        """Fresh weights from torch's generator (none on the meta device)."""
        config = sizes.config()
        return cls(SigVQ(sizes.codebook, config["cap_feat_dim"]), build_transformer(config, "the decoder's sizes"))

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], sizes: DecoderSizes, low_memory: bool = False) -> Conditioned:
        """The base decoder of a run or model directory in float32, ready to be trained further. UserError when it is not of
        `sizes`. low_memory: on the meta device, to be filled once it is sharded."""
        with torch.device("meta"):
            model = cls.from_sizes(sizes)
        if not low_memory:
            model.to_empty(device="cpu").fill(source)
        return model

    @torch.no_grad()
    def fill(self, source: str | os.PathLike[str]) -> None:
        """Puts the base decoder of a run or model directory into these weights; a process reads its own rows of sharded ones.

        UserError when a part is missing or of other sizes.
        """
        folder = model_folder(source)
        for part in (CODE_FEATURES, DECODER):
            if not part.there(folder):
                raise UserError(f"{folder} has no {part.folder}/{part.marker}, which the decoder starts from")
        weights = WeightFiles(DECODER.path(folder), DECODER.weights)
        config, wanted = read_json(DECODER.path(folder) / DECODER.marker), self.sizes()
        for name in wanted.keys() & config.keys() - {"cap_feat_dim"}:  # released configs leave the condition's width open
            if config[name] != wanted[name]:
                raise UserError(f"the decoder in {folder} has {name} {config[name]}, but the recipe's sizes say {wanted[name]}")
        names = {to_module_name(name): name for name in weights.shapes}
        check_names(weights.path, set(dict(self.transformer.named_parameters())), set(names))
        for name, target in self.transformer.named_parameters():
            check_shape(weights.path, name, tuple(target.shape), weights.shapes[names[name]])
            _copy_own_rows(target, partial(weights.rows, names[name]))
        path = CODE_FEATURES.path(folder) / CODE_FEATURES.marker
        features = SigVQ.from_pretrained(path, dtype=torch.float32).state_dict()
        for name, target in self.sigvq.named_parameters():
            check_shape(path, name, tuple(target.shape), tuple(features[name].shape))
            _copy_own_rows(target, partial(_rows, features[name]))

    def sizes(self) -> dict[str, Any]:
        """What decides the shapes, as JSON values."""
        values = {name: self.transformer.config[name] for name in _SIZES} | {"codebook": self.sigvq.codebook_size}
        return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in values.items()}

    def condition(self, codes: Tensor, drop: Tensor | None = None) -> Tensor:
        """Features [B, L, F] of codes int64 [B, h, w]; zeros, the negative condition, where `drop` bool [B]."""
        doubled = codes.repeat_interleave(UPSCALE, 1).repeat_interleave(UPSCALE, 2).flatten(1)
        features = self.sigvq(doubled)
        return features if drop is None else features * (~drop)[:, None, None]

    def forward(self, state: Tensor, t: Tensor, codes: Tensor, drop: Tensor | None = None) -> Tensor:
        """Velocity float32 like `state` [B, C, 1, H, W]; t [B] in 0..1 (0 noise, 1 data)."""
        context = context_of(self.transformer, self.condition(codes, drop), tuple(state.shape[1:]))
        return velocity(self.transformer, to_dtype_of(self.transformer, state), t, context).float()

    def layers(self) -> list[nn.Module]:
        """What is sharded one by one."""
        return transformer_layers(self.transformer)


def _rows(whole: Tensor, start: int, stop: int) -> Tensor:
    return whole[start:stop]


def _copy_own_rows(target: Tensor, rows: Callable[[int, int], Tensor]) -> None:
    """Fills what this process holds of `target` with rows(start, stop) of the whole."""
    start, stop = own_rows(target)
    if stop > start:
        local_part(target).copy_(rows(start, stop))


def transformer_layers(model: ZImageTransformer2DModel) -> list[nn.Module]:
    """All transformer blocks, the refiners' included."""
    return [*model.noise_refiner, *model.context_refiner, *model.layers]


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state dict under `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def save_transformer_state(state: dict[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Writes a transformer given by its tensors and its config as `load_transformer` reads it."""
    with torch.device("meta"):
        model = build_transformer(dict(config))
    model.load_state_dict(state, assign=True)
    save_transformer(model, folder)


class PositionProbes(nn.Module):
    """Helps a small transformer find out where its tokens are; dropped after training (docs/log.md).

    Condition tokens are numbered along the first rotary axis, image tokens along the other two, and rotary positions are
    relative, so which condition belongs to which image token is hard to learn from the flow loss alone. Linear probes behind
    the first layers are trained, through the layers, to read every token's row and column.
    """

    def __init__(self, transformer: ZImageTransformer2DModel, side: int, layers: int = 2) -> None:
        super().__init__()
        if len(transformer.layers) < layers:
            found = len(transformer.layers)
            raise UserError(f"position_probes read {layers} layers and the transformer has {found}: set them to 0")
        self.side = side
        self.readers = nn.ModuleList(nn.Linear(transformer.config["dim"], 2 * side) for _ in range(layers))
        self._seen: dict[int, Tensor] = {}
        for i in range(layers):
            transformer.layers[i].register_forward_hook(lambda _m, _i, out, i=i: self._seen.__setitem__(i, out))

    def loss(self) -> tuple[Tensor, float]:
        """Mean cross-entropy over layers, rows and columns at the last forward, and the last layer's accuracy."""
        count = self.side * self.side
        place = torch.arange(count, device=next(self.readers.parameters()).device)
        target = torch.stack([place // self.side, place % self.side], -1)
        total, right = target.new_zeros((), dtype=torch.float32), 0.0
        for i, reader in enumerate(self.readers):
            seen = self._seen.pop(i)
            # Image tokens, then condition tokens, both in raster order; each half may end with pad tokens.
            second = seen.shape[1] // 2
            tokens = torch.stack([seen[:, :count], seen[:, second : second + count]], 1)
            logits = reader(tokens).unflatten(-1, (2, self.side)).float()
            wanted = target.expand(*tokens.shape[:2], -1, -1)
            total = total + F.cross_entropy(logits.flatten(0, -2), wanted.flatten()) / len(self.readers)
            right = (logits.argmax(-1) == wanted).float().mean().item()
        return total, right
