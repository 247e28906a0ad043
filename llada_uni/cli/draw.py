"""Commands that draw: generate, edit, inpaint, story."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llada_uni.cli.common import (
    Cfg,
    DecoderName,
    DecoderSteps,
    Height,
    ImageScale,
    Json,
    ModelOptions,
    Seed,
    Steps,
    TextScale,
    Width,
    check_output,
    emit,
    make_folder,
    progress_bar,
    say,
    write_json_file,
    write_result,
)
from llada_uni.cli.groups import with_groups

Output = Annotated[Path, typer.Option("--out", "-o", help="File to write (.png, .jpg, .webp; codes: .json).")]


@with_groups
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Output = Path("picture.png"),
    height: Height = None,
    width: Width = None,
    steps: Steps = None,
    cfg_scale: Cfg = None,
    seed: Seed = None,
    thinking: Annotated[bool, typer.Option("--thinking", help="Let the model think in words first.")] = False,
    decoder: DecoderName = None,
    decoder_steps: DecoderSteps = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Draw a picture from words.

    Example: `llada-uni generate "a cartoon fox at the top left on green" -o fox.png --seed 7`

    Example: `llada-uni generate "two plus one apples" --thinking -o apples.png`
    """
    check_output(out, decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.generate_image(
            prompt, height, width, image_steps=steps, cfg_scale=cfg_scale, seed=seed, thinking=thinking, decoder=decoder,
            decoder_steps=decoder_steps, on_progress=report,
        )
    write_result(result, out, as_json)


@with_groups
def edit(
    images: Annotated[list[Path], typer.Argument(help="The picture, or several reference pictures.")],
    instruction: Annotated[str, typer.Option("--instruction", "-i", help="What to change.")],
    out: Output = Path("edited.png"),
    height: Height = None,
    width: Width = None,
    steps: Steps = None,
    text_scale: TextScale = None,
    image_scale: ImageScale = None,
    rescale: Annotated[
        float | None, typer.Option(help="0 to 1: how far guidance keeps the spread of scores.")
    ] = None,
    seed: Seed = None,
    decoder: DecoderName = None,
    decoder_steps: DecoderSteps = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Change a picture by an instruction.

    Example: `llada-uni edit fox.png -i "replace the fox with a dog" -o dog.png`
    """
    check_output(out, decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.edit_image(
            images, instruction, height, width, image_steps=steps, text_scale=text_scale, image_scale=image_scale,
            rescale=rescale, seed=seed, decoder=decoder, decoder_steps=decoder_steps, on_progress=report,
        )  # fmt: skip
    write_result(result, out, as_json, images=[str(path) for path in images])


@with_groups
def inpaint(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    mask: Annotated[Path, typer.Argument(help="A picture of the same size, white where it is to be filled.")],
    prompt: Annotated[str, typer.Argument(help="What the whole picture shows afterwards.")],
    out: Output = Path("filled.png"),
    steps: Steps = None,
    cfg_scale: Cfg = None,
    seed: Seed = None,
    decoder: DecoderName = None,
    decoder_steps: DecoderSteps = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Fill the white part of a mask.

    Example: `llada-uni inpaint fox.png mask.png "a cartoon fox at the top left and a cartoon tree at the
    bottom right" -o both.png`
    """
    check_output(out, decoder)
    uni = loading.load()
    with progress_bar() as report:
        result = uni.inpaint(
            image, mask, prompt, image_steps=steps, cfg_scale=cfg_scale, seed=seed, decoder=decoder,
            decoder_steps=decoder_steps, on_progress=report,
        )  # fmt: skip
    write_result(result, out, as_json, image=str(image), mask=str(mask))


@with_groups
def story(
    prompt: Annotated[str, typer.Argument(help="What the story is about.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the frames and story.json.")] = Path(
        "story"
    ),
    max_frames: Annotated[int | None, typer.Option(help="At most so many pictures.")] = None,
    height: Height = None,
    width: Width = None,
    steps: Steps = None,
    text_scale: TextScale = None,
    image_scale: ImageScale = None,
    seed: Seed = None,
    decoder: DecoderName = None,
    decoder_steps: DecoderSteps = None,
    *,
    loading: ModelOptions,
    as_json: Json = False,
) -> None:
    """Tell a story in words and pictures; each is shown as soon as it is finished.

    Example: `llada-uni story "a story about a cat and a fox in flat style" -o cat-and-fox --seed 3`
    """
    from llada_uni.results import EndEvent, TextEvent, save_image

    uni = loading.load()
    parts: list[dict] = []
    end: dict = {}
    with progress_bar() as report:
        events = uni.interleave(
            prompt, max_frames, height=height, width=width, image_steps=steps, text_scale=text_scale,
            image_scale=image_scale, seed=seed, decoder=decoder, decoder_steps=decoder_steps, on_progress=report,
        )  # fmt: skip
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
                parts.append(part)
    data = {"prompt": prompt, "parts": parts, **end}
    write_json_file(data, out / "story.json")
    if as_json:
        emit(data)
    else:
        say(f"{out / 'story.json'}  seed {end['seed']}, {end['seconds']['total']:.1f} s ({end['reason']})")


def register(app: typer.Typer) -> None:
    for command in (generate, edit, inpaint, story):
        app.command()(command)
