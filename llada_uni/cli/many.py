"""Many images from a file of prompts: one prompt a line, or JSONL with the settings of each.

file -> requests, all checked before anything is drawn -> one image file each in a directory. What is there already is
passed over, so the same command again goes on where it was stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llada_uni.cli.common import make_folder, progress_bar, say, write_json_file
from llada_uni.errors import UserError
from llada_uni.files.configs import read_text
from llada_uni.generation.params import CODES_ONLY
from llada_uni.requests import Draw

if TYPE_CHECKING:
    from llada_uni.model import UniModel

_EXAMPLE = 'a line of a .jsonl is such as {"prompt": "a cat", "seed": 1}'
LONGEST_NAME = 40  # characters of a prompt in the name of its file


@dataclass(frozen=True)
class Wanted:
    """One image to draw. line: of the prompts file, from 1; file: its name in the directory."""

    line: int
    request: Draw
    file: str


def read_prompts(path: Path, settings: dict[str, Any]) -> list[Wanted]:
    """The images that a file asks for. settings: of all of them, where a line does not say otherwise; with a seed the n-th
    image has the seed plus n - 1.

    A name that ends with .jsonl: an object a line, with "prompt" and settings of `Draw`, and "file", the name to write.
    UserError naming the line for what cannot be read or is not allowed, and for two images of one name.
    """
    found: list[Wanted] = []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        is_json = path.suffix.lower() == ".jsonl"
        if not is_json and text.lstrip().startswith('{"'):
            raise UserError(f"{path}, line {line} is JSON, but the name does not end with .jsonl: rename the file")
        own = _object(path, line, text) if is_json else {"prompt": text.strip()}
        file = own.pop("file", None)
        given = {**settings, **own}
        if "seed" in settings and "seed" not in own:
            given["seed"] = settings["seed"] + len(found)
        try:
            request = Draw(**given)
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from None
        found.append(Wanted(line, request, _name(path, line, file, len(found) + 1, request)))
    if not found:
        raise UserError(f"{path} holds no prompts: one a line is expected")
    names = [one.file for one in found]
    for one in found:
        if names.count(one.file) > 1:
            raise UserError(f"{path}, line {one.line}: the file {one.file} is named more than once")
    return found


def draw_all(model: UniModel, wanted: list[Wanted], out: Path) -> Iterator[dict[str, Any]]:
    """Draws what is not in `out` yet, one after another; gives the record of each. UserError naming the line for one that
    cannot be drawn; those before it are on the disk.
    """
    make_folder(out)
    with progress_bar() as report:
        for number, one in enumerate(wanted, 1):
            file, count = out / one.file, f"{number} of {len(wanted)}"
            if file.exists():
                say(f"{file}  {count}, is there already")
                yield {"file": str(file), "prompt": one.request.prompt, "skipped": True}
                continue
            try:
                result = model.run(one.request, report)
            except UserError as error:
                raise UserError(f"line {one.line}: {error}") from error
            if result.pixels is None:
                write_json_file(result.codes.to_json(), file)
            else:
                result.save(file)
            say(f"{file}  {count}, seed {result.seed}, {result.seconds['total']:.1f} s")
            yield {"file": str(file), "skipped": False, **result.to_json()}


def _object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{error.msg}, column {error.colno}"
        raise UserError(f"{path}, line {line} is no JSON ({where}): {_EXAMPLE}; plain prompts go into a .txt") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}, line {line} must hold an object: {_EXAMPLE}")
    return found


def _name(path: Path, line: int, given: Any, number: int, request: Draw) -> str:
    """The name of an image's file: the given one, or number and beginning of the prompt."""
    suffix = ".json" if request.decoder == CODES_ONLY else ".png"
    if given is None:
        words = re.sub(r"[^\w-]+", "-", request.prompt[:LONGEST_NAME]).strip("-")
        return f"{number:04d}-{words}{suffix}" if words else f"{number:04d}{suffix}"
    allowed = (".json",) if suffix == ".json" else (".png", ".jpg", ".jpeg", ".webp")
    if not isinstance(given, str) or Path(given).name != given or Path(given).suffix.lower() not in allowed:
        raise UserError(f"{path}, line {line}: file must be a name without folders that ends with {' or '.join(allowed)}")
    return given
