"""Draws every prompt of a benchmark, several images each, in the folders that the benchmark's own judge reads.

A prompt file -> `Prompt`s -> images by the model's public call -> PNG files, in one of LAYOUTS. An image
that is there is not drawn again: the same command goes on where an interrupted one stopped.

For images as such, one per prompt with settings of its own, see `llada-uni generate --prompts-file` (cli/many.py).

Prompt files: .txt (a prompt on each line), .jsonl (objects with "prompt"; GenEval's metadata is such a file), or a folder of
.txt files with a prompt each (DPG-Bench).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from llada_uni.errors import UserError
from llada_uni.evaluation.answers import picture_of
from llada_uni.files.weights import atomic_file
from llada_uni.image.reader import open_image
from llada_uni.results import save_image


@dataclass(frozen=True)
class Prompt:
    """One prompt. name: of its files; data: its whole JSON object, for benchmarks that judge by it."""

    name: str
    text: str
    data: Mapping[str, Any]


def read_prompts(path: str | Path) -> list[Prompt]:
    """All prompts of a file or folder. UserError that names the line when one has no text."""
    path = Path(path)
    try:
        if path.is_dir():
            found = [(file.stem, file.name, file.read_text(encoding="utf-8").strip()) for file in sorted(path.glob("*.txt"))]
            prompts = [_prompt(name, f"{path / where}", {"prompt": text}) for name, where, text in found]
        elif path.suffix in (".txt", ".jsonl"):
            lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
            filled = [(number, line) for number, line in lines if line.strip()]
            parse = _object if path.suffix == ".jsonl" else lambda line, where: {"prompt": line.strip()}
            prompts = [
                _prompt(f"{place:05}", f"{path}:{number}", parse(line, f"{path}:{number}"))
                for place, (number, line) in enumerate(filled)
            ]
        else:
            raise UserError(f"{path} is no prompt file; allowed: .txt, .jsonl, or a folder of .txt files")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the prompts of {path} ({error})") from None
    if not prompts:
        raise UserError(f"{path} holds no prompt")
    return prompts


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where} is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise UserError(f'{where} is no object with "prompt"')
    return data


def _prompt(name: str, where: str, data: dict[str, Any]) -> Prompt:
    text = data.get("prompt")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f'{where} has no text "prompt"')
    return Prompt(name, text, data)


# ---
# Where images go

Place = Callable[[Path, Prompt, int], Path]


def _geneval(out: Path, prompt: Prompt, number: int) -> Path:
    return out / prompt.name / "samples" / f"{number:05}.png"


def _dpg(out: Path, prompt: Prompt, number: int) -> Path:
    return out / "samples" / f"{prompt.name}-{number}.png"


LAYOUTS: dict[str, Place] = {"geneval": _geneval, "dpg": _dpg}
"""geneval: NAME/samples/00000.png beside NAME/metadata.jsonl, as GenEval's
evaluate_images.py reads it. dpg: one grid of all samples, NAME.png, as DPG-Bench reads it; the samples are kept in samples/."""


def draw_prompts(
    model: Any,
    prompts: Sequence[Prompt],
    out: str | Path,
    samples: int = 4,
    seed: int = 0,
    layout: str = "geneval",
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Draws `samples` images of each prompt that are not there yet, and writes prompts.jsonl (name, prompt, files, seeds).

    Sample s of prompt p has seed + p * samples + s. settings: of `model.generate_image`. Returns {"prompts", "drawn", "there"}.
    UserError for an unknown layout; also when an image cannot be drawn, with what is done kept.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown layout {layout!r}; allowed: {', '.join(LAYOUTS)}")
    if samples < 1:
        raise UserError(f"at least 1 sample a prompt is needed, asked for {samples}")
    out, drawn, done = Path(out), 0, 0
    lines = []
    for place, prompt in enumerate(prompts):
        files = [LAYOUTS[layout](out, prompt, number) for number in range(samples)]
        seeds = [seed + place * samples + number for number in range(samples)]
        for file, own in zip(files, seeds, strict=True):
            if not file.is_file():
                image = picture_of(model.generate_image(prompt.text, seed=own, **settings))
                save_image(image, file)
                drawn += 1
            done += 1
            if progress is not None:
                progress("prompts", done, len(prompts) * samples)
        if layout == "geneval":
            _written(json.dumps(dict(prompt.data)), out / prompt.name / "metadata.jsonl")
        elif layout == "dpg":
            save_image(grid([open_image(file) for file in files]), out / f"{prompt.name}.png")
        names = [file.relative_to(out).as_posix() for file in files]
        entry = {"name": prompt.name, "prompt": prompt.text, "files": names, "seeds": seeds}
        lines.append(json.dumps(entry, ensure_ascii=False))
    _written("\n".join(lines) + "\n", out / "prompts.jsonl")
    return {"prompts": len(prompts), "drawn": drawn, "there": done - drawn}


def grid(images: Sequence[Image.Image]) -> Image.Image:
    """The images side by side, as nearly square as their number allows: four are 2 x 2."""
    columns = next(n for n in range(1, len(images) + 1) if n * n >= len(images))
    width, height = images[0].size
    page = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for number, image in enumerate(images):
        page.paste(image, (number % columns * width, number // columns * height))
    return page


def _written(text: str, path: Path) -> None:
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error})") from error
