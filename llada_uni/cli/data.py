"""Commands about training data: check, tokenizer, drafts, extract (docs/data.md).

Records on disk -> a table of what is in them; records -> a text tokenizer; records and a model -> drafts of its image
codes, or token shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llada_uni.cli.common import Json, emit, say, stderr
from llada_uni.errors import UserError
from llada_uni.files.outputs import check_writable

if TYPE_CHECKING:
    from llada_uni.data.check import Report
    from llada_uni.data.extract import Extraction

Records = Annotated[
    str,
    typer.Argument(
        help="A .jsonl or .tar file, a folder of them, a dataset in its own format (folder:PATH, coco:PATH, hf:NAME), or a "
        "plug-in's source (world:COUNT:SEED[:MIXTURE[:SPLIT]])."
    ),
]
OnBad = Annotated[str, typer.Option(help="What a record that cannot be used does: stop, or skip (listed at the end).")]
Tokenizer = Annotated[Path | None, typer.Option(help="A tokenizer.json.")]
_LISTED = 50


@contextmanager
def bar(label: str) -> Iterator:
    """A function (done, total or None) that moves a bar on stderr; it does nothing if stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield lambda done, total=None: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total=None: bar.update(task, completed=done, total=total)


def check(
    records: Records,
    limit: Annotated[int | None, typer.Option(min=1, help="Check only so many records.")] = None,
    tokenizer: Tokenizer = None,
    longest: Annotated[int | None, typer.Option(min=1, help="With --tokenizer: most tokens of a record's texts.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", "-m", help="Encode and decode some images: does this model know such images?")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check conversation records: every field, every picture. Exit code 1 if any record cannot be used.

    Example: `llada-uni data check my-data/`
    """
    from llada_uni.data.check import check_records
    from llada_uni.data.sources import open_source
    from llada_uni.text.tokenizer import TextTokenizer

    if longest is not None and tokenizer is None:
        raise UserError("--longest counts tokens: give a --tokenizer as well")
    text = TextTokenizer.from_file(tokenizer) if tokenizer else None
    with bar("checking") as move:
        report = check_records(open_source(records), limit, text, move, longest)
    trip = None
    if model is not None:
        from llada_uni.data.round_trip import round_trip

        trip = round_trip(open_source(records), _folder(model))
    if as_json:
        tasks = {name: vars(count) for name, count in report.tasks.items()}
        measured = {} if trip is None else {"round_trip": vars(trip) | {"known": trip.known}}
        emit({"records": report.records, "tasks": tasks, "bad": report.bad, **measured})
    else:
        _show(report, text is not None)
        if trip is not None:
            print(trip)
    if report.bad or not report.records:
        raise typer.Exit(1)


def _show(report: Report, with_tokens: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    names = ["task", "records", "answers", "pictures", *(["text tokens"] if with_tokens else [])]
    table = Table(*names)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [(name, *list(vars(count).values())[: len(names) - 1]) for name, count in sorted(report.tasks.items())]
    for name, *numbers in rows:
        table.add_row(name, *(f"{number:,}" for number in numbers))
    table.add_section()
    table.add_row("all", *(f"{sum(column):,}" for column in list(zip(*rows, strict=True))[1:]))
    Console(highlight=False).print(table)
    if report.sizes:
        sizes = ", ".join(f"{width} x {height} ({count:,})" for (width, height), count in report.sizes.most_common(4))
        print(f"picture sizes: {sizes}{' ...' if len(report.sizes) > 4 else ''}")
    if not report.records and not report.bad:
        print("there are no records")
    list_bad(report.bad, "cannot be used")


def list_bad(bad: list[str], what: str) -> None:
    for line in bad[:_LISTED]:
        print(line)
    if bad:
        more = f" (the first {_LISTED} are listed)" if len(bad) > _LISTED else ""
        print(f"{len(bad)} {'record' if len(bad) == 1 else 'records'} {what}{more}")


def tokenizer(
    records: Records,
    out: Annotated[Path, typer.Argument(help="The tokenizer.json to write.")],
    vocab_size: Annotated[int, typer.Option(min=300, help="Ids in all at most, control tokens included.")] = 640,
    keep_words: Annotated[
        list[str] | None,
        typer.Option(help="A file of words, one a line, or a plug-in's list (world): kept as tokens in any case. May repeat."),
    ] = None,
    on_bad: OnBad = "stop",
) -> None:
    """Train a byte-level BPE on the texts of records, for a model that starts from nothing.

    Example: `llada-uni data tokenizer world:20000:5 tokenizer.json --vocab-size 640 --keep-words world`
    """
    from llada_uni.data.records import BadRecords
    from llada_uni.data.sources import open_source
    from llada_uni.data.vocabulary import tokenizer_of_records, words_to_keep

    check_writable(out)
    bad, keep = BadRecords(on_bad), [word for name in keep_words or () for word in words_to_keep(name)]
    with stderr().status("training the tokenizer"):
        text = tokenizer_of_records(open_source(records), vocab_size, keep, bad)
    text.save(out)
    list_bad(bad.found, "skipped")
    say(f"{out}  {len(text)} ids")


def _folder(model: Path) -> Path:
    """The directory that `--model` names."""
    from llada_uni.tasks.find import find_model

    return find_model(str(model))


def drafts(
    records: Records,
    model: Annotated[Path, typer.Option("--model", "-m", help="A model directory: it gets a folder drafts/.")],
    images: Annotated[int, typer.Option(min=1, help="Look at so many images.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the network's start and the order of the images.")] = 0,
    as_json: Json = False,
) -> None:
    """Teach a model to show drafts of the images it draws without its decoder: servers and ComfyUI show them on the way.

    Trains a small network from codes to pixels on images of records, a minute on two cores, and says how near it comes on
    images held back.

    Example: `llada-uni data drafts folder:photographs/ --model my-model`
    """
    from llada_uni.data.drafts import learn_drafts
    from llada_uni.data.sources import open_source
    from llada_uni.files.model_dir import DRAFTS

    folder = _folder(model)
    check_writable(DRAFTS.path(folder))
    with stderr().status("looking at images") as status:
        learned = learn_drafts(
            open_source(records), folder, images, seed, on_step=lambda what, n, of: status.update(f"{what} {n}/{of}")
        )
    learned.drafter.save_pretrained(DRAFTS.path(folder))
    measured = {"psnr": round(learned.psnr, 2), "psnr_of_one_color": round(learned.plain, 2)}
    if as_json:
        emit({"folder": str(DRAFTS.path(folder)), "images": learned.images, "held_back": learned.held_back, **measured})
    else:
        near = f"{learned.psnr:.1f} dB from {learned.held_back} of them held back (one color: {learned.plain:.1f} dB)"
        say(f"{DRAFTS.path(folder)}  learned from {learned.images:,} images; drafts are {near}")


def extract(
    records: Records,
    out: Annotated[Path, typer.Argument(help="The folder of token shards.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="A model directory or a run's model/: its image_tokenizer.")],
    tokenizer: Tokenizer = None,
    workers: Annotated[int, typer.Option(help="Processes on this machine.")] = 1,
    shard: Annotated[str, typer.Option(help="i/n: do part i (from 0) of n; for a cluster, one part a machine.")] = "0/1",
    batch: Annotated[int, typer.Option(help="Pictures of one size in one pass.")] = 64,
    shard_records: Annotated[int, typer.Option(help="Conversations a shard.")] = 5000,
    unconditional: Annotated[float, typer.Option(help="Share of t2i and edit records that lose their text for good.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the choice of those records.")] = 0,
    on_bad: OnBad = "stop",
    device: Annotated[str, typer.Option(help="cpu, cuda (spread over the GPUs), cuda:1.")] = "cpu",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, its address, or local (this machine).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Turn records into token shards, once: pictures become codes, conversations become ids.

    The same command goes on where an interrupted one stopped. The last part to finish writes the manifest.

    Example: `llada-uni data extract my-data/ my-tokens --model models/world --workers 2`

    Example: `llada-uni data extract my-data/ my-tokens --model models/world --ray auto --workers 64 --device cuda`
    """
    import time

    from llada_uni.data.extract import Extraction, parse_part, skipped_records
    from llada_uni.data.extract import extract as run

    job = Extraction(
        records, str(out), str(_folder(model)), str(tokenizer) if tokenizer else None, unconditional, seed, on_bad, batch,
        shard_records, device,
    )  # fmt: skip
    began, made = time.monotonic(), 0
    with bar("extracting shards") as move:

        def on_shard(done: int, total: int, new: int) -> None:
            nonlocal made
            made += new
            move(done, total)

        if ray is None:
            manifest = run(job, workers, parse_part(shard), on_shard)
        else:
            from llada_uni.data.extract_ray import extract_on_ray

            manifest = extract_on_ray(job, workers, ray, on_shard)
    seconds = time.monotonic() - began
    if manifest is None:
        say(f"{out}  part {shard} is done; other parts are not yet")
        return
    _warn_of_unknown_images(job)
    if as_json:
        emit({"folder": str(out), "made": made, "seconds": round(seconds, 2), **manifest})
        return
    list_bad(list(skipped_records(out)), "skipped")
    made_now = f"{made:,} made now, {made / seconds:.0f} a second"
    say(f"{out}  {manifest['records']:,} records in {len(manifest['shards'])} shards; {made_now}")


def _warn_of_unknown_images(job: Extraction) -> None:
    """A line on stderr when the model does not know the images of the records; nothing where telling would take long."""
    from llada_uni.data.round_trip import round_trip, small_decoder

    if small_decoder(job.model):
        trip = round_trip(job.source(), job.model)
        if trip is not None and trip.known is False:
            say(f"warning: {trip}")
