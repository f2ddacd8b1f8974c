"""The registry in the fault matrix: SQLite's file taken away, PostgreSQL behind a proxy.

Decisions come from memory, so an outage shows only past ``max_staleness``, and then to every domain.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from support.app_scene import ALICE, STRANGER, z85
from support.fault_proxy import FaultProxy
from support.faults import JUST_OVER, JUST_UNDER, Fault, Patient, Then, network_faults, row
from support.postgres import postgres_server, postgres_url
from support.serving import Zapd

KEYS = {"good": (ALICE,), "unknown": (STRANGER,), "mechanism": "CURVE"}


def _register(zapd: Zapd) -> None:
    zapd.add_key(z85(ALICE), "alice", domains=["sick"])


@row("sql (SQLite)")
@contextmanager
def sqlite(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    file, aside = folder / "zapd" / "data" / "zapd.db", folder / "aside.db"
    held: list[sqlite3.Connection] = []

    def lock() -> None:
        held.append(sqlite3.connect(file, isolation_level=None))
        held[-1].execute("BEGIN EXCLUSIVE")

    def overwrite() -> None:
        file.rename(aside)
        file.write_bytes(b"nothing that SQLite knows" * 400)

    def heal() -> None:
        while held:
            held.pop().close()
        if aside.exists():
            aside.replace(file)

    yield Patient(
        table='type = "sql"\n',
        faults={
            "locked by another": Fault(lock, Then.ANSWERS),
            "file missing": Fault(lambda: file.rename(aside), Then.EITHER),
            "file full of garbage": Fault(overwrite, Then.EITHER),
        },
        heal=heal,
        prepare=_register,
        has_neighbours=False,
        **KEYS,
    )
    heal()


@row("sql (PostgreSQL)", {"postgres_server": postgres_server, "postgres_url": postgres_url})
@contextmanager
def postgresql(_folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    url = make_url(fixture("postgres_url"))
    with FaultProxy(int(url.port or 0)) as proxy:
        faults = {name: Fault(fault.begin, Then.SOON) for name, fault in network_faults(proxy).items()}
        for name in (JUST_UNDER, JUST_OVER):
            faults[name] = Fault(faults[name].begin, Then.EITHER)
        yield Patient(
            table='type = "sql"\n',
            head='[database]\nurl = "file:data/database.url"\nmax_staleness = "1s"\n',
            database=url.set(port=proxy.port).render_as_string(hide_password=False),
            faults=faults,
            heal=proxy.heal,
            prepare=_register,
            has_neighbours=False,
            **KEYS,
        )
