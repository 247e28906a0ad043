"""Commands that draw: generate, edit, inpaint, story."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from llada_uni.cli.common import (
    Json,
    ModelOptions,
    check_images,
    check_output,
    emit,
    make_folder,
    progress_bar,
    say,
    write_json_file,
    write_result,
)
from llada_uni.cli.groups import with_groups
from llada_uni.cli.settings import Settings
from llada_uni.errors import UserError
from llada_uni.files.outputs import check_takes_files
from llada_uni.requests import Draw, Edit, Inpaint, Story

Output = Annotated[Path, typer.Option("--out", "-o", help="File to write (.png, .jpg, .webp; codes: .json).")]


@with_groups
def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw; or see --prompts-file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write (.png, .jpg, .webp; codes: .json), default picture.png; with --prompts-file a directory, "
            "default pictures.",
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            help="Draw many: one prompt a line, or in a .jsonl an object with settings a line. Images that are "
            "there are passed over."
        ),
    ] = None,
    *,
    settings: Annotated[dict[str, Any], Settings(Draw)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Draw an image from text.

    Example: `llada-uni generate "a cartoon fox at the top left on green" -o fox.png --seed 7`

    Example: `llada-uni generate "two plus one apples" --thinking -o apples.png`

    Example: `llada-uni generate --prompts-file prompts.txt -o pictures --seed 1`
    """
    if (prompt is None) == (prompts_file is None):
        raise UserError("give a prompt, or a file of prompts with --prompts-file (one of the two)")
    if prompts_file is not None:
        _generate_many(prompts_file, out or Path("pictures"), settings, loading, as_json)
        return
    out, request = out or Path("picture.png"), Draw(prompt=prompt, **settings)
    check_output(out, request.decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.run(request, report)
    write_result(result, out, as_json)


def _generate_many(file: Path, out: Path, settings: dict[str, Any], loading: ModelOptions, as_json: bool) -> None:
    """`generate` with --prompts-file."""
    from llada_uni.cli.many import draw_all, read_prompts

    wanted = read_prompts(file, settings)
    done = list(draw_all(loading.load(), wanted, out))
    skipped = sum(one["skipped"] for one in done)
    if as_json:
        emit({"folder": str(out), "images": done, "skipped": skipped})
    else:
        say(f"{out}  {len(done) - skipped} drawn, {skipped} were there")


@with_groups
def edit(
    images: Annotated[list[Path], typer.Argument(help="The image, or several reference images.")],
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="What to change.")],
    out: Output = Path("edited.png"),
    *,
    settings: Annotated[dict[str, Any], Settings(Edit)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Change an image by an instruction.

    Example: `llada-uni edit fox.png -i "replace the fox with a dog" -o dog.png`
    """
    check_images(images)
    request = Edit(images=images, instruction=instruction, **settings)
    check_output(out, request.decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.run(request, report)
    write_result(result, out, as_json, images=[str(path) for path in images])


@with_groups
def inpaint(
    image: Annotated[Path, typer.Argument(help="The image.")],
    mask: Annotated[Path, typer.Argument(help="An image of the same size, white where it is to be filled.")],
    prompt: Annotated[str, typer.Argument(help="What the whole image shows afterwards.")],
    out: Output = Path("filled.png"),
    *,
    settings: Annotated[dict[str, Any], Settings(Inpaint)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Fill the white part of a mask.

    Example: `llada-uni inpaint fox.png mask.png "a cartoon fox at the top left and a cartoon tree at the
    bottom right" -o both.png`
    """
    check_images([image, mask])
    request = Inpaint(image=image, mask=mask, prompt=prompt, **settings)
    check_output(out, request.decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.run(request, report)
    write_result(result, out, as_json, image=str(image), mask=str(mask))


@with_groups
def story(
    prompt: Annotated[str, typer.Argument(help="What the story is about.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the frames and story.json.")] = Path("story"),
    *,
    settings: Annotated[dict[str, Any], Settings(Story)],
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Tell a story in text and images; each is shown as soon as it is finished.

    Example: `llada-uni story "a story about a cat and a fox in flat style" -o cat-and-fox --seed 3`
    """
    from llada_uni.results import EndEvent, TextEvent, save_image

    request = Story(messages=prompt, **settings)
    check_takes_files(out)
    uni = loading.load()
    parts: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    notices: dict[str, None] = {}
    with progress_bar() as report:
        events = uni.run(request, report)
        make_folder(out)
        for event in events:
            if isinstance(event, TextEvent):
                parts.append({"type": "text", "text": event.text})
                say(event.text)
            elif isinstance(event, EndEvent):
                end = event.to_json()
            else:
                part = {"type": "image", "codes": event.codes.to_json(), "repaired": event.repaired}
                if event.pixels is not None:
                    part["file"] = str(save_image(event.image, out / f"frame-{event.number}.png"))
                    say(f"  {part['file']}")
                    notices.update(dict.fromkeys(event.notices))
                parts.append(part)
    for notice in notices:
        say(f"note: {notice}")
    data = {"prompt": prompt, "parts": parts, **end}
    write_json_file(data, out / "story.json")
    if as_json:
        emit(data)
    else:
        say(f"{out / 'story.json'}  seed {end['seed']}, {end['seconds']['total']:.1f} s ({end['reason']})")
