"""Prompts to be answered, from conversation records: any one by its number, the same for the same seed.

Record sources (data/sources.py) -> one record and one of its answers -> `Prompt`: what the model is asked, as token ids, and
the record, which a reward function judges by. An answer is text, or one image whose header is given (its size is that of the
record's own image). Nothing is stored between calls: draw n of a run takes the same record whatever was drawn before, so a
resumed run and one on more processes see the same prompts.
"""

from __future__ import annotations

import dataclasses
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from llada_uni.data.encode import PictureEncoder, unscaled_side
from llada_uni.data.order import chance, shuffled
from llada_uni.data.records import BadRecords, Conversation, Message
from llada_uni.data.sources import Chunk, RecordSource, open_source
from llada_uni.data.templates import template_of
from llada_uni.errors import UserError
from llada_uni.files.model_dir import IMAGE_TOKENIZER
from llada_uni.files.weights import read_json
from llada_uni.image.codes import ImageCodes
from llada_uni.image.geometry import Preprocessing
from llada_uni.image.tokenizer import ImageTokenizer
from llada_uni.text.prompts import Part, PromptFormat, Turn

CHUNK = 200  # records that are read together
_REMEMBERED = 4096  # images whose codes are kept


@dataclasses.dataclass(frozen=True)
class Prompt:
    """record: up to and including the answer that is asked for, which is the record's own. ids: the prompt, of an image up to
    its header. grid: (rows, columns) of the image, None for text. source: which one it is from.
    """

    record: Conversation
    ids: tuple[int, ...]
    grid: tuple[int, int] | None
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prompt with two answers, as token ids: the end of a text included."""

    prompt: Prompt
    better: tuple[int, ...]
    worse: tuple[int, ...]


class Records:
    """The records of one source by number, in an order that is shuffled anew in each epoch."""

    def __init__(self, source: RecordSource, seed: int) -> None:
        self.source, self.seed = source, seed
        self.chunks = [chunk for chunk in source.chunks(CHUNK) if chunk.count]
        self.size = sum(chunk.count for chunk in self.chunks)
        if not self.size:
            raise UserError(f"{source.name} holds no records")
        self._order = lru_cache(2)(self._order_of)
        self._read = lru_cache(4)(self._read_chunk)

    def __getitem__(self, number: int) -> Conversation:
        """Record `number` (0, 1, ...) of the endless order: each once an epoch. UserError for a record that is no good."""
        epoch, position = divmod(number, self.size)
        chunks, ends = self._order(epoch)
        at = bisect_right(ends, position)
        found = self._read(chunks[at])
        inside = position - (ends[at - 1] if at else 0)
        return found[shuffled(inside, chunks[at].count, f"{self.seed}/{epoch}/{chunks[at].first}") % len(found)]

    def _order_of(self, epoch: int) -> tuple[list[Chunk], list[int]]:
        """Chunks as they come in an epoch, and the position behind the last record of each."""
        count = len(self.chunks)
        chunks = [self.chunks[shuffled(i, count, f"{self.seed}/{epoch}")] for i in range(count)]
        return chunks, list(accumulate(chunk.count for chunk in chunks))

    def _read_chunk(self, chunk: Chunk) -> list[Conversation]:
        found = list(self.source.read(chunk, BadRecords("stop")))
        if not found:  # JSONL may hold empty lines, but not hundreds of them
            raise UserError(f"{chunk.file} holds no records behind number {chunk.first}")
        return found


class Prompts:
    """Prompts of several sources, mixed by shares.

    sources: as `data.sources.open_source` takes them -> share. model: a directory with an image_tokenizer, which is read when
    the first image comes. form: how prompts are written.
    """

    def __init__(self, sources: Mapping[str, float], model: str | Path, form: PromptFormat, seed: int) -> None:
        if not sources or any(share <= 0 for share in sources.values()):
            raise UserError(f"data is {dict(sources)}; allowed: at least one source of records, each with a share above 0")
        self.model, self.form, self.seed = Path(model), form, seed
        side = self._side()
        self.records = {name: Records(open_source(name, side), seed) for name in sources}
        self.names, self.ends = list(sources), list(accumulate(sources.values()))
        self._encoder: PictureEncoder | None = None

    def take(self, numbers: Sequence[int]) -> list[Prompt]:
        """The prompts with these numbers. UserError for an answer of text and images in turn, which cannot be rewarded yet."""
        names, asked = [self._source(number) for number in numbers], [self._asked(number) for number in numbers]
        return [self._prompt(*one) for one in zip(names, asked, self._turns(asked), strict=True)]

    def pairs(self, numbers: Sequence[int]) -> list[Pair]:
        """Prompts with a better answer, the record's own, and a worse one, its "rejected". UserError for a record without."""
        better, records = self.take(numbers), [self._last(number) for number in numbers]
        for record in records:
            if not record.rejected:
                raise UserError(f'{record.where}: it has no "rejected", the answer that is worse')
        worse = [
            dataclasses.replace(record, messages=(*record.messages[:-1], Message("assistant", record.rejected)))
            for record in records
        ]
        turns = [self._turns(side) for side in (records, worse)]
        found = []
        for prompt, good, bad in zip(better, *turns, strict=True):
            tokens = [self._answer_ids(one[-1].parts, prompt) for one in (good, bad)]
            found.append(Pair(prompt, *tokens))
        return found

    def _answer_ids(self, parts: Sequence[Part], prompt: Prompt) -> tuple[int, ...]:
        """An answer as the model would give it: text with its end, or codes."""
        if prompt.grid is None and all(isinstance(part, str) for part in parts):
            return tuple(self.form.answer(parts))
        (image, *more) = parts
        if more or not isinstance(image, ImageCodes) or (image.height, image.width) != prompt.grid:
            raise UserError(f"{prompt.record.where}: both answers must be text, or one image each, of one size")
        return tuple(self.form.image_token_offset + code for code in image.codes)

    def _source(self, number: int) -> str:
        at = bisect_right(self.ends, chance(f"{self.seed}/source/{number}") * self.ends[-1])
        return self.names[min(at, len(self.names) - 1)]

    def _turns(self, records: Sequence[Conversation]) -> list[tuple[Turn, ...]]:
        """The messages with codes for images; the image tokenizer is read when there are any."""
        if any(True for record in records for _ in record.pictures()):
            return [turns for _, turns in self._encode().turns(records, BadRecords("stop"))]
        return [tuple(Turn(m.role, m.parts) for m in record.messages) for record in records]  # type: ignore[arg-type]

    def _last(self, number: int) -> Conversation:
        return self.records[self._source(number)][number]

    def _asked(self, number: int) -> Conversation:
        """A record up to one of the answers that are learned."""
        record = self._last(number)
        if record.rejected:  # which stands for the last answer
            return record
        answers = range(1, len(record.messages), 2) if record.learn_all else [len(record.messages) - 1]
        answer = random.Random(f"{self.seed}/answer/{number}").choice(answers)
        return dataclasses.replace(record, messages=record.messages[: answer + 1])

    def _prompt(self, source: str, record: Conversation, turns: Sequence[Turn]) -> Prompt:
        answer, template = turns[-1].parts, template_of(record.task)
        ids = self.form.prompt(template.system, turns[:-1])
        if all(isinstance(part, str) for part in answer):
            return Prompt(record, tuple(ids), None, source)
        (image, *more) = answer
        if more or not isinstance(image, ImageCodes):
            raise UserError(
                f"{record.where}: its answer holds text and images in turn; allowed for training from rewards: "
                "answers of text alone, or of one image alone"
            )
        header = self.form.image_header(image.height, image.width)
        return Prompt(record, (*ids, *header), (image.height, image.width), source)

    def _side(self) -> int:
        settings = IMAGE_TOKENIZER.path(self.model) / "preprocessor_config.json"
        return unscaled_side(Preprocessing.from_json(read_json(settings))) if settings.is_file() else 128

    def _encode(self) -> PictureEncoder:
        if self._encoder is None:
            folder = IMAGE_TOKENIZER.path(self.model)
            if not folder.is_dir():
                raise UserError(f"the records hold images, and there is no image_tokenizer in {self.model} to read them with")
            self._encoder = PictureEncoder(ImageTokenizer.from_pretrained(folder))
        if len(self._encoder.codes) > _REMEMBERED:
            self._encoder.codes.clear()
        return self._encoder
