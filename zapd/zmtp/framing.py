"""Frames: one wire unit out of a byte stream, and back (RFC 23, "frame").

    flags(1) size(1 | 8) body(size)          bit 0 MORE, bit 1 LONG, bit 2 COMMAND, others zero

A *message* is a list of *parts*. Here is how frames are written, and `CommandReader`, which reads those of the
handshake, where little is held and every octet is suspect. Traffic is read in `zapd.zmtp.decoding`. Knows no
commands by name and no states.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from zapd.errors import LocalProtocolError
from zapd.zmtp.handshake import BatchCipher, PeerError
from zapd.zmtp.limits import SHORT_FRAME

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

SEALED_COMMAND: Final = 2
"""The COMMAND flag inside a cipher's payload; not in RFC 26, yet what everybody sends."""
SEAL_OVERHEAD: Final = 256
"""Octets that a cipher may add to a frame (CURVE adds 33)."""

SHORT_LAST: Final = tuple(bytes((0, size)) for size in range(SHORT_FRAME + 1))
SHORT_MORE: Final = tuple(bytes((MORE, size)) for size in range(SHORT_FRAME + 1))
"""Headers of short frames, by the size of the body: the last of a message, and those before it."""
LONG_HEADER: Final = 9
"""Octets before a long frame's body."""
_SEALED_LAST: Final = b"\0"
_SEALED_MORE: Final = b"\1"


# Writing


def encode_frame(flags: int, body: bytes) -> bytes:
    """One frame; the size takes one octet up to 255, else eight."""
    size = len(body)
    if size <= SHORT_FRAME:
        return bytes((flags, size)) + body
    return bytes((flags | LONG,)) + size.to_bytes(8, "big") + body


def encode_command(body: bytes) -> bytes:
    """A command frame around a command's body."""
    return encode_frame(COMMAND, body)


def encode_message(parts: Sequence[bytes]) -> bytes:
    """One message as clear frames."""
    return encode_messages((parts,))


def encode_messages(messages: Iterable[Sequence[bytes]]) -> bytes:
    """Many messages as clear frames, joined. A message without parts is `LocalProtocolError`."""
    messages = tuple(messages)
    pieces: list[bytes] = []
    add = pieces.append
    more, last = SHORT_MORE, SHORT_LAST
    try:
        for parts in messages:
            for part in parts:
                add(more[len(part)])
                add(part)
            pieces[-2] = last[len(parts[-1])]
    except IndexError:  # a long frame, or no frame at all: rare, so the quick loop does not look for them
        return b"".join([_encode_slowly(parts) for parts in messages])
    return b"".join(pieces)


def _encode_slowly(parts: Sequence[bytes]) -> bytes:
    if not parts:
        raise LocalProtocolError("a message has at least one part")
    frames = [encode_frame(MORE, part) for part in parts[:-1]]
    return b"".join([*frames, encode_frame(0, parts[-1])])


def seal_messages(messages: Iterable[Sequence[bytes]], cipher: BatchCipher) -> bytes:
    """Many messages, each frame sealed. The outer frame says neither MORE nor COMMAND: libzmq drops it
    otherwise, whatever RFC 26 says."""
    contents: list[bytes] = []
    for parts in messages:
        if not parts:
            raise LocalProtocolError("a message has at least one part")
        contents += [_SEALED_MORE + part for part in parts[:-1]]
        contents.append(_SEALED_LAST + parts[-1])
    return _seal(contents, cipher)


def seal_encoded(octets: bytes, cipher: BatchCipher) -> bytes:
    """`seal_messages` for messages that are clear frames already, well formed."""
    contents: list[bytes] = []
    position, end = 0, len(octets)
    while position < end:
        flags = octets[position]
        if flags & LONG:
            start = position + LONG_HEADER
            position = start + int.from_bytes(octets[position + 1 : start], "big")
        else:
            start = position + 2
            position = start + octets[position + 1]
        contents.append((_SEALED_MORE if flags & MORE else _SEALED_LAST) + octets[start:position])
    return _seal(contents, cipher)


def seal_command(body: bytes, cipher: BatchCipher) -> bytes:
    """A command inside the cipher."""
    return _seal((bytes((SEALED_COMMAND,)) + body,), cipher)


def _seal(contents: Sequence[bytes], cipher: BatchCipher) -> bytes:
    last = SHORT_LAST
    pieces: list[bytes] = []
    for body in cipher.seal_all(contents):
        size = len(body)
        if size > SHORT_FRAME:
            pieces.append(encode_frame(0, body))
        else:
            pieces += (last[size], body)
    return b"".join(pieces)


# Reading


class CommandReader:
    """Command frames one at a time, for the handshake: nothing else may come then.

    Strict: no MORE, no reserved bits, no message frames. Between calls it keeps less than one body of the
    limit, since headers are taken off as they come.
    """

    __slots__ = ("_limit", "_pending", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._size = -1
        """The announced size of the body that is arriving; -1 before its header is complete."""

    @property
    def held(self) -> int:
        """Octets kept."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray) -> None:
        """Take octets; `next` looks at them."""
        self._pending += data

    def peek(self, size: int) -> bytes:
        """The first octets, at most ``size``, left where they are."""
        return bytes(self._pending[:size])

    def skip(self, size: int) -> None:
        """Take the first octets off."""
        del self._pending[:size]

    def next(self) -> bytes | None:
        """The next command's body, or None when more must come first."""
        pending = self._pending
        if self._size < 0 and not self._take_header(pending):
            return None
        size = self._size
        if len(pending) < size:
            return None
        self._size = -1
        body = bytes(pending[:size])
        del pending[:size]
        return body

    def take_rest(self) -> bytes:
        """What came behind the last command: traffic already."""
        rest = bytes(self._pending)
        self._pending.clear()
        return rest

    def _take_header(self, pending: bytearray) -> bool:
        if not pending:
            return False
        if pending[0] & ~LONG != COMMAND:
            raise PeerError("not a command frame, during the handshake")
        header = LONG_HEADER if pending[0] & LONG else 2
        if len(pending) < header:
            return False
        size = int.from_bytes(pending[1:header], "big")
        if size > self._limit:
            raise PeerError(f"a handshake command longer than {self._limit} octets")
        del pending[:header]
        self._size = size
        return True
