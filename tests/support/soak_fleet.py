"""A fleet that never rests, in a process of its own: it asks, comes and goes, and knows what it must hear.

An agent's CURVE links carry batches of questions that memory can answer; between two batches some peers connect,
ask once and leave, and now and then one has a password. Each second some lines of JSON are written: what was
asked, how long batches took, what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Final

from support.hostile_wire import Ended, Message, Stranger, question

from zapd.zmtp.mechanisms.curve import CurveClient
from zapd.zmtp.mechanisms.plain import PlainClient

BATCH: Final = 64
COMING: Final = ("NULL", "NULL", "NULL", "NULL", "NULL", "CURVE")
"""Peers that come and go beside a batch, and beside one in `PASSWORDS` one with a password."""
PASSWORDS: Final = 10
LINKS: Final = 8
PACE: Final = LINKS * BATCH / 3500
"""Seconds from one batch to the next of a link."""
REPORT: Final = 1.0
YES, NO, BUSY = b"200", b"400", b"300"


@dataclass(frozen=True)
class Orders:
    """What the process has to know; octets in hex."""

    null: str
    curve: str
    plain: str
    server_key: str
    secret_key: str
    keys: list[str]
    password: str


@dataclass
class Report:
    """Of a link's second."""

    asked: int = 0
    connections: int = 0
    turned_away: int = 0
    batches: list[float] = field(default_factory=list)
    """Seconds that each took."""
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Kind:
    """Questions that must all be answered alike."""

    name: str
    allowed: frozenset[bytes]
    message: Message


def at_once(keys: Sequence[bytes]) -> list[Kind]:
    """What memory answers, half of it with yes."""
    yes = [Kind("key", frozenset({YES}), question(b"1", b"orders", b"CURVE", (key,))) for key in keys]
    yes += [Kind("address", frozenset({YES}), question(b"1", b"lab", b"NULL"))]
    no = [
        Kind("stranger", frozenset({NO}), question(b"1", b"orders", b"CURVE", (random.randbytes(32),))),
        Kind("elsewhere", frozenset({NO}), question(b"1", b"lab", b"NULL", address=b"192.0.2.1")),
        Kind("nowhere", frozenset({NO}), question(b"1", b"nowhere", b"NULL")),
    ]
    return yes + no * (len(yes) // len(no))


def slowly(password: bytes) -> list[Kind]:
    """What a hash answers, where there is room for it."""
    good = Kind("password", frozenset({YES, BUSY}), question(b"1", b"staff", b"PLAIN", (b"bob", password)))
    guess = Kind("guess", frozenset({NO, BUSY}), question(b"1", b"staff", b"PLAIN", (b"bob", b"guess")))
    return [good, good, good, guess]


class Link:
    """One of the agent's, and those who come and go beside it."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._at_once = at_once([bytes.fromhex(key) for key in orders.keys])
        self._password = bytes.fromhex(orders.password)
        self._slowly = slowly(self._password)
        self._server_key, self._secret_key = bytes.fromhex(orders.server_key), bytes.fromhex(orders.secret_key)
        self.report = Report()
        self._link = self._come("CURVE")

    def batch(self) -> None:
        """Ask one, and check every answer."""
        begun = time.monotonic()
        self._ask(self._link, random.choices(self._at_once, k=BATCH))
        self.report.batches.append(time.monotonic() - begun)

    def come_and_go(self) -> None:
        """Some connect, ask once, and leave; now and then the agent is one of them."""
        for mechanism in COMING if random.randrange(PASSWORDS) else (*COMING, "PLAIN"):
            peer = self._come(mechanism)
            self._ask(peer, [random.choice(self._slowly if mechanism == "PLAIN" else self._at_once)])
            peer.close()
        if not random.randrange(100):
            self._link.close()
            self._link = self._come("CURVE")

    def _come(self, mechanism: str) -> Stranger:
        while True:
            try:
                match mechanism:
                    case "NULL":
                        peer = Stranger(self._orders.null)
                    case "PLAIN":
                        peer = Stranger(self._orders.plain, PlainClient(b"bob", self._password))
                    case _:
                        peer = Stranger(self._orders.curve, CurveClient(self._server_key, self._secret_key))
            except Ended:
                self.report.turned_away += 1
                time.sleep(0.02)
            else:
                self.report.connections += 1
                return peer

    def _ask(self, peer: Stranger, chosen: Sequence[Kind]) -> None:
        """Answers come in any order, each under the number of its question."""
        self.report.asked += len(chosen)
        peer.send(*[[b"%d" % number, *kind.message] for number, kind in enumerate(chosen)])
        found = {int(reply[0]): reply[4] for reply in peer.read(len(chosen))}
        for number, kind in enumerate(chosen):
            status = found[number]
            self.report.statuses[f"{kind.name} {status.decode()}"] += 1
            if status not in kind.allowed:
                self.report.wrong.append(f"{kind.name}: {status.decode()}")

    def ask_for_ever(self) -> None:
        """At the pace of all; a report every second."""
        said = due = time.monotonic()
        while True:
            self.batch()
            self.come_and_go()
            now = time.monotonic()
            if now >= said + REPORT:
                os.write(1, json.dumps(vars(self.report)).encode() + b"\n")
                self.report, said = Report(), now
            due = max(due + PACE, now)
            time.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    """Ask until killed; a link that fails ends them all."""
    orders = Orders(**json.loads(sys.stdin.readline()))
    with ThreadPoolExecutor(LINKS) as threads:
        links = [threads.submit(Link(orders).ask_for_ever) for _ in range(LINKS)]
        failed = next(as_completed(links)).exception()
        print(f"{type(failed).__name__}: {failed}", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()
