"""What one service takes on at most. Plain numbers, checked once; nothing flows through."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from llada_uni.errors import UserError

MEBI = 2**20


@dataclass(frozen=True)
class Limits:
    """max_batch: requests worked on at a time; max_queue: requests that wait. max_pixels: of one picture that comes in
    or is asked for; max_pictures: in one request; max_held_pixels: of the pictures of all HTTP requests under way.
    max_tokens: words an answer may ask for; max_prompt_chars: characters of all words of a request. timeout: seconds from
    arrival to the end of the answer. max_body: bytes of an HTTP body; max_n: results of one HTTP request. rate: requests
    a minute and key, None for no limit. prefix_cache_bytes: memory for beginnings of prompts that requests share.

    Raises UserError for a number that makes no sense.
    """

    max_batch: int = 32
    max_queue: int = 128
    max_pixels: int = 16_000_000
    max_pictures: int = 8
    max_held_pixels: int = 256_000_000
    max_tokens: int = 4096
    max_prompt_chars: int = 20_000
    timeout: float = 300.0
    max_body: int = 32 * MEBI
    max_n: int = 8
    rate: float | None = None
    prefix_cache_bytes: int = 64 * MEBI

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1
            if field.name == "rate" and value is None:
                continue
            if field.name in ("timeout", "rate"):
                if not value > 0:
                    raise UserError(f"{field.name} is {value}; allowed: more than 0")
            elif value < least:
                raise UserError(f"{field.name} is {value}; allowed: at least {least}")


_MAY_BE_ZERO = ("max_queue", "max_pictures", "prefix_cache_bytes")
