"""The local backend in the fault matrix: ipc peers, and the name service that says who they are.

It stands before ``files`` in the machine's ``nsswitch.conf``, so that glibc's last word on who is not in a file is
"there is none". TLS is the name service's own affair, and none of zapd's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.fault_proxy import FaultProxy
from support.faults import Fault, Patient, Then, network_faults, row
from support.name_service import NameService, Person, build

STAFF, ZMQ, BARRED = 70101, 70102, 70103
GROUPS = {STAFF: "staff-drill", ZMQ: "zmq-drill", BARRED: "barred-drill"}
ADA, EVE, NOBODY = 70001, 70002, 70009
PEOPLE = {ADA: Person("ada", STAFF, (ZMQ,)), EVE: Person("eve", ZMQ, (BARRED,))}
"""Who may come by the word of the group that is told last, and who may not."""
TRIPS = 5
"""The account, its groups twice, the name of each."""


def address(number: int) -> str:
    """As libzmq writes that of an ipc peer."""
    return f"localhost:{number}:{number}:1"


@row("local")
@contextmanager
def accounts(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    with NameService(PEOPLE, GROUPS) as service, FaultProxy(service.port) as proxy:

        def lose_answers() -> None:
            service.lost = True

        def cut(kind: str) -> Callable[[], object]:
            return lambda: service.cut.update({kind: math.inf})

        def heal() -> None:
            service.cut.clear()
            if service.lost:
                service.lost = False  # what was asked meanwhile hangs on
            else:
                proxy.heal()

        yield Patient(
            table='type = "local"\nallow = ["@zmq-drill"]\ndeny = ["@barred-drill"]\n',
            good=(),
            wrong=(),
            unknown=(),
            addresses={"good": address(ADA), "wrong": address(EVE), "unknown": address(NOBODY)},
            mechanism="NULL",
            configuration='allow = ["ipc"]\n',
            environment=build(folder, proxy.port),
            faults={
                **network_faults(proxy, trips=TRIPS),
                "answers lost for ever": Fault(lose_answers),
                # A number without an account is still answered, which closes the circuit each time.
                "who is in which group away": Fault(cut("groups"), Then.EITHER),
                "names of groups away": Fault(cut("gid"), Then.EITHER),
            },
            heal=heal,
        )
