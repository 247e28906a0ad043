"""Conversation records to token shards, once, offline: over processes and machines, going on where it was stopped.

Records -> chunks -> one token shard a chunk (pictures to codes, conversations to tokens) -> a manifest.
`plan.json` says what the folder is made from; a later run with anything else is refused. A shard is written in one step
under its final name, so a name that is there is finished work and is not done again; whoever finds all shards finished
writes the manifest. A killed run is continued by the same command.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from queue import Empty
from typing import Any

import torch

from llada_uni.config import BackboneConfig
from llada_uni.data.encode import PictureEncoder, unscaled_side
from llada_uni.data.order import chance
from llada_uni.data.records import BadRecords, Conversation
from llada_uni.data.shards import MANIFEST, Record, TokenShard, shard_name, write_manifest, write_shard
from llada_uni.data.sources import Chunk, RecordSource, open_source
from llada_uni.data.templates import template_of
from llada_uni.data.tokens import default_offset, token_records
from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.files.weights import add_file, read_json, require, write_json
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.text.prompts import PromptFormat
from llada_uni.text.tokenizer import TextTokenizer

PLAN, TOKENIZER = "plan.json", "tokenizer.json"
_TOGETHER = 256  # conversations whose pictures are encoded together
OnShard = Callable[[int, int, int], None]
"""Called with (shards done, shards in all, records of the shard that is just done)."""


@dataclass(frozen=True)
class Extraction:
    """What is made from what.

    records: a file, a folder or a plug-in's `NAME:...`; model: a model directory, or the model/ of a run, with an
    image_tokenizer; tokenizer: another tokenizer.json than the model's; unconditional: share of the records of tasks with a
    given header (t2i, edit) that lose their text for good (training leaves it out use by use: masking.unconditional);
    batch: pictures of one size in one pass; shard_records: conversations a shard.
    """

    records: str
    out: str
    model: str
    tokenizer: str | None = None
    unconditional: float = 0.0
    seed: int = 0
    on_bad: str = "stop"
    batch: int = 64
    shard_records: int = 5000
    device: str = "cpu"

    def __post_init__(self) -> None:
        BadRecords(self.on_bad)  # checks the name
        if not 0 <= self.unconditional <= 1:
            raise UserError(f"the share of unconditional records is {self.unconditional}; allowed: 0 to 1")
        for name in ("batch", "shard_records"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; allowed: 1 and more")

    @property
    def image_tokenizer(self) -> Path:
        folder = IMAGE_TOKENIZER.path(Path(self.model))
        if not folder.is_dir():
            raise UserError(f"there is no image_tokenizer in {self.model}: give a model directory, or the model/ of a run")
        return folder

    @property
    def text_tokenizer(self) -> Path:
        return Path(self.tokenizer) if self.tokenizer else Path(self.model) / TOKENIZER

    def source(self) -> RecordSource:
        return open_source(self.records, unscaled_side(self._settings()))

    def _settings(self) -> Preprocessing:
        return Preprocessing.from_json(read_json(self.image_tokenizer / "preprocessor_config.json"))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a reader of the shards must know: where codes start, how many there are, which tokenizers were used.

        The tokenizers are hashed, gigabytes at the released size: once.
        """
        config = read_json(self.image_tokenizer / "config.json")
        require(config, ("vq_config",), "the image tokenizer's config.json")
        return {
            "image_token_offset": self.offset(TextTokenizer.from_file(self.text_tokenizer)),
            "codebook_size": config["vq_config"]["num_embeddings"],
            "text_tokenizer": _sha256([self.text_tokenizer]),
            "image_tokenizer": _sha256(sorted(file for file in self.image_tokenizer.iterdir() if file.is_file())),
        }

    def offset(self, text: TextTokenizer) -> int:
        """The id of the first image code."""
        own = Path(self.model) / "config.json"
        if self.tokenizer is None and own.is_file():
            return BackboneConfig.from_json(own).image_token_offset
        return default_offset(text)


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        add_file(digest, path)
    return digest.hexdigest()


def parse_part(part: str) -> tuple[int, int]:
    """`i/n`: part i (from 0) of n that share the work; UserError for anything else."""
    number, _, total = part.partition("/")
    if not (number.isdecimal() and total.isdecimal() and int(number) < int(total)):
        raise UserError(f"the part {part!r} is not understood; allowed: i/n with i from 0 to n - 1")
    return int(number), int(total)


def extract(
    job: Extraction, workers: int = 1, part: tuple[int, int] = (0, 1), on_shard: OnShard | None = None
) -> dict[str, Any] | None:
    """Makes the shards of this part that are not there yet. Returns the manifest, or None while other parts are at work.

    workers: processes on this machine; part: (i, n), this is one of n machines. UserError for bad records (with on_bad
    "stop"), for a folder made from something else, for missing models.
    """
    if workers < 1:
        raise UserError(f"workers is {workers}; allowed: 1 and more")
    todo, total = unfinished_shards(job, part)
    mine = len(range(part[0], total, part[1]))
    done = mine - len(todo)
    for records in _run(job, todo, workers):
        done += 1
        if on_shard is not None:
            on_shard(done, mine, records)
    return finish_shards(job, total)


def unfinished_shards(job: Extraction, part: tuple[int, int] = (0, 1)) -> tuple[list[tuple[int, Chunk]], int]:
    """The shards of this part that are not there yet, by number, and how many there are to be in all. Begins the folder."""
    chunks = _prepare(job)
    mine = list(enumerate(chunks))[part[0] :: part[1]]
    return [(number, chunk) for number, chunk in mine if not _finished(Path(job.out), number)], len(chunks)


def _prepare(job: Extraction) -> list[Chunk]:
    """Writes the plan, or compares with the one that is there. Returns the chunk of every shard."""
    out, source = Path(job.out), job.source()
    chunks = source.chunks(job.shard_records)
    plan = {"records": source.name, "unconditional": job.unconditional, "seed": job.seed}
    plan |= {"shard_records": job.shard_records, "shards": len(chunks), **job.facts}
    if (out / PLAN).is_file():
        there = read_json(out / PLAN)
        other = [name for name in plan if there.get(name) != plan[name]]
        if other:
            raise UserError(f"{out} was begun with another setting of {', '.join(other)}: use an empty folder")
    else:
        try:
            TextTokenizer.from_file(job.text_tokenizer).save(out / TOKENIZER)
            write_json(out / PLAN, plan)
        except OSError as error:
            raise UserError(f"cannot write to {out} ({error.strerror or error})") from None
    return chunks


def _finished(out: Path, number: int) -> bool:
    """Whether the shard is there and whole; a damaged one (a disk that filled up) is removed and made again."""
    path = out / shard_name(number)
    try:
        TokenShard(path)
    except UserError:
        path.unlink(missing_ok=True)
        return False
    return True


def finish_shards(job: Extraction, total: int) -> dict[str, Any] | None:
    """Writes the manifest, if all shards are there; else None."""
    out = Path(job.out)
    paths = [out / shard_name(number) for number in range(total)]
    if not all(path.is_file() for path in paths):
        return None
    for leftover in out.glob(".tokens-*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    return write_manifest(out, [TokenShard(path) for path in paths], job.facts)


def skipped_records(folder: str | os.PathLike[str]) -> Iterator[str]:
    """A line for every record that extraction left out: file, line and reason."""
    for shard in read_json(Path(folder) / MANIFEST)["shards"]:
        yield from TokenShard(Path(folder) / shard["file"]).skipped


class Extractor:
    """Makes shards, one after another, with the models loaded once."""

    def __init__(self, job: Extraction) -> None:
        self.job, self.source = job, job.source()
        self.tokenizer = ImageTokenizer.from_pretrained(job.image_tokenizer, job.device)
        text = TextTokenizer.from_file(job.text_tokenizer)
        self.form = PromptFormat(text, job.offset(text))

    def make(self, number: int, chunk: Chunk) -> int:
        """Makes one shard; returns its number of token records."""
        bad, encoder = BadRecords(self.job.on_bad), PictureEncoder(self.tokenizer, self.job.batch)
        records: list[Record] = []
        for group in _groups(self.source, chunk, bad):
            for conversation, turns in encoder.turns(group, bad):
                drop = self._leave_out_words(conversation, f"{number}/{len(records)}")
                try:
                    records += token_records(conversation, turns, self.form, drop)
                except UserError as error:
                    bad.add(conversation.where, error)
        try:
            write_shard(Path(self.job.out) / shard_name(number), records, bad.found)
        except OSError as error:
            raise UserError(f"cannot write to {self.job.out} ({error.strerror or error})") from None
        return len(records)

    def _leave_out_words(self, conversation: Conversation, key: str) -> bool:
        return template_of(conversation.task).header_given and chance(f"{self.job.seed}/{key}") < self.job.unconditional


def _groups(source: RecordSource, chunk: Chunk, bad: BadRecords) -> Iterator[list[Conversation]]:
    conversations = source.read(chunk, bad)
    while group := list(islice(conversations, _TOGETHER)):
        yield group


# ---
# Processes


def _run(job: Extraction, todo: list[tuple[int, Chunk]], workers: int) -> Iterator[int]:
    """Makes the shards of `todo`; gives the number of records of each as it is done."""
    if workers == 1 or len(todo) < 2:
        if todo:
            extractor = Extractor(job)
            for number, chunk in todo:
                yield extractor.make(number, chunk)
        return
    workers = min(workers, len(todo))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_work, args=(asdict(job), todo[w::workers], w, workers, results), daemon=True)
        for w in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        for _ in todo:
            result = _next_result(results, processes)
            if isinstance(result, str):
                raise UserError(result)
            yield result
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _next_result(results: Any, processes: list[Any]) -> int | str:
    """What a worker sends next; UserError when one has died without a word (killed, out of memory)."""
    while True:
        try:
            return results.get(timeout=1)
        except Empty:
            dead = [process.exitcode for process in processes if process.exitcode]
            if dead:
                raise UserError(
                    f"a worker ended early (exit code {dead[0]}), perhaps for lack of memory: the same command goes on "
                    "behind the finished shards; try fewer workers"
                ) from None


def _work(fields: dict[str, Any], todo: list[tuple[int, Chunk]], worker: int, workers: int, results: Any) -> None:
    """A worker process: its share of the shards, until its parent is gone."""
    job, parent = Extraction(**fields), os.getppid()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    if job.device == "cuda":
        job = Extraction(**(fields | {"device": f"cuda:{worker % torch.cuda.device_count()}"}))
    try:
        extractor = Extractor(job)
        for number, chunk in todo:
            if os.getppid() != parent:
                return
            results.put(extractor.make(number, chunk))
    except UserError as error:
        results.put(str(error))
