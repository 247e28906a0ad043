"""`llada-uni data import`: a dataset in a usual format becomes conversation records (docs/data.md)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llada_uni.cli.common import Json, emit, say
from llada_uni.cli.data import OnBad, bar, list_bad
from llada_uni.errors import UserError

if TYPE_CHECKING:
    from llada_uni.data.importers.wordings import Wordings


def import_(
    kind: Annotated[str, typer.Argument(help="folder, coco, laion, llava, hf or csv.")],
    source: Annotated[str, typer.Argument(help="The dataset: a folder or file; for hf also a name on the hub.")],
    out: Annotated[Path, typer.Argument(help="The folder to fill with records.")],
    templates: Annotated[Path | None, typer.Option(help="A YAML file of templates, in place of the built-in ones.")] = None,
    t2i: Annotated[
        list[str] | None, typer.Option(help='A template of text to image: "a photo of {a_class}". Repeatable.')
    ] = None,
    caption: Annotated[list[str] | None, typer.Option(help='A caption: "describe the image => {caption}". Repeatable.')] = None,
    question: Annotated[list[str] | None, typer.Option(help='A question: "what is it? => {class}". Repeatable.')] = None,
    each: Annotated[
        list[str] | None, typer.Option(help="Records of a task for each image: t2i=2. Default 1 of each. Repeatable.")
    ] = None,
    languages: Annotated[str, typer.Option(help="Of the built-in templates, with commas: en, de, zh.")] = "en",
    split: Annotated[
        list[str] | None, typer.Option(help="NAME=SHARE: a folder for each, by the item's name. Repeatable.")
    ] = None,
    source_split: Annotated[str, typer.Option(help="The dataset's own split to read: train.")] = "",
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: image=file_path, class=label, caption=alt. Repeatable.")
    ] = None,
    images: Annotated[str, typer.Option(help="The folder that image paths are relative to.")] = "",
    delimiter: Annotated[str, typer.Option(help="Of a csv; default: by its name.")] = "",
    name: Annotated[str, typer.Option(help="Configuration of a Hugging Face dataset.")] = "",
    form: Annotated[str, typer.Option("--format", help="jsonl (images in files beside it) or webdataset (tar).")] = "jsonl",
    seed: Annotated[int, typer.Option(help="Of splits and the choice of templates.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only so many items.")] = None,
    on_bad: OnBad = "stop",
    as_json: Json = False,
) -> None:
    """Make conversation records of a dataset: class folders, COCO, LAION, LLaVA, Hugging Face, csv.

    Nothing is held in memory but the shard that is being made. The same command goes on where an interrupted one stopped.

    Example: `llada-uni data import folder birds/ records/ --t2i "a photo of {a_class}" --split train=0.95 --split held=0.05`
    """
    from llada_uni.data.importers.items import ReadOptions
    from llada_uni.data.importers.run import ImportOptions, import_data
    from llada_uni.data.importers.splits import parse_splits

    options = ImportOptions(
        read=ReadOptions(source_split, _pairs(column, "--column"), images, delimiter, name),
        wordings=_wordings(templates, {"t2i": t2i, "caption": caption, "understand": question}, each, languages),
        splits=parse_splits(split or ()),
        seed=seed,
        form=form,
        on_bad=on_bad,
        limit=limit,
    )
    with bar("importing") as move:
        done = import_data(kind, source, out, options, move)
    if as_json:
        emit({"folder": str(out), "items": done.items, "records": done.records, "bad": done.bad})
        return
    list_bad(done.bad, "skipped")
    made = ", ".join(f"{name or 'all'} {count:,}" for name, count in done.records.items())
    say(f"{out}  {done.items:,} items; records made now: {made}")


def _wordings(file: Path | None, given: dict[str, list[str] | None], each: list[str] | None, languages: str) -> Wordings:
    from llada_uni.data.importers.wordings import Wording, Wordings

    direct = {task: tuple(_template(text, task) for text in texts) for task, texts in given.items() if texts}
    if file is not None and direct:
        raise UserError("give templates in a file or as options, not both")
    if file is not None:
        wordings = Wordings.from_file(file)
    elif direct:
        wordings = Wordings({task: tuple(Wording(*text) for text in texts) for task, texts in direct.items()})
    else:
        wordings = Wordings.built_in([language.strip() for language in languages.split(",")])
    counts = _pairs(each, "--each")
    for task, count in counts.items():
        if not count.isdecimal():
            raise UserError(f"--each {task}={count}: allowed: a number from 0")
    return replace(wordings, each={**wordings.each, **{task: int(count) for task, count in counts.items()}})


def _template(text: str, task: str) -> tuple[str, ...]:
    ask, arrow, answer = text.partition("=>")
    if task == "t2i":
        return (text,)
    if not arrow or not ask.strip() or not answer.strip():
        raise UserError(f"the template {text!r} is not understood; allowed: what is asked => what is answered")
    return ask.strip(), answer.strip()


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        ours, equals, theirs = text.partition("=")
        if not equals or not ours or not theirs:
            raise UserError(f"{option} {text!r} is not understood; allowed: NAME=VALUE")
        pairs[ours] = theirs
    return pairs
