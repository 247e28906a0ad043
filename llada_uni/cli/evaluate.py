"""The command eval: scores a model by suites or on records, or draws a file of prompts for a public benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from llada_uni.cli.common import ModelOptions, emit, say, stderr, write_json_file
from llada_uni.cli.groups import with_groups
from llada_uni.errors import UserError


@with_groups
def evaluate(
    suite: Annotated[str | None, typer.Option(help="all, or names with commas between them. Default: all.")] = None,
    records: Annotated[
        str | None, typer.Option(help="Score text answers on records instead: a .jsonl or .tar file, a folder of them.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Draw these prompts instead: .txt, .jsonl (GenEval), or a folder of .txt (DPG-Bench).")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Samples at most. Default: 200 of each suite, all records or prompts.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples and of the answers.")] = 0,
    split: Annotated[str, typer.Option(help="Of a suite: heldout or seen.")] = "heldout",
    metric: Annotated[str, typer.Option(help="Of records: exact or f1, the score of the table; both are reported.")] = "exact",
    by: Annotated[str, typer.Option(help="Of records: a row for each mix name or task (mix), or for each answer.")] = "mix",
    on_bad: Annotated[str, typer.Option(help="What a record that cannot be used does: stop, or skip.")] = "stop",
    json_path: Annotated[Path | None, typer.Option("--json", help="Write the report to this file; - for stdout.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Write every answer with its scores to this file (JSON lines).")] = None,
    html: Annotated[Path | None, typer.Option(help="Directory for a page of right and wrong.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of prompts: directory for the images.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of prompts: images of each.")] = 4,
    layout: Annotated[str, typer.Option(help="Of prompts: geneval or dpg, as that benchmark reads them.")] = "geneval",
    *,
    loading: ModelOptions,
) -> None:
    """Score the model: by suites (of the small world), or on records of your own; or draw the prompts of a benchmark.

    Example: `llada-uni eval --suite geneval,edit --limit 50 --split heldout --json out/eval.json --html out/eval`

    Example: `llada-uni eval --records my-data/ --metric f1 --json -`

    Example: `llada-uni eval --prompts evaluation_metadata.jsonl --out out/geneval`
    """
    if sum(given is not None for given in (suite, records, prompts)) > 1:
        raise UserError("--suite, --records and --prompts are three ways to evaluate; give one of them")
    if (prompts is None) != (out is None):
        raise UserError("--prompts and --out belong together: what is drawn, and where it goes")
    to_stdout = str(json_path) == "-"
    if prompts is not None:
        report = _draw(loading, prompts, out, limit, samples, seed, layout)
        if to_stdout:
            emit(report)
        else:
            if json_path is not None:
                write_json_file(report, json_path)
            say(f"{out}  {report['prompts']} prompts, {report['drawn']} images drawn now, {report['there']} were there")
        return
    from llada_uni.evaluation.report import format_table
    from llada_uni.evaluation.run import run_suites

    asked: list[Any] = _names(suite or "all") if records is None else [_record_suite(records, by, metric, on_bad)]
    limit = limit or (None if records else _default_limit())
    with _progress() as move:
        report = run_suites(
            loading.load(), asked, limit, seed, split, None if to_stdout else json_path, html, move, None, answers
        )
    if to_stdout:
        emit(report)
    else:
        print(format_table(report))
    if any("failed" in one for one in report["suites"].values()):
        raise typer.Exit(1)


def _names(suites: str) -> list[str]:
    from llada_uni.evaluation.suite import find_suites

    names = [name.strip() for name in suites.split(",") if name.strip()]
    find_suites(names)  # unknown names are told before the model is loaded
    return names


def _default_limit() -> int:
    from llada_uni.evaluation.suite import LIMIT

    return LIMIT


def _record_suite(records: str, by: str, metric: str, on_bad: str) -> Any:
    from llada_uni.data.records import BadRecords
    from llada_uni.data.sources import open_source
    from llada_uni.evaluation.records import RecordSuite

    with stderr().status("reading records"):
        return RecordSuite(open_source(records), by, metric, BadRecords(on_bad))


def _draw(
    loading: ModelOptions, prompts: Path, out: Path | None, limit: int | None, samples: int, seed: int, layout: str
) -> dict[str, Any]:
    from llada_uni.evaluation.prompts import draw_prompts, read_prompts

    assert out is not None
    found = read_prompts(prompts)[:limit]
    with _progress() as move:
        return draw_prompts(loading.load(), found, out, samples, seed, layout, move)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A line on stderr that says how far the work is; where nobody watches it change, in a log, a new line each minute."""
    console = stderr()
    if not console.is_terminal:
        yield each_minute(console.print)
        return
    with console.status("") as status:
        yield lambda name, done, total: status.update(f"{name}: {done} of {total}")


def each_minute(
    print_line: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[str, int, int], None]:
    """A progress function (name, done, total) that prints a line a minute after the last one."""
    last = clock()

    def move(name: str, done: int, total: int) -> None:
        nonlocal last
        if clock() - last >= 60:
            last = clock()
            print_line(f"{name}: {done} of {total}")

    return move
