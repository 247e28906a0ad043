"""Does this machine compute the right numbers? Every part against the numbers recorded in a directory.

What flows through: a directory (weights of all parts and recorded results, see tests/parity/golden/README.md)
-> one `Check` a row. Sizes, block lengths and step counts are read from the directory, so any directory of
that format works. Each check stands alone: where a file it needs is missing it is left out, where it fails or
crashes it is a failed row. Axes: B batch, T tokens, V vocabulary, E experts, K experts a token.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llada_uni.backbone import Backbone
from llada_uni.backbone.masks import block_causal_square
from llada_uni.checkpoint.files import WeightFiles, read_json
from llada_uni.checkpoint.load import load_backbone
from llada_uni.decoder.decode import FOLDERS, ImageDecoder
from llada_uni.errors import UserError
from llada_uni.image.codes import ImageCodes
from llada_uni.image.preprocess import (
    Preprocessing,
    crop_for_editing,
    editing_size,
    editing_sizes,
    open_image,
    resize_for_understanding,
    understanding_crop,
    understanding_size,
)
from llada_uni.image.tokenizer import ImageTokenizer

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One row: `largest_error` is the largest absolute difference (for ids, sizes and pixels: how many
    differ), None where none could be computed; it may be at most `tolerance`."""

    name: str
    ok: bool
    largest_error: float | None
    tolerance: float
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Result = tuple[float, str]  # largest error, detail
Row = tuple[str, float, Callable[[], Result]]  # name, tolerance, what to run


def verify(
    folder: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    tolerance: float = TOLERANCE,
    on_check: Callable[[Check], None] | None = None,
) -> list[Check]:
    """All checks whose files are there, in float32; `on_check` hears of each as it is done.

    Raises UserError when the directory is missing or holds nothing to check.
    """
    if not Path(folder).is_dir():
        raise UserError(f"there is no directory {folder}")
    checks: list[Check] = []
    for name, limit, run in _Directory(Path(folder), torch.device(device), tolerance).rows():
        try:
            error, detail = run()
            ok, number = error <= limit, error if math.isfinite(error) else None
            check = Check(
                name,
                ok,
                number,
                limit,
                detail if number is not None else f"not finite; {detail}".rstrip("; "),
            )
        except Exception as problem:  # any crash of a part is what this command is there to report
            check = Check(
                name, False, None, limit, f"{type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
            )
        checks.append(check)
        if on_check is not None:
            on_check(check)
    if not checks:
        raise UserError(
            f"{folder} holds no recorded numbers to check (see tests/parity/golden/README.md for the files)"
        )
    return checks


def _difference(found: torch.Tensor, recorded: torch.Tensor) -> Result:
    if found.shape != recorded.shape:
        raise UserError(f"the shape is {list(found.shape)}, recorded is {list(recorded.shape)}")
    if found.numel() == 0:
        return 0.0, ""
    return (found.cpu().double() - recorded.cpu().double()).abs().max().item(), ""


def _mismatches(found: list[Any], recorded: list[Any], what: str) -> Result:
    if len(found) != len(recorded):
        return float(max(len(found), len(recorded))), f"{len(found)} {what}, recorded are {len(recorded)}"
    wrong = [i for i, (ours, theirs) in enumerate(zip(found, recorded, strict=True)) if ours != theirs]
    if not wrong:
        return 0.0, f"{len(found)} {what}"
    first = wrong[0]
    return float(len(wrong)), f"{what} {first}: {found[first]}, recorded {recorded[first]}"


class _Directory:
    """One directory and its parts; a part is loaded once, when the first check needs it."""

    def __init__(self, folder: Path, device: torch.device, tolerance: float) -> None:
        self.folder, self.device, self.tolerance = folder, device, tolerance

    # --- what is there ---

    @property
    def backbone_folder(self) -> Path:
        inner = self.folder / "backbone"
        return inner if inner.is_dir() else self.folder

    def has(self, *files: str) -> bool:
        return all((self.folder / file).is_file() for file in files)

    @staticmethod
    def has_part(folder: Path, weights: str = "model.safetensors") -> bool:
        names = (weights, f"{weights}.index.json")
        return (folder / "config.json").is_file() and any((folder / name).is_file() for name in names)

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.folder, self.device, torch.float32)

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        return ImageTokenizer.from_pretrained(self.folder / "image_tokenizer", self.device, torch.float32)

    @cached_property
    def decoder(self) -> ImageDecoder:
        return ImageDecoder.from_pretrained(self.folder, self.device, torch.float32)

    @cached_property
    def settings(self) -> Preprocessing:
        """The directory's own limits where it states them, else the released ones."""
        file = self.folder / "image_tokenizer" / "preprocessor_config.json"
        return Preprocessing.from_json(read_json(file)) if file.is_file() else Preprocessing()

    # --- the rows ---

    def rows(self) -> Iterator[Row]:
        for name, group in (
            ("backbone.forward", self._forward_rows),
            ("backbone.generation", self._generation_rows),
            ("image.codes", self._code_rows),
            ("image.sizes", self._size_rows),
            ("image.crop", self._crop_rows),
            ("decoder", self._decoder_rows),
        ):
            try:
                yield from list(group())
            except Exception as problem:
                yield name, self.tolerance, _raiser(problem)

    def _forward_rows(self) -> Iterator[Row]:
        file = self.backbone_folder / "forward.safetensors"
        if not file.is_file() or not self.has_part(self.backbone_folder):
            return
        recorded = WeightFiles(file.parent, file.name)
        for name in sorted(recorded):
            if match := re.fullmatch(r"logits\.(full|block\d+)\.logits", name):
                yield f"backbone.{name}", self.tolerance, lambda m=match: self._logits(recorded, m.group(1))
        traced = sorted((n for n in recorded if re.fullmatch(r"(hidden|router)\..*", n)), key=_natural)
        for name in traced:
            exact = name.endswith(".topk")
            yield (
                f"backbone.{name}",
                0.0 if exact else self.tolerance,
                lambda n=name: self._traced(recorded, n),
            )

    @torch.no_grad()
    def _logits(self, recorded: WeightFiles, kind: str) -> Result:
        ids = recorded.tensor(f"logits.{kind}.input_ids").to(self.device)
        found = self.backbone(ids, attention_mask=self._mask(kind, ids.shape[1]))
        return _difference(found, recorded.tensor(f"logits.{kind}.logits"))

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
            return _difference(found[name], want)
        if found[name].shape != want.shape:
            raise UserError(f"the shape is {list(found[name].shape)}, recorded is {list(want.shape)}")
        return _mismatches(found[name].flatten().tolist(), want.flatten().tolist(), "choices")

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
        model, found, hooks = self.backbone, {}, []

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

    def _generation_rows(self) -> Iterator[Row]:
        file = self.backbone_folder / "generation.json"
        if not file.is_file() or not self.has_part(self.backbone_folder):
            return
        entries = json.loads(file.read_text(encoding="utf-8"))
        for i, entry in enumerate(entries):
            yield f"backbone.generation.{i}.{entry.get('kind', '')}", 0.0, lambda e=entry: self._generation(e)

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
        return _mismatches(list(result.tokens), entry["output"], "tokens")

    def _code_rows(self) -> Iterator[Row]:
        folder = self.folder / "image_tokenizer"
        needed = ("image_tokenizer/tokens.json", "image_tokenizer/preprocessor_config.json")
        if not self.has(*needed) or not self.has_part(folder):
            return
        for entry in json.loads((folder / "tokens.json").read_text(encoding="utf-8")):
            if (folder / entry["file"]).is_file():
                yield f"image.codes.{entry['file']}", 0.0, lambda e=entry: self._codes(folder / e["file"], e)

    def _codes(self, file: Path, entry: dict[str, Any]) -> Result:
        codes = self.tokenizer.encode(open_image(file), mode="raw")
        if [1, codes.height, codes.width] != entry["grid_thw"]:
            raise UserError(
                f"the grid is {codes.height} x {codes.width}, recorded is {entry['grid_thw'][1:]}"
            )
        return _mismatches(list(codes.codes), entry["token_ids"], "codes")

    def _size_rows(self) -> Iterator[Row]:
        if self.has("resize.json"):
            recorded = read_json(self.folder / "resize.json")
            yield "image.sizes", 0.0, lambda: self._sizes(recorded["sizes"])
            if "edit_crop_sizes_wh" in recorded:
                yield "image.sizes.edit", 0.0, lambda: self._edit_sizes(recorded["edit_crop_sizes_wh"])

    def _sizes(self, entries: list[dict[str, Any]]) -> Result:
        keys = (
            "understand_single",
            "understand_multi",
            "single_after_crop",
            "multi_after_crop",
            "edit_after_crop",
        )
        s = self.settings
        found, recorded = [], []
        for entry in entries:
            h, w = entry["height"], entry["width"]
            ours = {"edit_after_crop": editing_size(h, w, s.edit_max_cells, s.size_factor)}
            for name, alone in (("single", True), ("multi", False)):
                most = s.understand_max_pixels if alone else s.understand_max_pixels_multi
                ours[f"understand_{name}"] = understanding_size(
                    h, w, s.size_factor, s.understand_min_pixels, most
                )
                ours[f"{name}_after_crop"] = understanding_crop(h, w, alone, s)[1]
            for key in keys:
                if key in entry:
                    found.append((h, w, key, *ours[key]))
                    recorded.append((h, w, key, *entry[key]))
        return _mismatches(found, recorded, "sizes")

    def _edit_sizes(self, recorded: list[list[int]]) -> Result:
        ours = editing_sizes(self.settings.edit_max_cells, self.settings.size_factor)
        return _mismatches([list(size) for size in ours], recorded, "edit sizes")

    def _crop_rows(self) -> Iterator[Row]:
        for kind in ("understand", "edit"):
            if self.has("crop.json", "crop_input.png", f"crop_{kind}_output.png"):
                yield f"image.crop.{kind}", 0.0, lambda k=kind: self._crop(k)

    def _crop(self, kind: str) -> Result:
        numbers = read_json(self.folder / "crop.json")[kind]
        picture = open_image(self.folder / "crop_input.png")
        if kind == "edit":
            settings = Preprocessing(size_factor=numbers["patch"], edit_max_cells=numbers["num_patches"])
            found = crop_for_editing(picture, settings)
        else:
            settings = Preprocessing(
                size_factor=numbers["factor"],
                understand_min_pixels=numbers["min_pixels"],
                understand_max_pixels=numbers["max_pixels"],
            )
            found = resize_for_understanding(picture, True, settings)
        with Image.open(self.folder / f"crop_{kind}_output.png") as recorded:
            if found.size != recorded.size:
                raise UserError(f"the size is {found.size}, recorded is {recorded.size}")
            return _mismatches(
                list(found.tobytes()), list(recorded.convert("RGB").tobytes()), "channel values"
            )

    def _decoder_rows(self) -> Iterator[Row]:
        if not self.has("decode.safetensors"):
            return
        recorded = WeightFiles(self.folder, "decode.safetensors")
        features = self.has("image_tokenizer/sigvq_embedding.pt")
        vae = self.has_part(self.folder / "vae", "diffusion_pytorch_model.safetensors")
        variants = {folder: name for name, folder in FOLDERS.items() if self.has_part(self.folder / folder)}
        if features:
            yield "decoder.condition", self.tolerance, lambda: self._condition(recorded)
        for name in sorted(recorded, key=_natural):
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
        return _difference(
            self.decoder.condition(self._recorded_codes(recorded))[0], recorded.tensor("condition")
        )

    def _velocity(self, recorded: WeightFiles, variant: str, name: str) -> Result:
        condition = self.decoder.condition(self._recorded_codes(recorded))
        noise, t = recorded.tensor("noise").to(self.device), recorded.tensor("velocity.t").item()
        found = self.decoder.velocity(variant, noise, t, condition)
        want = recorded.tensor(name)
        return _difference(found.reshape(want.shape) if found.numel() == want.numel() else found, want)

    def _sample(self, recorded: WeightFiles, folder: str, steps: str) -> torch.Tensor:
        variant = next(name for name, place in FOLDERS.items() if place == folder)
        fresh = f"renoise.{folder}.{steps}"
        return self.decoder.latents(
            self._recorded_codes(recorded),
            variant,
            int(steps),
            noise=recorded.tensor("noise"),
            renoise=recorded.tensor(fresh).unbind(0) if fresh in recorded else None,
        )

    def _latents(self, recorded: WeightFiles, folder: str, steps: str) -> Result:
        return _difference(
            self._sample(recorded, folder, steps), recorded.tensor(f"latents.{folder}.{steps}")
        )

    def _pixels(self, recorded: WeightFiles, folder: str, steps: str) -> Result:
        latents = f"latents.{folder}.{steps}"
        # From the recorded latents where there are some, so that this row speaks about the VAE alone.
        start = recorded.tensor(latents) if latents in recorded else self._sample(recorded, folder, steps)
        return _difference(self.decoder.pixels(start), recorded.tensor(f"pixels.{folder}.{steps}"))


def _natural(name: str) -> list[Any]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", name)]


def _raiser(problem: Exception) -> Callable[[], Result]:
    def run() -> Result:
        raise problem

    return run
