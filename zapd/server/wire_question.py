"""Where the parts of a question stand in its octets, for questions that came as a run.

    address frames… | delimiter | version | request id | domain | address | identity | mechanism | credentials
    '---------------------- head --------------------'  '--------------------- tail ----------------------'

The head comes back in the reply as it is. Under CURVE the tail is the *middle*, which says what road the
question takes, and the key, which decides; under PLAIN the whole tail is known or not. All frames are short
ones: two octets of header before each body (RFC 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from zapd.zap.envelope import MAX_ADDRESSES, QUESTION_ID_LENGTH
from zapd.zap.request import VERSION
from zapd.zmtp.run import Shape, compiled

BODY = 7
"""Frames of a CURVE question behind the delimiter; PLAIN has one more."""
_HEADER = 2
_HEAD = 3
"""Frames of the head from the delimiter on."""
_KEY = b"\\x00\\x20"
"""The header before a key, as an expression."""


class _Form:
    """What all questions have in common."""

    __slots__ = ("_rows", "_version", "question_id")

    def __init__(self, shape: Shape, delimiter: int, tail: bytes) -> None:
        """``delimiter`` is the place of the empty frame among the parts; ``tail`` an expression with groups."""
        ends = sum(_HEADER + size for (size,) in shape.sizes[: delimiter + 1])
        self._version = slice(ends + _HEADER, ends + _HEADER + len(VERSION))
        self._rows = compiled(b"(" + b"".join(shape.frames[: delimiter + _HEAD]) + b")" + tail)
        self.question_id: slice | None = None
        """Where the agent's question id stands in a head, if there is one: the frame before the delimiter."""
        if delimiter and shape.sizes[delimiter - 1] == (QUESTION_ID_LENGTH,):
            end = ends - _HEADER
            self.question_id = slice(end - QUESTION_ID_LENGTH, end)

    def is_version_right(self, heads: Sequence[bytes]) -> bool:
        """Whether all questions are of ZAP 1.0."""
        version = self._version
        return {head[version] for head in heads} == {VERSION}


class WireQuestion(_Form):
    """One form of CURVE question."""

    __slots__ = ()

    @classmethod
    def of(cls, shape: Shape) -> Self | None:
        """None for a shape that no such question has."""
        sizes = shape.sizes
        delimiter = len(sizes) - BODY - 1
        if not _begins_well(shape, delimiter) or sizes[-2] != (len(b"CURVE"),) or sizes[-1] != (32,):
            return None
        middle = b"".join(shape.frames[delimiter + _HEAD : -1])
        return cls(shape, delimiter, b"(" + middle + _KEY + b")(.{32})")

    def cut(self, octets: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """(head, middle, key) of each question, with all headers in their places."""
        return self._rows.findall(octets)

    def open_middle(self, middle: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """(domain, address, identity, mechanism)."""
        domain, address, identity, mechanism, _ = _bodies(middle)
        return domain, address, identity, mechanism


class WirePassword(_Form):
    """One form of PLAIN question."""

    __slots__ = ()

    @classmethod
    def of(cls, shape: Shape) -> Self | None:
        """None for a shape that no such question has."""
        delimiter = len(shape.sizes) - BODY - 2
        if not _begins_well(shape, delimiter) or shape.sizes[-3] != (len(b"PLAIN"),):
            return None
        return cls(shape, delimiter, b"(" + b"".join(shape.frames[delimiter + _HEAD :]) + b")")

    def cut(self, octets: bytes) -> list[tuple[bytes, bytes]]:
        """(head, tail) of each question, with all headers in their places."""
        return self._rows.findall(octets)


def wire_form(shape: Shape) -> WireQuestion | WirePassword | None:
    """What messages of this shape may be; None where they are no question of either kind."""
    return WireQuestion.of(shape) or WirePassword.of(shape)


def _begins_well(shape: Shape, delimiter: int) -> bool:
    """Whether the first empty frame always stands there, and a version behind it."""
    sizes = shape.sizes
    return (
        0 <= delimiter < MAX_ADDRESSES
        and sizes[delimiter] == (0,)
        and all(len(each) == 1 and each[0] for each in sizes[:delimiter])
        and sizes[delimiter + 1] == (len(VERSION),)
    )


def _bodies(frames: bytes) -> list[bytes]:
    """What short frames hold; the last may be cut off behind its header."""
    bodies = []
    while frames:
        end = _HEADER + frames[1]
        bodies.append(frames[_HEADER:end])
        frames = frames[end:]
    return bodies
