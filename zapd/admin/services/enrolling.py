"""A script exchanges a join token for a registered key.

Whatever is wrong with a token, whoever offers it hears the same words after the same time; the record knows what
it was. A use is counted in the transaction that registers the key, so that of two who race for the last one
exactly one has it. The same exchange with the same key again finds its key, and spends nothing.

Knows nothing of HTTP, and nothing of what holds up those who guess but that something does (`Braking`).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Protocol

import msgspec
from sqlalchemy import Connection

from zapd.admin.requests import stamped
from zapd.admin.roles import Actor, Role
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.joins import FORM, digest
from zapd.admin.services.joins import event as join_event
from zapd.admin.services.key_checks import ServerKeys, refuse_agents_key, refuse_known_key, refuse_server_key
from zapd.admin.services.keys import checked
from zapd.admin.services.keys import event as key_event
from zapd.admin.services.pausing import Pause
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import Conflict, InvalidInput, Unavailable, ZapdError
from zapd.store import rules
from zapd.store.agents import AgentRegistry
from zapd.store.joins import JoinRecord, JoinRegistry
from zapd.store.keys import KeyRecord, KeyRegistry, KeyState
from zapd.zmtp.keys import check_public_key, fingerprint, fingerprint_id

_REFUSED: Final = (
    "The join token is not good: unknown, spent, expired, revoked, or not for your address. "
    "Ask whoever gave it to you."
)
_WAIT: Final = "Too many wrong tries from your address. Try again later."

STRANGER: Final = Actor("stranger", Role.VIEWER, ())
"""Sees nothing."""


class Refused(ZapdError):
    """What was offered is not good. The words never say why; ``reason`` does, for the record."""

    code = "refused"

    def __init__(self, words: str, reason: str, subject: str = "") -> None:
        super().__init__(words)
        self.reason = reason
        self.subject = subject


class TooManyTries(ZapdError):
    """Nobody was asked: there were too many wrong tries."""

    code = "too_many_attempts"


class Attempt(Protocol):
    """One try, and a context for as long as it is looked into: see `zapd.auth.throttle.Attempt`."""

    def ask(self) -> str:
        """Why nobody may be asked now; empty where somebody may."""
        ...

    def fail(self) -> None: ...

    def succeed(self) -> None: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Braking = Callable[[str, bytes], Attempt]
"""From (address, a hash of what is guessed) to one try."""

Barring = Callable[[str, KeyRecord], str]
"""From (address, the key that would be registered) to the reason why a ban forbids it; empty where none does."""


class Recording(Protocol):
    """The journal, for what changes nothing."""

    async def record_event(self, event: AuditEvent) -> None:
        """Append, and wait until it is durable. Raises `zapd.errors.Unavailable`."""
        ...

    def count(self, address: str, reason: str) -> None:
        """Count one that was turned away without being looked at."""
        ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a script sends."""

    token: str = field(repr=False)
    public_key: bytes
    label: str | None = None
    """None: as the join token has it."""
    address: str = ""
    """Where it comes from: numeric, IPv4-mapped IPv6 as IPv4."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A registered key, and what its holder is told besides."""

    key: KeyRecord
    hints: tuple[tuple[str, str], ...] = ()
    new: bool = True
    """False: it was there already, and nothing was spent."""


class EnrolService:
    """Exchanges join tokens."""

    def __init__(
        self,
        road: ChangeRoad,
        recording: Recording,
        *,
        braking: Braking,
        barring: Barring = lambda _address, _key: "",
        server_keys: ServerKeys = tuple,
        is_current: Callable[[], bool] = lambda: True,
        pause: Pause | None = None,
    ) -> None:
        """``is_current`` says whether the registry is known to be current: in an older one a token that is spent
        or revoked would be good again."""
        self._road = road
        self._recording = recording
        self._braking = braking
        self._barring = barring
        self._server_keys = server_keys
        self._is_current = is_current
        self._pause = pause or Pause()
        self._joins = JoinRegistry()
        self._keys = KeyRegistry()
        self._agents = AgentRegistry()
        self.results: Counter[str] = Counter()
        """How exchanges ended."""

    async def exchange(self, wanted: Exchange) -> Enrolled:
        """Register the key. Raises `InvalidInput` for a key that is none, `Refused` for a token that is not good,
        `TooManyTries`, `Conflict` for a key that somebody has, and `Unavailable`."""
        check_public_key(wanted.public_key)
        rules.check_text(wanted.label or "", "label")
        began = self._pause.begin()
        sought = digest(wanted.token)
        attempt = self._braking(wanted.address, sought)
        held = attempt.ask()
        if held:
            self.results["throttled"] += 1
            self._recording.count(wanted.address, held)
            raise TooManyTries(_WAIT)
        try:
            with attempt:
                done = await self._exchange(wanted, sought)
        except Refused as refused:
            self.results["refused"] += 1
            attempt.fail()
            await self._record(Tag.JOIN_REFUSE, wanted, refused.subject, refused.reason)
            await self._pause.until_tick(began)
            raise
        except ZapdError as trouble:
            self.results[trouble.code] += 1
            raise
        attempt.succeed()
        self.results["enrolled" if done.new else "repeated"] += 1
        return done

    async def _exchange(self, wanted: Exchange, sought: bytes) -> Enrolled:
        if not self._is_current():
            raise Unavailable("The registry is not known to be current. Try again later.")
        if not FORM.fullmatch(wanted.token):
            raise Refused(_REFUSED, "unknown_join")
        # Without the right to write: whoever guesses shall not queue with those who change something.
        join, known = await self._road.read(lambda found: self._look(found, wanted, sought))
        if known is not None:
            await self._record(Tag.JOIN_USE, wanted, join.id, "repeated")
            return Enrolled(known, join.hints, new=False)
        try:
            return await self._road.change(lambda found: self._spend(found, wanted, sought), opens=True)
        except (Conflict, InvalidInput) as trouble:
            await self._record(Tag.JOIN_REFUSE, wanted, join.id, trouble.code)
            raise

    def _look(
        self, connection: Connection, wanted: Exchange, sought: bytes
    ) -> tuple[JoinRecord, KeyRecord | None]:
        """The token, and the key where it was had for it already. Raises `Refused`."""
        join = self._good(self._joins.find(connection, sought), wanted)
        known = self._keys.find(connection, fingerprint_id(wanted.public_key))
        if known is not None and _is_repeated(known, join, self._road.clock()):
            return join, known
        if join.used >= join.uses:
            raise Refused(_REFUSED, "join_spent", join.id)
        banned = self._barring(wanted.address, self._key(join, wanted))
        if banned:
            raise Refused(_REFUSED, banned, join.id)
        return join, None

    def _spend(self, connection: Connection, wanted: Exchange, sought: bytes) -> Change[Enrolled]:
        """Everything again, and now it counts: meanwhile somebody else may have had the last use."""
        join, known = self._look(connection, wanted, sought)
        if known is not None:
            return Change(Enrolled(known, join.hints, new=False))
        key = self._key(join, wanted)
        self._refuse_key(connection, key)
        if not self._joins.spend(connection, join.id, self._road.clock()):
            raise Refused(_REFUSED, "join_spent", join.id)
        self._keys.add(connection, key)
        after = self._joins.get(connection, join.id)
        actor = f"join:{join.id}"
        added = key_event(Tag.KEY_ADD, Actor(actor, Role.VIEWER, ()), None, key)
        added = msgspec.structs.replace(added, address=wanted.address)
        used = join_event(Tag.JOIN_USE, actor, join, after)
        used = msgspec.structs.replace(used, address=wanted.address, key=added.key)
        return Change(Enrolled(key, join.hints), added, (used,))

    async def _record(self, tag: Tag, wanted: Exchange, join_id: str, reason: str) -> None:
        """Put on record what changes nothing. Raises `Unavailable`."""
        event = AuditEvent(
            event=tag.value,
            address=wanted.address,
            key=fingerprint(wanted.public_key),
            status=200 if tag is Tag.JOIN_USE else 400,
            reason=reason,
            actor=f"join:{join_id}" if join_id else "",
            subject=join_id,
        )
        await self._recording.record_event(stamped(event))

    def _good(self, join: JoinRecord | None, wanted: Exchange) -> JoinRecord:
        """The token, if it may be exchanged from there now. Raises `Refused`."""
        if join is None:
            raise Refused(_REFUSED, "unknown_join")
        if join.revoked is not None:
            raise Refused(_REFUSED, "join_revoked", join.id)
        if join.expires <= self._road.clock():
            raise Refused(_REFUSED, "join_expired", join.id)
        if not _lies_within(wanted.address, join.addresses):
            raise Refused(_REFUSED, "join_address", join.id)
        return join

    def _key(self, join: JoinRecord, wanted: Exchange) -> KeyRecord:
        moment = self._road.clock()
        lifetime = join.key_lifetime
        return checked(
            KeyRecord(
                fingerprint=fingerprint_id(wanted.public_key),
                public_key=wanted.public_key,
                user=join.user,
                state=KeyState.ACTIVE,
                domains=join.domains,
                groups=join.groups,
                attributes=join.attributes,
                label=join.label if wanted.label is None else wanted.label,
                not_before=None,
                expires=None if lifetime is None else moment + timedelta(seconds=lifetime),
                reason="",
                created=moment,
                updated=moment,
                origin=f"join:{join.id}",
            )
        )

    def _refuse_key(self, connection: Connection, key: KeyRecord) -> None:
        """As an operator's would be (limits.md R7); a stranger is not told whose it is."""
        refuse_server_key(key.public_key, self._server_keys, "a client")
        refuse_agents_key(key.public_key, self._agents.find_keys(connection, [key.public_key]))
        refuse_known_key(STRANGER, self._keys.find(connection, key.fingerprint))


def _is_repeated(known: KeyRecord, join: JoinRecord, moment: datetime) -> bool:
    """Whether this key was had for this token, and is good still."""
    good = known.state is KeyState.ACTIVE and (known.expires is None or known.expires > moment)
    return good and known.origin == f"join:{join.id}"


def _lies_within(address: str, networks: tuple[str, ...]) -> bool:
    if not networks:
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in ipaddress.ip_network(network) for network in networks)
