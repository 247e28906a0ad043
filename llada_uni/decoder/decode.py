"""From codes to a picture.

What flows through: ImageCodes [h, w] -> every code twice each way [2h, 2w] -> features [L, F] (SigVQ) ->
sampled latents [1, C, 1, H, W] -> VAE -> pixels [1, 3, Y, X] in 0..1 -> PIL.
Axes: L = 2h * 2w places, F feature width, C latent channels, one frame, H x W latents, Y x X pixels.
All parts are read when first needed and stay loaded; a missing one is an error only for calls that need it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from PIL import Image

from llada_uni.checkpoint.files import default_dtype
from llada_uni.decoder.model import fit_positions, load_transformer, load_vae, vae_factor
from llada_uni.decoder.sampling import OnStep, base_sample, turbo_sample
from llada_uni.decoder.sigvq import FILE, SigVQ
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes

Variant = Literal["turbo", "base"]
FOLDERS = {"base": "decoder", "turbo": "decoder-turbo"}
DEFAULT_STEPS = {"base": 50, "turbo": 8}
# Each code stands for 2 x 2 places of the condition; the picture comes out twice as large (released).
UPSCALE = 2


class ImageDecoder:
    """The diffusion decoder of a model directory.

    Give parts to use them as they are (a training script has them in memory), or a directory to read them
    from. `sigvq`, `vae` and `transformer(variant)` load on first use. Raises UserError for a directory that
    does not exist.
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
    ) -> None:
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"there is no model directory {folder}")
        self.folder = None if folder is None else Path(folder)
        self.device = torch.device(device)
        self.dtype = dtype or default_dtype(device)
        self._sigvq, self._vae, self._transformers = sigvq, vae, dict(transformers or {})

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> ImageDecoder:
        """`folder`: the model directory; dtype None: float32 on the CPU, bfloat16 elsewhere. Reads no weights
        yet."""
        return cls(folder, device, dtype)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Which of turbo and base are there, without loading them."""
        return tuple(
            name
            for name in ("turbo", "base")
            if name in self._transformers
            or (self.folder and (self.folder / FOLDERS[name] / "config.json").is_file())
        )

    @property
    def sigvq(self) -> SigVQ:
        if self._sigvq is None:
            path = self._part("image_tokenizer", "the decoder's code features") / FILE
            self._sigvq = SigVQ.from_pretrained(path, self.device, self.dtype)
        return self._sigvq

    @property
    def vae(self) -> AutoencoderKL:
        if self._vae is None:
            self._vae = load_vae(self._part("vae", "the VAE"), self.device, self.dtype)
        return self._vae

    def transformer(self, variant: Variant) -> ZImageTransformer2DModel:
        """The flow-matching transformer; UserError when the directory has none of this variant."""
        if variant not in FOLDERS:
            raise UserError(f"unknown decoder {variant!r}; allowed: turbo, base")
        if variant not in self._transformers:
            folder = self._part(FOLDERS[variant], f"the {variant} decoder")
            self._transformers[variant] = load_transformer(folder, self.device, self.dtype)
        return self._transformers[variant]

    def _part(self, name: str, meaning: str) -> Path:
        if self.folder is None or not (self.folder / name).is_dir():
            raise UserError(f"this model has no {name}/ ({meaning}), which painting a picture needs")
        return self.folder / name

    def condition(self, codes: ImageCodes) -> torch.Tensor:
        """Features [1, 4 * h * w, F] of codes repeated 2 x 2 (nearest). UserError for a code out of the
        codebook."""
        codes.check_range(self.sigvq.codebook_size)
        grid = torch.tensor(codes.codes, device=self.device).view(codes.height, codes.width)
        grid = grid.repeat_interleave(UPSCALE, 0).repeat_interleave(UPSCALE, 1)
        return self.sigvq(grid.reshape(1, -1))

    def latent_shape(self, codes: ImageCodes, variant: Variant) -> tuple[int, int, int, int, int]:
        """(1, C, 1, H, W): one patch of the transformer stands over each place of the condition."""
        config = self.transformer(variant).config
        side = UPSCALE * config.all_patch_size[0]
        return (1, config.in_channels, 1, codes.height * side, codes.width * side)

    def size(self, codes: ImageCodes, variant: Variant = "turbo") -> tuple[int, int]:
        """(height, width) in pixels of the decoded picture."""
        *_, rows, columns = self.latent_shape(codes, variant)
        return rows * vae_factor(self.vae), columns * vae_factor(self.vae)

    @torch.no_grad()
    def velocity(
        self, variant: Variant, state: torch.Tensor, t: float, condition: torch.Tensor
    ) -> torch.Tensor:
        """Velocity [B, C, 1, H, W] float32 at `state` [B, C, 1, H, W] and time t; condition [B, L, F].

        The network runs in its own dtype. Its time is ours (0 noise, 1 data) and its output is the velocity
        as it stands (diffusers' pipeline negates it, because its scheduler runs the other way).
        """
        model = self.transformer(variant)
        patch, frame_patch = model.config.all_patch_size[0], model.config.all_f_patch_size[0]
        batch, _, frames, height, width = state.shape
        fit_positions(model, condition.shape[1], frames // frame_patch, height // patch, width // patch)
        times = torch.full((batch,), t, dtype=torch.float32, device=state.device)
        outputs = model(
            list(state.to(model.dtype).unbind(0)),
            times,
            list(condition.to(model.dtype).unbind(0)),
            return_dict=False,
            patch_size=patch,
            f_patch_size=frame_patch,
        )[0]
        return torch.stack([output.float() for output in outputs])

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
    ) -> torch.Tensor:
        """Sampled latents [1, C, 1, H, W] float64. Noise comes from `generator` (None: one with seed 0),
        unless given."""
        generator = generator or torch.Generator().manual_seed(0)
        steps = DEFAULT_STEPS.get(variant, 0) if steps is None else steps
        shape = self.latent_shape(codes, variant)
        positive = self.condition(codes)
        if positive.shape[-1] != self.transformer(variant).config.cap_feat_dim:
            raise UserError(
                f"the code features are {positive.shape[-1]} wide, but the {variant} decoder takes "
                f"{self.transformer(variant).config.cap_feat_dim}: these parts are of different models"
            )
        if noise is None:
            # Drawn where the generator is (the CPU as a rule), so that a seed gives one picture on every
            # device.
            noise = torch.randn(shape, generator=generator, device=generator.device)
        noise = noise.to(self.device)
        if variant == "turbo":
            return turbo_sample(
                lambda state, t: self.velocity(variant, state, t, positive),
                noise,
                steps,
                renoise if renoise is not None else generator,
                on_step,
            )
        both = torch.cat([positive, torch.zeros_like(positive)])  # the negative condition is zeros

        def guided(state: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor]:
            pair = self.velocity(variant, torch.cat([state, state]), t, both)
            return pair[:1], pair[1:]

        return base_sample(guided, noise, steps, on_step=on_step)

    @torch.no_grad()
    def pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, Y, X] float32 in 0..1 of latents [B, C, 1, H, W]."""
        vae = self.vae
        scaled = latents.squeeze(2).to(device=self.device, dtype=vae.dtype)
        scaled = scaled / vae.config.scaling_factor + vae.config.shift_factor
        return (vae.decode(scaled, return_dict=False)[0].float() / 2 + 0.5).clamp(0, 1)

    def decode(
        self,
        codes: ImageCodes,
        variant: Variant = "turbo",
        steps: int | None = None,
        generator: torch.Generator | None = None,
        on_step: OnStep | None = None,
    ) -> Image.Image:
        """The picture of the codes. `steps` None: 8 turbo, 50 base. Same generator state, same picture.

        `on_step(done, evaluations)` after every evaluation of the network.
        Raises UserError for unknown variants, missing parts, codes out of range and too few steps.
        """
        pixels = self.pixels(self.latents(codes, variant, steps, generator, on_step))[0]
        # Cut, not rounded, to whole levels: as the released program does.
        levels = (pixels * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(levels)
