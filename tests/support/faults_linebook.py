"""The third party's backend in the fault matrix: in the clear, and over TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import DIES, HANGS, TLS_FAILS, Patient, network_faults, row
from support.third_party import Book, linebook, linebook_installed, make_certificates, serving_book

FIXTURES = {"linebook": linebook, "linebook_installed": linebook_installed}
ADA = {"good": (b"ada", b"lovelace"), "wrong": (b"ada", b"byron"), "unknown": (b"eve", b"lovelace")}


@row("linebook", FIXTURES)
@contextmanager
def in_the_clear(_folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    fixture("linebook")
    with serving_book(Book({"ada": "lovelace"})) as book, FaultProxy(book.port) as proxy:
        yield Patient(
            table=f'type = "linebook"\naddress = "127.0.0.1:{proxy.port}"\n',
            faults=network_faults(proxy),
            heal=proxy.heal,
            **ADA,
        )


@row("linebook over TLS", FIXTURES)
@contextmanager
def over_tls(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    fixture("linebook")
    certificates = make_certificates(folder)
    with (
        serving_book(Book({"ada": "lovelace"}), certificates.right) as book,
        FaultProxy(book.port) as proxy,
    ):
        faults = network_faults(proxy, wrong_tls=certificates.wrong)
        yield Patient(
            table=f'type = "linebook"\naddress = "127.0.0.1:{proxy.port}"\nca = "{certificates.ca}"\n',
            faults={name: faults[name] for name in (HANGS, DIES, TLS_FAILS)},
            heal=proxy.heal,
            **ADA,
        )
