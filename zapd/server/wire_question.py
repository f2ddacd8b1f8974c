"""Where the parts of a question stand in its octets, for questions that came as a run.

    address frames… | delimiter | version | request id | domain | address | identity | mechanism | credentials
    '---------------------- head --------------------'  '--------------------- tail ----------------------'

The head comes back in the reply as it is. Under CURVE the tail is the *middle*, which says what road the
question takes, and the key, which decides; under PLAIN the whole tail is known or not. All frames are short
ones: two octets of header before each body (RFC 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Self

from zapd.zap.envelope import MAX_ADDRESSES, QUESTION_ID_LENGTH
from zapd.zap.request import VERSION

BODY = 7
"""Frames of a CURVE question behind the delimiter; PLAIN has one more."""
_HEADER = 2
_KEY = 32


class _Head:
    """What all questions have in common."""

    __slots__ = ("_head", "_size", "_version_at", "question_id")

    def __init__(self, sizes: Sequence[int], delimiter: int) -> None:
        """``delimiter`` is the place of the empty frame among the parts."""
        before = [_HEADER + size for size in sizes[: delimiter + 1]]
        self._head = sum(before) + 2 * _HEADER + sizes[delimiter + 1] + sizes[delimiter + 2]
        self._size = sum(sizes) + _HEADER * len(sizes)
        self._version_at = sum(before) + _HEADER
        self.question_id: slice | None = None
        """Where the agent's question id stands in a head, if there is one: the frame before the delimiter."""
        if delimiter and sizes[delimiter - 1] == QUESTION_ID_LENGTH:
            end = sum(before) - _HEADER
            self.question_id = slice(end - QUESTION_ID_LENGTH, end)

    def is_version_right(self, octets: bytes) -> bool:
        """Whether all questions are of ZAP 1.0."""
        number = len(octets) // self._size
        at = self._version_at
        return all(octets[at + place :: self._size].count(octet) == number for place, octet in enumerate(VERSION))


class WireQuestion(_Head):
    """One shape of CURVE question."""

    __slots__ = ("_middle", "_rows")

    def __init__(self, sizes: Sequence[int], delimiter: int) -> None:
        super().__init__(sizes, delimiter)
        middle = sizes[delimiter + 3 : -1]
        self._middle = Struct("".join(f"2x{size}s" for size in middle) + "2x")
        self._rows = Struct(f"{self._head}s{self._middle.size}s{_KEY}s")

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Self | None:
        """None for sizes that no such question has."""
        delimiter = len(sizes) - BODY - 1
        if not _begins_well(sizes, delimiter) or sizes[-2] != len(b"CURVE") or sizes[-1] != _KEY:
            return None
        return cls(sizes, delimiter)

    def cut(self, octets: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """(head, middle, key) of each question, with all headers in their places."""
        return list(self._rows.iter_unpack(octets))

    def open_middle(self, middle: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """(domain, address, identity, mechanism)."""
        domain, address, identity, mechanism = self._middle.unpack(middle)
        return domain, address, identity, mechanism


class WirePassword(_Head):
    """One shape of PLAIN question."""

    __slots__ = ("_rows",)

    def __init__(self, sizes: Sequence[int], delimiter: int) -> None:
        super().__init__(sizes, delimiter)
        self._rows = Struct(f"{self._head}s{self._size - self._head}s")

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Self | None:
        """None for sizes that no such question has."""
        delimiter = len(sizes) - BODY - 2
        if not _begins_well(sizes, delimiter) or sizes[-3] != len(b"PLAIN"):
            return None
        return cls(sizes, delimiter)

    def cut(self, octets: bytes) -> list[tuple[bytes, bytes]]:
        """(head, tail) of each question, with all headers in their places."""
        return list(self._rows.iter_unpack(octets))


def wire_form(sizes: Sequence[int]) -> WireQuestion | WirePassword | None:
    """What messages with parts of these sizes may be; None where they are no question of either kind."""
    return WireQuestion.of(sizes) or WirePassword.of(sizes)


def _begins_well(sizes: Sequence[int], delimiter: int) -> bool:
    """Whether the first empty frame stands there, and a version behind it."""
    return (
        0 <= delimiter < MAX_ADDRESSES
        and not sizes[delimiter]
        and all(sizes[:delimiter])
        and sizes[delimiter + 1] == len(VERSION)
    )
