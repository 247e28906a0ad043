"""Latents and codes of pictures, made once and kept in shards: what the decoder and its distillation are trained on.

Pictures of a source (side x side pixels) -> VAE -> latents, and, at half the side, -> image tokenizer ->
codes -> `latents-00000.safetensors`, ... beside `manifest.json` -> `Latents.draw`, which picks by number.
Shard i depends only on the options and i, and a shard appears complete or not at all: a killed preparation goes on where it
was, and several processes share the shards out.
B pictures, C latent channels, H x W latents, h x w codes.
"""

from __future__ import annotations

import hashlib
import io
import random
import warnings
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image
from pydantic import Field
from rich.progress import Progress
from safetensors import safe_open
from torch import Tensor

from llada_uni.data.pictures import MOST_BAD, Picture, open_pictures
from llada_uni.data.records import BadRecords, OnBad
from llada_uni.decoder.decode import UPSCALE
from llada_uni.decoder.model import load_vae
from llada_uni.errors import UserError
from llada_uni.files import shipped
from llada_uni.files.model_dir import IMAGE_TOKENIZER, VAE, find_weights
from llada_uni.files.weights import add_file, atomic_file, read_json, write_json, write_weights
from llada_uni.image.batched import batch_attention, batched_codes
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.options import options
from llada_uni.training.export import model_folder
from llada_uni.training.loop.ranks import Processes
from llada_uni.training.tokenizer.picture_batches import to_images

HELD_OUT = "heldout"
_AT_ONCE = 32
_TENSORS = ("latents", "codes", "clean")
_NOT_IN_MANIFEST = ("folder", "tokenizer", "vae", "on_bad", "max_bad")


@options
class LatentOptions:
    """folder: where the shards are, or are to be made; source: images of a plug-in by name, or a folder of records;
    tokenizer, vae: model directories or runs that hold these parts; side: pixels; count: pictures; shard: pictures a shard;
    split: "train" leaves out what the source holds out, "any" does not; held_out: further pictures, always from the held-out
    part, for evaluation only.

    low_quality: the part of the pictures that is spoilt (small, then blown up, and compressed) before anything else, as
    pictures from the web are; `clean_only` of a training stage then leaves these out.
    keep_shape: pictures keep about their shape, with about side x side pixels in whole codes; else squares.
    on_bad: an image that cannot be used ends the preparation ("stop"; finished shards stay) or is left out and listed beside
    the shard ("skip"), at most max_bad of them.
    """

    folder: str
    tokenizer: str
    vae: str
    source: str = shipped.MODEL
    side: int = 128
    count: int = 6000
    shard: int = 500
    split: str = "train"
    held_out: int = 64
    low_quality: float = 0.0
    seed: int = 77
    keep_shape: bool = False
    on_bad: OnBad = "stop"
    max_bad: Annotated[int, Field(ge=0)] = MOST_BAD

    def shards(self) -> list[str]:
        """Names of all shards, the held-out one last."""
        return [f"latents-{i:05}" for i in range(-(-self.count // self.shard))] + [HELD_OUT]

    def pictures_of(self, shard: str) -> int:
        """How many pictures a shard holds."""
        if shard == HELD_OUT:
            return self.held_out
        return min(self.shard, self.count - self.shard * self.shards().index(shard))

    def positions(self) -> int:
        """Positions of the condition along one side: two each way for every code. UserError when `side` does not fit."""
        unit = self.code_side()
        if self.side % unit:
            raise UserError(f"latents.side is {self.side}; it must be a multiple of {unit} pixels, the side of one code")
        return UPSCALE * self.side // unit

    def code_side(self) -> int:
        """Pixels of one code along a side."""
        return UPSCALE * _tokenizer_config(self)["vision_config"]["patch_size"]


def spoil(picture: Image.Image, rng: random.Random) -> Image.Image:
    """A picture of low quality and the same size: a third to two thirds of the detail, and JPEG of quality 20 to 50."""
    width, height = picture.size
    factor = rng.uniform(1 / 3, 2 / 3)
    small = picture.resize((round(width * factor), round(height * factor)), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=rng.randint(20, 50))
    return Image.open(file).convert("RGB")


class _Encoders:
    """The two networks that turn pictures into latents and codes, read once."""

    def __init__(self, options: LatentOptions, device: torch.device) -> None:
        self.device = device
        self.vae: AutoencoderKL = load_vae(VAE.path(model_folder(options.vae)), device)
        self.tokenizer = ImageTokenizer.from_pretrained(IMAGE_TOKENIZER.path(model_folder(options.tokenizer)), device)
        batch_attention(self.tokenizer.vision)
        self.patch = options.code_side() // UPSCALE
        options.positions()  # UserError for a side that is no whole number of codes

    @torch.inference_mode()
    def __call__(self, pictures: list[Image.Image]) -> tuple[Tensor, Tensor]:
        """Latents float16 [B, C, H, W] of mean 0 and deviation 1, and codes int32 [B, h, w]."""
        images = self._images(pictures, self.vae.dtype)
        mean = self.vae.encode(images).latent_dist.mean
        latents = (mean - self.vae.config["shift_factor"]) * self.vae.config["scaling_factor"]
        half = (pictures[0].width // UPSCALE, pictures[0].height // UPSCALE)
        small = [picture.resize(half, Image.Resampling.BICUBIC) for picture in pictures]
        codes = batched_codes(self.tokenizer, self._images(small, self.tokenizer.vision.dtype))
        return latents.half().cpu(), codes.view(-1, half[1] // self.patch, half[0] // self.patch).int().cpu()

    def _images(self, pictures: list[Image.Image], dtype: torch.dtype) -> Tensor:
        return to_images([np.asarray(picture) for picture in pictures]).to(self.device, dtype)


def prepare(options: LatentOptions, processes: Processes | None = None) -> None:
    """Makes the shards that are missing, each process its part. UserError when the folder was made otherwise."""
    processes = processes or Processes()
    folder = Path(options.folder)
    manifest = _manifest(options)
    if processes.is_main and not (folder / "manifest.json").exists():
        write_json(folder / "manifest.json", manifest)
    processes.barrier()
    _check_same(folder, manifest)
    names = options.shards()
    missing = [n for i, n in enumerate(names) if i % processes.size == processes.rank and not _file(folder, n).exists()]
    if missing:
        encoders = _Encoders(options, processes.torch_device)
        with Progress(disable=not processes.is_main) as progress:
            task = progress.add_task("latents", total=sum(options.pictures_of(name) for name in missing))
            for name in missing:
                _write_shard(options, name, encoders, lambda count: progress.advance(task, count))
    processes.barrier()


def _write_shard(options: LatentOptions, name: str, encoders: _Encoders, done: Any) -> None:
    rng = random.Random(f"{options.seed}/{name}")
    bad = BadRecords(options.on_bad, options.max_bad)
    cell = options.code_side() if options.keep_shape else 0
    source = open_pictures(options.source, options.side, HELD_OUT if name == HELD_OUT else options.split, bad=bad, cell=cell)
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for start in range(0, options.pictures_of(name), _AT_ONCE):
        drawn = source.draw(rng, min(_AT_ONCE, options.pictures_of(name) - start))
        clean = [rng.random() >= options.low_quality for _ in drawn]
        pictures = [_picture(one, keep, rng) for one, keep in zip(drawn, clean, strict=True)]
        latents, codes = encoders(pictures)
        parts[_shape_of(codes) if cell else ""].append((latents, codes, torch.tensor(clean)))
        done(len(drawn))
    tensors = {}
    for shape, batches in parts.items():
        for kind, column in zip(_TENSORS, zip(*batches, strict=True), strict=True):
            tensors[kind + shape] = torch.cat(column)
    folder = Path(options.folder)
    if bad.found:
        with atomic_file(folder / f"{name}.left-out.txt") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in bad.found), encoding="utf-8")
        warnings.warn(f"{len(bad.found)} images are left out of {folder / name}; the list is beside it", stacklevel=3)
    write_weights(_file(folder, name), tensors, None)


def _shape_of(codes: Tensor) -> str:
    """What the names of tensors of one shape end in: codes [B, 3, 5] -> "/3x5"."""
    return f"/{codes.shape[1]}x{codes.shape[2]}"


def _picture(drawn: Picture, clean: bool, rng: random.Random) -> Image.Image:
    picture = Image.fromarray(drawn.image)
    return picture if clean else spoil(picture, rng)


def _manifest(options: LatentOptions) -> dict[str, Any]:
    """What the shards depend on: the options without the paths, and the networks by their weights."""
    codebook = _tokenizer_config(options)["vq_config"]["num_embeddings"]
    tokenizer = find_weights(IMAGE_TOKENIZER.path(model_folder(options.tokenizer)), IMAGE_TOKENIZER.weights)
    vae = find_weights(VAE.path(model_folder(options.vae)), VAE.weights)
    plain = {name: value for name, value in asdict(options).items() if name not in _NOT_IN_MANIFEST}
    if not options.keep_shape:  # folders of before 0.4 do not have it
        del plain["keep_shape"]
    return plain | {"codebook": codebook, "tokenizer": _digest(tokenizer), "vae": _digest(vae)}


def _tokenizer_config(options: LatentOptions) -> dict[str, Any]:
    return read_json(IMAGE_TOKENIZER.path(model_folder(options.tokenizer)) / IMAGE_TOKENIZER.marker)


def _digest(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"there is no file {path}, which the latents are made with")
    digest = hashlib.sha256()
    add_file(digest, path)
    return digest.hexdigest()


def _check_same(folder: Path, manifest: dict[str, Any]) -> None:
    found = read_json(folder / "manifest.json")
    for name, value in manifest.items():
        if found.get(name) != value:
            raise UserError(
                f"{folder} was made with {name}={found.get(name)}, asked for is {value}: name another latents.folder"
            )


def _file(folder: Path, shard: str) -> Path:
    return folder / f"{shard}.safetensors"


class Latents:
    """The prepared pictures of a folder, read by number from the mapped files.

    clean_only: leaves pictures of low quality out. Where pictures keep their shape, tensors are kept by shape.
    UserError when a shard is missing or no picture is left.
    """

    def __init__(self, options: LatentOptions, clean_only: bool = False) -> None:
        self.folder = Path(options.folder)
        self.codebook_size: int = read_json(self.folder / "manifest.json")["codebook"]
        self._files = {}
        for name in options.shards():
            if not _file(self.folder, name).exists():
                raise UserError(f"the shard {_file(self.folder, name)} is missing; prepare the latents first")
            self._files[name] = safe_open(_file(self.folder, name), "pt")
        self._places: dict[str, list[tuple[str, int]]] = {}  # by the end of the tensors' names: one entry a shape
        for name in options.shards()[:-1]:
            for shape in _shapes(self._files[name]):
                clean = self._files[name].get_tensor(f"clean{shape}").tolist()
                self._places.setdefault(shape, []).extend((name, i) for i, kept in enumerate(clean) if kept or not clean_only)
        self._sizes = [len(places) for places in self._places.values()]
        if not len(self):
            raise UserError(f"{self.folder} holds no clean picture; set clean_only to false or low_quality below 1")

    def __len__(self) -> int:
        return sum(self._sizes)

    def draw(self, rng: random.Random, count: int) -> tuple[Tensor, Tensor]:
        """A random batch of one shape: latents float32 [B, C, 1, H, W] (one frame), codes int64 [B, h, w]. Shapes are drawn by
        their numbers of pictures."""
        shapes = list(self._places)
        shape = shapes[0] if len(shapes) == 1 else rng.choices(shapes, self._sizes)[0]
        places = self._places[shape]
        return self._read([places[rng.randrange(len(places))] for _ in range(count)], shape)

    def held_out(self, count: int) -> tuple[Tensor, Tensor]:
        """The first `count` held-out pictures of the shape that most of them have, shaped as in `draw`."""
        return max(self.held_out_by_shape(count), key=lambda batch: len(batch[0]))

    def held_out_by_shape(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Up to `count` held-out pictures of each shape."""
        file, found = self._files[HELD_OUT], []
        for shape in _shapes(file):
            available = file.get_slice(f"clean{shape}").get_shape()[0]
            found.append(self._read([(HELD_OUT, i) for i in range(min(count, available))], shape))
        return found

    def _read(self, places: list[tuple[str, int]], shape: str) -> tuple[Tensor, Tensor]:
        columns = [
            torch.stack([self._files[name].get_slice(tensor + shape)[i] for name, i in places]) for tensor in _TENSORS[:2]
        ]
        return columns[0].float().unsqueeze(2), columns[1].long()


def _shapes(file: Any) -> list[str]:
    """What the names of the tensors of each shape end in; [""] where all pictures are squares."""
    return sorted(name.removeprefix("clean") for name in file.keys() if name.startswith("clean"))
