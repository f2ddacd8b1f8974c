"""Messages that lie alike on the wire, kept together and undivided.

A peer at work sends many messages of one form: as many parts, each as long as the one before. Their frames stand
at equal distances, so one look at each header's place in all of them tells that all are sound, and whoever knows
what it looks for can cut just that out of all of them at once. Everybody else reads a `Run` as the sequence of
messages that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Final, overload

from zapd.zmtp.framing import SHORT_LAST, SHORT_MORE

ENOUGH: Final = 4
"""Messages from which keeping them together is cheaper than taking them apart."""


class Shape:
    """How a message lies on the wire: its parts' sizes, all in short frames."""

    __slots__ = ("_headers", "bodies", "size", "sizes")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        """Octets of each part."""
        self.bodies = Struct("".join(f"2x{size}s" for size in sizes))
        """Takes the parts out of a message."""
        self.size = self.bodies.size
        """Octets of a message with its headers."""
        headers = [*(SHORT_MORE[size] for size in sizes[:-1]), SHORT_LAST[sizes[-1]]]
        # Each octet of each header: where it stands in a message, and what it is.
        self._headers: list[tuple[int, bytes]] = []
        position = 0
        for header, size in zip(headers, sizes, strict=True):
            self._headers += ((position, header[:1]), (position + 1, header[1:]))
            position += 2 + size

    def count(self, data: bytes, start: int) -> int:
        """How many whole messages of this shape follow each other from ``start``."""
        size = self.size
        number = (len(data) - start) // size
        for position, octet in self._headers:
            if not number:
                return 0
            # The same octet of all headers, in one slice; what is left behind those that are right tells the rest.
            column = data[start + position : start + number * size : size]
            wrong = column.lstrip(octet)
            if wrong:
                number -= len(wrong)
        return number


class Run(Sequence[list[bytes]]):
    """Whole messages of one shape, in order, as they came: a sequence of messages, each a list of parts."""

    __slots__ = ("octets", "shape")

    def __init__(self, octets: bytes, shape: Shape) -> None:
        self.octets = octets
        """All messages with their headers."""
        self.shape = shape

    def __len__(self) -> int:
        return len(self.octets) // self.shape.size

    def __iter__(self) -> Iterator[list[bytes]]:
        return map(list, self.shape.bodies.iter_unpack(self.octets))

    @overload
    def __getitem__(self, index: int) -> list[bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[bytes]]: ...
    def __getitem__(self, index: int | slice) -> list[bytes] | list[list[bytes]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return list(self.shape.bodies.unpack_from(self.octets, range(len(self))[index] * self.shape.size))

    def __repr__(self) -> str:
        return f"<Run of {len(self)} messages of {len(self.shape.sizes)} parts>"
