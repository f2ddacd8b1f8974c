"""Messages that lie alike on the wire, kept together and undivided.

A peer at work sends many messages of one form: as many parts, each as long as in the message before, or nearly so
(addresses have seven to fifteen characters). Such a form is a regular expression of headers and counted octets,
and one match over all that came tells how far it holds. Whoever knows what it looks for can cut just that out of
all messages at once. Everybody else reads a `Run` as the sequence of messages that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import contains
from typing import Final, overload

from zapd.zmtp.framing import MORE
from zapd.zmtp.limits import SHORT_FRAME

ENOUGH: Final = 4
"""Messages from which keeping them together is cheaper than taking them apart."""
LOOSE: Final = 4
"""Parts of a shape that may differ in size."""
WIDEST: Final = 64
"""Sizes that one such part may have."""
_STEP: Final = 8
"""A part that differs is expected to differ more: sizes are added in steps, so that few messages teach all."""

Sizes = tuple[tuple[int, ...], ...]
"""For each part the sizes that it may have, ascending."""


class Shape:
    """How messages lie on the wire, all in short frames. Made by `shape_of`."""

    __slots__ = ("_bodies", "_loose", "_many", "_one", "frames", "largest", "size", "sizes")

    def __init__(self, sizes: Sizes) -> None:
        flags = [MORE] * (len(sizes) - 1) + [0]
        self.sizes = sizes
        self.frames = tuple(map(_frame, flags, sizes))
        """An expression for each part with its header, without groups."""
        self.largest = sum(2 + each[-1] for each in sizes)
        """Octets of the longest message with its headers."""
        self._loose = [number for number, each in enumerate(sizes) if len(each) > 1]
        self.size = 0 if self._loose else self.largest
        """Octets of every message; 0 where they differ."""
        self._one = compiled(b"".join(self.frames) + b"()")
        # Possessive, since what was matched once is never given back.
        self._many = compiled(b"(?:" + b"".join(self.frames) + b")*+")
        self._bodies = compiled(b"".join(map(_body, flags, sizes)) + b"()()")

    def has(self, sizes: Sequence[int]) -> bool:
        """Whether a message with parts of these sizes lies so."""
        return len(sizes) == len(self.sizes) and all(map(contains, self.sizes, sizes))

    def extent(self, data: bytes, start: int) -> int:
        """Where the whole messages of this shape end that follow each other from ``start``."""
        found = self._many.match(data, start)
        return start if found is None else found.end()

    def count(self, octets: bytes) -> int:
        """How many messages of this shape these octets are."""
        return len(octets) // self.size if self.size else len(self._one.findall(octets))

    def parts(self, octets: bytes) -> list[list[bytes]]:
        """Messages of this shape, taken apart."""
        # With two empty groups behind, since of a single one `findall` would make no row.
        messages = [list(row[:-2]) for row in self._bodies.findall(octets)]
        for number in self._loose:
            for message in messages:
                message[number] = message[number][1:]
        return messages

    def widened(self, sizes: Sequence[int]) -> Shape | None:
        """The shape of such messages and of one with parts of these sizes; None where that would be too wide to
        be worth while."""
        if len(sizes) != len(self.sizes):
            return None
        both = tuple(map(_with, self.sizes, sizes))
        loose = [len(each) for each in both if len(each) > 1]
        return None if len(loose) > LOOSE or max(loose, default=0) > WIDEST else shape_of(both)


@lru_cache(maxsize=512)
def shape_of(sizes: Sizes) -> Shape:
    """The shape of messages with parts of these sizes; the same for all connections."""
    return Shape(sizes)


@lru_cache(maxsize=1024)
def compiled(expression: bytes) -> re.Pattern[bytes]:
    """An expression over octets, where a dot is any of them."""
    return re.compile(expression, re.DOTALL)


def _frame(flags: int, sizes: tuple[int, ...]) -> bytes:
    return re.escape(bytes((flags,))) + b"(?:" + _sized(sizes) + b")"


def _body(flags: int, sizes: tuple[int, ...]) -> bytes:
    if len(sizes) == 1:
        return re.escape(bytes((flags, sizes[0]))) + b"(.{%d})" % sizes
    return re.escape(bytes((flags,))) + b"(" + _sized(sizes) + b")"


def _sized(sizes: tuple[int, ...]) -> bytes:
    """One of these sizes, and as many octets."""
    return b"|".join(re.escape(bytes((size,))) + b".{%d}" % size for size in sizes)


def _with(known: tuple[int, ...], size: int) -> tuple[int, ...]:
    if size in known:
        return known
    low, high = min(known[0], size), max(known[-1], size)
    low -= min(low % _STEP, max(0, low - 1))  # no part is expected to be empty that never was
    return tuple(range(low, min(high | (_STEP - 1), SHORT_FRAME) + 1))


class Run(Sequence[list[bytes]]):
    """Whole messages of one shape, in order, as they came: a sequence of messages, each a list of parts."""

    __slots__ = ("_parts", "octets", "shape")

    def __init__(self, octets: bytes, shape: Shape) -> None:
        self.octets = octets
        """All messages with their headers."""
        self.shape = shape
        self._parts: list[list[bytes]] | None = None

    @property
    def parts(self) -> list[list[bytes]]:
        """The messages, taken apart; once."""
        if self._parts is None:
            self._parts = self.shape.parts(self.octets)
        return self._parts

    def __len__(self) -> int:
        return self.shape.count(self.octets) if self._parts is None else len(self._parts)

    def __iter__(self) -> Iterator[list[bytes]]:
        return iter(self.parts)

    @overload
    def __getitem__(self, index: int) -> list[bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[bytes]]: ...
    def __getitem__(self, index: int | slice) -> list[bytes] | list[list[bytes]]:
        return self.parts[index]

    def __repr__(self) -> str:
        return f"<Run of {len(self)} messages of {len(self.shape.sizes)} parts>"
