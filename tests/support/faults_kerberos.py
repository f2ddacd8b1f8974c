"""The kerberos backend in the fault matrix: passwords, and the KDC that judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import Fault, Patient, Then, network_faults, row
from support.kdc import REALM, SERVICE, Kdc, at_another_time, make_kdc

TRIPS = 3
"""The question without a proof, the one with it, the ticket for zapd's service; each a connection."""


@row("kerberos", {"make_kdc": make_kdc})
@contextmanager
def passwords(folder: Path, fixture: Callable[[str], Any]) -> Iterator[Patient]:
    realm: Kdc = fixture("make_kdc")()
    false: Kdc = fixture("make_kdc")()
    realm.add("alice", "alice-Pw1")
    false.add("alice", "alice-Pw1")
    keytab = realm.write_keytab(folder / "zapd.keytab", SERVICE)
    at_another_time("+0")  # skips the row where there is no such thing
    with FaultProxy(realm.port) as proxy:
        config = realm.write_config("proxied.conf", proxy.port)

        def restart(**environment: str) -> None:
            realm.stop()
            realm.start(**environment)

        def heal() -> None:
            realm.stop()
            realm.start()
            if keytab.exists():
                keytab.unlink()
            realm.write_keytab(keytab, SERVICE)
            realm.write_config("proxied.conf", proxy.port)
            proxy.heal()

        yield Patient(
            table=f'type = "kerberos"\nrealm = "{REALM}"\nkeytab = "{keytab}"\nconfig = "{config}"\n',
            good=(b"alice", b"alice-Pw1"),
            wrong=(b"alice", b"mistaken"),
            unknown=(b"eve", b"alice-Pw1"),
            faults={
                **network_faults(proxy, trips=TRIPS),
                "KDC stopped (SIGSTOP)": Fault(realm.pause),
                "KDC killed": Fault(lambda: realm.stop(9)),
                "KDC an hour ahead": Fault(lambda: restart(**at_another_time("+1h")), Then.EITHER),
                "a false KDC": Fault(lambda: realm.write_config("proxied.conf", false.port), Then.EITHER),
                "new keys of the service": Fault(lambda: realm.admin(f"cpw -randkey {SERVICE}"), Then.EITHER),
                "keytab missing": Fault(keytab.unlink),
                "keytab readable by others": Fault(lambda: keytab.chmod(0o644)),
            },
            heal=heal,
        )
