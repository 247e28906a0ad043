"""Recorded checks of the decoder: code features, velocity, sampled latents, pixels (`decode.safetensors`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch

from llada_uni.decoder.decode import ImageDecoder, Variant
from llada_uni.files.model_dir import CODE_FEATURES, DECODERS, VAE
from llada_uni.files.weights import WeightFiles
from llada_uni.image.codes import ImageCodes
from llada_uni.verify.compare import Result, Row, difference, has, has_part, natural


class DecoderChecks:
    """Rows of `decode.safetensors`; which decoders and how many steps is read from its names."""

    def __init__(self, folder: Path, device: torch.device, tolerance: float) -> None:
        self.folder, self.device, self.tolerance = folder, device, tolerance

    @cached_property
    def decoder(self) -> ImageDecoder:
        return ImageDecoder.from_pretrained(self.folder, self.device, torch.float32)

    def rows(self) -> Iterator[Row]:
        if not has(self.folder, "decode.safetensors"):
            return
        recorded = WeightFiles(self.folder, "decode.safetensors")
        features = CODE_FEATURES.there(self.folder)
        vae = has_part(VAE.path(self.folder), VAE)
        there = {name: part for name, part in DECODERS.items() if has_part(part.path(self.folder), part)}
        variants = {part.folder: cast(Variant, name) for name, part in there.items()}  # the keys of DECODERS are the variants
        if features:
            yield "decoder.condition", self.tolerance, lambda: self._condition(recorded)
        for name in sorted(recorded, key=natural):
            part, _, rest = name.partition(".")
            folder, _, steps = rest.partition(".")
            sampled = features and folder in variants
            run: Callable[[], Result] | None = None
            if part == "velocity" and sampled:
                run = partial(self._velocity, recorded, variants[folder], name)
            elif part == "latents" and sampled:
                run = partial(self._latents, recorded, folder, steps)
            elif part == "pixels" and vae and (sampled or f"latents.{rest}" in recorded):
                run = partial(self._pixels, recorded, folder, steps)
            if run is not None:
                yield f"decoder.{name}", self.tolerance, run

    def _recorded_codes(self, recorded: WeightFiles) -> ImageCodes:
        height, width = recorded.tensor("grid").tolist()
        return ImageCodes(tuple(recorded.tensor("token_ids").flatten().tolist()), height, width)

    @torch.no_grad()
    def _condition(self, recorded: WeightFiles) -> Result:
        return difference(
            self.decoder.condition(self._recorded_codes(recorded))[0], recorded.tensor("condition")
        )

    def _velocity(self, recorded: WeightFiles, variant: Variant, name: str) -> Result:
        condition = self.decoder.condition(self._recorded_codes(recorded))
        noise, t = recorded.tensor("noise").to(self.device), recorded.tensor("velocity.t").item()
        found = self.decoder.velocity(variant, noise, t, condition)
        want = recorded.tensor(name)
        return difference(found.reshape(want.shape) if found.numel() == want.numel() else found, want)

    def _sample(self, recorded: WeightFiles, folder: str, steps: str) -> torch.Tensor:
        variant = cast(Variant, next(name for name, part in DECODERS.items() if part.folder == folder))
        fresh = f"renoise.{folder}.{steps}"
        return self.decoder.latents(
            self._recorded_codes(recorded),
            variant,
            int(steps),
            noise=recorded.tensor("noise"),
            renoise=recorded.tensor(fresh).unbind(0) if fresh in recorded else None,
        )

    def _latents(self, recorded: WeightFiles, folder: str, steps: str) -> Result:
        return difference(self._sample(recorded, folder, steps), recorded.tensor(f"latents.{folder}.{steps}"))

    def _pixels(self, recorded: WeightFiles, folder: str, steps: str) -> Result:
        latents = f"latents.{folder}.{steps}"
        # From the recorded latents where there are some, so that this row speaks about the VAE alone.
        start = recorded.tensor(latents) if latents in recorded else self._sample(recorded, folder, steps)
        return difference(self.decoder.pixels(start), recorded.tensor(f"pixels.{folder}.{steps}"))
