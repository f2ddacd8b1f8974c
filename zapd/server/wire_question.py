"""Where the parts of a CURVE question stand in its octets, for questions that came as a run.

    address frames… | delimiter | version | request id | domain | address | identity | mechanism | key
    '---------------------- head --------------------'  '--------------- middle --------------'

The head comes back in the reply as it is; the middle says which road the question takes; the key decides. All
frames are short ones: two octets of header before each body (RFC 23).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Self

from zapd.zap.envelope import MAX_ADDRESSES, QUESTION_ID_LENGTH
from zapd.zap.request import VERSION

BODY = 7
"""Frames of a CURVE question behind the delimiter."""
_HEADER = 2
_KEY = 32


class WireQuestion:
    """One shape of question."""

    __slots__ = ("_middle", "_rows", "_size", "_version_at", "question_id")

    def __init__(self, sizes: Sequence[int], delimiter: int) -> None:
        """``delimiter`` is the place of the empty frame among the parts."""
        before = [_HEADER + size for size in sizes[: delimiter + 1]]
        head = sum(before) + 2 * _HEADER + sizes[delimiter + 1] + sizes[delimiter + 2]
        middle = sizes[delimiter + 3 : -1]
        self._middle = Struct("".join(f"2x{size}s" for size in middle) + "2x")
        self._rows = Struct(f"{head}s{self._middle.size}s{_KEY}s")
        self._size = self._rows.size
        self._version_at = sum(before) + _HEADER
        self.question_id: slice | None = None
        """Where the agent's question id stands in a head, if there is one: the frame before the delimiter."""
        if delimiter and sizes[delimiter - 1] == QUESTION_ID_LENGTH:
            end = sum(before) - _HEADER
            self.question_id = slice(end - QUESTION_ID_LENGTH, end)

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Self | None:
        """None for sizes that no CURVE question has."""
        delimiter = len(sizes) - BODY - 1
        if (
            not 0 <= delimiter < MAX_ADDRESSES
            or sizes[delimiter]
            or not all(sizes[:delimiter])  # the delimiter is the first empty frame
            or sizes[delimiter + 1] != len(VERSION)
            or sizes[-2] != len(b"CURVE")
            or sizes[-1] != _KEY
        ):
            return None
        return cls(sizes, delimiter)

    def is_version_right(self, octets: bytes) -> bool:
        """Whether all questions are of ZAP 1.0."""
        number = len(octets) // self._size
        at = self._version_at
        return all(octets[at + place :: self._size].count(octet) == number for place, octet in enumerate(VERSION))

    def cut(self, octets: bytes) -> list[tuple[bytes, bytes, bytes]]:
        """(head, middle, key) of each question, with all headers in their places."""
        return list(self._rows.iter_unpack(octets))

    def open_middle(self, middle: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """(domain, address, identity, mechanism)."""
        domain, address, identity, mechanism = self._middle.unpack(middle)
        return domain, address, identity, mechanism
