"""The jwt backend in the fault matrix: what publishes its issuer's keys, in every state but the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import (
    DIES,
    GARBAGE,
    HANGS,
    JUST_OVER,
    REFUSES,
    TLS_FAILS,
    Fault,
    Patient,
    Then,
    network_faults,
    row,
)
from support.http_service import Authority
from support.jwt_issuer import ISSUER, Issuer, Signer

AWAY = (REFUSES, HANGS, GARBAGE, DIES, TLS_FAILS)
"""In which no keys come: those known are believed for ``max_age``."""


@row("jwt")
@contextmanager
def jwt(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    authority, other = Authority(folder / "ca"), Authority(folder / "other")
    with Issuer(authority.server()) as issuer, FaultProxy(issuer.port) as proxy:
        published, good = issuer.published, issuer.token(exp=4000000000)

        def publish(octets: bytes, status: int = 200) -> Callable[[], None]:
            def change() -> None:
                issuer.published, issuer.status = octets, status

            return change

        def heal() -> None:
            publish(published)()
            proxy.heal()

        network = network_faults(proxy, wrong_tls=other.server())
        yield Patient(
            table=f"""
type = "jwt"
issuer = "{ISSUER}"
audience = "zapd"
keys = "{issuer.url(proxy.port)}"
tls_ca = "{authority.ca}"
refresh = "1s"
max_age = "2s"
""",
            good=(b"ada", good),
            wrong=(b"ada", Signer("1").token(exp=4000000000)),
            unknown=(b"eve", good),  # what is no token at all is not ours to judge, keys or no keys
            faults={
                **{name: Fault(network[name].begin, Then.SOON) for name in AWAY},
                JUST_OVER: Fault(
                    network[JUST_OVER].begin, Then.ANSWERS
                ),  # keys are nothing that a question waits for
                "status 503": Fault(publish(b"", 503), Then.SOON),
                "half a set": Fault(publish(published[:-9]), Then.SOON),
                "a set of no keys": Fault(publish(b'{"keys": []}'), Then.SOON),
            },
            heal=heal,
        )
