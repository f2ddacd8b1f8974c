"""The contract between zapd and whoever knows credentials.

A backend answers one question with one verdict. What happens next is configuration (the domain's chain),
never backend code. Built-in backends and strangers' come through the same door: the entry point group
``zapd.backends``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import msgspec

from zapd.errors import Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from zapd.auth.hashing import HashPool
    from zapd.store.feed import ChangeFeed


class Outcome(StrEnum):
    """What a backend knows about a credential."""

    ACCEPT = "accept"
    """Proved."""
    REJECT = "reject"
    """Known, but the proof is wrong: 400."""
    LOCKED = "locked"
    """Known, and barred, revoked or expired: 400, and no rule may soften it."""
    NOT_YET = "not_yet"
    """Known, but pending approval or not yet valid: 300, it may heal by itself."""
    UNKNOWN = "unknown"
    """Not mine: the next backend is asked; behind the last, 400."""
    UNAVAILABLE = "unavailable"
    """Cannot tell now: 300, unless the domain's chain says next. With a principal it is a doubt about that one
    alone (a hash that cannot be read); without one it is an outage, and opens the circuit when it lasts."""


class Question(msgspec.Struct, frozen=True, gc=False):
    """What a backend is asked. Names were checked for length and control characters at the door.

    This and its neighbours are msgspec structs, not dataclasses: one is made for each question, and a struct
    costs a tenth. They hold no reference that could make a cycle, so the garbage collector need not look.
    """

    domain: str
    mechanism: str
    address: str
    """Normalised: IPv4-mapped IPv6 is IPv4; ipc reads ``ipc:uid=…,gid=…,pid=…``. With NULL it is all there is;
    that it may come, the domain's ``allow`` has said. It is the word of the agent."""
    key: bytes = b""
    """CURVE: the client's long-term public key, 32 octets."""
    username: str = ""
    """PLAIN: the user's name. GSSAPI: the principal that libzmq has proved."""
    password: bytes = b""
    """PLAIN: never empty, without NUL, at most 255 octets. Not shown by ``repr``."""

    def __repr__(self) -> str:
        who = repr(self.username) if self.username else f"key of {len(self.key)} octets"
        return f"Question({self.mechanism} in {self.domain!r} from {self.address}, {who})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("mechanism", self.mechanism), ("domain", self.domain), ("address", self.address)]


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who somebody turned out to be. What breaks the rules of `zapd.auth.grant` is answered 300."""

    name: str
    """The stable name, not the raw key: the user id of the reply, 1 to 255 octets without control characters."""
    groups: tuple[str, ...] = ()
    """Without comma or control characters."""
    attributes: tuple[tuple[str, str], ...] = ()
    """Become ``X-<name>`` metadata of the reply."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What one backend says. A backend that answers from memory does well to keep its verdicts and give the
    same object again: replies are remembered by its identity."""

    outcome: Outcome
    principal: Principal | None = None
    """Set with ACCEPT; with other outcomes where the name is known, for the journal (and see UNAVAILABLE)."""
    reason: str = ""
    """A short stable code for the journal (``revoked``, ``expired``, ``wrong_password``); never sent to a peer."""
    until: float = math.inf
    """Seconds since 1970: from then on this verdict holds no more (an account expires), and no cache keeps it."""


UNKNOWN = Verdict(Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class BackendContext:
    """What zapd lends to a backend at its making. Each may be used or ignored."""

    base_dir: Path
    """The folder of the configuration file: relative paths in settings start here."""
    hash_pool: HashPool
    """Bounded workers for password hashes; nothing may hash on the event loop."""
    database: Engine | None = None
    """zapd's own database, where one is configured."""
    feed: ChangeFeed | None = None
    """Announces changes to keys and users; see `zapd.store.feed`."""
    wall_clock: Callable[[], float] | None = None
    """Seconds since 1970, for expiry; None means time.time."""
    forget: Callable[[], None] = lambda: None
    """Call when what this backend knows has changed: cached answers are forgotten at once."""
    deadline: float = 0.8
    """Seconds after which zapd gives a question up: what a library is asked to wait should not be longer."""


class BackendBusy(Unavailable):
    """Raised by a backend that has no room for another question: nobody was asked, and that is no outage."""

    code = "backend_busy"


class Backend(Protocol):
    """Whoever knows credentials of some kind. Made by `from_settings`, opened by `start`, asked by `check`."""

    mechanisms: ClassVar[frozenset[str]]
    """ZAP mechanisms it can answer."""

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Build from the table ``[backend.<name>]`` without ``type``. Raises `zapd.errors.ConfigurationError`."""
        ...

    async def start(self) -> None:
        """Open and read what is needed. An exception shows the backend as disabled, with its text as reason;
        zapd tries again later and answers "unavailable" meanwhile."""
        ...

    async def check(self, question: Question) -> Verdict:
        """Answer one question. Never blocks the loop; does not suspend when memory can answer.

        An exception is a bug and becomes UNAVAILABLE, but for `zapd.errors.Unavailable` (the world's trouble),
        `BackendBusy` and `zapd.auth.hashing.HashPoolFull`, which become UNAVAILABLE without alarm.

        zapd runs it by hand up to its first suspension and gives it a task only then, so that an answer from
        memory costs none. Hence code that needs the current task (``asyncio.timeout``, anyio, httpx) must come
        after a suspension: open with ``await asyncio.sleep(0)``. Deadlines are zapd's affair anyway: past them
        the task is cancelled.
        """
        ...

    async def aclose(self) -> None:
        """Give everything back. Called once, also when `start` failed."""
        ...


Card = tuple[bytes, bytes, tuple[str, ...], tuple[tuple[str, str], ...]]
"""Who a CURVE key belongs to: (user, mark, groups, attributes). ``user`` is the principal's name in UTF-8, 1 to
255 octets without control characters; ``mark`` the key's fingerprint without ``SHA256:``."""

Admission = bytes
"""The reply that lets a key in, made of its card by `zapd.auth.admission.encode_admission`."""


class AnswersFromMemory(Protocol):
    """A backend that knows CURVE keys by heart may have this beside `Backend`: the quickest road there is."""

    def recall(self, keys: Sequence[bytes], domain: str) -> Sequence[Admission | None]:
        """For each of these keys its admission, if `check` would accept it in this domain now and memory alone can
        say so. None for everything else, every doubt included: `check` is asked then. Never blocks.

        Asked about all keys that came together: what is the same for all is worth looking at once."""
        ...


class ReportsProblem(Protocol):
    """A backend that works, yet wants to tell something, may have this beside `Backend`."""

    @property
    def problem(self) -> str:
        """One sentence with its mend for ``zapd backend list``; empty when all is well. Never a secret."""
        ...


class WarnsOfSettings(Protocol):
    """A backend whose settings may be allowed and yet unwise may have this beside `Backend`."""

    @property
    def warnings(self) -> Sequence[tuple[str, str, str]]:
        """(setting, problem, mend) for each, as ``zapd check-config`` shows them. Never a secret."""
        ...
