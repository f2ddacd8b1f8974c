"""What parent and worker say to each other. The one list of it; `channel` carries it.

A question is answered by what stands beside it, or by `Failed`.
"""

from __future__ import annotations

import msgspec

from zapd.admin.services.explain import Explanation, Supposed
from zapd.admin.services.signing_in import Judged, Login
from zapd.admin.services.topology import BackendInfo
from zapd.auth.throttle import Remembered
from zapd.auth.trace import Trace
from zapd.store.sightings import Sighting


class Message(msgspec.Struct, frozen=True, tag=True):
    """Anything said. Its ``repr`` is its name alone: configurations and keys are among what is carried."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


# -- answers --------------------------------------------------------------------------------------------------


class Done(Message, frozen=True):
    """It is so."""


class Failed(Message, frozen=True):
    """It is not, and why."""

    text: str
    configuration: bool = False
    """The configuration is to blame."""


class Explained(Message, frozen=True):
    """To `Explain`."""

    explanation: Explanation


class Told(Message, frozen=True):
    """To `Judge`."""

    judged: Judged


class Report(Message, frozen=True):
    """To `Look`: how a worker fares."""

    parts: tuple[tuple[str, str], ...]
    """(part, ``ok`` or what is wrong) of what every decision needs."""
    backends: tuple[BackendInfo, ...]
    decisions: tuple[tuple[str, str, int, str, int], ...]
    """(domain, mechanism, status, reason, how many); this and what follows as in
    `zapd.server.metrics.DecisionMetrics`."""
    malformed: int
    bugs: int
    buckets: tuple[int, ...]
    seconds: float
    gauges: tuple[tuple[str, str, dict[str, float]], ...]
    """As in `zapd.app.gauges`."""


# -- the parent asks ------------------------------------------------------------------------------------------


class Begin(Message, frozen=True):
    """The first: come up, doors open. Done when it answers questions."""

    version: str
    """The parent's: a worker of another one would not understand the rest."""
    number: int
    """The worker's, from 1."""
    workers: int
    path: str
    """The configuration's file."""
    started: str
    """What stood in it when the parent started: settings that only a start reads hold from there."""
    text: str
    """What is in force now."""
    server_key: bytes
    """The server's CURVE secret; empty where no endpoint needs it."""
    penalty_key: bytes
    """What keys all that stands for addresses, names and guesses among penalties."""


class CatchUp(Message, frozen=True):
    """Bring the changes up to ``sequence`` into force. Done when they are."""

    sequence: int


class Prepare(Message, frozen=True):
    """Make ready for this configuration, and change nothing yet."""

    text: str


class Adopt(Message, frozen=True):
    """Bring into force what was prepared."""


class Forget(Message, frozen=True):
    """Give up what was prepared."""


class Look(Message, frozen=True):
    """How do you fare? The worker's heartbeat, too."""


class Explain(Message, frozen=True):
    """What would be decided now?"""

    supposed: Supposed


class Judge(Message, frozen=True):
    """Is somebody who signs in who they say? On record when it is answered."""

    login: Login


class Drain(Message, frozen=True):
    """300 to newcomers; done when what is open is answered, or after so many seconds."""

    seconds: float


# -- told, without an answer ----------------------------------------------------------------------------------


class Traces(Message, frozen=True):
    """Both ways: wrong tries and successes that the other side does not know of."""

    traces: tuple[Trace, ...]


class Penalties(Message, frozen=True):
    """Parent to a new worker: what was seen before its time."""

    remembered: Remembered


class Release(Message, frozen=True):
    """Parent to worker: let so many connections go, that come back to another."""

    count: int


class Stop(Message, frozen=True):
    """Parent to worker: end in order, now."""


class Load(Message, frozen=True):
    """Worker to parent: what became of the connections that were handed over."""

    received: int
    """So many were, since the worker's start."""
    connections: int
    """So many are open."""
    peers: int
    """So many of them are admitted."""


class Seen(Message, frozen=True):
    """Worker to parent: unknown keys were seen that somebody may approve."""

    sightings: tuple[Sighting, ...]


Said = (
    Done
    | Failed
    | Explained
    | Told
    | Report
    | Begin
    | CatchUp
    | Prepare
    | Adopt
    | Forget
    | Look
    | Explain
    | Judge
    | Drain
    | Traces
    | Penalties
    | Release
    | Stop
    | Load
    | Seen
)
