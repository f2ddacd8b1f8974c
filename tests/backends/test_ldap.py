"""The ldap backend against a real slapd: the contract, and how names, passwords and keys are taken."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace
from time import monotonic
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs
from support.ldap_scene import PATIENCE, ldap_backend, ldap_settings, make_ldap, say
from support.slapd import (
    KEY,
    SERVICE_PASSWORD,
    SUFFIX,
    Slapd,
    SlapdMaker,
    make_slapd,
    person,
    slapd,
    slapd_certificates,
)
from zapd_backends import ldap_driver, ldap_line
from zapd_backends.ldap import LdapBackend

from zapd.auth.backend import Backend, BackendContext, Outcome, Principal
from zapd.testing import BackendContract, ask
from zapd.zmtp.keys import decode_public_key

__all__ = ["make_slapd", "slapd", "slapd_certificates"]

ALICE = decode_public_key(KEY)
BY_NAME = f"uid={{user}},ou=people,{SUFFIX}"


class TestLdapContract(BackendContract):
    """The contract of every backend: search as the service, bind as the user."""

    more: ClassVar[dict[str, object]] = {}

    @pytest.fixture(autouse=True)
    def _server(self, slapd: Slapd) -> None:
        self.server = slapd

    async def make(self, context: BackendContext) -> Backend:
        # zapd's own deadline is short for a loaded machine; a test that is about a deadline sets a shorter one.
        seconds = PATIENCE if context.deadline >= 0.8 else context.deadline
        settings = ldap_settings(self.server, **self.more)
        return LdapBackend.from_settings("staff", settings, replace(context, deadline=seconds))

    def accepted(self):
        return ask("alice", b"alice-Pw1")

    def rejected(self):
        return ask("alice", b"mistaken")

    def unknown(self):
        return ask("eve", b"alice-Pw1")

    def barred(self):
        return ask("bob", b"bob-Pw1")


class TestLdapContractForKeys(TestLdapContract):
    """The same with CURVE keys that the directory holds."""

    def accepted(self):
        return ask(key=ALICE)

    def rejected(self):
        return None

    def unknown(self):
        return ask(key=bytes(range(32)))

    def barred(self):
        return None


class TestLdapContractForTemplates(TestLdapContract):
    """The same where the user's name makes the DN. A directory does not tell who is unknown then: with a name that
    is written otherwise the entry shows it."""

    more: ClassVar = {"user_dn": BY_NAME}

    def unknown(self):
        return ask("ALICE", b"alice-Pw1")


class TestLdapContractInAnOutage(TestLdapContract):
    """The same with a server that is taken away."""

    @pytest.fixture(autouse=True)
    def _server(self, make_slapd: SlapdMaker) -> None:
        self.server = make_slapd(person("alice", "alice-Pw1"))

    def barred(self):
        return None

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        self.server.stop()
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        self.server.start()
        return True

    async def hang_source(self, context: BackendContext, backend: Backend) -> bool:
        self.server.pause()
        return True


@pytest.mark.parametrize("more", [{}, {"user_dn": BY_NAME}], ids=["searched", "by template"])
@pytest.mark.parametrize("name", ["ALICE", " alice", "alice ", "ａlice", "al\u00adice"])
async def test_names_are_taken_octet_for_octet(slapd, name, more):
    """What the directory takes for another name's writing is a stranger here, though the password is right."""
    verdict = await say(slapd, ask(name, b"alice-Pw1"), **more)
    assert verdict.outcome in {Outcome.UNKNOWN, Outcome.REJECT}


async def test_case_may_be_ignored(slapd):
    """With ``ignore_case`` a name in capitals is the directory's own name; look-alikes stay strangers."""
    async with ldap_backend(ldap_settings(slapd, ignore_case=True)) as backend:
        verdict = await backend.check(ask("ALICE", b"alice-Pw1"))
        assert (verdict.outcome, verdict.principal) == (Outcome.ACCEPT, Principal("alice"))
        assert (await backend.check(ask("ａlice", b"alice-Pw1"))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("more", [{}, {"user_dn": BY_NAME}], ids=["searched", "by template"])
@pytest.mark.parametrize(("name", "password"), [("w*ld", b"wild-Pw1"), ("(paren)", b"paren-Pw1")])
async def test_a_name_may_hold_what_filters_are_made_of(slapd, name, password, more):
    """Stars and brackets in a name are that name's, and let its owner in."""
    verdict = await say(slapd, ask(name, password), **more)
    assert (verdict.outcome, verdict.principal) == (Outcome.ACCEPT, Principal(name))


@pytest.mark.parametrize("more", [{}, {"user_dn": BY_NAME}], ids=["searched", "by template"])
async def test_nothing_can_be_injected(slapd, more):
    """No name reaches beyond the place it is put into: each is a stranger with alice's own password."""
    injected = [
        "*",
        "a*",
        "alice*",
        "*)(uid=alice",
        "alice)(objectClass=*",
        "x)(|(uid=alice)",
        "alice))(&(uid=*",
        "alice\0",
        "alice\\00",
        "\\61lice",
        "alice\\",
        "alice,ou=people",
        f"alice,ou=people,{SUFFIX}",
        "alice+cn=alice",
        "{user}",
        "{domain}",
        "\u202ealice",
        "ali\u0441e",
        "\ud7ff" * 80,
    ]
    async with ldap_backend(ldap_settings(slapd, **more)) as backend:
        for name in injected:
            outcome = (await backend.check(ask(name, b"alice-Pw1"))).outcome
            assert outcome in {Outcome.UNKNOWN, Outcome.REJECT}, name
        assert (await backend.check(ask("alice", b"alice-Pw1"))).outcome is Outcome.ACCEPT


async def test_the_domain_cannot_be_injected(slapd):
    """A domain's name that is a filter stays a name."""
    only = {"user_filter": "(zmqDomain={domain})"}
    async with ldap_backend(ldap_settings(slapd, **only)) as backend:
        assert (await backend.check(ask("r2", b"r2-Pw1", domain="robots"))).outcome is Outcome.ACCEPT
        for domain in ("lab", "*", "robots)(uid=*", "rob*"):
            assert (await backend.check(ask("r2", b"r2-Pw1", domain=domain))).outcome is Outcome.UNKNOWN


@pytest.fixture
def binds(monkeypatch) -> Counter[str]:
    """How often each DN was bound."""
    counted: Counter[str] = Counter()
    bind = ldap_driver.Link.bind

    def counting(self: ldap_driver.Link, dn: str, *rest: Any) -> ldap_driver.Result:
        counted[dn] += 1
        return bind(self, dn, *rest)

    monkeypatch.setattr(ldap_driver.Link, "bind", counting)
    return counted


@pytest.mark.parametrize("more", [{}, {"user_dn": BY_NAME}], ids=["searched", "by template"])
async def test_an_empty_password_never_reaches_the_server(slapd, binds, more):
    """This server says yes to a name without a password; it is not asked."""
    async with ldap_backend(ldap_settings(slapd, **more)) as backend:
        for password in (b"", b"\0", b"alice-Pw1\0"):
            assert (await backend.check(ask("alice", password))).outcome is Outcome.REJECT
        assert sum(binds.values()) <= 1  # the service's own
    until = monotonic() + PATIENCE
    link = ldap_driver.Link.open(ldap_line.Place("127.0.0.1", slapd.port), None, until)
    try:
        for dn, password in ((f"uid=alice,ou=people,{SUFFIX}", b""), ("", b"secret")):
            with pytest.raises(ValueError, match="needs a name and a password"):
                link.bind(dn, password, until)
    finally:
        link.close()


async def test_strangers_take_the_same_road(slapd, binds):
    """A name that is not there costs the same bind as a wrong password, to an entry that is not there either, and
    its password is not sent."""
    async with ldap_backend(ldap_settings(slapd)) as backend:
        service = sum(binds.values())
        await backend.check(ask("eve", b"mistaken"))
        assert sum(binds.values()) == service + 1
        await backend.check(ask("alice", b"mistaken"))
        assert sum(binds.values()) == service + 2
    assert not any("eve" in dn for dn in binds)


async def test_a_password_is_octets(make_slapd):
    """A password that is no UTF-8 is a password."""
    secret = b"\xff\xfe\x80"
    server = make_slapd(person("ada", "", f"userPassword:: {base64.b64encode(secret).decode()}"))
    async with ldap_backend(ldap_settings(server)) as backend:
        assert (await backend.check(ask("ada", secret))).outcome is Outcome.ACCEPT
        assert (await backend.check(ask("ada", secret[:2]))).outcome is Outcome.REJECT


async def test_no_password_is_no_way_in(slapd):
    """An entry without a password is refused as with a wrong one."""
    verdict = await say(slapd, ask("dora", b"anything"))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECT, "wrong_password")


async def test_several_attributes_may_name_a_user(slapd):
    """Whichever of them the name is found in, the principal has one name."""
    async with ldap_backend(ldap_settings(slapd, user_attribute=["uid", "mail"])) as backend:
        for name in ("alice", "a@example.org"):
            assert (await backend.check(ask(name, b"alice-Pw1"))).principal == Principal("alice")
    verdict = await say(slapd, ask("alice", b"alice-Pw1"), name_attribute="mail")
    assert verdict.principal == Principal("a@example.org")


async def test_attributes_are_told(slapd):
    """Those that the settings name become metadata; several values are joined, absent ones left out."""
    wanted = {"Mail": "mail", "Places": "l", "Phone": "telephoneNumber"}
    verdict = await say(slapd, ask(key=ALICE), attributes=wanted)
    assert verdict.principal == Principal("alice", (), (("Mail", "a@example.org"), ("Places", "Berlin,Paris")))


@pytest.mark.parametrize(
    ("lines", "more", "reason"),
    [
        (("l: a,b", "l: c"), {"attributes": {"Place": "l"}}, "bad_attribute"),
        (("mail: a@x", "mail: b@x"), {"name_attribute": "mail"}, "ambiguous_name"),
        ((), {"name_attribute": "mail"}, "ambiguous_name"),
        (("jpegPhoto:: //8=",), {"attributes": {"Photo": "jpegPhoto"}}, "bad_attribute"),
    ],
    ids=["a comma among values", "two names", "no name", "no text"],
)
async def test_an_entry_that_cannot_be_told_is_in_doubt(make_slapd, lines, more, reason):
    """What fits no reply is "cannot tell" about this one user: neither a no, nor an outage of the directory."""
    server = make_slapd(person("ada", "ada-Pw1", *lines))
    verdict = await say(server, ask("ada", b"ada-Pw1"), **more)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, reason)
    assert verdict.principal == Principal("ada")


async def test_a_key_is_its_exact_text(make_slapd):
    """Where the directory compares keys without case, zapd does not: another key is nobody's."""
    server = make_slapd(person("ada", "ada-Pw1", f"description: {KEY}"))
    other = decode_public_key("y" + KEY[1:])
    async with ldap_backend(ldap_settings(server, key_attribute="description")) as backend:
        assert (await backend.check(ask(key=ALICE))).principal == Principal("ada")
        assert (await backend.check(ask(key=other))).outcome is Outcome.UNKNOWN


async def test_a_key_or_name_of_two_is_nobodys(make_slapd):
    """Nobody can say which of two entries is meant: "cannot tell", and no outage."""
    twins = [person(name, "same-Pw1", f"zmqCurvePublicKey: {KEY}", "mail: x@x") for name in ("ada", "eve", "max")]
    for people in (twins[:2], twins):
        server = make_slapd(*people)
        async with ldap_backend(ldap_settings(server, user_attribute=["mail", "uid"])) as backend:
            for question in (ask(key=ALICE), ask("x@x", b"same-Pw1")):
                verdict = await backend.check(question)
                assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "ambiguous_entry")
                assert verdict.principal is not None
            assert backend.problem == ""


async def test_a_directory_may_be_searched_by_nobody(make_slapd):
    """Without ``bind_dn`` it is searched anonymously, where it allows that."""
    server = make_slapd(person("alice", "alice-Pw1"), anonymous="read")
    settings = ldap_settings(server, bind_dn=None, bind_password=None)
    async with ldap_backend(settings) as backend:
        assert (await backend.check(ask("alice", b"alice-Pw1"))).outcome is Outcome.ACCEPT
        assert (await backend.check(ask("alice", b"mistaken"))).outcome is Outcome.REJECT


async def test_a_template_needs_no_service_account(slapd):
    """The user's own bind finds the entry; an entry that its own user cannot read is in doubt."""
    settings = {"url": slapd.url, "user_dn": BY_NAME, "attributes": {"Mail": "mail"}}
    async with ldap_backend(settings) as backend:
        assert backend.mechanisms == {"PLAIN"}
        verdict = await backend.check(ask("alice", b"alice-Pw1"))
        assert verdict.principal == Principal("alice", (), (("Mail", "a@example.org"),))
        assert (await backend.check(ask("alice", b"mistaken"))).reason == "wrong_password"
        assert (await backend.check(ask("eve", b"mistaken"))).reason == "wrong_password"


async def test_keys_need_their_attribute(slapd):
    """Where no attribute holds keys, CURVE is not among what the backend can answer."""
    assert make_ldap(ldap_settings(slapd)).mechanisms == {"CURVE", "PLAIN"}
    assert make_ldap(ldap_settings(slapd, key_attribute=None)).mechanisms == {"PLAIN"}


async def test_no_secret_is_told(slapd):
    """Neither the service's password nor a user's is in a log, a verdict, a representation or the problem."""
    with capture_logs() as logs:
        async with ldap_backend(ldap_settings(slapd)) as backend:
            shown = [repr(await backend.check(ask("alice", b"alice-Pw1"))), repr(vars(backend))]
            shown.append(repr(vars(backend.inner)))
        backend = make_ldap(ldap_settings(slapd, bind_password="another-Zu8m"))
        with pytest.raises(ldap_line.Trouble, match="refuses bind_dn") as trouble:
            await backend.start()
        shown += [str(trouble.value), backend.problem, repr(vars(backend.inner)), repr(logs)]
        await backend.aclose()
    assert not [secret for secret in (SERVICE_PASSWORD, "alice-Pw1", "another-Zu8m") if secret in "".join(shown)]
