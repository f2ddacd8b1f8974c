"""The http backend in the fault matrix: in the clear on loopback, and over mutual TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import DIES, HANGS, TLS_FAILS, Fault, Patient, network_faults, row
from support.http_service import Authority, Service

ADA, WRONG, EVE = (b"ada", b"analytical-engine"), (b"ada", b"mistaken"), (b"eve", b"analytical-engine")


@row("http")
@contextmanager
def in_the_clear(_folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    with Service() as service, FaultProxy(service.port) as proxy:

        def misbehave(*answer: Any) -> Callable[[], object]:
            return lambda: setattr(service, "answers", lambda _body: answer)

        stale = service.honest(b'{"backend":"sick","nonce":"0","time":1,"mechanism":"CURVE"}')

        def heal() -> None:
            service.answers = service.honest
            proxy.heal()

        yield Patient(
            table=f'type = "http"\nurl = "http://127.0.0.1:{proxy.port}/"\npublic_key = "{service.public_key}"\n',
            good=ADA,
            wrong=WRONG,
            unknown=EVE,
            faults={
                **network_faults(proxy),
                "status 503": Fault(misbehave(503, {}, b"")),
                "status 403": Fault(misbehave(403, {}, b"")),
                "an empty answer": Fault(misbehave(200, {}, b"")),
                "an old answer": Fault(misbehave(*stale)),
            },
            heal=heal,
        )


@row("http over TLS")
@contextmanager
def over_tls(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    authority, other = Authority(folder / "ca"), Authority(folder / "other")
    with Service(authority.server(mutual=True)) as service, FaultProxy(service.port) as proxy:
        faults = network_faults(proxy, wrong_tls=other.server())
        yield Patient(
            table=f"""
type = "http"
url = "https://127.0.0.1:{proxy.port}/"
public_key = "{service.public_key}"
tls_ca = "{authority.ca}"
tls_cert = "{authority.cert}"
tls_key = "{authority.key}"
""",
            good=ADA,
            wrong=WRONG,
            unknown=EVE,
            faults={name: faults[name] for name in (HANGS, DIES, TLS_FAILS)},
            heal=proxy.heal,
        )
