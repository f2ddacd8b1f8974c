"""The ldap backend in the fault matrix: passwords in the clear, keys over TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import DIES, HANGS, TLS_FAILS, Fault, Patient, network_faults, row
from support.slapd import (
    HONEYPOT,
    KEY,
    SERVICE,
    SERVICE_PASSWORD,
    SUFFIX,
    Certificates,
    make_slapd,
    person,
    slapd_certificates,
)

from zapd.zmtp.keys import decode_public_key

FIXTURES = {"make_slapd": make_slapd, "slapd_certificates": slapd_certificates}
TABLE = f"""
type = "ldap"
bind_dn = "{SERVICE}"
bind_password = "{SERVICE_PASSWORD}"
base = "ou=people,{SUFFIX}"
key_attribute = "zmqCurvePublicKey"
"""
ALICE = person("alice", "alice-Pw1", f"zmqCurvePublicKey: {KEY}")
TRIPS = 3
"""The service's bind, the search, the user's bind."""


@row("ldap", FIXTURES)
@contextmanager
def passwords(_folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    server = fixture("make_slapd")(ALICE)
    service = {"userPassword": [("MODIFY_REPLACE", [SERVICE_PASSWORD])]}
    other = {"userPassword": [("MODIFY_REPLACE", ["another"])]}
    with FaultProxy(server.port) as proxy:

        def change_service() -> None:
            server.put(SERVICE, other)
            proxy.heal()  # which cuts what was bound before

        def move_base(name: str, to: str) -> None:
            server.change(lambda connection: connection.modify_dn(f"{name},{SUFFIX}", to))

        moved: list[bool] = []

        def hide_base() -> None:
            move_base("ou=people", "ou=hidden")
            moved.append(True)

        def heal() -> None:
            server.resume()
            if server.process is None:
                server.start()
            if moved:
                moved.clear()
                move_base("ou=hidden", "ou=people")
            server.put(SERVICE, service)
            proxy.heal()

        yield Patient(
            table=f'{TABLE}url = "ldap://127.0.0.1:{proxy.port}"\n',
            good=(b"alice", b"alice-Pw1"),
            wrong=(b"alice", b"mistaken"),
            unknown=(b"eve", b"alice-Pw1"),
            faults={
                **network_faults(proxy, trips=TRIPS),
                "service password changed": Fault(change_service),
                "base moved": Fault(hide_base),
                "server stopped (SIGSTOP)": Fault(server.pause),
                "server killed": Fault(lambda: server.stop(9)),
            },
            heal=heal,
        )


@row("ldap keys over TLS", FIXTURES)
@contextmanager
def keys(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    server = fixture("make_slapd")(ALICE)
    (folder / "other").mkdir()
    other = Certificates(folder / "other")
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrong.load_cert_chain(other.folder / "server.pem", other.folder / "server.key")
    with FaultProxy(server.tls_port) as proxy:
        faults = network_faults(proxy, wrong_tls=wrong)
        yield Patient(
            table=f'{TABLE}url = "ldaps://127.0.0.1:{proxy.port}"\ntls_ca = "{server.ca}"\n',
            good=(decode_public_key(KEY),),
            unknown=(decode_public_key(HONEYPOT),),
            mechanism="CURVE",
            faults={name: faults[name] for name in (HANGS, DIES, TLS_FAILS)},
            heal=proxy.heal,
        )
