"""The single door: statuses, reasons, and what a reply carries."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.auth_scene import ADA, AGENT, EVE, curve, knowing_ada, null, plain, rule, scene

from zapd.auth.authority import Authority
from zapd.auth.backend import UNKNOWN, Outcome, Principal, Verdict
from zapd.auth.catalog import BackendHandle
from zapd.auth.gate import Keeping
from zapd.auth.hashing import HashPool
from zapd.auth.policy import Link, Policy
from zapd.errors import ConfigurationError
from zapd.testing import FakeBackend
from zapd.zap import Asker, Status, ZapRequest, first_step
from zapd.zap.request import CREDENTIALS
from zapd.zmtp.keys import fingerprint
from zapd.zmtp.metadata import decode_properties


async def test_a_known_key_is_granted_with_its_name_and_metadata():
    """A 200 carries the principal's name, groups, fingerprint and attributes, and the private facts beside."""
    decision = await (await scene()).ask(curve())
    assert (decision.status, decision.reason, decision.principal) == (200, "granted", "ada")
    assert decision.key == fingerprint(ADA)
    assert decision.reply.user_id == b"ada"
    assert decode_properties(decision.reply.metadata) == {
        "x-zapd-groups": b"staff",
        "x-zapd-key": fingerprint(ADA).encode(),
        "x-team": b"engine",
    }


async def test_a_password_is_granted_with_empty_properties():
    """Groups and key are always said, even empty: what zapd leaves out a peer could forge."""
    decision = await (await scene()).ask(plain())
    assert (decision.status, decision.key) == (200, "")
    assert decode_properties(decision.reply.metadata) == {"x-zapd-groups": b"", "x-zapd-key": b""}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (curve(EVE), (400, "unknown_key")),
        (plain(name="eve"), (400, "unknown_user")),
        (plain(password=b"wrong"), (400, "wrong_password")),
        (plain(password=b""), (400, "empty_password")),
        (plain(name=""), (400, "empty_username")),
        (plain(name="a\x1bda"), (400, "bad_username")),
        (plain(name="x" * 256), (400, "bad_credentials")),
        (plain(password=b"x" * 256), (400, "bad_credentials")),
        (plain(password=b"lovelace\0"), (400, "bad_credentials")),
        (curve(b"short"), (400, "bad_credentials")),
        (curve(domain="elsewhere"), (400, "unknown_domain")),
        (plain(domain="elsewhere"), (400, "unknown_domain")),
        (curve(domain=""), (300, "asker_domain")),
        (null(), (400, "mechanism_not_allowed")),
        (curve(address="10.9.0.1"), (400, "address_denied")),
        (plain(address="10.9.0.1"), (400, "address_denied")),
        (curve(address="nowhere"), (400, "bad_address")),
        (curve(domain="zapd.agents"), (300, "asker_domain")),
        (curve(asker=None), (300, "no_asker")),
    ],
)
async def test_what_is_said_to_whom(request_, said):
    """Each refusal has its status and its own reason, and only the status goes out."""
    world = await scene(rule("lab", deny=("10.9.0.0/16",)))
    decision = await world.ask(request_)
    assert (int(decision.status), decision.reason) == said
    assert decision.reply.user_id == decision.reply.metadata == b""


async def test_the_empty_domain_needs_a_rule_and_an_asker_of_its_own():
    """Without a rule for the empty domain it is unknown, even to an asker that may ask about it."""
    assert await (await scene(rule("*"))).said(curve(domain="", asker=Asker("a", domains=("", "*")))) == (
        400,
        "unknown_domain",
    )


async def test_a_user_name_that_is_no_utf8_is_refused():
    """Octets that are no text name nobody."""
    request = ZapRequest(b"1", "lab", "192.0.2.1", b"", "PLAIN", (b"\xff\xfe", b"x"), asker=AGENT)
    assert await (await scene()).said(request) == (400, "bad_username")


async def test_every_curve_decision_names_the_key():
    """Granted or refused, for whatever reason, the journal learns which key it was."""
    world = await scene(rule("lab", deny=("10.9.0.0/16",)))
    for request in (curve(EVE), curve(EVE, domain="x"), curve(EVE, address="10.9.0.1"), curve(EVE, asker=None)):
        assert (await world.ask(request)).key == fingerprint(EVE)


@pytest.mark.parametrize(
    ("asker", "request_", "said"),
    [
        (Asker("a", domains=("lab",)), curve(), 200),
        (Asker("a", domains=("l*",)), curve(), 200),
        (Asker("a", domains=("orders",)), curve(), 300),
        (Asker("a", domains=()), curve(), 300),
        (Asker("a", mechanisms=frozenset({"PLAIN"})), curve(), 300),
        (Asker("a", domains=("zapd.agents", "*")), curve(domain="zapd.agents"), 300),
        (Asker("a", domains=("*",)), curve(domain=""), 300),
        (Asker("a", domains=("",)), curve(domain=""), 200),
    ],
)
async def test_askers_stay_within_their_limits(asker, request_, said):
    """An agent that asks outside its domains or mechanisms hears 300 and nobody is asked."""
    world = await scene(rule("lab"), rule(""))
    request = ZapRequest(
        b"1", request_.domain, request_.address, b"", request_.mechanism, request_.credentials, asker=asker
    )
    decision = await world.ask(request)
    assert int(decision.status) == said
    assert decision.asked is (said == 200)
    assert bool(world.backends["keys"].asked) is (said == 200)


async def test_gssapi_must_be_granted_to_the_asker():
    """A principal is the asker's word, so only an asker that was granted GSSAPI is believed."""
    world = await scene(rule("lab", mechanisms="GSSAPI"))

    def request(asker: Asker) -> ZapRequest:
        return ZapRequest(b"1", "lab", "192.0.2.1", b"", "GSSAPI", (b"ada",), asker=asker)

    assert await world.said(request(Asker("a"))) == (300, "asker_mechanism")
    assert await world.said(request(Asker("a", mechanisms=frozenset({"GSSAPI"})))) == (200, "granted")


async def test_null_is_granted_by_the_allow_list_alone():
    """NULL asks no backend that does not answer it: an allowed address is let in under the rule's user, any other
    is refused."""
    world = await scene(rule("lab", mechanisms="NULL CURVE", allow=("192.0.2.0/24", "ipc:uid=7"), null_user="lab"))
    decision = await world.ask(null())
    assert (decision.status, decision.reply.user_id, decision.principal) == (200, b"lab", "lab")
    assert (await world.ask(null(address="localhost:7:7:1"))).status == 200
    assert await world.said(null(address="198.51.100.1")) == (400, "address_not_allowed")
    assert await world.said(null(address="localhost:8:7:1")) == (400, "address_not_allowed")
    assert world.backends["keys"].asked == []


async def test_the_address_that_backends_see_is_normalised():
    """A mapped address reaches the backend as IPv4."""
    world = await scene()
    await world.ask(curve(address="::ffff:192.0.2.9"))
    assert world.backends["keys"].asked[0].address == "192.0.2.9"


async def test_unknown_keys_may_be_held_for_approval():
    """Where the rule says so, an unknown key hears 300 and whoever approves is told; a barred one hears 400."""
    held = []
    world = await scene(
        rule("lab", unknown_keys="pending"), options={"on_pending": lambda *seen: held.append(seen)}
    )
    assert await world.said(curve(EVE)) == (300, "pending_approval")
    assert [(question.key, rule) for question, _, rule in held] == [(EVE, "lab")]
    assert await world.said(plain(name="eve")) == (400, "unknown_user")
    world.backends["keys"].verdict = Verdict(Outcome.LOCKED, reason="revoked")
    assert await world.said(curve(EVE)) == (400, "revoked")


async def test_a_stale_policy_decides_nothing():
    """While policy is not known to be current, everybody hears 300, at the door as well."""
    current = [False]
    world = await scene(options={"is_current": lambda: current[0], "agents": Directory()})
    assert await world.said(curve()) == (300, "policy_stale")
    assert (await world.authority.decide_door(door(ADA))).reason == "policy_stale"
    current[0] = True
    assert await world.said(curve()) == (200, "granted")


@pytest.mark.parametrize(
    "principal",
    [
        Principal(""),
        Principal("x" * 256),
        Principal("a\nb"),
        Principal("a\0"),
        Principal("\ud800"),
        Principal("a", ("x,admin",)),
        Principal("a", ("x\n",)),
        Principal("a", ("",)),
        Principal("a", (), (("Zapd-Groups", "admin"),)),
        Principal("a", (), (("zapd-key", "x"),)),
        Principal("a", (), (("no blank", "x"),)),
        Principal("a", (), (("", "x"),)),
        Principal("a", (), (("dömän", "x"),)),
        Principal("a", (), (("n" * 254, "x"),)),
        Principal("a", (), (("n", "x\0y"),)),
        Principal("a", (), (("n", "x"), ("N", "y"))),
        Principal("a", (), (("n", "x"), ("n", "y"))),
        Principal("a", (), (("n", "x" * 5000),)),
        Principal("a", tuple(f"group-{number}" for number in range(500))),
    ],
)
async def test_a_principal_that_fits_no_reply_is_in_doubt(principal):
    """Names, groups and attributes that break a rule are never sent: 300, since they can be mended."""
    world = await scene()
    world.backends["keys"].verdict = Verdict(Outcome.ACCEPT, principal)
    for request in (curve(), plain()):
        decision = await world.ask(request)
        assert (int(decision.status), decision.reason) == (300, "bad_principal")
        assert decision.reply.metadata == b""


async def test_a_name_that_is_utf8_is_sent_as_octets():
    """A name outside ASCII is the user id in UTF-8, up to 255 octets."""
    world = await scene()
    name = "é" * 127 + "x"
    world.backends["keys"].verdict = Verdict(Outcome.ACCEPT, Principal(name))
    assert (await world.ask(curve())).reply.user_id == name.encode()


async def test_a_changed_principal_changes_the_reply_at_once():
    """Remembered replies belong to the very principal that the backend gave."""
    world = await scene()
    await world.ask(curve())
    world.backends["keys"].keys[ADA] = Principal("ada", ("fired",))
    assert b"fired" in (await world.ask(curve())).reply.metadata


async def test_reasons_of_backends_are_codes_or_nothing():
    """A backend's reason is recorded if it is a short code; anything else becomes the outcome's own."""
    world = await scene()
    for reason, said in (
        ("expired", "expired"),
        ("a b", "locked"),
        ("x" * 41, "locked"),
        ("é", "locked"),
        ("", "locked"),
    ):
        world.backends["keys"].verdict = Verdict(Outcome.LOCKED, Principal("ada"), reason)
        decision = await world.ask(curve())
        assert (decision.reason, decision.principal) == (said, "ada")


async def test_our_own_bugs_are_300_and_counted():
    """An exception of ours is never a yes, never a no, never silence: 300, a counter, a traceback in the log."""

    def broken() -> bool:
        raise RuntimeError("a bug")

    world = await scene(options={"is_current": broken})
    with capture_logs() as logs:
        assert await world.said(curve()) == (300, "internal_error")
        assert (await world.authority.decide_door(door(ADA))).reason == "internal_error"
        for _ in range(50):
            await world.ask(curve())
    assert world.authority.internal_errors == 52
    assert 1 <= len(logs) < 10


async def test_a_request_without_its_credentials_is_no_crash():
    """A value that no parser would make is answered all the same, and not with a yes."""
    world = await scene()
    for mechanism in ("CURVE", "PLAIN", "GSSAPI", "MAGIC", ""):
        request = ZapRequest(b"1", "lab", "192.0.2.1", b"", mechanism, (), asker=AGENT)
        assert (await world.ask(request)).status in {300, 400}


async def test_reload_swaps_rules_and_backends_together():
    """New rules hold from the next question on; rules that cannot work change nothing."""
    world = await scene()
    with pytest.raises(ConfigurationError, match=r"\[backend.staff\]"):
        world.authority.reload(Policy((rule("lab", "staff"),)), world.handles)
    assert await world.said(curve()) == (200, "granted")
    world.authority.reload(Policy((rule("other"),)), world.handles)
    assert await world.said(curve()) == (400, "unknown_domain")
    assert await world.said(curve(domain="other")) == (200, "granted")


def test_a_rule_without_its_backend_is_a_mistake():
    """An authority is not made for rules that name what is not there."""
    with pytest.raises(ConfigurationError, match="keys"):
        Authority(Policy((rule(),)), {})


@pytest.mark.parametrize("password", [b"lovelace", b"wrong"])
@pytest.mark.parametrize("domain", ["lab", "elsewhere"])
async def test_plain_refusals_leave_on_a_tick(password, domain):
    """Whatever the reason, a PLAIN refusal leaves no sooner than a tick and on a multiple of it; a yes at once."""
    tick = 0.1
    world = await scene(rule("lab", refusal_tick=tick))
    loop = asyncio.get_running_loop()
    before = loop.time()
    decision = await world.ask(plain(password=password, domain=domain))
    after = loop.time()
    if decision.status is Status.GRANTED:
        assert after - before < tick
    else:
        assert after - before >= tick * 0.99
        assert (after + 0.002) % tick < tick / 2  # a busy machine wakes up late, never early


async def test_the_tick_is_never_shorter_than_the_dearest_hash():
    """With dear hashes in use the tick grows to whole multiples."""
    pool = HashPool()
    pool.note("$2b$11$" + "a" * 53)  # about 120 ms
    world = await scene(rule("lab", refusal_tick=0.05), options={"hash_pool": pool})
    loop = asyncio.get_running_loop()
    before = loop.time()
    await world.ask(plain(password=b"wrong"))
    assert loop.time() - before >= 0.149
    await pool.aclose()


async def test_curve_refusals_and_deferrals_do_not_wait():
    """Only PLAIN refusals wait for a tick: keys cannot be guessed, and 300 says nothing of a password."""
    world = await scene(rule("lab", refusal_tick=1.0))
    first_step(world.authority.decide(curve(EVE)))
    world.backends["keys"].verdict = Verdict(Outcome.UNAVAILABLE)
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await world.ask(plain())).status == 300
    assert loop.time() - before < 0.9


class Directory:
    """Knows one agent, and one that was revoked."""

    def __init__(self) -> None:
        self.agent = Asker("bridge-7", domains=("lab",))
        self.why = UNKNOWN

    def lookup(self, public_key: bytes) -> Asker | None:
        return self.agent if public_key == ADA else None

    def refusal(self, public_key: bytes) -> Verdict:
        return self.why


def door(key: bytes, domain: str = "zapd.agents", mechanism: str = "CURVE") -> ZapRequest:
    return ZapRequest(b"1", domain, "192.0.2.1", b"", mechanism, (key,))


async def test_enrolled_agents_pass_our_own_door():
    """An agent's key opens zapd's door under the agent's name; users' keys and rules have no say there."""
    directory = Directory()
    world = await scene(rule("*"), options={"agents": directory})
    granted = await world.authority.decide_door(door(ADA))
    assert (granted.status, granted.reply.user_id, granted.key) == (200, b"bridge-7", fingerprint(ADA))
    assert decode_properties(granted.reply.metadata)["x-zapd-key"] == fingerprint(ADA).encode()
    assert world.backends["keys"].asked == []


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (UNKNOWN, (400, "unknown_agent")),
        (Verdict(Outcome.LOCKED, Principal("old"), "revoked"), (400, "revoked")),
        (Verdict(Outcome.NOT_YET, reason="pending"), (300, "pending")),
        (Verdict(Outcome.UNAVAILABLE), (300, "backend_unavailable")),
        (Verdict(Outcome.ACCEPT, Principal("x")), (300, "accept")),
    ],
)
async def test_others_do_not_pass_our_own_door(why, said):
    """Unknown and revoked agents are refused, pending ones wait; a directory that contradicts itself is doubt."""
    directory = Directory()
    directory.why = why
    world = await scene(options={"agents": directory})
    decision = await world.authority.decide_door(door(EVE))
    assert (int(decision.status), decision.reason, decision.key) == (*said, fingerprint(EVE))


async def test_our_own_door_knows_one_domain_and_curve():
    """Another domain or mechanism is refused there, and without a directory everybody is."""
    world = await scene(options={"agents": Directory()})
    assert (await world.authority.decide_door(door(ADA, domain="lab"))).status == 400
    assert (await world.authority.decide_door(door(ADA, mechanism="PLAIN"))).status == 400
    assert (await (await scene()).authority.decide_door(door(ADA))).status == 400


async def test_explain_names_each_step():
    """Explaining walks the same road and shows each rule and backend, for yes and no alike."""
    world = await scene(rule("lab", "a", "keys"), a=FakeBackend(), keys=knowing_ada())
    steps = await world.authority.explain(curve())
    assert [(step.step, step.verdict) for step in steps] == [
        ("policy", "ok"),
        ("asker", "ok"),
        ("domain", "ok"),
        ("mechanism", "ok"),
        ("address", "ok"),
        ("ban", "ok"),
        ("penalty", "ok"),
        ("backend a", "unknown"),
        ("backend keys", "accept"),
        ("reply", "granted"),
    ]
    assert steps[-1].detail == "ada"
    assert steps[-1].principal == Principal("ada", ("staff",), (("Team", "engine"),))
    assert [step.status for step in steps] == [0] * 9 + [200]


async def test_explain_says_why_and_shows_every_backend():
    """Each rule says what it is, each backend its reason; those that are not asked are there too, and why."""
    locked = FakeBackend(verdict=Verdict(Outcome.LOCKED, Principal("eve"), "expired", 1e9))
    lab = rule("lab*", "pw", Link("a", on_unknown="next"), "keys", allow=("10.0.0.0/8", "192.0.2.0/24"))
    world = await scene(lab, pw=FakeBackend(), a=locked, keys=knowing_ada())
    world.handles["pw"].mechanisms = frozenset({"PLAIN"})
    told = {step.step: step for step in await world.authority.explain(curve(domain="lab7"))}
    assert told["domain"].detail == "rule 'lab*', the longest pattern that matches"
    assert told["mechanism"].detail == "CURVE; allowed: CURVE, PLAIN"
    assert told["address"].detail == "192.0.2.1 is in allow 192.0.2.0/24"
    assert (told["backend pw"].verdict, told["backend pw"].detail) == ("not_asked", "it answers no CURVE")
    words = "expired, as 'eve', until 2001-09-09 01:46:40Z; locked ends the chain"
    assert (told["backend a"].verdict, told["backend a"].detail) == ("locked", words)
    assert told["backend a"].milliseconds > 0
    assert (told["backend keys"].verdict, told["backend keys"].detail) == ("not_asked", "the chain has ended")
    assert (told["reply"].verdict, told["reply"].status) == ("expired", 400)
    barred = (await world.authority.explain(curve(domain="lab7", address="198.51.100.1")))[-1]
    assert (barred.verdict, barred.detail) == ("address_not_allowed", "198.51.100.1 is in no allow")
    nowhere = (await world.authority.explain(curve(domain="x")))[-1]
    assert nowhere.detail == "no rule matches"


async def test_explain_says_what_would_be_decided_whatever_the_chain():
    """Over many random chains and verdicts the explanation ends as deciding does."""
    source = random.Random(3)
    for _ in range(150):
        names = source.sample("abc", source.randint(1, 3))
        words = {name: source.choice(list(Outcome)) for name in names}
        links = [Link(name, *(source.choice(("stop", "next")) for _ in range(3))) for name in names]
        backends = {
            name: FakeBackend(verdict=Verdict(word, Principal(name) if word is Outcome.ACCEPT else None))
            for name, word in words.items()
        }
        world = await scene(rule("lab", *links, unknown_keys=source.choice(("refuse", "pending"))), **backends)
        last = (await world.authority.explain(curve()))[-1]
        decision = await world.ask(curve())
        assert (last.status, last.verdict) == (int(decision.status), decision.reason), (links, words)


@pytest.mark.parametrize(
    ("request_", "last"),
    [
        (curve(EVE), ("reply", "unknown_key")),
        (curve(domain="x"), ("domain", "unknown_domain")),
        (curve(domain="zapd.agents"), ("asker", "asker_domain")),
        (null(), ("mechanism", "mechanism_not_allowed")),
        (curve(address="10.9.0.1"), ("address", "address_denied")),
        (plain(password=b""), ("credentials", "empty_password")),
        (plain(password=b"wrong"), ("reply", "wrong_password")),
        (curve(asker=None), ("reply", "granted")),
        (plain(asker=Asker("a", mechanisms=frozenset())), ("asker", "asker_mechanism")),
    ],
)
async def test_explain_stops_where_deciding_stops(request_, last):
    """The last step is the one that decides, with the reason that the journal would have."""
    world = await scene(rule("lab", deny=("10.9.0.0/16",)))
    step = (await world.authority.explain(request_))[-1]
    assert (step.step, step.verdict) == last
    if request_.asker is not None and step.step != "credentials":
        assert step.status == (await world.ask(request_)).status


class Peers(FakeBackend):
    """Answers NULL as it is told, from memory or late."""

    mechanisms = frozenset({"NULL"})


async def test_null_asks_a_backend_that_answers_it():
    """Where a backend answers NULL the address must be allowed, and the backend says who it is: a no of either is
    a no, and an outage is none."""
    peers = Peers(verdict=Verdict(Outcome.ACCEPT, Principal("ada", ("staff",))))
    both = rule("lab", "keys", "peers", mechanisms="NULL CURVE", allow=("192.0.2.0/24", "ipc"), null_user="lab")
    world = await scene(both, keys=knowing_ada(), peers=peers)
    decision = await world.ask(null(address="localhost:7:8:9"))
    assert (decision.status, decision.reply.user_id, decision.principal) == (200, b"ada", "ada")
    assert [step.backend for step in decision.trail] == ["peers"]
    assert (peers.asked[0].mechanism, peers.asked[0].address) == ("NULL", "ipc:uid=7,gid=8,pid=9")
    assert await world.said(curve()) == (200, "granted")
    assert await world.said(null(address="198.51.100.1")) == (400, "address_not_allowed")
    assert len(peers.asked) == 1
    steps = await world.authority.explain(null())
    assert [step.step for step in steps][-3:] == ["backend keys", "backend peers", "reply"]
    assert steps[-1].detail == "ada"
    for outcome, said in (
        (Outcome.UNKNOWN, (400, "unknown_peer")),
        (Outcome.REJECT, (400, "rejected")),
        (Outcome.LOCKED, (400, "locked")),
        (Outcome.NOT_YET, (300, "not_yet")),
        (Outcome.UNAVAILABLE, (300, "backend_unavailable")),
    ):
        peers.verdict = Verdict(outcome)
        assert await world.said(null()) == said
    assert not world.authority.throttle.wrong, "who comes with nothing guesses nothing"


async def test_null_for_which_nobody_answers_is_not_granted_by_address():
    """A rule for NULL alone that names backends means to ask them: none that answers it is 300, as is one that
    cannot be built."""
    world = await scene(rule("lab", mechanisms="NULL", allow=("192.0.2.0/24",)))
    assert await world.said(null()) == (300, "no_backend")
    lost = BackendHandle("keys", "peers", None, reason="its library is missing")
    authority = Authority(Policy((rule("lab", mechanisms="NULL CURVE", allow=("192.0.2.0/24",)),)), {"keys": lost})
    decision = await authority.decide(null())
    assert (int(decision.status), decision.reason) == (300, "backend_disabled")


async def test_what_a_backend_said_of_a_peer_is_remembered_for_its_user_alone():
    """A NULL answer that was dear is repeated for the same local user, from another process too, and for nobody
    else; while the backend is away its last yes stands in likewise."""
    peers = Peers(verdict=Verdict(Outcome.ACCEPT, Principal("ada")), delay=0.001)
    null_rule = rule("lab", "peers", mechanisms="NULL", allow=("ipc",))
    world = await scene(null_rule, keeping=Keeping(stale_if_error=60.0, cache_good=0.0), peers=peers)
    assert await world.said(null(address="localhost:7:8:9")) == (200, "granted")
    peers.verdict = Verdict(Outcome.UNKNOWN)
    assert await world.said(null(address="localhost:9:8:9")) == (400, "unknown_peer")
    peers.verdict = Verdict(Outcome.UNAVAILABLE)
    assert await world.said(null(address="localhost:7:8:10")) == (200, "granted_stale")
    assert await world.said(null(address="localhost:8:8:9")) == (300, "backend_unavailable")
    peers.verdict = Verdict(Outcome.ACCEPT, Principal("ada"))
    world = await scene(null_rule, peers=peers)
    assert await world.said(null(address="localhost:7:8:1")) == (200, "granted")  # whence it is known to be dear
    peers.asked.clear()
    for number in (2, 3, 4):
        assert await world.said(null(address=f"localhost:7:8:{number}")) == (200, "granted")
    assert len(peers.asked) == 1
    assert await world.said(null(address="localhost:6:8:1")) == (200, "granted")
    assert len(peers.asked) == 2


async def test_explain_reaches_the_empty_domain():
    """It asks as whoever may ask about everything: a rule for the empty domain is explained as every other is."""
    world = await scene(rule("", mechanisms="NULL CURVE", allow=("192.0.2.0/24",), null_user="x"))
    asked = ZapRequest(b"1", "", "192.0.2.1", b"", "NULL", ())
    assert (await world.authority.explain(asked))[-1].detail == "x"


async def test_explain_leaves_nothing_behind():
    """Explaining remembers no decision and waits for no tick."""
    world = await scene(rule("lab", refusal_tick=1.0))
    world.backends["keys"].delay = 0.001
    before = asyncio.get_running_loop().time()
    await world.authority.explain(plain(password=b"wrong"))
    assert asyncio.get_running_loop().time() - before < 0.9
    assert len(world.authority.cache) == 0


async def test_explain_shows_null_and_approval_and_stale_policy():
    """NULL's user, keys held for approval, a principal that fits no reply, and a stale policy are all told."""
    world = await scene(
        rule("lab", mechanisms="NULL CURVE", allow=("192.0.2.0/24",), null_user="x", unknown_keys="pending")
    )
    assert (await world.authority.explain(null()))[-1].detail == "x"
    assert (await world.authority.explain(curve(EVE)))[-1].verdict == "pending_approval"
    world.backends["keys"].verdict = Verdict(Outcome.ACCEPT, Principal(""))
    assert (await world.authority.explain(curve()))[-1].verdict == "bad_principal"
    stale = await scene(options={"is_current": lambda: False})
    assert [step.verdict for step in await stale.authority.explain(curve())] == ["policy_stale"]


@settings(max_examples=150, deadline=None)
@given(
    domain=st.sampled_from(["lab", "", "zapd.agents", "x"]),
    address=st.sampled_from(["192.0.2.1", "10.9.0.1", "", "localhost:0:0:1"]),
    mechanism=st.sampled_from([*CREDENTIALS, "X"]),
    credentials=st.lists(st.sampled_from([ADA, EVE, b"ada", b"lovelace", b"", b"\xff"]), max_size=3),
    outcome=st.sampled_from(list(Outcome)),
    asker=st.sampled_from([AGENT, None, Asker("b", domains=("x",))]),
)
def test_nothing_is_granted_that_no_rule_grants(domain, address, mechanism, credentials, outcome, asker):
    """Whatever is asked and whatever a backend says, a 200 needs asker, rule, address and an ACCEPT."""

    async def decide() -> tuple[int, str]:
        principal = Principal("ada") if outcome is Outcome.ACCEPT else None
        backend = FakeBackend(verdict=Verdict(outcome, principal))
        world = await scene(rule("lab", refusal_tick=0.0001, deny=("10.9.0.0/16",)), keys=backend)
        return await world.said(ZapRequest(b"1", domain, address, b"", mechanism, tuple(credentials), asker=asker))

    status, reason = asyncio.run(decide())
    assert status in {200, 300, 400}
    assert reason.isidentifier()
    if status == 200:
        assert (domain, asker, outcome) == ("lab", AGENT, Outcome.ACCEPT)
        assert mechanism in {"CURVE", "PLAIN"}
        assert address in {"192.0.2.1", "localhost:0:0:1"}
