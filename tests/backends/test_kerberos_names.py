"""Principals without a KDC: how they are read, who may come in and as whom, and what settings are mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zapd_backends.kerberos import KerberosBackend
from zapd_backends.kerberos_names import KerberosName, Member, Pattern, parse_name
from zapd_backends.kerberos_settings import KerberosSettings, read_settings

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Verdict
from zapd.errors import ConfigurationError

HOME = "EXAMPLE.ORG"


def settings(**more: object) -> KerberosSettings:
    return read_settings("realm", {"realm": HOME, **more})


def judge(principal: str, **more: object) -> Verdict:
    rules = settings(**more).rules()
    member = rules.find(principal)
    return rules.admit(member) if isinstance(member, Member) else member


def name_of(principal: str, **more: object) -> str:
    """What somebody who comes in is called."""
    verdict = judge(principal, **more)
    assert verdict.outcome is Outcome.ACCEPT, verdict
    assert verdict.principal is not None
    return verdict.principal.name


@pytest.mark.parametrize(
    ("text", "parts", "realm"),
    [
        ("alice", ("alice",), HOME),
        ("alice@OTHER.TEST", ("alice",), "OTHER.TEST"),
        ("host/db1.example.org@EXAMPLE.ORG", ("host", "db1.example.org"), HOME),
        ("jürgen", ("jürgen",), HOME),
        ("a-b_c.d$#", ("a-b_c.d$#",), HOME),
    ],
)
def test_names_are_taken_apart(text: str, parts: tuple[str, ...], realm: str) -> None:
    """Into parts and a realm; without one it is of the home realm."""
    assert parse_name(text, HOME) == KerberosName(parts, realm)


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "@EXAMPLE.ORG", "alice@", "alice/", "/alice", "a//b", "a/b/c/d/e", "alice@A@B", "alice@A/B"),
        *("al ice", " alice", "alice\t", "alice\0", "ali\\@ce", "alice\\/x@EXAMPLE.ORG", "alice@EX AMPLE"),
        *("alice@*", "alice@-A", "alice@.", "ａlice", "e\u0301", "alice\u202e", "x" * 256, "alice@" + "R" * 255),
    ],
)
def test_what_is_no_name_is_nobodys(text: str) -> None:
    """Escapes, white space, look-alike letters, empty parts, too many of them."""
    assert parse_name(text, HOME) is None
    assert judge(text, allow=["*", "*/*"]) is UNKNOWN


@given(st.text())
def test_whoever_is_named_is_one(text: str) -> None:
    """Whatever is written: it is nobody, or a name that is read the same again, under which one may come in."""
    name = parse_name(text, HOME)
    if name is None:
        assert judge(text, allow=["*", "*/*", "*/*/*", "*/*/*/*"]) is UNKNOWN
    else:
        assert parse_name(str(name), "ELSEWHERE.TEST") == name
        assert "@" not in name.local
        if name.realm == HOME:
            assert name_of(text, allow=["*", "*/*", "*/*/*", "*/*/*/*"]) == name.local


@pytest.mark.parametrize(
    ("pattern", "principal", "found"),
    [
        ("*", "alice@EXAMPLE.ORG", ("alice",)),
        ("*", "alice/admin@EXAMPLE.ORG", None),
        ("*", "alice@OTHER.TEST", None),
        ("*@OTHER.TEST", "alice@OTHER.TEST", ("alice",)),
        ("*/admin", "alice/admin@EXAMPLE.ORG", ("alice",)),
        ("*/*", "alice/admin@EXAMPLE.ORG", ("alice", "admin")),
        ("host/*.example.org", "host/db1.example.org@EXAMPLE.ORG", ("db1",)),
        ("host/*.example.org", "host/db1xexample.org@EXAMPLE.ORG", None),
        ("host/*.example.org", "host/.example.org@EXAMPLE.ORG", None),
        ("robot-*", "robot-7@EXAMPLE.ORG", ("7",)),
        ("robot-*", "robot-7/x@EXAMPLE.ORG", None),
        ("alice", "alicea@EXAMPLE.ORG", None),
        ("ALICE", "alice@EXAMPLE.ORG", None),
        (".*", "alice@EXAMPLE.ORG", None),
    ],
)
def test_patterns(pattern: str, principal: str, found: tuple[str, ...] | None) -> None:
    """A star is one part or the rest of one, in the pattern's realm alone."""
    name = parse_name(principal, HOME)
    assert name is not None
    assert Pattern(pattern, HOME).match(name) == found


def test_who_may_come_in() -> None:
    """Unless told otherwise everybody of the home realm that has no instance, and nobody else."""
    assert judge("alice@EXAMPLE.ORG") == Verdict(Outcome.ACCEPT, Principal("alice"))
    assert judge("alice@OTHER.TEST") is UNKNOWN
    refused = judge("host/db1@EXAMPLE.ORG")
    assert (refused.outcome, refused.reason) == (Outcome.REJECT, "principal_not_allowed")
    assert name_of("host/db1@EXAMPLE.ORG", allow="host/*") == "host/db1"
    assert judge("alice@EXAMPLE.ORG", allow="host/*").outcome is Outcome.REJECT
    denied = judge("alice@EXAMPLE.ORG", deny="al*")
    assert (denied.outcome, denied.reason) == (Outcome.LOCKED, "principal_denied")


def test_realms() -> None:
    """Other realms are let in by name, keep their realm in names, and lose it only where that is said."""
    assert name_of("alice@OTHER.TEST", realms="OTHER.TEST") == "alice@OTHER.TEST"
    assert name_of("alice@EXAMPLE.ORG", realms="OTHER.TEST") == "alice"
    assert name_of("alice@OTHER.TEST", realms="OTHER.TEST", strip_realms=[HOME, "OTHER.TEST"]) == "alice"
    assert name_of("alice@EXAMPLE.ORG", strip_realms=[]) == "alice@EXAMPLE.ORG"
    assert judge("alice@OTHER.TEST", realms="OTHER.TEST", allow="alice").outcome is Outcome.REJECT
    assert judge("alice@other.test", realms="OTHER.TEST") is UNKNOWN
    groups = {"ops": ["alice"]}
    verdict = judge("alice@OTHER.TEST", realms="OTHER.TEST", groups=groups)
    assert verdict.principal == Principal("alice@OTHER.TEST"), "a namesake elsewhere is in no group of ours"


def test_names_by_table_and_by_pattern() -> None:
    """A whole principal before patterns, patterns as written; stars fill the blanks."""
    users = {"*/admin": "root-{1}", "*/*": "{1}.{2}", "ada/admin": "ada-the-first", "*@OTHER.TEST": "other-{1}"}
    more = {"allow": ["*", "*/*", "*@OTHER.TEST"], "realms": "OTHER.TEST", "users": users}
    for principal, user in {
        "bob/admin@EXAMPLE.ORG": "root-bob",
        "ada/admin@EXAMPLE.ORG": "ada-the-first",
        "bob/web@EXAMPLE.ORG": "bob.web",
        "bob@OTHER.TEST": "other-bob",
        "bob@EXAMPLE.ORG": "bob",
    }.items():
        assert name_of(principal, **more) == user
    assert judge("x" * 200 + "@EXAMPLE.ORG", users={"*": "{1}{1}"}) is UNKNOWN, "longer than a reply can say"


def test_groups_by_table() -> None:
    """Told, demanded and denied; to be denied cannot be softened."""
    groups = {"ops": ["alice", "*/admin"], "barred": "mallory"}
    verdict = judge("alice@EXAMPLE.ORG", groups=groups)
    assert verdict == Verdict(Outcome.ACCEPT, Principal("alice", ("ops",)))
    assert judge("alice@EXAMPLE.ORG", groups=groups, require_group=["ops"]).outcome is Outcome.ACCEPT
    missing = judge("bob@EXAMPLE.ORG", groups=groups, require_group="ops")
    assert (missing.outcome, missing.reason) == (Outcome.REJECT, "not_in_group")
    denied = judge("mallory@EXAMPLE.ORG", groups=groups, deny_group="barred")
    assert (denied.outcome, denied.reason) == (Outcome.LOCKED, "in_denied_group")


def test_case_is_forgiven_where_that_is_said() -> None:
    """For Active Directory, to which Alice and alice are one: one name, one group, one bar. Not the realm's."""
    more = {"ignore_case": True, "groups": {"ops": "Alice"}, "deny": "Mallory", "users": {"Robot-*": "r{1}"}}
    assert judge("ALICE@EXAMPLE.ORG", **more) == Verdict(Outcome.ACCEPT, Principal("alice", ("ops",)))
    assert judge("mALLORY@EXAMPLE.ORG", **more).outcome is Outcome.LOCKED
    assert name_of("ROBOT-A@EXAMPLE.ORG", **more) == "ra"
    assert judge("alice@example.org", **more) is UNKNOWN


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"realm": None}, "realm: must be set"),
        ({"realm": "EX AMPLE"}, "realm: name a realm"),
        ({"realms": ["a b"]}, "name a realm"),
        ({"allow": []}, "allow"),
        ({"allow": ["*@OTHER.TEST"]}, "allow: '\\*@OTHER.TEST' is of a realm that is neither"),
        ({"allow": ["a b"]}, "allow: 'a b' is no principal"),
        ({"allow": ["**"]}, "stands once in a part"),
        ({"allow": ["*@*"]}, "no principal"),
        ({"deny": ["@"]}, "deny: '@' is no principal"),
        ({"users": {"*": "{2}"}}, "there are 1"),
        ({"users": {"alice": "{1}"}}, "there are 0"),
        ({"users": {"alice": ""}}, "1 to 255"),
        ({"users": {"alice": "a\n"}}, "unprintable"),
        ({"groups": {"a,b": ["alice"]}}, "comma"),
        ({"groups": {"ops": ["alice@OTHER.TEST"]}}, "groups: "),
        ({"require_group": "ops"}, "no ops among groups"),
        ({"deny_group": "ops"}, "no ops among groups"),
        ({"deny_group": "ops", "unix_groups": ["dev"]}, "no ops among groups or unix_groups"),
        ({"strip_realms": ["OTHER.TEST"]}, "strip_realms: OTHER.TEST is neither"),
        ({"service": "zmq/localhost"}, "keytab, which is not set"),
        ({"keytab": "k", "service": "a b"}, "service: name a principal"),
        ({"processes": 0}, "processes"),
        ({"realme": "x"}, "realme: there is no such setting"),
    ],
)
def test_mistakes_are_named(more: dict[str, object], words: str) -> None:
    """Each by its setting, with what it should be."""
    table = {name: value for name, value in {"realm": HOME, **more}.items() if value is not None}
    with pytest.raises(ConfigurationError, match=words):
        KerberosBackend.from_settings("realm", table, BackendContext(Path("/"), None))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({}, []),
        ({"realms": "OTHER.TEST"}, []),
        ({"realms": "OTHER.TEST", "strip_realms": [HOME, "OTHER.TEST"]}, ["strip_realms"]),
        ({"allow": "host/*", "users": {"host/*": "{1}"}}, ["users"]),
        ({"allow": "host/*", "users": {"host/*": "host-{1}"}}, []),
        ({"users": {"alice": "bob"}}, []),
    ],
)
def test_what_is_unwise_is_said(more: dict[str, object], named: list[str]) -> None:
    """Two realms under one name, and names that may be somebody else's."""
    assert [setting for setting, _, _ in settings(**more).warnings()] == named


def test_a_memory_of_principals_is_bounded() -> None:
    """However many an agent invents."""
    backend = KerberosBackend.from_settings("realm", {"realm": HOME}, BackendContext(Path("/"), None))
    for number in range(10_000):
        backend._judge(f"invented{number}@{HOME}")
    assert backend._judge.cache_info().currsize == backend._judge.cache_info().maxsize
