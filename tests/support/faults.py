"""The fault matrix: every backend against every way in which what it draws on can fail.

``tests/backends/test_backend_faults.py`` runs it and prints its table. A backend joins with a module
``tests/support/faults_NAME.py`` that registers a row; nothing else needs to change:

    @row("ldap", fixtures={"slapd": slapd})         # fixtures that the row asks for by name
    @contextmanager
    def ldap(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
        server = fixture("slapd")                   # skips the row where the machine has no slapd
        with FaultProxy(server.port) as proxy:
            yield Patient(
                table=f'type = "ldap"\\nurl = "ldap://127.0.0.1:{proxy.port}"\\n…',
                good=(b"ada", b"lovelace"), wrong=(b"ada", b"byron"), unknown=(b"nobody", b"x"),
                faults=network_faults(proxy),       # and more of its own, by any name
                heal=proxy.heal,
            )

``table`` is what stands in ``[backend.sick]`` beside zapd's own settings; its deadline is `DEADLINE`. A backend
that asks its server several times for one question divides the delays by how often, with ``trips``. TLS needs a
proxy in front of the TLS port, and ``wrong_tls``, a server context that the backend must not take.

For each fault a real zapd is asked, while it lasts and after it has healed: good credentials never hear 400 or
500, wrong and unknown ones never 200, other domains are answered meanwhile, and it all heals without a restart.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from support.fault_proxy import FaultProxy
from support.serving import Zapd

DEADLINE: Final = 0.4
"""Seconds that the backend has."""
UNDER: Final = 0.15
OVER: Final = 0.5

REFUSES, HANGS, GARBAGE = "refuses connections", "accepts and hangs", "answers garbage"
JUST_UNDER, JUST_OVER = "just under the deadline", "just over the deadline"
DIES, TLS_FAILS = "dies mid-answer", "TLS fails"


class Then(StrEnum):
    """What good credentials must hear under a fault."""

    AWAY = "300"
    """From the first question on."""
    SOON = "200, then 300"
    """From memory until the fault is noticed."""
    ANSWERS = "200"
    """It is no outage, or memory answers."""
    EITHER = "200 or 300"
    """As it happens, over a while; never a no."""


@dataclass(frozen=True)
class Fault:
    """How to break it, and what must follow."""

    begin: Callable[[], object]
    then: Then = Then.AWAY


@dataclass
class Patient:
    """A backend and what it draws on, whole until a fault begins."""

    table: str
    """TOML: ``type`` and the plugin's settings. Under the name ``sick`` it is asked by the domain ``sick``."""
    good: tuple[bytes, ...]
    """Credentials as ZAP carries them: name and password, a key, or none where the address is the credential."""
    unknown: tuple[bytes, ...]
    faults: Mapping[str, Fault]
    heal: Callable[[], object]
    wrong: tuple[bytes, ...] | None = None
    """Of somebody known; None where there is no such thing."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Where ``good``, ``unknown`` and ``wrong`` come from; of those not named each has a place of its own."""
    mechanism: str = "PLAIN"
    configuration: str = ""
    """More TOML, behind everything else: of the domain, until a table begins."""
    head: str = ""
    """More TOML, before everything else."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that zapd runs with, beside the test's own."""
    database: str | None = None
    """The URL of zapd's own registry; SQLite where there is none."""
    prepare: Callable[[Zapd], object] = lambda _zapd: None
    """Called once zapd runs and everything is whole."""
    has_neighbours: bool = True
    """False where the fault is everybody's: the registry itself."""


Row = Callable[[Path, Callable[[str], Any]], AbstractContextManager[Patient]]

_ROWS: dict[str, Row] = {}
_FIXTURES: dict[str, object] = {}


def row(name: str, fixtures: Mapping[str, object] | None = None) -> Callable[[Row], Row]:
    """Register a row of the matrix, and the fixtures it asks for."""

    def register(made: Row) -> Row:
        _ROWS[name] = made
        _FIXTURES.update(fixtures or {})
        return made

    return register


def rows() -> dict[str, Row]:
    """Every row there is."""
    for path in sorted(Path(__file__).parent.glob("faults_*.py")):
        importlib.import_module(f"support.{path.stem}")
    return _ROWS


def fixtures() -> dict[str, object]:
    """What the rows need, for the test module to take in."""
    rows()
    return _FIXTURES


def network_faults(
    proxy: FaultProxy, *, trips: int = 1, wrong_tls: ssl.SSLContext | None = None
) -> dict[str, Fault]:
    """The faults that a proxy makes. ``trips``: answers that the backend waits for, one after the other."""
    made = {
        REFUSES: Fault(proxy.refuse),
        HANGS: Fault(proxy.hang),
        GARBAGE: Fault(proxy.answer_garbage),
        JUST_UNDER: Fault(lambda: proxy.delay(UNDER / trips), Then.ANSWERS),
        JUST_OVER: Fault(lambda: proxy.delay(OVER)),
        DIES: Fault(proxy.die_mid_answer),
    }
    if wrong_tls is not None:
        made[TLS_FAILS] = Fault(lambda: proxy.fail_tls(wrong_tls))
    return made
