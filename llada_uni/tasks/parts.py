"""The parts of one model directory, each read when it is first needed.

A directory -> tokenizer, backbone with its engine, image tokenizer, image decoder. A
directory without a part serves the tasks that do not need it; the others raise UserError naming the part and
what it is for.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from llada_uni.backbone.model import Backbone
from llada_uni.checkpoint.load import check_quantization, load_backbone
from llada_uni.checkpoint.notes import check_ids
from llada_uni.config import BackboneConfig
from llada_uni.decoder.decode import TILE, UPSCALE, ImageDecoder
from llada_uni.errors import UserError
from llada_uni.files.model_dir import BACKBONE, DECODERS, DRAFTS, IMAGE_TOKENIZER, TEXT, VAE, backbone_folder
from llada_uni.files.weights import default_dtype, read_json
from llada_uni.generation.engine import Engine
from llada_uni.generation.grammar.grammar import Grammars
from llada_uni.generation.grammar.lift import Vocabulary
from llada_uni.image.drafts import Drafter
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.tasks.defaults import Defaults
from llada_uni.tasks.find import Need, nothing_needed
from llada_uni.tasks.find import find_model as find_model  # readers know it from here
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import END_OF_TEXT, TextTokenizer

SMALLEST_TILE = 64  # pixels; below it a tile has no place for the overlap of its neighbors
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    if chosen is None or chosen not in DTYPES.values():
        raise UserError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
    return chosen


class Parts:
    """What lies in a model directory. `folder`: the directory; `device`, `dtype`: where and how the networks
    compute; `quantization`, `offload`, `tile`: see `UniModel.from_pretrained`; `need`: called with a part before its weights
    are read (tasks/find.py).
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        quantization: str | None = None,
        offload: bool = False,
        tile: int = TILE,
        need: Need = nothing_needed,
    ) -> None:
        if tile < SMALLEST_TILE:
            raise UserError(f"tile is {tile}; allowed: at least {SMALLEST_TILE} pixels")
        check_quantization(quantization)
        self.folder, self.device, self.dtype = folder, device, dtype
        self.quantization, self.offload, self.tile = quantization, offload, tile
        self.need = need

    def moved(self, **changes: Any) -> Parts:
        """The same directory opened another way (device, dtype, quantization, offload, tile), nothing read yet; itself where
        nothing changes.
        """
        names = ("device", "dtype", "quantization", "offload", "tile")
        now = {name: changes.get(name, getattr(self, name)) for name in names}
        if all(now[name] == getattr(self, name) for name in names):
            return self
        return Parts(self.folder, **now, need=self.need)

    @cached_property
    def defaults(self) -> Defaults:
        return Defaults.from_folder(self.folder)

    @cached_property
    def config(self) -> BackboneConfig:
        return BackboneConfig.from_json(backbone_folder(self.folder) / BACKBONE.marker)

    @cached_property
    def text(self) -> TextTokenizer:
        self.need(TEXT)
        return TextTokenizer.from_file(self.folder / TEXT.marker)

    @cached_property
    def format(self) -> PromptFormat:
        end = self.text.eos_id if END_OF_TEXT in self.text.control_names() else None
        check_ids(end, len(self.text) - 1, self.config, self.folder / TEXT.marker)
        return PromptFormat(self.text, self.config.image_token_offset, bare_image=self.defaults.as_published)

    @cached_property
    def grammars(self) -> Grammars:
        """Grammars over the tokens of text."""
        return Grammars(Vocabulary(self.text.spelled(), self.text.eos_id))

    @cached_property
    def backbone(self) -> Backbone:
        _ = self.config, self.text  # a missing tokenizer is reported before gigabytes are read
        self.need(BACKBONE)
        return load_backbone(self.folder, device=self.device, dtype=self.dtype, quantization=self.quantization)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.backbone)

    @cached_property
    def image_tokenizer(self) -> ImageTokenizer:
        folder = IMAGE_TOKENIZER.path(self.folder)
        if not folder.is_dir():
            raise UserError(f"{self.folder} has no {IMAGE_TOKENIZER.folder}/, which reading a picture needs")
        self.need(IMAGE_TOKENIZER)
        return ImageTokenizer.from_pretrained(folder, self.device, self.dtype)

    @cached_property
    def drafter(self) -> Drafter | None:
        """What draws drafts without a decoder; None where the directory has none, or one of other codes."""
        if not DRAFTS.there(self.folder):
            return None
        self.need(DRAFTS)
        drafter = Drafter.from_pretrained(DRAFTS.path(self.folder))
        if drafter.codebook != self.codebook_size:
            found = f"{DRAFTS.folder}/ is of {drafter.codebook} codes, the model has {self.codebook_size}"
            raise UserError(f"{self.folder}: {found}; `llada-uni data drafts` makes another one")
        return drafter

    @cached_property
    def decoder(self) -> ImageDecoder:
        return ImageDecoder.from_pretrained(
            self.folder, self.device, self.dtype, offload=self.offload, tile=self.tile, need=self.need
        )

    @property
    def loaded(self) -> tuple[str, ...]:
        """The networks in memory, of "backbone", "image_tokenizer" and "decoder"."""
        return tuple(name for name in ("backbone", "image_tokenizer", "decoder") if name in self.__dict__)

    @cached_property
    def codebook_size(self) -> int:
        """How many image codes there are: the image tokenizer's word, or all ids from the offset on."""
        rest = self.config.vocab_size - self.config.image_token_offset
        path = IMAGE_TOKENIZER.path(self.folder) / IMAGE_TOKENIZER.marker
        size: int = read_json(path).get("vq_config", {}).get("num_embeddings", rest) if path.is_file() else rest
        if size > rest:
            raise UserError(f"{self.folder}: the image tokenizer has {size} codes, the backbone has room for {rest} only")
        return size

    @cached_property
    def pixels_per_code(self) -> int:
        """Side in pixels of the square that one code becomes (released: 32), from the decoder's configs."""
        for part in DECODERS.values():
            if part.there(self.folder) and VAE.there(self.folder):
                patch: int = read_json(part.path(self.folder) / part.marker).get("all_patch_size", [2])[0]
                vae = read_json(VAE.path(self.folder) / VAE.marker)
                stages = len(vae.get("block_out_channels", [0] * 4))
                return int(UPSCALE * patch * 2 ** (stages - 1))
        return 32
