"""Hostile ZAP requests, and an oracle of its own for what may come back.

The oracle is written from RFC 27 and the promises of the documentation, and shares no code with what it judges. It
knows one scene: alice's key in ``orders``, bob's password in ``staff``, NULL from 127.0.0.0/8 in ``lab``.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass

from support.hostile_scene import PASSWORD
from support.hostile_wire import Message

DEEPEST = 32
"""Address frames that zapd takes in front of the delimiter."""

LONGEST = 255


@dataclass(frozen=True)
class Expected:
    """What one message may be answered."""

    answered: bool | None
    """True: there must be a reply; False: there must be none; None: either."""
    statuses: frozenset[bytes] = frozenset()


SILENCE = Expected(False)
_NOT_200 = frozenset({b"300", b"400", b"500"})


class Oracle:
    """Judges messages without asking the program."""

    def __init__(self, alice: bytes) -> None:
        self._alice = alice

    def expect(self, message: Message) -> Expected:
        """What may come back for this message, envelope included."""
        body = self.body(message)
        if body is None or len(body) < 2:
            return SILENCE
        if len(body[1]) > LONGEST:
            return SILENCE  # no ZAP request id, so nothing to echo
        if body[0] != b"1.0" and len(body) < 6:
            return Expected(None, frozenset({b"500"}))  # whatever that is
        return Expected(True, self._statuses(body))

    @staticmethod
    def body(message: Message) -> Message | None:
        """What stands behind the first empty frame; None without one near enough."""
        for place, part in enumerate(message[: DEEPEST + 1]):
            if part == b"":
                return message[place + 1 :]
        return None

    def _statuses(self, body: Message) -> frozenset[bytes]:
        if len(body) < 6 or body[0] != b"1.0":
            return frozenset({b"500"}) if body[5:6] != [b"GSSAPI"] else frozenset({b"401"})
        if body[5] == b"GSSAPI":
            return frozenset({b"401"})
        if self.may_be_granted(body):
            # PLAIN may hear 300 beside others: one hash at a time for a name.
            return frozenset({b"200"}) if body[5] != b"PLAIN" else frozenset({b"200", b"300"})
        return _NOT_200

    def may_be_granted(self, body: Message) -> bool:
        """May this be a 200?"""
        version, _request_id, domain, address, identity, mechanism, *credentials = body
        if version != b"1.0" or len(identity) > LONGEST or not _is_address(address):
            return False
        if mechanism == b"CURVE":
            return domain == b"orders" and credentials == [self._alice]
        if mechanism == b"PLAIN":
            return domain == b"staff" and credentials == [b"bob", PASSWORD]
        if mechanism == b"NULL":
            return domain == b"lab" and not credentials and _is_loopback(address)
        return False


def _parsed(address: bytes) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.decode("ascii"))
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


def _is_address(address: bytes) -> bool:
    if address.startswith(b"localhost:"):
        numbers = address.split(b":")[1:]
        # As libzmq prints them: decimal, no sign, no leading zeros.
        return len(numbers) == 3 and all(
            number.isdigit() and str(int(number)).encode() == number and int(number) < 1 << 32
            for number in numbers
        )
    found = _parsed(address)
    return found is not None and (
        isinstance(found, ipaddress.IPv4Address) or found.scope_id is None or found.is_link_local
    )


def _is_loopback(address: bytes) -> bool:
    found = _parsed(address)
    return isinstance(found, ipaddress.IPv4Address) and found.is_loopback


def bases(alice: bytes) -> dict[str, Message]:
    """A granted question for each mechanism, its body alone."""
    return {
        "NULL": [b"1.0", b"1", b"lab", b"127.0.0.1", b"", b"NULL"],
        "PLAIN": [b"1.0", b"1", b"staff", b"127.0.0.1", b"", b"PLAIN", b"bob", PASSWORD],
        "CURVE": [b"1.0", b"1", b"orders", b"127.0.0.1", b"", b"CURVE", alice],
    }


_VERSIONS = (
    b"",
    b"1",
    b"1.",
    b"1.0\0",
    b"1.0 ",
    b" 1.0",
    b"1.00",
    b"01.0",
    b"1,0",
    b"1.1",
    b"2.0",
    b"\x01\x00",
    b"9" * 255,
)
_IDS = (
    b"",
    b"\0",
    b"1\0",
    b"\xff" * 16,
    b"2" * 255,
    b"3" * 256,
    b"4" * 65536,
    b"5" * (1 << 19),
    b"\r\n\x1b[2J",
    b"1.0",
)
_DOMAINS = (
    b"", b"\0", b"%s\0", b"\0%s", b"%s ", b" %s", b"%s\n", b"%s\r", b"%s.", b"%s*", b"*", b"%%s", b"zapd.agents",
    b"zapd.agents\0", b"ZAPD.AGENTS", b"\xff\xfe", b"\xe2\x80\xaelab", b"a" * 255, b"a" * 256, b"../%s",
    b"%s/../lab",
    b"orders,lab", b"Lab", b"LAB", b"ORDERS", b"Staff", b"lab\x7f", b"lab\x1b[0m",
)  # fmt: skip
_ADDRESSES = (
    b"", b"\0", b"127.0.0.1\0", b"127.0.0.1 ", b" 127.0.0.1", b"127.0.0.01", b"127.1", b"0177.0.0.1",
    b"0x7f.0.0.1",
    b"2130706433", b"127.0.0.1:80", b"127.0.0.0/8", b"127.0.0.1,10.0.0.1", b"localhost", b"localhost:",
    b"localhost:0:0",
    b"localhost:0:0:0", b"localhost:0:0:0:0", b"localhost:-1:0:0", b"localhost:4294967296:0:0",
    b"localhost:00:0:0",
    b"::1", b"::ffff:127.0.0.1", b"::ffff:7f00:1", b"::127.0.0.1", b"[::1]", b"::1%lo", b"fe80::1%eth0",
    b"127.0.0.1%lo",
    b"10.0.0.1", b"0.0.0.0", b"255.255.255.255", b"127.0.0.1\n127.0.0.1", b"\xd9\xa1\xd9\xa2\xd9\xa7.0.0.1",
    b"1" * 256,
    b"ipc", b"ipc:uid=0", b"999.0.0.1", b"128.0.0.1", b"126.255.255.255",
)  # fmt: skip
_IDENTITIES = (b"\0", b"\0" * 255, b"i" * 255, b"i" * 256, b"i" * 70000, b"\r\n", b"\xff" * 5)
_MECHANISMS = (
    b"", b"\0", b"%s\0", b"%s ", b" %s", b"%s\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", b"null", b"Null", b"plain",
    b"curve", b"Curve",
    b"CURVE25519", b"GSSAPI", b"GSSAPI\0", b"EXTERNAL", b"NULL,CURVE", b"\xff" * 20, b"X" * 300,
    b"NULL", b"PLAIN", b"CURVE",
)  # fmt: skip


def kinds(alice: bytes) -> Iterator[tuple[str, Message]]:
    """Some 400 hostile messages, each with a name; all within one message's bounds."""
    for name, base in bases(alice).items():
        for place, field, values in (
            (0, "version", _VERSIONS),
            (1, "id", _IDS),
            (2, "domain", _DOMAINS),
            (3, "address", _ADDRESSES),
            (4, "identity", _IDENTITIES),
            (5, "mechanism", _MECHANISMS),
        ):
            for value in values:
                filled = value.replace(b"%s", base[place]) if b"%s" in value else value
                yield f"{name} {field} {filled[:24]!r}", [b"", *base[:place], filled, *base[place + 1 :]]
        for count in range(len(base)):
            yield f"{name} cut to {count} frames", [b"", *base[:count]]
        for surplus in (b"", b"\0", b"1.0", alice, PASSWORD):
            yield f"{name} and {surplus[:8]!r} behind", [b"", *base, surplus]
        yield f"{name} and 50 frames behind", [b"", *base, *[b"x"] * 50]
        for depth in (1, 2, 16, 31, 32, 33, 50):
            yield f"{name} {depth} hops deep", [*[b"hop"] * depth, b"", *base]
        yield f"{name} without a delimiter", list(base)
        yield f"{name} with two delimiters", [b"", b"", *base]
        yield f"{name} with a delimiter amid", [b"", *base[:3], b"", *base[3:]]
        yield f"{name} behind another", [b"", *base, b"", *base]
        yield f"{name} reversed", [b"", *reversed(base)]
    yield from _credentials(alice)
    for message in (
        [b""],
        [b"", b""],
        [b"", b"", b""],
        [b"x"],
        [b"1.0"],
        [b"1.0", b"1"],
        [b""] * 60,
        [b"\0" * 9] * 60,
    ):
        yield f"{len(message)} frames of {message[0][:4]!r}", message


def _credentials(alice: bytes) -> Iterator[tuple[str, Message]]:
    curve, plain = bases(alice)["CURVE"][:-1], bases(alice)["PLAIN"][:-2]
    flipped = bytes((alice[0] ^ 1,)) + alice[1:]
    for key in (
        b"", alice[:31], alice + b"\0", alice * 2, alice.hex().encode(), alice[::-1], flipped, bytes(32),
        b"\xff" * 32,
        b"\x01" + bytes(31), alice[:31] + bytes((alice[31] ^ 0x80,)), b"k" * 40, b" " + alice[1:],
    ):  # fmt: skip
        yield f"CURVE key of {len(key)}: {key[:4].hex()}", [b"", *curve, key]
    for user, password in (
        (b"", b""), (b"", PASSWORD), (b"bob", b""), (b"bob", PASSWORD + b"\0"), (b"bob", PASSWORD + b"\0x"),
        (b"bob\0", PASSWORD), (b"bob\0x", PASSWORD), (b"bob ", PASSWORD), (b" bob", PASSWORD),
        (b"Bob", PASSWORD),
        (b"b\xd0\xbeb", PASSWORD), (b"bob\n", PASSWORD), (b"bo\xff", PASSWORD), (b"*", PASSWORD),
        (b"bob' or '1'='1", b"x"),
        (b"bob", PASSWORD.upper()), (b"bob", PASSWORD + b" "), (b"bob", PASSWORD[:-1]), (b"bob", b"p" * 255),
        (b"bob", b"p" * 256), (b"bob", b"p" * 500_000), (b"b" * 255, PASSWORD), (b"b" * 256, PASSWORD),
        (b"bob\xe2\x80\xae", PASSWORD), (b"%s%s%n", PASSWORD), (b"../bob", PASSWORD), (PASSWORD, b"bob"),
        (b"\xef\xbb\xbfbob", PASSWORD), (b"bob", b"\xff\xfe"), (b"bob)(uid=*", PASSWORD),
    ):  # fmt: skip
        yield f"PLAIN {user[:20]!r} {len(password)}", [b"", *plain, user, password]


def mutations(alice: bytes, count: int, seed: int = 27) -> Iterator[tuple[str, Message]]:
    """Granted questions with one to three faults each, the same for the same seed."""
    chance = random.Random(seed)
    originals = bases(alice)
    # A PLAIN question costs a password hash where its form survives: a few of them say as much as many.
    names = ["NULL"] * 12 + ["CURVE"] * 12 + ["PLAIN"]
    for number in range(count):
        name = chance.choice(names)
        message = [b"", *originals[name]]
        for _ in range(chance.randint(1, 3)):
            _mutate(message, chance)
        yield f"mutation {number} of {name}", message


def _mutate(message: Message, chance: random.Random) -> None:
    place = chance.randrange(len(message)) if message else 0
    match chance.randrange(9):
        case 0 if message:
            del message[place]
        case 1 if message:
            message.insert(place, message[place])
        case 2 if message:
            other = chance.randrange(len(message))
            message[place], message[other] = message[other], message[place]
        case 3:
            message.insert(place, chance.choice((b"", b"\0", b"1.0", b"NULL", chance.randbytes(40))))
        case 4 if message:
            message[place] = message[place][: chance.randrange(len(message[place]) + 1)]
        case 5 if message:
            message[place] += chance.choice((b"\0", b" ", b"\n", b"0", chance.randbytes(3), b"x" * 300))
        case 6 if message:
            message[place] = chance.randbytes(chance.choice((0, 1, 16, 32, 255, 256)))
        case _ if message and message[place]:
            octets = bytearray(message[place])
            octets[chance.randrange(len(octets))] ^= 1 << chance.randrange(8)
            message[place] = bytes(octets)
    if not message:
        message.append(b"")
