"""Frames: one wire unit out of a byte stream, and back (RFC 23, "frame").

    flags(1) size(1 | 8) body(size)          bit 0 MORE, bit 1 LONG, bit 2 COMMAND, others zero

A *message* is a list of *parts*. Three readers share this module: `CommandReader` for the handshake, where
little is held and every octet is suspect; `ClearDecoder` for traffic in clear; `SealedDecoder` for traffic
inside a cipher. They raise `PeerError`; they know no commands by name and no states.

The clear road is the hot one of the whole product: a plain slicing loop over all that arrived, some 0.2 µs a
frame. Change it only with a benchmark beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from zapd.errors import LocalProtocolError
from zapd.zmtp.handshake import Cipher, PeerError
from zapd.zmtp.limits import SHORT_FRAME, Limits

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

SEALED_COMMAND: Final = 2
"""The COMMAND flag inside a cipher's payload; not in RFC 26, yet what everybody sends."""
SEAL_OVERHEAD: Final = 256
"""Octets that a cipher may add to a frame (CURVE adds 33)."""

Batch = list[list[bytes]]
Item = Batch | bytes
"""What a decoder yields, in order: messages that came together, or one command's body."""

_SHORT_LAST: Final = tuple(bytes((0, size)) for size in range(SHORT_FRAME + 1))
_SHORT_MORE: Final = tuple(bytes((MORE, size)) for size in range(SHORT_FRAME + 1))
_LONG_HEADER = 9


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
    more, last = _SHORT_MORE, _SHORT_LAST
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


def seal_messages(messages: Iterable[Sequence[bytes]], cipher: Cipher) -> bytes:
    """Many messages, each frame sealed. The outer frame says neither MORE nor COMMAND: libzmq drops it
    otherwise, whatever RFC 26 says."""
    pieces: list[bytes] = []
    for parts in messages:
        if not parts:
            raise LocalProtocolError("a message has at least one part")
        pieces += [encode_frame(0, cipher.seal(MORE, part)) for part in parts[:-1]]
        pieces.append(encode_frame(0, cipher.seal(0, parts[-1])))
    return b"".join(pieces)


def seal_command(body: bytes, cipher: Cipher) -> bytes:
    """A command inside the cipher."""
    return encode_frame(0, cipher.seal(SEALED_COMMAND, body))


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
        header = _LONG_HEADER if pending[0] & LONG else 2
        if len(pending) < header:
            return False
        size = int.from_bytes(pending[1:header], "big")
        if size > self._limit:
            raise PeerError(f"a handshake command longer than {self._limit} octets")
        del pending[:header]
        self._size = size
        return True


class _Decoder:
    """What both traffic decoders keep between two reads: the unfinished frame and the unfinished message."""

    __slots__ = ("_held", "_limits", "_need", "_parts", "_pending")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending = bytearray()
        """The beginning of a frame whose end has not come."""
        self._need = 0
        """How long ``_pending`` must grow before looking at it again is worth while."""
        self._parts: list[bytes] = []
        """The parts of a message whose last has not come."""
        self._held = 0
        """Octets in ``_parts``."""

    @property
    def between_messages(self) -> bool:
        """Nothing is unfinished."""
        return not self._pending and not self._parts

    def _join(self, data: bytes) -> bytes | None:
        """``data`` behind what was left over; None while the unfinished frame stays unfinished."""
        pending = self._pending
        pending += data
        if len(pending) < self._need:
            return None
        joined = bytes(pending)
        pending.clear()
        return joined

    def _check_message(self, parts: list[bytes], coming: int = 0) -> None:
        """Hold a message, and ``coming`` octets announced for it, against the limits."""
        limits = self._limits
        # Compared, never added: ``coming`` may be anything up to 2^64-1.
        room = limits.message - sum(map(len, parts))
        if len(parts) > limits.parts or room < 0 or coming > room:
            raise self._too_much()

    def _too_much(self) -> PeerError:
        return PeerError(f"a message of more than {self._limits.parts} parts or {self._limits.message} octets")


class _Shape:
    """How one message lay on the wire: the next one often lies the same, and is then taken apart in one call.

    All of a message's short frames, each as two fields: its header and its body.
    """

    __slots__ = ("headers", "size", "unpack")

    def __init__(self, sizes: Sequence[int]) -> None:
        self.headers = (*(_SHORT_MORE[size] for size in sizes[:-1]), _SHORT_LAST[sizes[-1]])
        layout = Struct("".join(f"2s{size}s" for size in sizes))
        self.unpack = layout.unpack_from
        self.size = layout.size


class ClearDecoder(_Decoder):
    """Traffic in clear frames."""

    __slots__ = ("_shape", "_sizes")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._sizes: tuple[int, ...] = ()
        """Of the last message's parts, where each had a short frame."""
        self._shape: _Shape | None = None
        """Of the last two messages, where they lay the same."""

    def feed(self, data: bytes, items: list[Item]) -> None:
        """Append to ``items`` all that ``data`` completes; what came before a fault is appended before
        `PeerError` is raised. The outcome does not depend on how the stream was cut."""
        if self._pending:
            joined = self._join(data)
            if joined is None:
                return
            data = joined
        parts = self._parts
        batch: Batch = []
        position, end = 0, len(data)
        begin = -self._held  # where the current message began; headers count, so it errs towards checking
        max_parts, max_size = self._limits.parts, self._limits.message
        shape = self._shape
        try:
            while position + 1 < end:
                if shape is not None and not parts:
                    # The last message passed every check, and one that lies the same passes them too.
                    size, unpack, headers = shape.size, shape.unpack, shape.headers
                    while position + size <= end:
                        fields = unpack(data, position)
                        if fields[::2] != headers:
                            break
                        batch.append(list(fields[1::2]))
                        position += size
                    begin = position
                    shape = None  # until the next whole message
                    continue
                flags = data[position]
                if flags <= MORE:
                    start = position + 2
                    stop = start + data[position + 1]
                    if stop > end:
                        self._need = stop - position
                        break
                    parts.append(data[start:stop])
                    position = stop
                    if not flags:
                        if len(parts) > max_parts or stop - begin > max_size:
                            self._check_message(parts)
                        shape = self._learn(parts, stop - begin)
                        batch.append(parts)
                        parts = []
                        begin = stop
                    continue
                # Long frames and commands. First what is held, so that a cut elsewhere gives the same fault.
                self._check_message(parts)
                body, stop = self._slow_frame(data, position, end, parts)
                if body is None:
                    self._need = stop - position
                    break
                position = stop
                if flags & COMMAND:
                    if batch:
                        items.append(batch)
                        batch = []
                    items.append(body)
                    begin = position - sum(map(len, parts))
                    continue
                parts.append(body)
                if not flags & MORE:
                    self._check_message(parts)
                    batch.append(parts)
                    parts = []
                    begin = position
            else:
                self._need = 2
            if parts:
                self._check_message(parts)
        finally:
            if batch:
                items.append(batch)
        self._parts = parts
        self._held = sum(map(len, parts)) if parts else 0
        if position < end:
            self._pending += data[position:] if position else data

    def _learn(self, parts: list[bytes], octets: int) -> _Shape | None:
        """The shape to expect next: this message's, if it lay as the one before; else none, so that peers whose
        messages differ pay for no vain attempt."""
        sizes = tuple(map(len, parts))
        if sizes != self._sizes:
            self._sizes, self._shape = sizes, None
        elif self._shape is None and octets == sum(sizes) + 2 * len(sizes):
            self._shape = _Shape(sizes)
        return self._shape

    def _slow_frame(self, data: bytes, position: int, end: int, parts: list[bytes]) -> tuple[bytes | None, int]:
        """(body, where it ends), or (None, where what is wanted ends)."""
        flags = data[position]
        if flags & COMMAND:
            if flags & ~LONG != COMMAND:
                raise PeerError("reserved flags, or MORE on a command")
        elif flags > LONG | MORE:
            raise PeerError("reserved flags")
        if not flags & LONG:
            size, start = data[position + 1], position + 2
        elif end - position < _LONG_HEADER:
            return None, position + _LONG_HEADER
        else:
            start = position + _LONG_HEADER
            size = int.from_bytes(data[position + 1 : start], "big")
        if flags & COMMAND:
            if size > self._limits.command:
                raise PeerError(f"a command longer than {self._limits.command} octets")
        elif size > self._limits.frame:
            raise PeerError(f"a frame longer than {self._limits.frame} octets")
        else:
            self._check_message(parts, size)
        if size > end - start:
            return None, start + size
        return data[start : start + size], start + size


class SealedDecoder(_Decoder):
    """Traffic inside a cipher: every frame is one sealed box, flags and all."""

    __slots__ = ("_cipher",)

    def __init__(self, limits: Limits, cipher: Cipher) -> None:
        super().__init__(limits)
        self._cipher = cipher

    def feed(self, data: bytes, items: list[Item]) -> None:
        """As `ClearDecoder.feed`."""
        if self._pending:
            joined = self._join(data)
            if joined is None:
                return
            data = joined
        batch: Batch = []
        position, end = 0, len(data)
        limit = max(self._limits.frame, self._limits.command) + SEAL_OVERHEAD
        self._need = 2
        try:
            while position + 1 < end:
                flags = data[position]
                # libzmq would drop a box in a command frame and glue one with MORE to the next.
                if flags & ~LONG:
                    raise PeerError("traffic outside the cipher")
                if flags:
                    start = position + _LONG_HEADER
                    if start > end:
                        self._need = _LONG_HEADER
                        break
                    size = int.from_bytes(data[position + 1 : start], "big")
                    if size > limit:
                        raise PeerError(f"a frame longer than {self._limits.frame} octets")
                else:
                    start, size = position + 2, data[position + 1]
                if size > end - start:
                    self._need = start + size - position
                    break
                position = start + size
                self._open(data[start:position], batch, items)
        finally:
            if batch:
                items.append(batch)
        if position < end:
            self._pending += data[position:]

    def _open(self, box: bytes, batch: Batch, items: list[Item]) -> None:
        """Put what a box holds where it belongs."""
        flags, payload = self._cipher.open(box)
        if flags == SEALED_COMMAND:
            if len(payload) > self._limits.command:
                raise PeerError(f"a command longer than {self._limits.command} octets")
            if batch:
                items.append(batch[:])
                batch.clear()
            items.append(payload)
            return
        if flags & ~MORE:
            raise PeerError("reserved flags inside the cipher")
        if len(payload) > self._limits.frame:
            raise PeerError(f"a frame longer than {self._limits.frame} octets")
        parts = self._parts
        parts.append(payload)
        self._held += len(payload)
        if len(parts) > self._limits.parts or self._held > self._limits.message:
            raise self._too_much()
        if not flags:
            batch.append(parts)
            self._parts = []
            self._held = 0


Decoder = ClearDecoder | SealedDecoder
