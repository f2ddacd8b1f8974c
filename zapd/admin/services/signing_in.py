"""A person signs in for a key: name and password are checked, and a public key is theirs for some hours.

The practical answer to whoever wants CURVE and a password: the password is said once, over TLS, and never to an
application. It is judged on the road of every PLAIN question, by the backends of a domain (`Judging`); here is
only what becomes of a yes. A key that was signed in for ends by itself; to sign in again with it lengthens it,
with the groups that the person has by then. How many somebody has at a time is bounded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import Connection

from zapd.admin.requests import current_request, stamped
from zapd.admin.roles import Actor, Role
from zapd.admin.services.audit import Slots
from zapd.admin.services.changes import Change, ChangeRoad, Many, Note
from zapd.admin.services.common import iso
from zapd.admin.services.enrolling import STRANGER, Braking, Enrolled, Recording, Refused, TooManyTries
from zapd.admin.services.key_checks import ServerKeys, refuse_agents_key, refuse_known_key, refuse_server_key
from zapd.admin.services.keys import checked
from zapd.admin.services.keys import event as key_event
from zapd.admin.services.pausing import Pause
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import Conflict, InvalidInput, Unavailable, ZapdError
from zapd.store import rules
from zapd.store.agents import AgentRegistry
from zapd.store.domains import Grant
from zapd.store.keys import SIGNED_IN, KeyRecord, KeyRegistry, KeyState
from zapd.store.staging import Stage
from zapd.store.users import UserRegistry, UserState
from zapd.zap import ZapRequest
from zapd.zap.request import MalformedRequest, parse_request, serialize_request
from zapd.zmtp.keys import check_public_key, fingerprint, fingerprint_id

KEYS_EACH: Final = 8
AT_ONCE: Final = 32
REMEMBERED: Final = timedelta(days=1)
"""How long an expired key is kept: a clock that was set back does not make it unknown."""
SWEEP: Final = 10_000
"""Keys that are forgotten at a time."""
ASKER: Final = "local:signin"
"""Whose question it is, for the record."""
_RESULTS: Final = {"too_many_attempts": "throttled"}
_PENALTY: Final = "penalty"
"""How the reasons of answers begin that are given for too many wrong tries."""

_REFUSED: Final = "Name, password or domain is wrong, or it may not be done from your address."
_WAIT: Final = "Too many wrong tries. Try again later."


@dataclass(frozen=True, slots=True)
class SignInRule:
    """What a sign-in in one domain gives."""

    domains: tuple[str, ...]
    """Where the key is granted."""
    lifetime: timedelta
    hints: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Login:
    """What somebody has to be judged by."""

    domain: str
    address: str
    username: str
    password: bytes = field(repr=False)
    key: str
    """The fingerprint of the key that is signed in for; for the record."""
    request: str = ""
    """The request's id; for the record."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the domain's backends say, and who it is if they say yes."""

    status: int
    """200, 300 or 400, and on record."""
    reason: str
    user: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    until: datetime | None = None
    """When what the backend knows of this person ends: an account, a token that stood for the password."""


Judging = Callable[[Login], Awaitable[Judged]]
"""Decides a PLAIN question, puts the decision on record, and returns when it is there. Raises `Unavailable`."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a person sends."""

    username: str
    password: bytes = field(repr=False)
    public_key: bytes
    domain: str | None = None
    """None: the only one there is."""
    label: str | None = None
    address: str = ""


class SignInService:
    """Registers keys for people who prove who they are."""

    def __init__(
        self,
        road: ChangeRoad,
        recording: Recording,
        *,
        offered: Callable[[], Mapping[str, SignInRule]],
        judging: Judging,
        braking: Braking,
        server_keys: ServerKeys = tuple,
        keys_each: int = KEYS_EACH,
        at_once: int = AT_ONCE,
        pause: Pause | None = None,
    ) -> None:
        """``offered``: the domains in which one may sign in. ``keys_each`` bounds the keys that one user has
        signed in for and that have not ended, ``at_once`` the sign-ins that are worked on."""
        self._road = road
        self._recording = recording
        self._offered = offered
        self._judging = judging
        self._braking = braking
        self._server_keys = server_keys
        self._keys_each = keys_each
        self._slots = Slots(at_once, "{} sign-ins are worked on already. Try again later.")
        self._pause = pause or Pause()
        self._keys = KeyRegistry()
        self._agents = AgentRegistry()
        self._users = UserRegistry()
        self.results: Counter[str] = Counter()
        """How sign-ins ended."""

    async def sign_in(self, wanted: SignIn) -> Enrolled:
        """Register the key, or lengthen it. Raises `InvalidInput` for what cannot be meant, `Refused` for a wrong
        name or password, `TooManyTries`, `Conflict` for a key that somebody else has, and `Unavailable`."""
        try:
            leave = self._slots.take()
            try:
                done = await self._sign_in(wanted)
            finally:
                leave()
        except ZapdError as trouble:
            self.results[_RESULTS.get(trouble.code, trouble.code)] += 1
            raise
        self.results["signed_in" if done.new else "extended"] += 1
        return done

    async def _sign_in(self, wanted: SignIn) -> Enrolled:
        check_public_key(wanted.public_key)
        rules.check_text(wanted.label or "", "label")
        began = self._pause.begin()
        known = self._offered()
        domain = next(iter(known)) if wanted.domain is None and len(known) == 1 else wanted.domain or ""
        login = Login(
            domain=domain,
            address=wanted.address,
            username=wanted.username,
            password=wanted.password,
            key=fingerprint(wanted.public_key),
            request=current_request(),
        )
        request_of(login)
        rule = known.get(domain)
        if rule is None:
            await self._refuse_elsewhere(login, began)
            raise Refused(_REFUSED, "no_signin")
        judged = await self._judging(login)
        if judged.status == 400:
            raise Refused(_REFUSED, judged.reason)
        if judged.status != 200:
            if judged.reason.startswith(_PENALTY):
                raise TooManyTries(_WAIT)
            raise Unavailable("Your password cannot be checked now. Try again later.")
        return await self._road.change(
            lambda found: self._register(found, wanted, domain, rule, judged), opens=True
        )

    async def _refuse_elsewhere(self, login: Login, began: float) -> None:
        """Where nobody signs in nobody is asked, but who guesses at domains pays as for any other guess."""
        attempt = self._braking(login.address, hashlib.sha256(login.domain.encode()).digest())
        held = attempt.ask()
        if held:
            self._recording.count(login.address, held)
            raise TooManyTries(_WAIT)
        attempt.fail()
        await self._recording.record_event(stamped(_elsewhere(login)))
        await self._pause.until_tick(began)

    async def forget_expired(self) -> int:
        """Delete the keys that ended more than a day ago; how many."""
        before = self._road.clock() - REMEMBERED
        if not await self._road.read(lambda found: self._keys.expired(found, before, limit=1)):
            return 0

        gone: list[KeyRecord] = []

        def prepare(stage: Stage, note: Note) -> int:
            gone.extend(self._keys.expired(stage.connection, before, limit=SWEEP))
            for key in gone:
                gone_by_itself = key_event(Tag.KEY_REMOVE, Actor("zapd", Role.VIEWER, ()), key, key)
                note(msgspec.structs.replace(gone_by_itself, after=None))
            return len(gone)

        def remove(stage: Stage) -> None:
            if self._keys.expired(stage.connection, before, limit=SWEEP) != gone:
                raise Conflict("Somebody changed such a key at the same moment.")
            for key in gone:
                self._keys.remove(stage.connection, key.fingerprint)

        return await self._road.change_many(Many((), prepare, remove))

    def _register(
        self, connection: Connection, wanted: SignIn, domain: str, rule: SignInRule, judged: Judged
    ) -> Change[Enrolled]:
        moment = self._road.clock()
        self._refuse_disabled(connection, judged.user, domain)
        mark = fingerprint_id(wanted.public_key)
        before = self._keys.find(connection, mark)
        refuse_server_key(wanted.public_key, self._server_keys, "a client")
        refuse_agents_key(wanted.public_key, self._agents.find_keys(connection, [wanted.public_key]))
        after = checked(
            KeyRecord(
                fingerprint=mark,
                public_key=wanted.public_key,
                user=judged.user,
                state=KeyState.ACTIVE,
                domains=rules.check_domains(rule.domains),
                groups=judged.groups,
                attributes=judged.attributes,
                label=wanted.label or "",
                not_before=None,
                expires=min(moment + rule.lifetime, judged.until or datetime.max.replace(tzinfo=UTC)),
                reason="",
                created=moment,
                updated=moment,
                origin=SIGNED_IN + domain,
            )
        )
        actor = Actor(SIGNED_IN + domain, Role.VIEWER, ())
        if before is None:
            self._check_room(connection, judged.user, moment)
            self._keys.add(connection, after)
            event = key_event(Tag.KEY_ADD, actor, None, after)
            return Change(Enrolled(after, rule.hints), msgspec.structs.replace(event, address=wanted.address))
        _refuse_other(before, after)
        if before.expires is None or before.expires <= moment:
            self._check_room(connection, judged.user, moment)
        label = before.label if wanted.label is None else wanted.label
        again = replace(
            after,
            label=label,
            created=before.created,
            version=before.version,
            replaces=before.replaces,
            replaced_by=before.replaced_by,
        )
        saved = self._keys.save(connection, again, moment)
        event = key_event(Tag.KEY_CHANGE, actor, before, saved)
        return Change(
            Enrolled(saved, rule.hints, new=False), msgspec.structs.replace(event, address=wanted.address)
        )

    def _refuse_disabled(self, connection: Connection, user: str, domain: str) -> None:
        """Somebody whom an operator has barred between the question and this."""
        known = self._users.find(connection, user)
        if known is not None and known.state is UserState.DISABLED and Grant.of(known.domains).covers(domain):
            raise Refused(_REFUSED, "disabled")

    def _check_room(self, connection: Connection, user: str, moment: datetime) -> None:
        those = self._keys.signed_in(connection, user, moment)
        if len(those) >= self._keys_each:
            first = min(key.expires for key in those if key.expires is not None)
            raise Conflict(
                f"You have signed in for {len(those)} keys, which is as many as anybody may have. Sign in with "
                f"one of them, wait until the first ends ({iso(first)}), or let an operator revoke one."
            )


def request_of(login: Login) -> ZapRequest:
    """The PLAIN question, by the rules of the wire. Raises `InvalidInput` for what nobody can be called."""
    try:
        domain, address = login.domain.encode("ascii"), login.address.encode("ascii")
        name = login.username.encode("utf-8")
        question = ZapRequest(b"signin", domain.decode(), address.decode(), b"", "PLAIN", (name, login.password))
        return parse_request(serialize_request(question))
    except (MalformedRequest, UnicodeError):
        raise InvalidInput(
            "A domain, a name and a password have at most 255 octets; a domain is ASCII, a name has no control "
            "characters, a password no NUL."
        ) from None


def _refuse_other(before: KeyRecord, after: KeyRecord) -> None:
    """Raise `Conflict` for a key that is there, unless the same person signed in for it, in the same domain."""
    if before.user == after.user and before.origin == after.origin and before.state is KeyState.ACTIVE:
        return
    if before.user == after.user and before.state is KeyState.ACTIVE:
        raise Conflict(
            "This key is registered for you already, but not by a sign-in there: make a pair of its own for each "
            "domain that you sign in to."
        )
    refuse_known_key(STRANGER, before)


def _elsewhere(login: Login) -> AuditEvent:
    """Where nobody may sign in, nobody is asked either."""
    return AuditEvent(
        event=Tag.AUTH_REJECT.value,
        domain=login.domain,
        mechanism="PLAIN",
        address=login.address,
        agent=ASKER,
        username=login.username,
        status=400,
        reason="no_signin",
        detail={"key": login.key},
    )
