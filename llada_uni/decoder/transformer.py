"""One evaluation of diffusers' ZImageTransformer2DModel, cut in two: what the time does not change, and the rest.

The library's forward embeds and refines the condition at every step, although its result depends on nothing but the
codes. Here `context_of` does that once a picture, and `velocity` uses it at every step; both call the library's own
modules, and tests hold the two to its forward. All pictures of a call have one size, so no attention masks are needed.

Condition [B, L, F] -> refined condition [B, L', D] (context_of), then, at every step,
state [B, C, T, H, W] -> patches [B, N, P] -> tokens [B, N', D], condition behind them [B, N' + L', D] -> velocity.
Axes: B pictures, L condition places, F their features, D width, C channels, T x H x W latents (one frame), N patches of
P numbers; N' and L' are N and L rounded up to whole lots of 32, filled with learned pad tokens, which are attended to.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF, ZImageTransformer2DModel
from torch import Tensor, nn

from llada_uni.decoder.model import fit_positions


class Context(NamedTuple):
    """tokens [B, L', D]: the refined condition; the angles are complex: of the image tokens [1, N', A], of all
    [1, N' + L', A]."""

    tokens: Tensor
    image_angles: Tensor
    angles: Tensor

    def repeat(self, times: int) -> Context:
        """The same pictures `times` times over, one whole batch after another."""
        return self._replace(tokens=self.tokens.repeat(times, 1, 1))

    def detach(self) -> Context:
        return self._replace(tokens=self.tokens.detach())


class Hidden(NamedTuple):
    """What the output layer reads: tokens [B, N' + L', D] and the embedded time [B, E]."""

    tokens: Tensor
    time: Tensor


def context_of(model: ZImageTransformer2DModel, condition: Tensor, size: tuple[int, ...]) -> Context:
    """Everything of an evaluation that neither state nor time change.

    condition [B, L, F] in the model's dtype; size (C, T, H, W) of one picture's latents.
    """
    image_angles, angles = angles_of(model, condition, size)
    return Context(refined(model, condition, angles), image_angles, torch.cat([image_angles, angles], 1))


def angles_of(model: ZImageTransformer2DModel, condition: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Complex angles of the image tokens [1, N', A] and of the condition's [1, L', A]; arguments as for `context_of`."""
    patch, frame_patch = _patches(model)
    _, frames, height, width = size
    fit_positions(model, condition.shape[1], frames // frame_patch, height // patch, width // patch)
    # Positions are the library's affair: it is asked for those of one empty picture, and all have the same.
    picture = condition.new_zeros(size)
    _, _, _, image_places, places, _, _ = model.patchify_and_embed([picture], [condition[0]], patch, frame_patch)
    length = condition.shape[1] + -condition.shape[1] % SEQ_MULTI_OF  # the library lists more places than it uses
    image_angles, angles = model.rope_embedder(image_places[0]), model.rope_embedder(places[0][:length])
    return image_angles.unsqueeze(0), angles.unsqueeze(0)


def refined(model: ZImageTransformer2DModel, condition: Tensor, angles: Tensor) -> Tensor:
    """The condition [B, L, F] as tokens [B, L', D] that know of each other. angles: as the layers take them."""
    tokens = _filled(model.cap_embedder(condition), model.cap_pad_token)
    for layer in model.context_refiner:
        tokens = layer(tokens, None, angles)
    return tokens


def hidden(model: ZImageTransformer2DModel, state: Tensor, t: Tensor, context: Context) -> Hidden:
    """The tokens before the output layer. state [B, C, T, H, W] in the model's dtype; t [B], or [1] for all: 0 noise 1 data."""
    time = model.t_embedder(t * model.t_scale).type_as(state)
    tokens = model.all_x_embedder[_key(model)](to_patches(state, *_patches(model)))
    tokens = _filled(tokens, model.x_pad_token)
    for layer in model.noise_refiner:
        tokens = layer(tokens, None, context.image_angles, time)
    tokens = torch.cat([tokens, context.tokens], 1)
    for layer in model.layers:
        tokens = layer(tokens, None, context.angles, time)
    return Hidden(tokens, time)


def output(model: ZImageTransformer2DModel, head: nn.Module, found: Hidden, size: tuple[int, ...]) -> Tensor:
    """[B, C, T, H, W] of `found` by an output layer: the model's own (`head_of`) or another of its kind."""
    patch, frame_patch = _patches(model)
    channels, frames, height, width = size
    count = (frames // frame_patch) * (height // patch) * (width // patch)
    patches = head(found.tokens, c=found.time)[:, :count]
    return from_patches(patches, (channels, frames, height, width), patch, frame_patch)


def head_of(model: ZImageTransformer2DModel) -> nn.Module:
    """The output layer of the model's patch size."""
    return model.all_final_layer[_key(model)]


def velocity(model: ZImageTransformer2DModel, state: Tensor, t: Tensor, context: Context) -> Tensor:
    """Equal to the library's forward: [B, C, T, H, W] like `state`."""
    return output(model, head_of(model), hidden(model, state, t, context), state.shape[1:])


def to_dtype_of(model: ZImageTransformer2DModel, tensor: Tensor) -> Tensor:
    """`tensor` in the dtype the model computes in (asked of a weight outside the layers, which sharding may cast)."""
    entry = cast(nn.Linear, model.cap_embedder[1])  # behind its norm
    return tensor.to(entry.weight.dtype)


def to_patches(state: Tensor, patch: int, frame_patch: int) -> Tensor:
    """[B, C, T, H, W] -> [B, N, P]: raster order; inside a patch frame, row, column, then channel."""
    cut = state.unflatten(2, (-1, frame_patch)).unflatten(4, (-1, patch)).unflatten(6, (-1, patch))
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)


def from_patches(patches: Tensor, size: tuple[int, ...], patch: int, frame_patch: int) -> Tensor:
    """The reverse of `to_patches`; size (C, T, H, W)."""
    channels, frames, height, width = size
    grid = (frames // frame_patch, height // patch, width // patch)
    cut = patches.unflatten(1, grid).unflatten(4, (frame_patch, patch, patch, channels))
    return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(len(patches), *size)


def _patches(model: ZImageTransformer2DModel) -> tuple[int, int]:
    return model.config["all_patch_size"][0], model.config["all_f_patch_size"][0]


def _key(model: ZImageTransformer2DModel) -> str:
    return "{}-{}".format(*_patches(model))


def _filled(tokens: Tensor, pad: Tensor) -> Tensor:
    missing = -tokens.shape[1] % SEQ_MULTI_OF
    return torch.cat([tokens, pad.expand(len(tokens), missing, -1)], 1) if missing else tokens
