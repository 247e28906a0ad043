"""What is unusual about a model directory and does no harm: said once, in words, by `info` and `doctor`.

config files and tokenizer.json -> lines. Settings that would change a result are no notes: they are refused where they are
read (config.py, image/preprocess.py, text/tokenizer.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llada_uni.config import UNUSED_FIELDS, BackboneConfig
from llada_uni.errors import UserError
from llada_uni.files.configs import read_json
from llada_uni.files.model_dir import BACKBONE, IMAGE_TOKENIZER, SETTINGS, TEXT, backbone_folder
from llada_uni.text.tokenizer import BEGIN_OF_IMAGE, END_OF_TEXT, IMAGE_END, IMAGE_START, MASK

_NAMED_ELSEWHERE = {"eos_token": END_OF_TEXT, "mask_token": MASK}  # field of tokenizer_config.json -> the token we use
_NEEDED = {END_OF_TEXT: "every task", MASK: "every task", **dict.fromkeys((IMAGE_START, IMAGE_END, BEGIN_OF_IMAGE), "images")}


def model_notes(model: Path) -> tuple[str, ...]:
    """One line for each unusual thing; files that are missing or cannot be read are the business of others."""
    makers: tuple[Callable[[Path], Iterator[str]], ...] = (_of_settings, _of_config, _of_images, _of_tokenizer)
    found: list[str] = []
    for make in makers:
        with suppress(UserError):
            found += make(model)
    return tuple(found)


def check_ids(end_of_text: int | None, largest: int, config: BackboneConfig, where: object) -> None:
    """UserError when a tokenizer is of another model than the backbone's config.

    end_of_text: the tokenizer's id of it, None where it has none; largest: the largest id it has; where: its file.
    """
    if largest >= config.image_token_offset:
        raise UserError(
            f"{where} has token {largest}, but image codes begin at {config.image_token_offset} in {BACKBONE.marker}: they "
            "are of different models; take both from one"
        )
    stated = config.extra.get("eos_token_id")
    stated = stated if isinstance(stated, list) else [stated]
    if end_of_text is not None and stated != [None] and end_of_text not in stated:
        raise UserError(
            f"{where} gives {END_OF_TEXT} the id {end_of_text}, but eos_token_id is {stated[0]} in {BACKBONE.marker}: they are "
            "of different models; take both from one"
        )


def check_tokenizer_file(model: Path) -> None:
    """The same from the files alone. UserError also for a tokenizer.json that cannot be read."""
    tokens = _tokens(model)
    try:
        config = BackboneConfig.from_json(backbone_folder(model) / BACKBONE.marker)
    except UserError:
        return  # the backbone's own line says what is wrong with it
    check_ids(tokens.get(END_OF_TEXT), max(tokens.values(), default=0), config, model / TEXT.marker)


def _of_settings(model: Path) -> Iterator[str]:
    if BACKBONE.there(model) and not SETTINGS.there(model):
        yield f"there is no {SETTINGS.marker}: the settings are those of the published model (docs/released.md)"


def _of_config(model: Path) -> Iterator[str]:
    config = BackboneConfig.from_json(backbone_folder(model) / BACKBONE.marker)
    if unknown := sorted(set(config.extra) - set(UNUSED_FIELDS)):
        yield f"{BACKBONE.marker} has fields that are not known here and are not used: {', '.join(unknown)}"
    if config.extra.get("auto_map"):
        yield f"{BACKBONE.marker} names Python files (auto_map): they are never run"


def _of_images(model: Path) -> Iterator[str]:
    merge = read_json(IMAGE_TOKENIZER.path(model) / "preprocessor_config.json").get("merge_size", 1)
    if merge != 1:
        yield (
            f"preprocessor_config.json says merge_size {merge}; the codes are laid out row by row, as with 1 "
            "(so does the published code)"
        )


def _of_tokenizer(model: Path) -> Iterator[str]:
    """What tokenizer.json, tokenizer_config.json and config.json say differently from each other, or from the prompts."""
    tokens = _tokens(model)
    for name, needed_for in _NEEDED.items():
        if name not in tokens:
            yield f"{TEXT.marker} has no token {name}, which is needed for {needed_for}"
    pad = _json(backbone_folder(model) / BACKBONE.marker).get("pad_token_id")
    if END_OF_TEXT in tokens and pad not in (None, tokens[END_OF_TEXT]):
        yield f"{BACKBONE.marker} says pad_token_id {pad}; {END_OF_TEXT}, which pads here, is {tokens[END_OF_TEXT]}"
    own = {**_json(model / "special_tokens_map.json"), **_json(model / "tokenizer_config.json")}
    for field, name in _NAMED_ELSEWHERE.items():
        stated = own.get(field)
        stated = stated.get("content") if isinstance(stated, Mapping) else stated
        if stated not in (None, name):
            yield f"tokenizer_config.json says {field} {stated}; the prompts use {name}"
    if own.get("chat_template") or (model / "chat_template.jinja").is_file():
        yield "the tokenizer has a chat template of its own: it is not used, the prompts are those the model was trained with"


def _tokens(model: Path) -> dict[str, int]:
    """The added tokens of tokenizer.json, with their ids."""
    listed = read_json(model / TEXT.marker).get("added_tokens") or []
    try:
        return {str(token["content"]): int(token["id"]) for token in listed}
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"{model / TEXT.marker}: its added_tokens need a content and an id each") from error


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
