"""Bans by hand: what is barred, where, for how long, and that no quick road leads round one."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.auth_scene import ADA, EVE, Scene, curve, knowing_ada, null, plain, rule, scene

from zapd.auth.admission import encode_admission
from zapd.auth.backend import Outcome, Principal, Verdict
from zapd.auth.bans import Ban, Bans
from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle
from zapd.store.bans import BanKind, BanRecord
from zapd.testing import FakeBackend
from zapd.zap import ZapRequest
from zapd.zmtp.keys import fingerprint_id

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
LATER = MOMENT + timedelta(days=3650)


def ban(kind: str, subject: str, *domains: str, expires: datetime | None = None) -> BanRecord:
    return BanRecord("b1", BanKind(kind), subject, domains or ("*",), "why", expires, MOMENT, "ops")


def bans(kind: str, subject: str, *domains: str, expires: datetime | None = None) -> Bans:
    return Bans([ban(kind, subject, *domains, expires=expires)])


async def barred(record: BanRecord, *rules: object, **backends: object) -> Scene:
    world = await scene(*rules, **backends)  # type: ignore[arg-type]
    world.authority.bar(Bans([record]))
    return world


@pytest.mark.parametrize(
    ("rule_", "address", "hit"),
    [
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.0/24", "::ffff:192.0.2.7", True),
        ("192.0.2.0/24", "192.0.3.7", False),
        ("192.0.2.7/32", "192.0.2.7", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("ipc", "localhost:7:8:9", True),
        ("ipc:uid=7", "localhost:7:8:9", True),
        ("ipc:uid=7", "ipc:uid=7,gid=8,pid=9", True),
        ("ipc:gid=7", "localhost:7:8:9", False),
        ("0.0.0.0/0", "localhost:7:8:9", False),
        ("0.0.0.0/0", "nowhere", False),
    ],
)
def test_addresses_are_barred_however_they_are_written(rule_, address, hit):
    """Networks, mapped addresses, local users; asked twice, since answers are remembered."""
    made = bans("address", rule_)
    for _ in range(2):
        assert (made.of_address(address, "lab") is not None) is hit


@pytest.mark.parametrize(
    ("domains", "domain", "holds"),
    [
        (("*",), "lab", True),
        (("*",), "", True),
        (("lab",), "lab", True),
        (("lab",), "labs", False),
        (("lab*",), "labs", True),
        (("lab",), "", False),
    ],
)
def test_a_ban_holds_where_it_says(domains, domain, holds):
    """A star is every domain, the empty one too: what bars must not leave out what a grant leaves out."""
    assert (bans("user", "ada", *domains).of_user("ada", domain) is not None) is holds


def test_one_without_an_end_goes_before_one_with_an_end():
    """Two bans that speak of the same question: the stronger answers."""
    made = Bans(
        [ban("address", "192.0.2.0/24", expires=LATER), ban("user", "ada"), ban("address", "192.0.0.0/16")]
    )
    found = made.of_address("192.0.2.1", "lab")
    assert isinstance(found, Ban) and found.final


def test_a_user_is_barred_in_every_spelling():
    """A directory takes them for the same name, so a ban must too."""
    made = bans("user", "Ada  Lovelace")
    for name in ("ada lovelace", "ADA LOVELACE", " Ada Lovelace", "Ａda lovelace"):
        assert made.of_user(name, "lab") is not None
    assert made.of_user("adalovelace", "lab") is None


@pytest.mark.parametrize(
    ("record", "request_", "said"),
    [
        (ban("address", "192.0.2.0/24"), curve(), (400, "banned_address")),
        (ban("address", "192.0.2.0/24"), plain(), (400, "banned_address")),
        (ban("address", "192.0.2.0/24", expires=LATER), curve(), (300, "banned_address")),
        (ban("address", "192.0.2.0/24", "orders"), curve(), (200, "granted")),
        (ban("address", "198.51.100.0/24"), curve(), (200, "granted")),
        (ban("key", fingerprint_id(ADA)), curve(), (400, "banned_key")),
        (ban("key", fingerprint_id(EVE)), curve(), (200, "granted")),
        (ban("key", fingerprint_id(EVE)), curve(EVE), (400, "banned_key")),
        (ban("key", fingerprint_id(ADA)), plain(), (200, "granted")),
        (ban("user", "ada"), plain(), (400, "banned_user")),
        (ban("user", "ADA"), curve(), (400, "banned_user")),
        (ban("user", "ada", expires=LATER), curve(), (300, "banned_user")),
        (ban("user", "bob"), curve(), (200, "granted")),
    ],
)
async def test_what_is_said_to_the_banned(record, request_, said):
    """Whoever a backend would let in is refused for good, or for now where the ban has an end."""
    world = await barred(record)
    decision = await world.ask(request_)
    assert (int(decision.status), decision.reason) == said
    if said[0] != 200:
        assert decision.reply.user_id == decision.reply.metadata == b""


async def test_no_backend_is_asked_about_who_is_known_to_be_banned():
    """By address, key and given name nobody is asked; by the name behind a key somebody must be."""
    for record, asked in (
        (ban("address", "192.0.2.1/32"), 0),
        (ban("key", fingerprint_id(ADA)), 0),
        (ban("user", "ada"), 1),
    ):
        world = await barred(record)
        await world.ask(curve())
        assert len(world.backends["keys"].asked) == asked


async def test_null_is_barred_by_its_address():
    """Where no backend is asked a ban holds too."""
    lab = rule("lab", mechanisms="NULL CURVE", allow=("192.0.0.0/16",), null_user="lab")
    world = await barred(ban("address", "192.0.2.0/24"), lab)
    assert await world.said(null()) == (400, "banned_address")
    assert await world.said(null(address="192.0.3.1")) == (200, "granted")


@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_null_is_barred_by_whom_a_backend_says_it_is(delay):
    """Where a backend says who comes from an address, bans hold for the address and for that user."""

    class Peers(FakeBackend):
        mechanisms = frozenset({"NULL"})

    lab = rule("lab", "peers", mechanisms="NULL", allow=("ipc",))
    for record, said in (
        (ban("user", "ada"), "banned_user"),
        (ban("address", "ipc:uid=7"), "banned_address"),
        (ban("user", "eve"), "granted"),
    ):
        peers = Peers(verdict=Verdict(Outcome.ACCEPT, Principal("ada")), delay=delay)
        world = await barred(record, lab, peers=peers)
        for _ in range(3):
            assert (await world.said(null(address="localhost:7:8:9")))[1] == said
        assert (await world.authority.explain(null(address="localhost:7:8:9")))[-1].verdict == said


async def test_a_ban_is_felt_by_what_was_remembered():
    """A password that was right a moment ago, and a key of a directory: forgotten with the ban, right again after
    it."""
    backend = knowing_ada()
    backend.delay = 0.001
    world = await scene(keys=backend)
    for question in (plain(), curve()):
        for _ in range(2):  # the first shows that it is dear
            assert await world.said(question) == (200, "granted")
        assert (await world.ask(question)).cached
    assert world.authority.recollect(plain()) is not None
    before = world.authority.in_force
    world.authority.bar(bans("user", "ada"))
    assert world.authority.in_force is not before
    assert world.authority.recollect(plain()) is None
    for question in (plain(), curve()):
        for _ in range(3):
            assert await world.said(question) == (400, "banned_user")
    world.authority.bar(Bans())
    for question in (plain(), curve()):
        assert await world.said(question) == (200, "granted")


async def test_a_ban_made_while_a_backend_is_asked_holds():
    """What was asked before it and answered after it is no admission."""
    import asyncio

    backend = knowing_ada()
    backend.delay = 0.05
    for record in (ban("user", "ada"), ban("address", "192.0.2.1/32"), ban("key", fingerprint_id(ADA))):
        world = await scene(keys=backend)
        asking = asyncio.create_task(world.ask(curve()))
        await asyncio.sleep(0.01)
        world.authority.bar(Bans([record]))
        decision = await asking
        assert int(decision.status) == 400 and decision.reason.startswith("banned_")


@pytest.mark.parametrize("record", [ban("address", "192.0.2.0/24"), ban("user", "ada")])
@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_a_final_no_is_compared_with_what_others_have_taken_back(record, delay):
    """Where another process may have taken the ban back, 400 is said only once it is known not to have been; where
    that cannot be known, 300. A ban with an end needs no such care."""
    looks = []
    found = [True]

    async def as_of_now() -> bool:
        looks.append(1)
        if len(looks) == 3:
            world.authority.bar(Bans())
        return found[0]

    backend = knowing_ada()
    backend.delay = delay
    world = await scene(options={"as_of_now": as_of_now}, keys=backend)
    world.authority.bar(Bans([replace(record, expires=LATER)]))
    assert (await world.said(curve()))[0] == 300 and not looks
    world.authority.bar(Bans([record]))
    assert (await world.said(curve()))[0] == 400
    found[0] = False
    assert await world.said(curve()) == (300, "registry_not_current")
    found[0] = True
    assert await world.said(curve()) == (200, "granted"), "it was taken back while it was looked for"


async def test_the_express_road_leads_round_no_ban():
    """Places are not given where an address is banned, and admissions not where a key or a user is."""
    world = await scene()
    admission = encode_admission(
        (b"ada", fingerprint_id(ADA).replace("-", "+").replace("_", "/").encode(), (), ())
    )
    world.handles["keys"].recall = lambda keys, _domain: [admission for _ in keys]
    asker = curve().asker
    place = world.authority.place(asker, "lab", "192.0.2.1")
    assert place is not None
    assert world.authority.admit(place, [ADA]) == [admission]
    for made, said in (
        (bans("user", "Ada"), [None]),
        (bans("user", "ada", "orders"), [admission]),
        (bans("key", fingerprint_id(ADA)), [None]),
        (bans("key", fingerprint_id(EVE)), [admission]),
        (bans("address", "10.0.0.0/8"), [admission]),
    ):
        world.authority.bar(made)
        again = world.authority.place(asker, "lab", "192.0.2.1")
        assert again is not None
        assert list(world.authority.admit(again, [ADA])) == said
    world.authority.bar(bans("address", "192.0.2.0/24"))
    assert world.authority.place(asker, "lab", "192.0.2.1") is None
    assert world.authority.place(asker, "lab", "192.0.3.1") is not None


async def test_without_bans_of_keys_and_users_admissions_are_not_looked_at():
    """The hot road pays for nothing that is not there."""
    world = await scene()
    assert world.authority._sift is None
    world.authority.bar(bans("address", "192.0.2.0/24"))
    assert world.authority._sift is None
    world.authority.bar(bans("user", "ada"))
    assert world.authority._sift is not None


async def test_bans_outlive_a_reload():
    """Other rules, the same bans."""
    world = await barred(ban("user", "ada"))
    world.authority.reload(world.authority.policy, world.authority.backends)
    assert await world.said(curve()) == (400, "banned_user")


async def test_a_refusal_by_ban_leaves_on_a_tick():
    """Under PLAIN it takes as long as any other no, so that time does not tell."""
    import time

    world = await barred(ban("user", "ada"), rule("lab", refusal_tick=0.1))
    started = time.monotonic()
    assert await world.said(plain()) == (400, "banned_user")
    assert time.monotonic() - started >= 0.09


async def test_an_explanation_shows_bans_and_penalties():
    """A step for each, with the ban's id, its end and its reason, or how long a penalty lasts."""
    world = await barred(ban("address", "192.0.2.0/24", expires=LATER))
    last = (await world.authority.explain(curve()))[-1]
    assert (last.step, last.verdict, last.status) == ("ban", "banned_address", 300)
    assert "b1" in last.detail and "why" in last.detail and "2035" in last.detail
    world.authority.bar(bans("user", "ada"))
    assert [(step.step, step.verdict) for step in await world.authority.explain(curve())][-3:] == [
        ("penalty", "ok"),
        ("backend keys", "accept"),
        ("ban", "banned_user"),
    ]
    assert (await world.authority.explain(plain(password=b"")))[-1].verdict == "banned_user"
    world.authority.bar(Bans())
    assert [step.step for step in await world.authority.explain(curve())][-4:] == [
        *("ban", "penalty", "backend keys", "reply"),
    ]


async def test_an_explanation_shows_who_has_to_wait():
    """The name at its address, the address for strangers; elsewhere nobody does."""
    world = await scene(options={"throttle": Throttle(Terms(shortest=60.0))})
    for number in range(6):
        await world.ask(plain(password=b"%d" % number))
    (*_, last) = await world.authority.explain(plain(password=b""))
    assert (last.step, last.verdict, last.status) == ("penalty", "penalty_name", 300)
    assert "60 s" in last.detail
    assert (await world.authority.explain(plain(password=b"", address="198.51.100.1")))[-1].step == "credentials"
    assert math.isfinite(last.milliseconds)


async def test_zapds_own_door_knows_no_bans():
    """Agents are shut out by revoking them: a ban of a client's address must not cut off the agent beside it."""

    class Directory:
        def lookup(self, public_key: bytes):
            return curve().asker

        def refusal(self, public_key: bytes):
            raise AssertionError

    world = await scene(options={"agents": Directory()})
    world.authority.bar(Bans([ban("address", "0.0.0.0/0"), ban("key", fingerprint_id(ADA))]))
    request = ZapRequest(b"1", "zapd.agents", "192.0.2.1", b"", "CURVE", (ADA,))
    assert (await world.authority.decide_door(request)).status == 200
