"""Recorded checks of pictures: codes of the image tokenizer, sizes, and the crops pixel for pixel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.files.weights import read_json
from llada_uni.image.geometry import Preprocessing, editing_size, editing_sizes, understanding_crop, understanding_size
from llada_uni.image.preprocess import crop_for_editing, resize_for_understanding
from llada_uni.image.reader import open_image
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.verify.compare import Result, Row, has, has_part, mismatches


class ImageChecks:
    """Rows of `image_tokenizer/tokens.json`, `resize.json` and `crop.json`. All are exact."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        return ImageTokenizer.from_pretrained(IMAGE_TOKENIZER.path(self.folder), self.device, torch.float32)

    @cached_property
    def settings(self) -> Preprocessing:
        """The directory's own limits where it states them, else the released ones."""
        file = IMAGE_TOKENIZER.path(self.folder) / "preprocessor_config.json"
        return Preprocessing.from_json(read_json(file)) if file.is_file() else Preprocessing()

    def code_rows(self) -> Iterator[Row]:
        folder = IMAGE_TOKENIZER.path(self.folder)
        needed = ("image_tokenizer/tokens.json", "image_tokenizer/preprocessor_config.json")
        if not has(self.folder, *needed) or not has_part(folder, IMAGE_TOKENIZER):
            return
        for entry in json.loads((folder / "tokens.json").read_text(encoding="utf-8")):
            if (folder / entry["file"]).is_file():
                yield f"image.codes.{entry['file']}", 0.0, partial(self._codes, folder / entry["file"], entry)

    def _codes(self, file: Path, entry: dict[str, Any]) -> Result:
        codes = self.tokenizer.encode(open_image(file), mode="raw")
        if [1, codes.height, codes.width] != entry["grid_thw"]:
            raise UserError(
                f"the grid is {codes.height} x {codes.width}, recorded is {entry['grid_thw'][1:]}"
            )
        return mismatches(list(codes.codes), entry["token_ids"], "codes")

    def size_rows(self) -> Iterator[Row]:
        if has(self.folder, "resize.json"):
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
        return mismatches(found, recorded, "sizes")

    def _edit_sizes(self, recorded: list[list[int]]) -> Result:
        ours = editing_sizes(self.settings.edit_max_cells, self.settings.size_factor)
        return mismatches([list(size) for size in ours], recorded, "edit sizes")

    def crop_rows(self) -> Iterator[Row]:
        for kind in ("understand", "edit"):
            if has(self.folder, "crop.json", "crop_input.png", f"crop_{kind}_output.png"):
                yield f"image.crop.{kind}", 0.0, partial(self._crop, kind)

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
            return mismatches(
                list(found.tobytes()), list(recorded.convert("RGB").tobytes()), "channel values"
            )
