"""Rotation: a new key in the place of an old one, both good for a while; and which keys nobody may register."""

import os
from datetime import timedelta

import pytest
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, LIMITED, OPERATOR, SERVER_KEY, VIEWER, Admin
from support.store_fixtures import *  # noqa: F403

from zapd.admin.roles import Actor
from zapd.admin.services.agents import NewAgent
from zapd.admin.services.audit import AuditFilter, AuditService
from zapd.admin.services.keys import NewKey
from zapd.admin.services.rotation import Rotation
from zapd.admin.services.usage import LastUse, UsageService
from zapd.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionFailed, Unavailable
from zapd.store.changes import ChangeLog
from zapd.store.engine import reading
from zapd.store.keys import KeyState
from zapd.store.types import now
from zapd.zmtp.keys import generate_keypair

DAY = timedelta(days=1)


def _key() -> bytes:
    return generate_keypair()[0]


def _rotation(overlap: timedelta = DAY, **more: object) -> Rotation:
    return Rotation(public_key=_key(), overlap=overlap, **more)  # type: ignore[arg-type]


async def test_a_rotated_key_has_a_successor_with_the_same_rights(admin: Admin):
    """Holder, rights and expiry go over, the old key ends with the overlap, and each names the other."""
    ends = now() + 30 * DAY
    old = await admin.keys.add(
        ADMIN, NewKey(_key(), "alice", groups=["g"], attributes={"Desk": "7"}, label="one", expires=ends)
    )
    done = await admin.keys.rotate(OPERATOR, old.fingerprint, _rotation(label="two"))
    assert (done.new.user, done.new.groups, done.new.attributes) == ("alice", ("g",), (("Desk", "7"),))
    assert (done.new.label, done.new.expires, done.new.state) == ("two", ends, KeyState.ACTIVE)
    assert (done.new.replaces, done.old.replaced_by) == (old.fingerprint, done.new.fingerprint)
    assert done.old.state is KeyState.ACTIVE
    assert done.old.expires is not None
    assert timedelta(0) < done.old.expires - now() <= DAY
    assert await admin.keys.show(VIEWER, done.new.fingerprint) == done.new
    assert await admin.keys.show(VIEWER, old.fingerprint) == done.old
    added, rotated = admin.journal.events[1:]
    assert (added.event, added.subject) == ("key.add", done.new.fingerprint)
    assert (rotated.event, rotated.subject, rotated.actor) == ("key.rotate", old.fingerprint, "op")
    assert rotated.after is not None
    assert rotated.after["replaced_by"] == done.new.fingerprint
    with reading(admin.engine) as connection:
        assert ChangeLog().unjournalled(connection) == []


async def test_a_rotation_lengthens_nobodys_access(admin: Admin):
    """The old key keeps an earlier end, the new one gets the old one's unless another is named; and with no
    overlap the old one is revoked at once."""
    soon = now() + timedelta(hours=1)
    old = await admin.keys.add(ADMIN, NewKey(_key(), "alice", expires=soon))
    done = await admin.keys.rotate(ADMIN, old.fingerprint, _rotation())
    assert (done.old.expires, done.new.expires) == (soon, soon)
    again = await admin.keys.rotate(
        ADMIN, done.new.fingerprint, _rotation(timedelta(0), keep_expiry=False, expires=None)
    )
    assert (again.old.state, again.old.reason, again.new.expires) == (KeyState.REVOKED, "rotated", None)


async def test_what_cannot_be_rotated(admin: Admin):
    """Pending, revoked and rotated keys, keys of other domains, keys that are registered, stale versions: each
    is refused in its own way, and nothing is left behind."""
    pending = await admin.keys.add(ADMIN, NewKey(_key(), "a", pending=True))
    revoked = await admin.keys.add(ADMIN, NewKey(_key(), "a"))
    await admin.keys.revoke(ADMIN, revoked.fingerprint)
    rotated = await admin.keys.add(ADMIN, NewKey(_key(), "a"))
    await admin.keys.rotate(ADMIN, rotated.fingerprint, _rotation())
    plain = await admin.keys.add(ADMIN, NewKey(_key(), "a"))
    elsewhere = await admin.keys.add(ADMIN, NewKey(_key(), "a", domains=["other"]))
    wide = await admin.keys.add(ADMIN, NewKey(_key(), "a", domains=["other", "orders"]))
    with reading(admin.engine) as connection:
        before = ChangeLog().last(connection)
    for record in (pending, revoked, rotated):
        with pytest.raises(Conflict):
            await admin.keys.rotate(ADMIN, record.fingerprint, _rotation())
    with pytest.raises(NotFound):
        await admin.keys.rotate(LIMITED, elsewhere.fingerprint, _rotation())
    for actor, record in ((LIMITED, wide), (VIEWER, plain)):
        with pytest.raises(Forbidden):
            await admin.keys.rotate(actor, record.fingerprint, _rotation())
    with pytest.raises(Conflict, match="for 'a'"):
        await admin.keys.rotate(ADMIN, plain.fingerprint, Rotation(wide.public_key, DAY))
    with pytest.raises(PreconditionFailed):
        await admin.keys.rotate(ADMIN, plain.fingerprint, _rotation(), version=2)
    with pytest.raises(InvalidInput):
        await admin.keys.rotate(ADMIN, plain.fingerprint, _rotation(-DAY))
    admin.journal.writable = False
    with pytest.raises(Unavailable):
        await admin.keys.rotate(ADMIN, plain.fingerprint, _rotation())
    with reading(admin.engine) as connection:
        assert ChangeLog().last(connection) == before


async def test_an_agents_key_is_rotated(admin: Admin):
    """The old key is remembered with its end, stays the agent's, and the second rotation forgets the first key."""
    keys = [_key(), _key(), _key()]
    first = await admin.agents.enroll(ADMIN, NewAgent("edge", keys[0]))
    second = await admin.agents.rotate(OPERATOR, "edge", keys[1], DAY, version=first.version)
    assert (second.public_key, second.previous_key) == (keys[1], keys[0])
    assert second.previous_until is not None
    assert second.previous_until > now()
    for public_key in keys[:2]:
        with pytest.raises(InvalidInput, match="agent's"):
            await admin.keys.add(ADMIN, NewKey(public_key, "alice"))
        with pytest.raises(Conflict, match="edge"):
            await admin.agents.rotate(ADMIN, "edge", public_key, DAY)
    with pytest.raises(PreconditionFailed):
        await admin.agents.rotate(ADMIN, "edge", keys[2], DAY, version=first.version)
    third = await admin.agents.rotate(ADMIN, "edge", keys[2], timedelta(0))
    assert third.previous_key == keys[1]
    event = admin.journal.events[-1]
    assert (event.event, event.agent) == ("agent.rotate", "edge")
    await admin.agents.revoke(ADMIN, "edge", "stolen")
    with pytest.raises(Conflict, match="revoked"):
        await admin.agents.rotate(ADMIN, "edge", _key(), DAY)
    with pytest.raises(Forbidden):
        await admin.agents.rotate(VIEWER, "edge", _key(), DAY)


def _bad_keys() -> dict[str, bytes]:
    good = generate_keypair()[0]
    twisted = next(
        found
        for number in range(2, 50)
        if pow(number**3 + 486662 * number**2 + number, (2**255 - 20) // 2, 2**255 - 19) != 1
        and (found := number.to_bytes(32, "little"))
    )
    return {
        "all zeros": bytes(32),
        "top bit": good[:-1] + bytes([good[-1] | 0x80]),
        "small order": (1).to_bytes(32, "little"),
        "no point": twisted,
        "server": SERVER_KEY,
    }


async def test_keys_that_nobody_may_register(admin: Admin):
    """All-zero, of small order, with the top bit, on the twist, the server's own: refused with the mend, as a
    client's, an agent's, and as what either is rotated to."""
    key = await admin.keys.add(ADMIN, NewKey(_key(), "alice"))
    await admin.agents.enroll(ADMIN, NewAgent("edge", _key()))
    for words, bad in _bad_keys().items():
        for attempt in (
            lambda bad=bad: admin.keys.add(ADMIN, NewKey(bad, "alice")),
            lambda bad=bad: admin.keys.rotate(ADMIN, key.fingerprint, Rotation(bad, DAY)),
            lambda bad=bad: admin.agents.enroll(ADMIN, NewAgent("other", bad)),
            lambda bad=bad: admin.agents.rotate(ADMIN, "edge", bad, DAY),
        ):
            with pytest.raises(InvalidInput, match=words) as told:
                await attempt()
            assert "pair" in str(told.value)
    with pytest.raises(InvalidInput, match="registered as a client's"):
        await admin.agents.enroll(ADMIN, NewAgent("other", key.public_key))


async def test_last_use_is_told_or_left_out():
    """The newest admission of each key comes from the search, limited to what the actor may see; what cannot be
    asked now is missing, and is never shown as 'not used'."""
    asked: list[AuditFilter] = []

    async def search(
        wanted: AuditFilter, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, object]], str | None]:
        asked.append(wanted)
        if wanted.key == "SHA256:away":
            raise Unavailable("gone")
        if wanted.key == "SHA256:never":
            return [], None
        if wanted.key == "SHA256:rare" and cursor is None:
            return [], "further"
        return [{"time": "2026-01-02T03:04:05.000001Z", "domain": "orders", "address": "10.0.0.1"}], None

    usage = UsageService(AuditService(search))
    found = await usage.last_uses(LIMITED, ["SHA256:used", "SHA256:never", "SHA256:used"])
    assert found["SHA256:never"] == LastUse()
    assert found["SHA256:used"].address == "10.0.0.1"
    assert {(each.event, each.domains) for each in asked} == {("auth.accept", LIMITED.domains)}
    assert len(asked) == 2
    assert (await usage.last_uses(ADMIN, ["SHA256:rare"]))["SHA256:rare"].domain == "orders"
    assert await usage.last_uses(ADMIN, ["SHA256:away"]) == {}
    assert await usage.last_uses(Actor("a", ADMIN.role), []) == {}


@pytest.mark.parametrize("text", ["", "x" * 300])
async def test_reasons_are_kept(admin: Admin, text: str):
    """Why a key and an agent were revoked stands in the registry and in the record."""
    key = await admin.keys.add(ADMIN, NewKey(_key(), os.urandom(2).hex()))
    await admin.agents.enroll(ADMIN, NewAgent("edge", _key()))
    assert (await admin.keys.revoke(ADMIN, key.fingerprint, text)).reason == text
    assert (await admin.agents.revoke(ADMIN, "edge", text)).reason == text
    assert [event.reason for event in admin.journal.events[-2:]] == [text, text]
