"""The use cases about the record that take long: their bounds, and how they end."""

import asyncio
from typing import Any

import msgspec
import pytest
from support.audit_quiet import QuietCopy, QuietJournals
from support.store_admin import ADMIN, LIMITED, OPERATOR

from zapd.admin.api.events import events
from zapd.admin.api.views import AuditOut
from zapd.admin.roles import Actor
from zapd.admin.services.audit import AuditFilter, AuditService
from zapd.audit.event import AuditEvent
from zapd.errors import Conflict, Forbidden, InvalidInput, Unauthenticated, Unavailable


async def _nothing_found(
    _filter: AuditFilter, _limit: int, _cursor: str | None
) -> tuple[list[dict[str, Any]], None]:
    return [], None


async def test_what_takes_long_is_bounded_and_ends_with_its_token():
    """So many follow and export at one time and no more, each place is free again once and when it is left; one
    verification at a time; and what a token began ends when the token does."""
    journals = QuietJournals()
    audit = AuditService(_nothing_found, copy=QuietCopy(), journals=journals, followers=1, exports=1)
    good = [True]

    async def still() -> Actor:
        if not good[0]:
            raise Unauthenticated("revoked")
        return ADMIN

    follower = await audit.follow(ADMIN, AuditFilter(), still)
    export = await audit.export(ADMIN, AuditFilter(), still)
    for ask in (audit.follow, audit.export):
        with pytest.raises(Unavailable):
            await ask(ADMIN, AuditFilter(), still)
    assert [piece async for piece in export.pieces()] == [b"a", b"b"]
    for _ in range(2):
        export.close()
    (await audit.export(LIMITED, AuditFilter(), still)).close()
    assert (journals.sought[0].whole, journals.sought[1].whole) == (True, False)
    good[0] = False
    told = [each async for each in follower.told()]
    assert isinstance(told[-1].end, Unauthenticated)
    follower.close()
    follower.close()
    assert audit.followers == 0
    journals.done.clear()
    first = asyncio.create_task(audit.verify(ADMIN))
    await asyncio.sleep(0)
    with pytest.raises(Conflict):
        await audit.verify(ADMIN)
    journals.done.set()
    assert (await first)["good"]
    with pytest.raises(Forbidden):
        await audit.verify(LIMITED)
    assert (await audit.verify(OPERATOR))["good"]


async def test_a_silent_follower_hears_that_all_is_well(monkeypatch: pytest.MonkeyPatch):
    """Where nothing is recorded an id without data comes now and then: it is no event, keeps the connection
    alive, and says how far one has come."""
    monkeypatch.setattr("zapd.admin.services.audit.HEARTBEAT", 0.0)
    audit = AuditService(_nothing_found, copy=QuietCopy())

    async def still() -> Actor:
        return ADMIN

    follower = await audit.follow(ADMIN, AuditFilter(), still, last="7-0123456789abcdef-3")
    told = events(follower.told())
    heard = [await anext(told) for _ in range(4)]
    await told.aclose()
    follower.close()
    assert heard[0] == b"retry: 1000\n\n"
    assert heard[1:] == [b": \nid: 7-0123456789abcdef-3\n\n"] * 3
    with pytest.raises(InvalidInput):
        await audit.follow(ADMIN, AuditFilter(), still, last="7-elsewhere; x-3")
    assert audit.followers == 0


def test_whatever_is_recorded_is_shown() -> None:
    """A field that the record gains is a field of the answer too, of the same name and default."""
    shown = {name: field.default for name, field in AuditOut.model_fields.items()}
    for field in msgspec.structs.fields(AuditEvent):
        assert field.name in shown
        if field.name not in ("event", "trail"):
            assert shown[field.name] == field.default
    added = shown.keys() - {field.name for field in msgspec.structs.fields(AuditEvent)}
    assert added == {"time", "instance", "sequence", "hash"}
