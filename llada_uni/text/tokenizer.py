"""Words to ids and back, such that nobody's text can act as a control token.

Python strings -> token ids (list[int]) for prompts; token ids of an answer -> strings.
Two tokenizers are made from one `tokenizer.json`. The template tokenizer knows the control tokens
(`<|mask|>`, `<boi>`, `<role>HUMAN</role>` ...) and reads only strings written by this package. The user
tokenizer has had every control token taken out, so it cannot produce one: `<boi>` typed by a person becomes
the letters `<`, `boi`, `>`. Here is also the training of the small byte-level BPE of the shipped model.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from llada_uni.errors import UserError
from llada_uni.files.configs import read_text

END_OF_TEXT = "<|endoftext|>"  # also the padding
MASK = "<|mask|>"
IMAGE_START, IMAGE_END, BEGIN_OF_IMAGE = "<|image|>", "<|/image|>", "<boi>"
ROLES = ("SYSTEM", "HUMAN", "ASSISTANT")
UNCONDITION = "<uncondition>"  # ordinary text, not a control token (released tokenizer)
SIZE_PATTERN = re.compile(r"<\|reserved_token_(\d+)\|>")

SYSTEM_TEXTS = {  # released configuration; "a interleaved" is spelled so there
    "understand": "You are a multimodal understanding assistant.",
    "generate": "You are a text-to-image generation assistant.",
    "generate_thinking": "You are a text-to-image generation assistant with a thinking process.",
    "edit": "You are an image editing assistant.",
    "interleave": "You are a interleaved generation assistant.",
}

# A word with its leading space, one digit, one sign, or white space: the pieces a small vocabulary holds
# whole.
WORDS = r"'(?:s|t|re|ve|m|ll|d)(?!\p{L})| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s"


def role(name: str) -> str:
    """The role mark as the templates write it: `<role>HUMAN</role>`."""
    return f"<role>{name}</role>"


class TextTokenizer:
    """A `tokenizer.json` with its control tokens named, and user text kept apart from them.

    Ids are those of the file; a name that the file lacks is reported (UserError) when it is first used, so a
    tokenizer without image tokens still serves text. `decode(encode(x)) == x` holds for every string where
    the file has no normalizer (ours has none).
    """

    def __init__(self, definition: str) -> None:
        """`definition`: the text of a tokenizer.json."""
        try:
            data = json.loads(definition)
            self._template = Tokenizer.from_str(definition)
            self._user = Tokenizer.from_str(json.dumps(_without_control(data)))
        except Exception as error:  # the Rust library raises bare Exception
            raise UserError(f"not a usable tokenizer.json: {str(error).splitlines()[0][:200]}") from None
        self._definition = definition
        self._length = 1 + max(self._template.get_vocab(with_added_tokens=True).values())
        self._control = {token["content"]: int(token["id"]) for token in _control(data)}
        self._control_ids = frozenset(self._control.values())
        added = {token["content"]: int(token["id"]) for token in data.get("added_tokens") or []}
        self._plain = {name: token_id for name, token_id in added.items() if name not in self._control}  # text as any other
        longest_first = sorted(self._plain, key=len, reverse=True)
        self._plain_pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._sizes = {}
        for name, token_id in self._control.items():
            if match := SIZE_PATTERN.fullmatch(name):
                self._sizes[int(match.group(1))] = token_id
        self._size_of = {token_id: size for size, token_id in self._sizes.items()}

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> TextTokenizer:
        """Read `tokenizer.json`. UserError when it is missing or not a tokenizer."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"no tokenizer at {path}: a model directory needs a tokenizer.json")
        return cls(read_text(path))

    def save(self, path: str | os.PathLike) -> None:
        """Write the file unchanged, in one step (a reader sees the old file or the new one)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(self._definition)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def __len__(self) -> int:
        """One more than the largest id (text and control tokens; image codes are not the tokenizer's)."""
        return self._length

    def encode(self, text: str) -> list[int]:
        """Ids of a person's text: never a control token, whatever they typed. UserError for text that is no
        Unicode.
        """
        if not self._plain or not isinstance(text, str):
            return self._encode(self._user, text)
        ids: list[int] = []
        for number, piece in enumerate(self._plain_pattern.split(text)):
            ids += [self._plain[piece]] if number % 2 else self._encode(self._user, piece)
        return ids

    def encode_control(self, text: str) -> list[int]:
        """Ids of a template: control tokens are recognized. Only for strings written by this package."""
        return self._encode(self._template, text)

    @staticmethod
    def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
        if not isinstance(text, str):
            raise UserError(f"text must be a string, not {type(text).__name__}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise UserError("the text is not valid Unicode (it holds half a surrogate pair)") from None
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], control: bool = False) -> str:
        """Text of the ids. Control tokens are left out unless `control`; ids beyond the tokenizer (image
        codes) always.
        """
        kept = [int(i) for i in ids if 0 <= i < self._length and (control or int(i) not in self._control_ids)]
        return self._template.decode(kept, skip_special_tokens=False)

    def spelled(self) -> dict[int, bytes]:
        """The bytes of every id that stands for text. UserError for a tokenizer that is not byte-level."""
        if '"ByteLevel"' not in json.dumps(json.loads(self._definition).get("decoder")):
            raise UserError("this tokenizer does not spell its tokens byte by byte; a grammar needs one that does (ByteLevel)")
        byte_of = _byte_of()
        names = self._template.get_vocab(with_added_tokens=True)
        out = {}
        for name, token_id in names.items():
            if token_id not in self._control_ids and name:
                known = all(letter in byte_of for letter in name)
                out[token_id] = bytes(byte_of[letter] for letter in name) if known else name.encode("utf-8")
        return out

    def is_text(self, token_id: int) -> bool:
        """Whether the id stands for letters: no control token, no image code, no unused id."""
        return 0 <= token_id < self._length and token_id not in self._control_ids

    def is_control(self, token_id: int) -> bool:
        return token_id in self._control_ids

    @property
    def control_ids(self) -> frozenset[int]:
        return self._control_ids

    def control_names(self) -> list[str]:
        return list(self._control)

    def _named(self, name: str) -> int:
        if name not in self._control:
            raise UserError(f"the tokenizer has no control token {name}: take the tokenizer.json of this model")
        return self._control[name]

    @property
    def eos_id(self) -> int:
        return self._named(END_OF_TEXT)

    @property
    def pad_id(self) -> int:
        return self._named(END_OF_TEXT)

    @property
    def mask_id(self) -> int:
        return self._named(MASK)

    @property
    def image_start_id(self) -> int:
        return self._named(IMAGE_START)

    @property
    def image_end_id(self) -> int:
        return self._named(IMAGE_END)

    @property
    def boi_id(self) -> int:
        return self._named(BEGIN_OF_IMAGE)

    def size_id(self, size: int) -> int:
        """Id of `<|reserved_token_SIZE|>`, which gives the rows or columns of a code grid."""
        if size not in self._sizes:
            largest = max(self._sizes, default=0)
            raise UserError(f"no size token for a grid side of {size} codes: sides go from 1 to {largest}")
        return self._sizes[size]

    def size_of(self, token_id: int) -> int | None:
        """The grid side a size token stands for, or None for any other token."""
        return self._size_of.get(token_id)


def _byte_of() -> dict[str, int]:
    """The byte of each stand-in of byte-level BPE: itself where it is printable, else the next letter from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def _control(data: dict) -> list[dict]:
    """The added tokens that are control tokens: those marked as special, and all that the prompts are made of.

    The others (`<think>` of the published tokenizer) are ordinary text: typed, read and shown as such.
    """
    ours = {END_OF_TEXT, MASK, IMAGE_START, IMAGE_END, BEGIN_OF_IMAGE, "<role>", "</role>", *map(role, ROLES)}
    return [
        token
        for token in data.get("added_tokens") or []
        if token.get("special") or token["content"] in ours or SIZE_PATTERN.fullmatch(token["content"])
    ]


def _without_control(data: dict) -> dict:
    """The same tokenizer with every added token gone: from the list, and from the vocabulary and merges as well.

    The library numbers added tokens in order, so one that stayed would get the id of another; `encode` puts those that are
    text in by itself.
    """
    names = {token["content"] for token in data.get("added_tokens") or []}
    out = dict(data, added_tokens=[], post_processor=None, truncation=None, padding=None)
    model = dict(data["model"])
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {token: i for token, i in model["vocab"].items() if token not in names}
        if model.get("merges"):
            pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
            model["merges"] = [pair for pair in pairs if "".join(pair) not in names and not names & set(pair)]
        if model.get("unk_token") in names:
            model["unk_token"] = None
    out["model"] = model
    return out


# ---
# The small tokenizer of the shipped model


def control_tokens(max_side: int = 64) -> list[str]:
    """Control tokens of our small tokenizer, in the order of their ids."""
    sizes = [f"<|reserved_token_{n}|>" for n in range(1, max_side + 1)]
    return [
        END_OF_TEXT,
        MASK,
        IMAGE_START,
        IMAGE_END,
        BEGIN_OF_IMAGE,
        *(role(name) for name in ROLES),
        *sizes,
    ]


def _splitter(phrases: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    sentences = [re.escape(f" {text} ").replace(r"\ ", " ") for text in SYSTEM_TEXTS.values()]
    whole = [" ?" + re.escape(phrase).replace(r"\ ", " ") + r"(?!\p{L})" for phrase in phrases]
    return pre_tokenizers.Split(Regex("|".join([*sentences, *whole, WORDS])), behavior="isolated")


def train_tokenizer(
    corpus: Iterable[str], vocab_size: int, keep: Sequence[str] = (), max_merges: int = 256
) -> TextTokenizer:
    """A small byte-level BPE whose frequent words are single tokens.

    corpus: texts; words seen at least twice become tokens (the most frequent first, as far as `vocab_size`,
    the size of the whole tokenizer with its control tokens, allows). keep: words that become tokens in any
    case, with and without a leading space; of several words ("top left", "3d") too: one token, as in
    SuperBPE (arXiv:2503.13423). The space that is left goes to at most `max_merges` pair merges,
    which spell the words nobody foresaw; single bytes spell the rest, so any string has an encoding. Each
    system sentence is one token.
    Ids: 256 bytes, merges, words, then the control tokens. The same corpus gives the same file.
    """
    plain = _splitter(())
    splitter = _splitter([phrase for phrase in keep if len(plain.pre_tokenize_str(phrase)) > 1])
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts: Counter[str] = Counter()
    for text in corpus:
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))

    wanted: dict[str, None] = {f" {text} ": None for text in SYSTEM_TEXTS.values()}
    for word in [*keep, UNCONDITION]:
        for piece, _ in splitter.pre_tokenize_str(word):
            bare = piece.removeprefix(" ")
            wanted.update({bare: None, f" {bare}": None})
    control = control_tokens()
    budget = vocab_size - len(control) - 256
    required = sum(len(word.encode()) > 1 for word in wanted)
    if required > budget:
        raise UserError(
            f"vocab_size {vocab_size} is too small: it must be at least {vocab_size + required - budget}"
        )
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count >= 2:
            wanted[word] = None

    def spell(word: str) -> str:  # the printable stand-ins that byte-level BPE uses for bytes
        return to_bytes.pre_tokenize_str(word)[0][0]

    words = [word for word in (spell(word) for word in wanted) if len(word) > 1][:budget]
    vocab = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for left, right in _learn_merges(counts, splitter, to_bytes, min(max_merges, budget - len(words))):
        merges.append((left, right))
        vocab.setdefault(left + right, len(vocab))
    for word in words:
        vocab.setdefault(word, len(vocab))

    # ignore_merges: a piece that is in the vocabulary is taken whole, whatever the merges would make of it.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([splitter, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    return TextTokenizer(tokenizer.to_str(pretty=True))


def _learn_merges(counts: Counter[str], splitter, to_bytes, number: int) -> list[tuple[str, str]]:
    if number <= 0:
        return []
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([splitter, to_bytes])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + number, initial_alphabet=alphabet, show_progress=False)
    # A word counts by the root of its frequency: rare words are the ones the merges will have to spell.
    words = sorted(word for word in counts if word not in {f" {text} " for text in SYSTEM_TEXTS.values()})
    learner.train_from_iterator((w for w in words for _ in range(max(1, int(counts[w] ** 0.25)))), trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
