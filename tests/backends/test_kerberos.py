"""The kerberos backend against a real KDC: the contract, what each trouble means, and a KDC that is none."""

from __future__ import annotations

import asyncio
import grp
import math
import os
import pwd
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.fault_proxy import BehindProxy, FaultProxy
from support.kdc import REALM, SERVICE, Kdc, KdcMaker, at_another_time, kdc, make_kdc
from support.name_service import NameService, Person, build
from zapd_backends.kerberos import KerberosBackend
from zapd_backends.kerberos_settings import KerberosSettings

from zapd.auth.backend import UNKNOWN, Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.config.load import load
from zapd.errors import Unavailable
from zapd.testing import BackendContract, ask

__all__ = ["kdc", "make_kdc"]

PAGE = (Path(__file__).parents[2] / "docs/backends/kerberos.md").read_text()
PATIENCE = 20.0
ALICE = ask("alice", b"alice-Pw1")
WRONG = ask("alice", b"mistaken")
GRANTED = Verdict(Outcome.ACCEPT, Principal("alice"))


def proved(principal: str) -> Question:
    return Question("lab", "GSSAPI", "192.0.2.1", username=principal)


def make(
    realm: Kdc, deadline: float = PATIENCE, config: Path | None = None, **settings: object
) -> KerberosBackend:
    table = {"realm": realm.realm, "keytab": str(realm.keytab), "config": str(config or realm.config), **settings}
    table = {name: value for name, value in table.items() if value is not None}
    return KerberosBackend.from_settings("realm", table, BackendContext(Path("/"), None, deadline=deadline))


def is_outage(verdict: Verdict, reason: str) -> bool:
    return verdict == Verdict(Outcome.UNAVAILABLE, None, reason)


@asynccontextmanager
async def running(realm: Kdc, *places: object, **settings: object) -> AsyncIterator[KerberosBackend]:
    backend = make(realm, *places, **settings)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.aclose()


async def say(realm: Kdc, question: Question = ALICE, **settings: object) -> Verdict:
    async with running(realm, **settings) as backend:
        return await backend.check(question)


class TestKerberosPasswords(BehindProxy, BackendContract):
    """The contract of every backend, with passwords."""

    @pytest.fixture(autouse=True)
    def _realm(self, kdc: Kdc) -> Iterator[None]:
        with FaultProxy(kdc.port) as proxy:
            self.kdc, self.proxy = kdc, proxy
            kdc.ensure("barred", "barred-Pw1", "-allow_tix")
            yield

    async def make(self, context: BackendContext) -> Backend:
        seconds = PATIENCE if context.deadline >= 0.8 else context.deadline
        config = self.kdc.write_config(f"{self.proxy.port}.conf", self.proxy.port)
        table = {"realm": REALM, "keytab": str(self.kdc.keytab), "config": str(config)}
        return KerberosBackend.from_settings("realm", table, replace(context, deadline=seconds))

    def accepted(self) -> Question:
        return ALICE

    def rejected(self) -> Question:
        return WRONG

    def unknown(self) -> Question:
        return ask("eve", b"alice-Pw1")

    def barred(self) -> Question:
        return ask("barred", b"barred-Pw1")


class TestKerberosPrincipals(BackendContract):
    """The contract of every backend, with principals that are proved already; needs no KDC."""

    async def make(self, context: BackendContext) -> Backend:
        table = {"realm": REALM, "allow": ["alice", "bob"], "deny": "mallory", "groups": {"staff": ["alice"]}}
        return KerberosBackend.from_settings("realm", table, context)

    def accepted(self) -> Question:
        return proved("alice@ZAPD.TEST")

    def unknown(self) -> Question:
        return proved("alice@OTHER.TEST")

    def rejected(self) -> Question:
        return proved("alice/admin@ZAPD.TEST")

    def barred(self) -> Question:
        return proved("mallory@ZAPD.TEST")

    def from_memory(self) -> Question:
        return self.accepted()


async def test_a_password_is_proved_with_a_ticket_for_our_own_service(kdc: Kdc) -> None:
    """The KDC is asked for the ticket of the service that is named, or of the keytab's first; by name and realm as
    well as by name."""
    assert await say(kdc) == GRANTED
    assert await say(kdc, ask(f"alice@{REALM}", b"alice-Pw1")) == GRANTED
    assert f"alice@{REALM} for {SERVICE}@{REALM}" in kdc.log()
    kdc.ensure("zapd/elsewhere")
    both = kdc.write_keytab(kdc.folder / "both.keytab", SERVICE, "zapd/elsewhere")
    assert await say(kdc, keytab=str(both), service="zapd/elsewhere") == GRANTED
    assert f"alice@{REALM} for zapd/elsewhere@{REALM}" in kdc.log()


async def test_a_false_kdc_lets_nobody_in(kdc: Kdc, make_kdc) -> None:
    """One that knows the password, and not the key of our service: the answer is no yes and no no, but trouble."""
    false = make_kdc()
    false.add("alice", "other-Pw1")
    async with running(kdc, config=false.config) as backend:
        verdict = await backend.check(ask("alice", b"other-Pw1"))
        assert is_outage(verdict, "kdc_unverified")
        assert "keytab" in backend.problem
    assert f"alice@{REALM} for {SERVICE}@{REALM}" in false.log(), "it was asked"


@pytest.mark.parametrize(
    ("options", "outcome", "reason"),
    [
        (["-allow_tix"], Outcome.LOCKED, "account_locked"),
        (["-expire", "2001-01-01"], Outcome.LOCKED, "account_expired"),
        (["-pwexpire", "2001-01-01"], Outcome.LOCKED, "password_expired"),
        (["+needchange"], Outcome.LOCKED, "password_expired"),
        (["+requires_hwauth"], Outcome.UNAVAILABLE, "no_password"),
        (["-requires_preauth"], Outcome.ACCEPT, ""),
    ],
)
async def test_what_the_kdc_says_of_an_account(kdc, options, outcome, reason):
    """Locked, expired, to be changed: a final no. What is no word about the password is a doubt about this one."""
    name = re.sub(r"\W", "", "".join(options))
    kdc.add(name, "right-Pw1", *options)
    verdict = await say(kdc, ask(name, b"right-Pw1"))
    assert (verdict.outcome, verdict.reason) == (outcome, reason), kdc.log()[-800:]
    if outcome is Outcome.UNAVAILABLE:
        assert verdict.principal is not None
    if outcome is Outcome.ACCEPT:
        assert await say(kdc, ask(name, b"wrong")) == Verdict(Outcome.REJECT, reason="wrong_password")


async def test_too_many_guesses_lock_an_account(kdc: Kdc) -> None:
    """Where the realm's policy says so; each question counts once."""
    kdc.admin("addpol -maxfailure 3 strict")
    kdc.add("guessed", "right-Pw1", "-policy strict")
    async with running(kdc) as backend:
        heard = [(await backend.check(ask("guessed", b"wrong"))).reason for _ in range(4)]
        heard.append((await backend.check(ask("guessed", b"right-Pw1"))).reason)
    assert heard == ["wrong_password"] * 3 + ["account_locked"] * 2


async def test_clocks_that_differ_are_trouble_and_no_refusal(make_kdc: KdcMaker) -> None:
    """A KDC an hour ahead, or behind: 300 with a reason of its own; well once the clocks agree."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    async with running(realm) as backend:
        for offset in ("+1h", "-1h"):
            realm.stop()
            realm.start(**at_another_time(offset))
            assert is_outage(await backend.check(ALICE), "clock_skew")
            assert "clocks" in backend.problem
            assert (await backend.check(WRONG)).reason in {"wrong_password", "clock_skew"}
        realm.stop()
        realm.start()
        assert await backend.check(ALICE) == GRANTED
        assert not backend.problem


async def test_a_kdc_that_is_away_refuses_nobody(make_kdc: KdcMaker) -> None:
    """Not there, hung, garbled, unknown to the configuration: 300, each with its reason; well again by itself."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    with FaultProxy(realm.port) as proxy:
        config = realm.write_config("proxied.conf", proxy.port)
        async with running(realm, 1.0, config) as backend:
            faults = [
                (proxy.refuse, {"kdc_down", "kdc_late"}),
                (proxy.hang, {"kdc_late"}),
                (proxy.answer_garbage, {"kdc_error", "kdc_down", "kdc_late"}),
                (proxy.die_mid_answer, {"kdc_error", "kdc_down", "kdc_late"}),
            ]
            for fault, reasons in faults:
                await asyncio.to_thread(fault)
                verdict = await backend.check(ALICE)
                assert (verdict.outcome, verdict.principal) == (Outcome.UNAVAILABLE, None)
                assert verdict.reason in reasons
                assert backend.problem
                await asyncio.to_thread(proxy.heal)
                while (await backend.check(ALICE)) != GRANTED:
                    pass  # a slow machine may not start a process in time
                assert not backend.problem
    nowhere = realm.folder / "nowhere.conf"
    nowhere.write_text("[libdefaults]\n default_realm = ELSEWHERE.TEST\n dns_lookup_kdc = false\n")
    assert (await say(realm, config=nowhere)).reason == "kdc_down"
    nowhere.write_text("[libdefaults\n")
    assert (await say(realm, config=nowhere)).outcome is Outcome.UNAVAILABLE


async def test_a_kdc_that_hangs_holds_nobody_up(kdc: Kdc) -> None:
    """Each question ends at its deadline, principals are judged meanwhile, and what waited is killed."""
    with FaultProxy(kdc.port) as proxy:
        config = kdc.write_config("hanging.conf", proxy.port)
        async with running(kdc, 0.6, config, processes=2) as backend:
            await asyncio.to_thread(proxy.hang)
            started = time.monotonic()
            waiting = [asyncio.ensure_future(backend.check(replaced)) for replaced in [ALICE] * 4]
            await asyncio.sleep(0.1)
            assert (await backend.check(proved(f"alice@{REALM}"))) == GRANTED
            verdicts = await asyncio.gather(*waiting)
            assert {verdict.reason for verdict in verdicts} == {"kdc_late"}
            assert time.monotonic() - started < 5
    assert not workers(kdc)


async def test_a_keytab_that_others_can_read_is_refused(kdc: Kdc) -> None:
    """At the start, while it runs, and by check-config; a missing one is named. Mended, it works."""
    keytab = kdc.write_keytab(kdc.folder / "open.keytab", SERVICE)
    async with running(kdc, keytab=str(keytab)) as backend:
        assert await backend.check(ALICE) == GRANTED
        keytab.chmod(0o640)
        assert (await backend.check(ALICE)).reason == "keytab_not_private"
        assert [setting for setting, _, _ in backend.warnings] == ["keytab"]
        with pytest.raises(Unavailable, match="others can read"):
            await make(kdc, keytab=str(keytab)).start()
        keytab.chmod(0o600)
        assert await backend.check(ALICE) == GRANTED
        assert backend.warnings == []
        keytab.unlink()
        assert (await backend.check(ALICE)).reason == "keytab_unusable"
        for missing in ({"keytab": str(keytab)}, {"config": Path("/nowhere/krb5.conf")}):
            with pytest.raises(Unavailable, match="No such file"):
                await make(kdc, **missing).start()


async def test_a_keytab_that_systemd_hands_over(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoadCredential= grants it by an access list, which shows as a group's right to read."""
    keytab = kdc.write_keytab(kdc.folder / "credential.keytab", SERVICE)
    keytab.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(kdc.folder))
    assert await say(kdc, keytab=str(keytab)) == GRANTED


async def test_keys_that_the_kdc_does_not_have_any_more_let_nobody_in(make_kdc: KdcMaker) -> None:
    """After new keys were made for the service 300, until the keytab has them; a service that the KDC does not
    know is told apart."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    async with running(realm) as backend:
        realm.admin(f"cpw -randkey {SERVICE}")
        assert (await backend.check(ALICE)).reason == "kdc_unverified"
        realm.write_keytab(realm.keytab, SERVICE)
        assert await backend.check(ALICE) == GRANTED
        realm.admin(f"delprinc -force {SERVICE}")
        assert is_outage(await backend.check(ALICE), "service_unknown")


async def test_who_may_come_in_is_the_same_for_passwords(kdc: Kdc) -> None:
    """Patterns, names and groups apply to whom the password has proved; who may not come in never reaches the
    KDC."""
    kdc.ensure("alice/admin", "admin-Pw1")
    settings = {
        "allow": ["alice", "*/admin"],
        "deny": "bob",
        "users": {"*/admin": "root-{1}"},
        "groups": {"admins": "*/admin", "staff": ["*", "*/admin"]},
    }
    async with running(kdc, **settings) as backend:
        verdict = await backend.check(ask("alice/admin", b"admin-Pw1"))
        assert verdict == Verdict(Outcome.ACCEPT, Principal("root-alice", ("admins", "staff")))
        assert await backend.check(ALICE) == Verdict(Outcome.ACCEPT, Principal("alice", ("staff",)))
        before = kdc.log()
        for name, outcome, reason in (
            ("bob", Outcome.LOCKED, "principal_denied"),
            ("carol", Outcome.REJECT, "principal_not_allowed"),
            ("alice@OTHER.TEST", Outcome.UNKNOWN, ""),
            ("alice\\@ZAPD.TEST", Outcome.UNKNOWN, ""),
            ("alice@ZAPD.TEST@ZAPD.TEST", Outcome.UNKNOWN, ""),
        ):
            verdict = await backend.check(ask(name, b"alice-Pw1"))
            assert (verdict.outcome, verdict.reason) == (outcome, reason), name
        assert kdc.log() == before


async def test_nothing_is_left_of_a_password(kdc: Kdc, tmp_path: Path) -> None:
    """No credential cache on disk, none that grows in memory; nothing in command line or environment."""
    before = set(Path("/tmp").glob("krb5*"))
    async with running(kdc, processes=1) as backend:
        sizes = []
        for _ in range(2):
            for _ in range(100):
                assert await backend.check(ALICE) == GRANTED
            (worker,) = workers(kdc)
            sizes.append(resident(worker))
        assert sizes[1] - sizes[0] < 2_000_000
        shown = Path(f"/proc/{worker}/cmdline").read_text() + Path(f"/proc/{worker}/environ").read_text()
        assert "alice" not in shown
        assert os.environ["PATH"] not in shown
    assert set(Path("/tmp").glob("krb5*")) == before


async def test_without_a_keytab_passwords_are_not_its_affair(kdc: Kdc) -> None:
    """Then it answers GSSAPI alone, and no process is started."""
    async with running(kdc, keytab=None, config=None) as backend:
        assert backend.mechanisms == {"GSSAPI"}
        assert await backend.check(proved("alice@ZAPD.TEST")) == GRANTED
        assert not workers(kdc)


async def test_unix_groups(kdc: Kdc) -> None:
    """Those of the account that the principal is called like: told, demanded, denied; without an account 300 where
    they decide."""
    account = pwd.getpwuid(os.getuid()).pw_name
    own = {grp.getgrgid(number).gr_name for number in os.getgrouplist(account, os.getgid())}
    some = sorted(own)[0]
    me, nobody = proved(f"{account}@{REALM}"), proved(f"no-such-account@{REALM}")
    assert await say(kdc, me, unix_groups=True) == Verdict(Outcome.ACCEPT, Principal(account, tuple(sorted(own))))
    assert (await say(kdc, me, unix_groups=some)).principal == Principal(account, (some,))
    assert (await say(kdc, nobody, unix_groups=True)).principal == Principal("no-such-account")
    assert (await say(kdc, me, unix_groups=True, require_group=some)).outcome is Outcome.ACCEPT
    denied = await say(kdc, me, unix_groups=True, deny_group=some)
    assert (denied.outcome, denied.reason) == (Outcome.LOCKED, "in_denied_group")
    for rule in ({"require_group": some}, {"deny_group": some}):
        verdict = await say(kdc, nobody, unix_groups=True, **rule)
        assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "no_account")
        assert verdict.principal == Principal("no-such-account"), "a doubt about this one alone"
    missing = await say(kdc, me, unix_groups=True, require_group="no-such-group")
    assert (missing.outcome, missing.reason) == (Outcome.REJECT, "not_in_group")
    kdc.ensure(account, "account-Pw1")
    verdict = await say(kdc, ask(account, b"account-Pw1"), unix_groups=some)
    assert verdict == Verdict(Outcome.ACCEPT, Principal(account, (some,)))


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({}, ""),
        ({"require_group": "trusted"}, ""),
        ({"require_group": "trusted", "deny_group": "trusted"}, "in_denied_group"),
        ({"require_group": "lab-drill"}, "groups_away"),
        ({"require_group": "trusted", "deny_group": "lab-drill"}, "groups_away"),
    ],
)
async def test_unix_groups_that_nobody_can_tell_decide_nothing(kdc, tmp_path, monkeypatch, rule, reason):
    """While a name service is away nobody is let in or refused for a group that it may know; where none of its may
    decide, he hears what he hears otherwise. The trouble is shown, and ends with it."""
    ada, rule = proved(f"ada@{REALM}"), {"groups": {"trusted": "ada"}, "unix_groups": True, **rule}
    with NameService({70001: Person("ada", 70101, (70102,))}, {70101: "staff-drill", 70102: "lab-drill"}) as names:
        monkeypatch.setenv("LD_PRELOAD", build(tmp_path, names.port)["LD_PRELOAD"])
        async with running(kdc, **rule) as backend:
            whole = await backend.check(ada)
            for kind in ("user", "groups", "gid"):
                names.cut = {kind: math.inf}
                verdict = await backend.check(ada)
                assert verdict.reason == reason, kind
                assert verdict.outcome is (Outcome.UNAVAILABLE if reason == "groups_away" else whole.outcome)
                assert "drill cannot be asked" in backend.problem
            names.cut = {}
            assert await backend.check(ada) == whole
            assert not backend.problem


@pytest.mark.parametrize(
    ("count", "length", "wanted", "outcome"),
    [
        (300, 240, "lab-drill", Outcome.ACCEPT),
        (600, 2000, "lab-drill", Outcome.UNAVAILABLE),
        (600, 2000, True, Outcome.UNAVAILABLE),
    ],
)
async def test_an_account_in_very_many_groups(kdc, tmp_path, monkeypatch, count, length, wanted, outcome):
    """Names of some hundred KiB are looked through for those that count. Beyond what a process can carry nothing
    is decided about that one, log and list of backends say why, and whoever comes next is answered."""
    many = {number: f"g{number}" + "x" * length for number in range(71000, 71000 + count)}
    people = {70001: Person("ada", 70101, (70102, *many)), 70002: Person("eve", 70101)}
    with NameService(people, {70101: "staff-drill", 70102: "lab-drill", **many}) as names:
        monkeypatch.setenv("LD_PRELOAD", build(tmp_path, names.port)["LD_PRELOAD"])
        async with running(kdc, unix_groups=wanted) as backend:
            with capture_logs() as logged:
                verdict = await backend.check(proved(f"ada@{REALM}"))
            if outcome is Outcome.ACCEPT:
                assert verdict == Verdict(outcome, Principal("ada", ("lab-drill",)))
                assert (backend.problem, logged) == ("", [])
            else:
                assert verdict == Verdict(outcome, Principal("ada"), "account_unusable")
                assert "more than 1 MiB" in backend.problem
                assert ["more than 1 MiB" in line["reason"] for line in logged] == [True]
            assert (await backend.check(proved(f"eve@{REALM}"))).outcome is Outcome.ACCEPT
            assert not backend.problem


def workers(realm: Kdc) -> list[int]:
    """Processes that ask this realm's KDC."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if "kerberos_worker" in words and str(realm.folder) in words:
            found.append(int(path.name))
    return found


def resident(number: int) -> int:
    """Octets of memory."""
    return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_password_of_another_realm(make_kdc: KdcMaker) -> None:
    """By trust between the realms: signed in there, the ticket for our service is made here."""
    home, other = make_kdc(), make_kdc("OTHER.TEST")
    for realm in (home, other):
        realm.add("krbtgt/ZAPD.TEST@OTHER.TEST", "trust-Pw1", "-requires_preauth")
    other.add("olga", "olga-Pw1")
    both = f"[realms]\n OTHER.TEST = {{\n  kdc = 127.0.0.1:{other.port}\n }}\n"
    config = home.write_config("both.conf", home.port, both)
    olga = ask("olga@OTHER.TEST", b"olga-Pw1")
    async with running(home, config=config, realms="OTHER.TEST") as backend:
        assert await backend.check(olga) == Verdict(Outcome.ACCEPT, Principal("olga@OTHER.TEST"))
        assert (await backend.check(ask("olga@OTHER.TEST", b"mistaken"))).reason == "wrong_password"
        assert await backend.check(ask("olga", b"olga-Pw1")) is UNKNOWN
    assert await say(home, olga, config=config) is UNKNOWN


def test_every_setting_and_every_reason_is_documented() -> None:
    """The page names each, and no setting that there is not."""
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)) == set(KerberosSettings.model_fields)
    code = "".join(
        (Path(__file__).parents[2] / "backends/zapd_backends" / name).read_text()
        for name in ("kerberos.py", "kerberos_kdc.py", "kerberos_names.py")
    )
    said = (
        r"Verdict\(Outcome\.[A-Z_]+, [^\n]*?\"(\w+)\"\)",
        r"Trouble\(\s*\"(\w+)",
        r"(\w+_late)",
        r"\d: \"(\w+)\"",
    )
    named = {reason for pattern in said for reason in re.findall(pattern, code)}
    assert {"clock_skew", "kdc_late", "not_in_group", "no_account", "account_locked", "no_password"} <= named
    outcomes = PAGE.partition("## Outcomes")[2].partition("\n## ")[0]
    assert sorted(reason for reason in named if f"`{reason}`" not in outcomes) == []


def test_the_example_of_the_page_is_good(tmp_path: Path) -> None:
    """Whoever copies it has a configuration that loads."""
    (tmp_path / "zapd.toml").write_text(PAGE.partition("```toml\n")[2].partition("```")[0])
    config = load(tmp_path / "zapd.toml")
    assert config.backend["realm"].type == "kerberos"
    assert not [each for each in config.warnings if "backend" in str(each)]
