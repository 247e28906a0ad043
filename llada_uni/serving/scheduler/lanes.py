"""Where pictures are encoded and decoded: a few lanes, each with a share of the processor.

A worker asks for a picture -> it waits with the others -> whichever of them finds a free lane takes
the first in line, and those like it, through the decoder together -> each gets its own. Together is cheaper for small
pictures, and done only where it was seen to give the bits that a picture gets alone (`try_together`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL import Image

from llada_uni.decoder.decode import UPSCALE, ImageDecoder, Variant
from llada_uni.image.codes import ImageCodes

TOGETHER = 4  # pictures in one evaluation; more gain nothing
SMALL = 64  # codes of a picture up to which others share its evaluations; a larger one fills the processor alone

PATIENCE = 0.5  # seconds after which a waiting worker looks whether its picture is still wanted

OnStep = Callable[[int, int], None]


@dataclass(eq=False)
class _Order:
    """One picture to decode. check: raises when it is to end; then `failure` is what it raised. on_step: progress."""

    codes: ImageCodes
    variant: Variant
    steps: int
    generator: torch.Generator
    check: Callable[[], None]
    on_step: OnStep
    multiplier: int = UPSCALE
    image: Image.Image | None = None
    failure: Exception | None = None

    @property
    def ended(self) -> bool:
        return self.image is not None or self.failure is not None

    def like(self, other: _Order) -> bool:
        """Whether the two can go through the decoder together."""
        one, two = self.codes, other.codes
        alike = (one.height, one.width) == (two.height, two.width) and len(one) <= SMALL
        return alike and (self.variant, self.steps, self.multiplier) == (other.variant, other.steps, other.multiplier)

    def step(self, done: int | None = None, evaluations: int = 0) -> None:
        """Look whether it is to end; tell the listener of a step, if there was one."""
        if self.failure is None:
            try:
                self.check()
                if done is not None:
                    self.on_step(done, evaluations)
            except Exception as error:  # this picture's end, not that of those beside it
                self.failure = error


class Lanes:
    """count: pictures, or groups of them, at a time. together: pictures in a group, at most."""

    def __init__(self, count: int, together: int = 1) -> None:
        self.together = together
        self._free = count
        self._short = 0  # how many wait for something other than decoding, which is short and goes first
        self._waiting: list[_Order] = []
        self._changed = threading.Condition()

    @property
    def crowded(self) -> bool:
        """Pictures wait for a lane: the processor is in full use."""
        return bool(self._waiting)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """A lane for something else, such as encoding; waits until one is free."""
        with self._changed:
            self._short += 1
            self._changed.wait_for(lambda: self._free > 0)
            self._short -= 1
            self._free -= 1
        try:
            yield
        finally:
            self._give_back()

    def decode(
        self,
        decoder: ImageDecoder,
        codes: ImageCodes,
        variant: Variant,
        steps: int,
        generator: torch.Generator,
        check: Callable[[], None],
        on_step: OnStep,
        multiplier: int = UPSCALE,
    ) -> Image.Image:
        """`ImageDecoder.decode`, when its turn comes. Raises as it does; check: raises what ends the picture early."""
        order = _Order(codes, variant, steps, generator, check, on_step, multiplier)
        with self._changed:
            self._waiting.append(order)
        while group := self._next_group(order):
            try:
                _decode(decoder, group)
            finally:
                self._give_back()
        if order.failure is not None:
            raise order.failure
        assert order.image is not None, "an order ends with an image or a failure"
        return order.image

    def _next_group(self, order: _Order) -> list[_Order]:
        """A lane and those who are first in line, to be decoded by this worker; empty when its own order has ended."""
        with self._changed:
            while True:
                order.step()
                self._waiting = [other for other in self._waiting if not other.ended]
                if order.ended:
                    return []
                if self._waiting and self._free > self._short:
                    return self._take_group()
                self._changed.wait(PATIENCE)

    def _take_group(self) -> list[_Order]:
        first = self._waiting[0]
        group = [first, *(other for other in self._waiting[1:] if first.like(other))][: self.together]
        self._waiting = [other for other in self._waiting if other not in group]
        self._free -= 1
        return group

    def _give_back(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()


def _decode(decoder: ImageDecoder, group: list[_Order]) -> None:
    """Decodes a group; each order ends with its picture, or with what went wrong."""

    def step(done: int, evaluations: int) -> None:
        for order in group:
            order.step(done, evaluations)
        failures = [order.failure for order in group if order.failure is not None]
        if len(failures) == len(group):
            raise failures[0]

    first = group[0]
    try:
        images = decoder.decode_many(
            [order.codes for order in group], first.variant, first.steps, [order.generator for order in group], step,
            batch=len(group), multiplier=first.multiplier,
        )  # fmt: skip
    except Exception as error:
        for order in group:
            order.failure = order.failure or error
        return
    for order, image in zip(group, images, strict=True):
        order.image = image


def try_together(decoder: ImageDecoder, rows: int, columns: int, variant: Variant) -> bool:
    """Whether pictures of rows x columns codes have the same bits decoded together as alone, on this machine.

    Not for pictures of more than SMALL codes, which stay alone; two evaluations each are tried.
    """
    if rows * columns > SMALL:
        return False
    size = decoder.sigvq.codebook_size
    pictures = [
        ImageCodes(tuple((number + 7 * place) % size for place in range(rows * columns)), rows, columns)
        for number in range(TOGETHER)
    ]
    generators = [torch.Generator().manual_seed(number) for number in range(TOGETHER)]
    alone = [
        decoder.decode(codes, variant, 3, torch.Generator().manual_seed(number)).tobytes()
        for number, codes in enumerate(pictures)
    ]
    together = decoder.decode_many(pictures, variant, 3, generators, batch=TOGETHER)
    return alone == [image.tobytes() for image in together]
