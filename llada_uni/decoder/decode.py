"""From codes to a picture.

ImageCodes [h, w] -> every code twice each way [2h, 2w] -> features [B, L, F] (SigVQ) ->
sampled latents [B, C, 1, H, W] -> VAE -> pixels [B, 3, Y, X] in 0..1 -> PIL.
Axes: B pictures of one size, L = 2h * 2w places, F feature width, C latent channels, one frame, H x W latents,
Y x X pixels. All parts are read when first needed and stay loaded (unless they are offloaded between stages); a
missing one is an error only for calls that need it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
from PIL import Image

from llada_uni.decoder.model import factor_of, load_transformer, load_vae, vae_factor
from llada_uni.decoder.sampling import OnStep, base_sample, turbo_sample
from llada_uni.decoder.sigvq import SigVQ
from llada_uni.decoder.transformer import Context, context_of, to_dtype_of, velocity
from llada_uni.errors import UserError
from llada_uni.files.model_dir import CODE_FEATURES, DECODERS, VAE, Part
from llada_uni.files.weights import default_dtype, read_json
from llada_uni.image.codes import ImageCodes

Variant = Literal["turbo", "base"]
FOLDERS = {variant: part.folder for variant, part in DECODERS.items()}
DEFAULT_STEPS = {"base": 50, "turbo": 8}
# Each code stands for 2 x 2 places of the condition; the picture comes out twice as large (released).
UPSCALE = 2
# Pixels of a side beyond which the VAE works in tiles: its memory grows with the area, and this is the released size.
TILE = 1024


class ImageDecoder:
    """The diffusion decoder of a model directory.

    Give parts to use them as they are (a training script has them in memory), or a directory to read them
    from. `sigvq`, `vae` and `transformer(variant)` load on first use. Raises UserError for a directory that
    does not exist.

    offload: the transformer leaves before the VAE works, and the other way round, so that only one of them takes
    memory: from a GPU they move to main memory, on the CPU those read from a directory are dropped and read again.
    tile: sides of more pixels go through the VAE in overlapping tiles of this size, blended; up to it, whole.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        *,
        sigvq: SigVQ | None = None,
        transformers: dict[str, ZImageTransformer2DModel] | None = None,
        vae: AutoencoderKL | None = None,
        offload: bool = False,
        tile: int = TILE,
        need: Callable[[Part], None] = lambda part: None,
    ) -> None:
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"there is no model directory {folder}")
        self.folder = None if folder is None else Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype or default_dtype(device)
        self.offload, self.tile, self._need = offload, tile, need
        self._sigvq, self._vae, self._transformers = sigvq, vae, dict(transformers or {})
        self._given = {*self._transformers, *(["vae"] if vae is not None else [])}

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        *,
        offload: bool = False,
        tile: int = TILE,
        need: Callable[[Part], None] = lambda part: None,
    ) -> ImageDecoder:
        """`folder`: the model directory; dtype None: float32 on the CPU, bfloat16 elsewhere. need: called with a part before
        its weights are read. Reads no weights yet.
        """
        return cls(folder, device, dtype, offload=offload, tile=tile, need=need)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Which of turbo and base are there, without loading them."""
        return tuple(
            name
            for name in ("turbo", "base")
            if name in self._transformers
            or (self.folder and DECODERS[name].there(self.folder))
        )

    @property
    def sigvq(self) -> SigVQ:
        if self._sigvq is None:
            path = self._part(CODE_FEATURES.folder, "the decoder's code features") / CODE_FEATURES.marker
            self._need(CODE_FEATURES)
            self._sigvq = SigVQ.from_pretrained(path, self.device, self.dtype)
        return self._sigvq

    @property
    def vae(self) -> AutoencoderKL:
        if self._vae is None:
            self._need(VAE)
            self._vae = load_vae(self._part(VAE.folder, "the VAE"), self.device, self.dtype)
        return self._vae

    def transformer(self, variant: Variant) -> ZImageTransformer2DModel:
        """The flow-matching transformer; UserError when the directory has none of this variant."""
        if variant not in self._transformers:
            folder = self._part(*self._named(variant))
            self._need(DECODERS[variant])
            self._transformers[variant] = load_transformer(folder, self.device, self.dtype)
        return self._transformers[variant]

    def _named(self, variant: Variant) -> tuple[str, str]:
        if variant not in FOLDERS:
            raise UserError(f"unknown decoder {variant!r}; allowed: turbo, base")
        return FOLDERS[variant], f"the {variant} decoder"

    def _part(self, name: str, meaning: str) -> Path:
        if self.folder is None or not (self.folder / name).is_dir():
            raise UserError(f"this model has no {name}/ ({meaning}), which painting a picture needs")
        return self.folder / name

    def _sizes(self, loaded: Any, name: str, meaning: str) -> Mapping[str, Any]:
        """The config of a part, without loading it."""
        return loaded.config if loaded is not None else read_json(self._part(name, meaning) / "config.json")

    def _make_room(self, needed: str) -> None:
        """With `offload`: of the two transformers and the VAE, only `needed` stays on the device."""
        if not self.offload:
            return
        parts: dict[str, torch.nn.Module | None] = {**self._transformers, "vae": self._vae}
        for name, part in parts.items():
            if part is not None:
                stays = name == needed
                if self.device.type != "cpu":
                    part.to(self.device if stays else "cpu")
                elif not stays and name not in self._given:
                    self._drop(name)

    def _drop(self, name: str) -> None:
        if name == "vae":
            self._vae = None
        else:
            del self._transformers[name]

    def condition(self, codes: ImageCodes) -> torch.Tensor:
        """Features [1, 4 * h * w, F] of codes repeated 2 x 2 (nearest). UserError for a code out of the
        codebook."""
        codes.check_range(self.sigvq.codebook_size)
        grid = torch.tensor(codes.codes, device=self.device).view(codes.height, codes.width)
        grid = grid.repeat_interleave(UPSCALE, 0).repeat_interleave(UPSCALE, 1)
        return self.sigvq(grid.reshape(1, -1))

    def latent_shape(
        self, codes: ImageCodes, variant: Variant, multiplier: int = UPSCALE
    ) -> tuple[int, int, int, int, int]:
        """(1, C, 1, H, W). multiplier: patches of the transformer for each code, each way; with 2 one stands over each
        position of the condition, whose length it does not change (published: resolution_multiplier)."""
        config = self._sizes(self._transformers.get(variant), *self._named(variant))
        side = multiplier * config["all_patch_size"][0]
        return (1, config["in_channels"], 1, codes.height * side, codes.width * side)

    def size(self, codes: ImageCodes, variant: Variant = "turbo", multiplier: int = UPSCALE) -> tuple[int, int]:
        """(height, width) in pixels of the decoded picture; loads nothing."""
        *_, rows, columns = self.latent_shape(codes, variant, multiplier)
        factor = factor_of(self._sizes(self._vae, VAE.folder, "the VAE"))
        return rows * factor, columns * factor

    @torch.no_grad()
    def velocity(
        self, variant: Variant, state: torch.Tensor, t: float, condition: torch.Tensor
    ) -> torch.Tensor:
        """Velocity [B, C, 1, H, W] float32 at `state` [B, C, 1, H, W] and time t; condition [B, L, F].

        The network runs in its own dtype. Its time is ours (0 noise, 1 data) and its output is the velocity
        as it stands (diffusers' pipeline negates it, because its scheduler runs the other way).
        """
        model = self.transformer(variant)
        return self._evaluator(model, condition, tuple(state.shape[1:]))(state, t)

    @staticmethod
    def _evaluator(
        model: ZImageTransformer2DModel, condition: torch.Tensor, size: tuple[int, ...]
    ) -> Callable[[torch.Tensor, float], torch.Tensor]:
        """(state, t) -> velocity float32; what depends on the condition alone is computed here, once."""
        context: Context = context_of(model, to_dtype_of(model, condition), size)

        def evaluate(state: torch.Tensor, t: float) -> torch.Tensor:
            # One row for all pictures: a batch of rows may be embedded with other bits than one alone.
            times = torch.full((1,), t, dtype=torch.float32, device=state.device)
            return velocity(model, to_dtype_of(model, state), times, context).float()

        return evaluate

    @torch.no_grad()
    def latents(
        self,
        codes: ImageCodes,
        variant: Variant = "turbo",
        steps: int | None = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
        *,
        noise: torch.Tensor | None = None,
        renoise: Sequence[torch.Tensor] | None = None,
        multiplier: int = UPSCALE,
    ) -> torch.Tensor:
        """Sampled latents [1, C, 1, H, W] float64. Noise comes from `generator` (None: one with seed 0),
        unless given. multiplier: see `latent_shape`."""
        steps = DEFAULT_STEPS.get(variant, 0) if steps is None else steps
        draws = self._draws(codes, variant, steps, generator, multiplier)
        noise = draws[:1] if noise is None else noise
        fresh = draws[1:].unsqueeze(1) if renoise is None else renoise
        return self._sample([codes], variant, steps, noise, fresh, on_step)

    def _draws(
        self, codes: ImageCodes, variant: Variant, steps: int, generator: torch.Generator | None, multiplier: int
    ) -> torch.Tensor:
        """All noise of one picture: [1, C, 1, H, W], for turbo as many more as it re-noises.

        Drawn where the generator is (the CPU as a rule), so that a seed gives one picture on every device.
        """
        generator = generator or torch.Generator().manual_seed(0)
        shape, count = self.latent_shape(codes, variant, multiplier), max(steps, 1) if variant == "turbo" else 1
        return torch.cat([torch.randn(shape, generator=generator, device=generator.device) for _ in range(count)])

    def _sample(
        self,
        pictures: Sequence[ImageCodes],
        variant: Variant,
        steps: int,
        noise: torch.Tensor,
        renoise: torch.Tensor | Sequence[torch.Tensor],
        on_step: OnStep | None,
    ) -> torch.Tensor:
        """Latents [B, C, 1, H, W] float64 of pictures of one size; noise [B, C, 1, H, W], renoise as many a step."""
        self._make_room(variant)
        model = self.transformer(variant)
        condition = torch.cat([self.condition(codes) for codes in pictures])
        if condition.shape[-1] != model.config["cap_feat_dim"]:
            raise UserError(
                f"the code features are {condition.shape[-1]} wide, but the {variant} decoder takes "
                f"{model.config['cap_feat_dim']}: these parts are of different models"
            )
        noise, size = noise.to(self.device), tuple(noise.shape[1:])
        if variant == "turbo":
            return turbo_sample(self._evaluator(model, condition, size), noise, steps, renoise, on_step)
        both = torch.cat([condition, torch.zeros_like(condition)])  # the negative condition is zeros
        evaluate = self._evaluator(model, both, size)

        def guided(state: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
            positive, negative = evaluate(torch.cat([state, state]), t).chunk(2)
            return positive, negative

        return base_sample(guided, noise, steps, on_step=on_step)

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, Y, X] float32 in 0..1 of latents [B, C, 1, H, W]; in tiles where a side exceeds `tile`."""
        self._make_room("vae")
        vae = self.vae
        vae.enable_tiling()
        vae.tile_sample_min_size = self.tile
        vae.tile_latent_min_size = self.tile // vae_factor(vae)
        scaled = latents.squeeze(2).to(device=self.device, dtype=vae.dtype)
        scaled = scaled / vae.config["scaling_factor"] + vae.config["shift_factor"]
        return (vae.decode(scaled, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)

    def decode(
        self,
        codes: ImageCodes,
        variant: Variant = "turbo",
        steps: int | None = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
        multiplier: int = UPSCALE,
    ) -> Image.Image:
        """The picture of the codes. `steps` None: 8 turbo, 50 base. Same generator state, same picture.

        multiplier: 2 for the size the decoder was trained for; 1 half as large, 3 larger by half (`latent_shape`).
        `on_step(done, evaluations)` after every evaluation of the network.
        Raises UserError for unknown variants, missing parts, codes out of range and too few steps.
        """
        return to_picture(self.pixels(self.latents(codes, variant, steps, generator, on_step, multiplier=multiplier)))

    @torch.no_grad()
    def decode_many(
        self,
        pictures: Sequence[ImageCodes],
        variant: Variant = "turbo",
        steps: int | None = None,
        generators: Sequence[torch.Generator] | None = None,
        on_step: OnStep | None = None,
        batch: int = 4,
        multiplier: int = UPSCALE,
    ) -> list[Image.Image]:
        """The pictures of several grids of codes, in order; each as `decode` gives it with its generator.

        Grids of one size go through the transformer together, at most `batch` at once (with guidance twice as many
        rows); the VAE takes them one by one, because its memory is the larger. generators: one for each picture; None:
        each with seed 0. `on_step(done, evaluations)` counts the evaluations of all groups. Raises as `decode` does.
        """
        chosen: Sequence[torch.Generator | None] = [None] * len(pictures) if generators is None else generators
        if len(chosen) != len(pictures):
            raise UserError(f"{len(pictures)} pictures need as many generators, not {len(chosen)}")
        steps = DEFAULT_STEPS.get(variant, 0) if steps is None else steps
        noises = [self._draws(codes, variant, steps, one, multiplier) for codes, one in zip(pictures, chosen, strict=True)]
        groups = same_size_groups(pictures, batch)
        latents: dict[int, torch.Tensor] = {}
        for number, group in enumerate(groups):
            noise = torch.stack([noises[i] for i in group], 1)  # [draws, B, C, 1, H, W]
            counted = _counted(on_step, number, len(groups))
            found = self._sample([pictures[i] for i in group], variant, steps, noise[0], noise[1:], counted)
            latents.update(zip(group, found.split(1), strict=True))
        return [to_picture(self.pixels(latents[i])) for i in range(len(pictures))]


def same_size_groups(pictures: Sequence[ImageCodes], most: int) -> list[list[int]]:
    """Places of the pictures, those of one grid together, at most `most` in a group."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for i, codes in enumerate(pictures):
        sizes.setdefault((codes.height, codes.width), []).append(i)
    return [places[start : start + most] for places in sizes.values() for start in range(0, len(places), most)]


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """[1, 3, Y, X] in 0..1 -> PIL. Cut, not rounded, to whole levels: as the released program does."""
    return Image.fromarray((pixels[0] * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def _counted(on_step: OnStep | None, group: int, groups: int) -> OnStep | None:
    """`on_step` told of the evaluations of all groups."""
    if on_step is None:
        return None
    return lambda done, evaluations: on_step(group * evaluations + done, groups * evaluations)
