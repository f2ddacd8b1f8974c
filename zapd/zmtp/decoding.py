"""Traffic out of a byte stream: messages in clear or inside a cipher, with commands between them (RFC 23).

`ClearDecoder` and `SealedDecoder` keep what is unfinished between two reads and raise `PeerError`; they know no
commands by name and no states.

The clear road is the hot one of the whole product. Messages one by one go through a plain slicing loop, some
0.2 µs a frame; many that lie alike are not taken apart at all, but yielded as one `zapd.zmtp.run.Run`. Change
either only with a benchmark beside it.
"""

from __future__ import annotations

from zapd.zmtp.framing import (
    COMMAND,
    LONG,
    LONG_HEADER,
    MORE,
    SEAL_OVERHEAD,
    SEALED_COMMAND,
    SHORT_LAST,
    SHORT_MORE,
    encode_frame,
)
from zapd.zmtp.handshake import BatchCipher, PeerError
from zapd.zmtp.limits import SHORT_FRAME, Limits
from zapd.zmtp.run import ENOUGH, Run, Shape, shape_of

CHANCES = 64
"""How often the shapes of a connection's messages may change before they are taken as they are."""
KINDS = 8
"""How many there may be."""

Batch = list[list[bytes]]
Item = Batch | Run | bytes
"""What a decoder yields, in order: messages that came together, or one command's body."""


class _Decoder:
    """What both traffic decoders keep between two reads: the unfinished frame."""

    __slots__ = ("_limits", "_need", "_pending")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pending = bytearray()
        """The beginning of a frame whose end has not come."""
        self._need = 0
        """How long ``_pending`` must grow before looking at it again is worth while."""

    def _join(self, data: bytes) -> bytes | None:
        """``data`` behind what was left over; None while the unfinished frame stays unfinished."""
        pending = self._pending
        pending += data
        if len(pending) < self._need:
            return None
        joined = bytes(pending)
        pending.clear()
        return joined


class ClearDecoder(_Decoder):
    """Traffic in clear frames."""

    __slots__ = ("_chances", "_held", "_known", "_parts", "_shape")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._parts: list[bytes] = []
        """The parts of a message whose last has not come."""
        self._held = 0
        """Octets in ``_parts``."""
        self._known: dict[int, tuple[int, ...] | Shape] = {}
        """For each number of parts: the first message's sizes, then the shape of all there were."""
        self._shape: Shape | None = None
        """Of the last message, where there is one."""
        self._chances = CHANCES

    @property
    def between_messages(self) -> bool:
        """Nothing is unfinished."""
        return not self._pending and not self._parts

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
                    # A shape is within the limits, and so is each message that has it.
                    stop = shape.extent(data, position)
                    run = Run(data[position:stop], shape)
                    if stop - position < ENOUGH * shape.largest:
                        batch += run
                    else:
                        if batch:
                            items.append(batch)
                            batch = []
                        items.append(run)
                    position = stop
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

    def _check_message(self, parts: list[bytes], coming: int = 0) -> None:
        """Hold a message, and ``coming`` octets announced for it, against the limits."""
        limits = self._limits
        # Compared, never added: ``coming`` may be anything up to 2^64-1.
        room = limits.message - sum(map(len, parts))
        if len(parts) > limits.parts or room < 0 or coming > room:
            raise self._too_much()

    def _too_much(self) -> PeerError:
        return PeerError(f"a message of more than {self._limits.parts} parts or {self._limits.message} octets")

    def _learn(self, parts: list[bytes], octets: int) -> Shape | None:
        """The shape to expect next: that of the messages with as many parts, this one among them. None where they
        differ too much: a vain attempt costs more than the slicing loop."""
        self._shape = None
        sizes = tuple(map(len, parts))
        number = len(sizes)
        if octets != sum(sizes) + 2 * number:
            return None  # a long frame
        known = self._known.get(number)
        if known is None:
            if len(self._known) < KINDS:
                self._known[number] = sizes
            return None
        if isinstance(known, tuple):
            known = shape_of(tuple((size,) for size in known))
        if not known.has(sizes):
            if not self._chances:
                return None
            self._chances -= 1
            wider = known.widened(sizes)
            if wider is None or wider.largest > self._limits.message:
                return None
            known = wider
        self._shape = self._known[number] = known
        return known

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
        elif end - position < LONG_HEADER:
            return None, position + LONG_HEADER
        else:
            start = position + LONG_HEADER
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
    """Traffic inside a cipher: every frame is one sealed box, flags and all. What the boxes hold is put together
    as the clear frames it stands for, and read as such."""

    __slots__ = ("_cipher", "_clear")

    def __init__(self, limits: Limits, cipher: BatchCipher) -> None:
        super().__init__(limits)
        self._cipher = cipher
        self._clear = ClearDecoder(limits)

    @property
    def between_messages(self) -> bool:
        """Nothing is unfinished."""
        return not self._pending and self._clear.between_messages

    def feed(self, data: bytes, items: list[Item]) -> None:
        """As `ClearDecoder.feed`."""
        if self._pending:
            joined = self._join(data)
            if joined is None:
                return
            data = joined
        bodies: list[bytes] = []
        contents: list[bytes] = []
        try:
            try:
                position = self._cut(data, bodies)
            finally:
                if bodies:
                    self._cipher.open_all(bodies, contents)
        finally:
            # Whatever is wrong behind them, these came whole.
            if contents:
                self._clear.feed(_clear_frames(contents), items)
        if position < len(data):
            self._pending += data[position:]

    def _cut(self, data: bytes, bodies: list[bytes]) -> int:
        """Append the whole frames' bodies; where the unfinished one begins."""
        position, end = 0, len(data)
        self._need = 2
        while position + 1 < end:
            flags = data[position]
            if not flags:
                start = position + 2
                stop = start + data[position + 1]
            elif flags != LONG:
                # libzmq would drop a box in a command frame and glue one with MORE to the next.
                raise PeerError("traffic outside the cipher")
            else:
                start = position + LONG_HEADER
                if start > end:
                    self._need = LONG_HEADER
                    break
                size = int.from_bytes(data[position + 1 : start], "big")
                if size > max(self._limits.frame, self._limits.command) + SEAL_OVERHEAD:
                    raise PeerError(f"a frame longer than {self._limits.frame} octets")
                stop = start + size
            if stop > end:
                self._need = stop - position
                break
            bodies.append(data[start:stop])
            position = stop
        return position


def _clear_frames(contents: list[bytes]) -> bytes:
    """The frames that contents stand for: an octet of flags and the payload each."""
    pieces: list[bytes] = []
    headers = (SHORT_LAST, SHORT_MORE)
    for content in contents:
        flags, size = content[0], len(content) - 1
        if flags <= MORE and size <= SHORT_FRAME:
            pieces += (headers[flags][size], content[1:])
        else:
            pieces.append(encode_frame(_CLEAR_FLAGS.get(flags, _RESERVED), content[1:]))
    return b"".join(pieces)


_CLEAR_FLAGS = {0: 0, MORE: MORE, SEALED_COMMAND: COMMAND}
_RESERVED = 0x80
"""Flags that no frame has: the clear road refuses them."""


Decoder = ClearDecoder | SealedDecoder
