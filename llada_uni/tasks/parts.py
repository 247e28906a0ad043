"""The parts of one model directory, each read when it is first needed.

What flows through: a directory -> tokenizer, backbone with its engine, image tokenizer, image decoder. A
directory without a part serves the tasks that do not need it; the others raise UserError naming the part and
what it is for.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import torch

from llada_uni.backbone.model import Backbone
from llada_uni.checkpoint.load import backbone_folder, load_backbone
from llada_uni.config import BackboneConfig
from llada_uni.decoder.decode import FOLDERS, TILE, UPSCALE, ImageDecoder
from llada_uni.errors import UserError
from llada_uni.files.weights import default_dtype, read_json
from llada_uni.generation.engine import Engine
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.tasks.defaults import Defaults
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import TextTokenizer

ENVIRONMENT = "LLADA_UNI_MODEL"
SHIPPED = "world"
SMALLEST_TILE = 64  # pixels; below it a tile has no place for the overlap of its neighbours
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KNOWN = ("config.json", "backbone", "tokenizer.json", "image_tokenizer", "decoder", "decoder-turbo", "vae")


def find_model(name_or_dir: str | os.PathLike[str] | None = None) -> Path:
    """The directory of a model: a path; or None or "world" for the shipped one.

    None looks at the environment variable LLADA_UNI_MODEL first. UserError when nothing is there.
    """
    if name_or_dir is None:
        name_or_dir = os.environ.get(ENVIRONMENT) or SHIPPED
    path = Path(name_or_dir).expanduser()
    if not path.is_dir() and str(name_or_dir) == SHIPPED:
        path = Path(__file__).parents[2] / "models" / SHIPPED
        if not path.is_dir():
            raise UserError(f"the shipped model is not at {path}; set {ENVIRONMENT} or give a model directory")
    if not path.is_dir():
        raise UserError(f"there is no model directory {path}; give a directory, or the name {SHIPPED!r}")
    if not any((path / name).exists() for name in KNOWN):
        raise UserError(f"{path} holds no model: none of {', '.join(KNOWN)} is there")
    return path


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or a GPU where there is one. UserError for one that is unknown or not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise UserError(f"the device {str(device)!r} cannot be used ({reason}); try cpu, cuda or mps") from None
    if chosen.type == "meta":
        raise UserError("the device 'meta' cannot be used: it holds no numbers; try cpu, cuda or mps")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or float32 on the CPU and bfloat16 elsewhere. UserError for any other."""
    if dtype is None:
        return default_dtype(device)
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise UserError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
    return chosen


class Parts:
    """What lies in a model directory. `folder`: the directory; `device`, `dtype`: where and how the networks
    compute; `quantization`, `offload`, `tile`: see `UniModel.from_pretrained`.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        offload: bool = False,
        tile: int = TILE,
    ) -> None:
        if tile < SMALLEST_TILE:
            raise UserError(f"tile is {tile}; allowed: at least {SMALLEST_TILE} pixels")
        self.folder, self.device, self.dtype = folder, device, dtype
        self.quantization, self.offload, self.tile = quantization, offload, tile

    @cached_property
    def defaults(self) -> Defaults:
        return Defaults.from_folder(self.folder)

    @cached_property
    def config(self) -> BackboneConfig:
        return BackboneConfig.from_json(backbone_folder(self.folder) / "config.json")

    @cached_property
    def text(self) -> TextTokenizer:
        return TextTokenizer.from_file(self.folder / "tokenizer.json")

    @cached_property
    def format(self) -> PromptFormat:
        return PromptFormat(self.text, self.config.image_token_offset)

    @cached_property
    def backbone(self) -> Backbone:
        _ = self.config, self.text  # a missing tokenizer is reported before gigabytes are read
        return load_backbone(self.folder, device=self.device, dtype=self.dtype, quantization=self.quantization)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.backbone)

    @cached_property
    def image_tokenizer(self) -> ImageTokenizer:
        folder = self.folder / "image_tokenizer"
        if not folder.is_dir():
            raise UserError(f"{self.folder} has no image_tokenizer/, which reading a picture needs")
        return ImageTokenizer.from_pretrained(folder, self.device, self.dtype)

    @cached_property
    def decoder(self) -> ImageDecoder:
        return ImageDecoder.from_pretrained(self.folder, self.device, self.dtype, offload=self.offload, tile=self.tile)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The networks in memory, of "backbone", "image_tokenizer" and "decoder"."""
        return tuple(name for name in ("backbone", "image_tokenizer", "decoder") if name in self.__dict__)

    @cached_property
    def codebook_size(self) -> int:
        """How many image codes there are: the image tokenizer's word, or all ids from the offset on."""
        rest = self.config.vocab_size - self.config.image_token_offset
        path = self.folder / "image_tokenizer" / "config.json"
        size = read_json(path).get("vq_config", {}).get("num_embeddings", rest) if path.is_file() else rest
        if size > rest:
            raise UserError(f"{self.folder}: the image tokenizer has {size} codes, the backbone has room for {rest} only")
        return size

    @cached_property
    def pixels_per_code(self) -> int:
        """Side in pixels of the square that one code becomes (released: 32), from the decoder's configs."""
        vae = self.folder / "vae" / "config.json"
        for name in FOLDERS.values():
            config = self.folder / name / "config.json"
            if config.is_file() and vae.is_file():
                patch = read_json(config).get("all_patch_size", [2])[0]
                stages = len(read_json(vae).get("block_out_channels", [0] * 4))
                return UPSCALE * patch * 2 ** (stages - 1)
        return 32
