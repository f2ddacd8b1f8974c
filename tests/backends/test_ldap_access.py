"""Whom a directory bars, and what groups allow, with a real slapd's password policy and memberOf overlays."""

from __future__ import annotations

import pytest
from support.ldap_scene import GROUPS_BASE, ldap_backend, ldap_settings, say
from support.slapd import (
    HONEYPOT,
    KEY,
    SUFFIX,
    SlapdMaker,
    group,
    make_slapd,
    person,
    slapd,
    slapd_certificates,
)
from zapd_backends.ldap import _refusal
from zapd_backends.ldap_driver import Result
from zapd_backends.ldap_line import Doubt, Trouble
from zapd_backends.ldap_policy import Policy

from zapd.auth.backend import Outcome, Principal, Verdict
from zapd.testing import ask
from zapd.zmtp.keys import decode_public_key

__all__ = ["make_slapd", "slapd", "slapd_certificates"]

ALICE = ask("alice", b"alice-Pw1")
ALICES_KEY = ask(key=decode_public_key(KEY))
ROBOT = ask(key=decode_public_key(HONEYPOT))
OPERATORS = f"cn=operators,{GROUPS_BASE}"


def strict(name: str) -> str:
    return f"pwdPolicySubentry: cn={name},ou=policies,{SUFFIX}"


async def test_an_account_locked_for_good_is_locked(make_slapd):
    """Nothing lets it in: neither its password, nor its key; unlocked, both do."""
    server = make_slapd(person("alice", "alice-Pw1", f"zmqCurvePublicKey: {KEY}"))
    async with ldap_backend(ldap_settings(server)) as backend:
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        server.set("alice", "pwdAccountLockedTime", "000001010000Z")
        for question in (ALICE, ALICES_KEY):
            verdict = await backend.check(question)
            assert (verdict.outcome, verdict.reason) == (Outcome.LOCKED, "account_locked")
        server.set("alice", "pwdAccountLockedTime")
        for question in (ALICE, ALICES_KEY):
            assert (await backend.check(question)).outcome is Outcome.ACCEPT


async def test_guesses_lock_the_password_and_not_the_key(make_slapd):
    """Behind too many wrong passwords the right one is locked out, each guess counted once; the key is not guessed
    at, and stays good."""
    server = make_slapd(person("alice", "alice-Pw1", f"zmqCurvePublicKey: {KEY}", strict("strict")))
    async with ldap_backend(ldap_settings(server)) as backend:
        for _ in range(2):
            assert (await backend.check(ask("alice", b"mistaken"))).reason == "wrong_password"
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT  # which resets the count
        for _ in range(3):
            assert (await backend.check(ask("alice", b"mistaken"))).outcome in {Outcome.REJECT, Outcome.LOCKED}
        verdict = await backend.check(ALICE)
        assert (verdict.outcome, verdict.reason) == (Outcome.LOCKED, "account_locked")
        assert (await backend.check(ALICES_KEY)).outcome is Outcome.ACCEPT


@pytest.mark.parametrize(
    "more", [{}, {"user_dn": f"uid={{user}},ou=people,{SUFFIX}"}], ids=["searched", "template"]
)
@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((strict("brief"), "pwdChangedTime: 20200101000000Z"), "password_expired"),
        (("pwdReset: TRUE", strict("brief"), "pwdChangedTime: 20990101000000Z"), "password_must_change"),
    ],
    ids=["expired", "reset"],
)
async def test_a_password_that_may_not_be_used_is_locked(make_slapd, lines, reason, more):
    """A password that has expired, or was given out only to be changed, lets nobody in; a wrong one is wrong."""
    server = make_slapd(person("alice", "alice-Pw1", *lines))
    server.put(f"cn=brief,ou=policies,{SUFFIX}", {"pwdMustChange": [("MODIFY_REPLACE", ["TRUE"])]})
    async with ldap_backend(ldap_settings(server, **more)) as backend:
        verdict = await backend.check(ALICE)
        assert (verdict.outcome, verdict.reason) == (Outcome.LOCKED, reason)
        assert (await backend.check(ask("alice", b"mistaken"))).reason == "wrong_password"


async def test_a_filter_may_lock(slapd):
    """Whoever fits ``locked_filter`` stays out, and only who knows the password makes the journal say why."""
    async with ldap_backend(ldap_settings(slapd, locked_filter="(employeeType=retired)")) as backend:
        verdict = await backend.check(ask("carol", b"carol-Pw1"))
        expected = Verdict(Outcome.LOCKED, Principal("carol"), "account_locked")
        assert verdict == expected
        assert (await backend.check(ask("carol", b"mistaken"))).reason == "wrong_password"
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT


@pytest.mark.parametrize(
    ("result", "outcome", "reason"),
    [
        (Result(0, ""), None, ""),
        (Result(0, "", policy_error=Policy.CHANGE_AFTER_RESET), Outcome.LOCKED, "password_must_change"),
        (Result(0, "", policy_error=7), None, ""),
        (Result(49, ""), Outcome.REJECT, "wrong_password"),
        (Result(49, "", policy_error=Policy.ACCOUNT_LOCKED), Outcome.LOCKED, "account_locked"),
        (Result(49, "", policy_error=7), Outcome.REJECT, "wrong_password"),
        (Result(19, "Exceed password retry limit."), Outcome.LOCKED, "account_locked"),
        (Result(53, "Account inactivated. Contact system administrator."), Outcome.LOCKED, "account_disabled"),
        (Result(32, "", matched="ou=people,dc=x"), Outcome.REJECT, "wrong_password"),
    ]
    + [
        (
            Result(
                49, f"80090308: LdapErr: DSID-0C09042A, comment: AcceptSecurityContext error, data {data}, v3839"
            ),
            *says,
        )
        for data, says in {
            "52e": (Outcome.REJECT, "wrong_password"),
            "533": (Outcome.LOCKED, "account_disabled"),
            "701": (Outcome.LOCKED, "account_expired"),
            "775": (Outcome.LOCKED, "account_locked"),
        }.items()
    ],
    ids=lambda value: value.told if isinstance(value, Result) else "",
)
def test_what_servers_say_to_a_bind(result, outcome, reason):
    """OpenLDAP's, 389 Directory Server's and Active Directory's ways to say no are told apart."""
    verdict = _refusal(result, "uid=ada,dc=x")
    assert (verdict.outcome if verdict else None, verdict.reason if verdict else "") == (outcome, reason)


@pytest.mark.parametrize("code", [1, 2, 3, 8, 10, 13, 32, 51, 52, 80])
def test_a_server_in_trouble_says_no_to_nobody(code):
    """What a server says of itself, or of a tree that is not there, is an outage."""
    with pytest.raises(Trouble):
        _refusal(Result(code, ""), "uid=ada,dc=x")


@pytest.mark.parametrize("code", [34, 50, 53, 4711])
def test_no_other_answer_is_a_no(code):
    """Whatever else is said to a bind may be true of this one alone, and may heal."""
    with pytest.raises(Doubt):
        _refusal(Result(code, ""), "uid=ada,dc=x")


async def test_nobody_closes_the_door_for_others(make_slapd):
    """A name that the directory cannot take for a DN is a doubt about that name, and no outage."""
    template = f"mail={{user}},ou=people,{SUFFIX}"
    entry = f"dn: mail=ada@x,ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\ncn: a\nsn: a\nuserPassword: ada-Pw1\n"
    server = make_slapd(f"{entry}mail: ada@x\n")
    more = {"user_dn": template, "user_attribute": "mail"}
    async with ldap_backend(ldap_settings(server, **more)) as backend:
        verdict = await backend.check(ask("ü", b"ada-Pw1"))
        assert verdict == Verdict(Outcome.UNAVAILABLE, Principal("ü"), "bind_undecided")
        assert backend.problem == ""
        assert (await backend.check(ask("ada@x", b"ada-Pw1"))).outcome is Outcome.ACCEPT


async def test_groups_come_from_the_entry(slapd):
    """``member_of`` tells the groups that the directory writes into the entry."""
    verdict = await say(slapd, ALICE, member_of="memberOf")
    assert verdict.principal == Principal("alice", ("operators",))


@pytest.mark.parametrize(
    ("depth", "groups"),
    [
        (0, ("operators",)),
        (1, ("operators", "staff")),
        (2, ("company", "operators", "staff")),
        (10, ("company", "operators", "staff")),
    ],
)
@pytest.mark.parametrize("question", [ALICE, ALICES_KEY], ids=["password", "key"])
async def test_groups_of_groups_are_found_as_deep_as_wanted(slapd, question, depth, groups):
    """A search tells the groups, and ``group_depth`` more the groups of groups; a circle ends."""
    verdict = await say(slapd, question, group_base=GROUPS_BASE, group_depth=depth)
    assert verdict.principal == Principal("alice", groups)


async def test_both_roads_may_be_taken(slapd):
    """Groups of the entry are where the search for groups of groups goes on, each told once."""
    more = {"member_of": "memberOf", "group_base": GROUPS_BASE, "group_filter": "(member={dn})", "group_depth": 1}
    assert (await say(slapd, ALICE, **more)).principal == Principal("alice", ("operators", "staff"))


async def test_only_groups_below_the_base_count(make_slapd):
    """A group that somebody makes elsewhere under a trusted name is none."""
    fake = f"dn: cn=operators,ou=people,{SUFFIX}\nobjectClass: groupOfNames\ncn: operators\n"
    fake += f"member: uid=mallory,ou=people,{SUFFIX}\n"
    server = make_slapd(person("mallory", "mallory-Pw1"), online=[fake])
    mallory = ask("mallory", b"mallory-Pw1")
    assert (await say(server, mallory, member_of="memberOf")).principal == Principal("mallory", ("operators",))
    more = {"member_of": "memberOf", "group_base": GROUPS_BASE}
    assert (await say(server, mallory, **more)).principal == Principal("mallory")
    more = {"member_of": "memberOf", "require_group": OPERATORS}
    assert (await say(server, mallory, **more)).reason == "not_in_group"


@pytest.mark.parametrize("wanted", ["operators", "OPERATORS", OPERATORS, f"CN=Operators, ou=groups,{SUFFIX}"])
async def test_a_group_may_be_required(slapd, wanted):
    """Only who is in one of the groups of ``require_group`` comes in, by name or DN; who else has proved who he is
    is refused, with a reason of its own."""
    more = {"group_base": GROUPS_BASE, "require_group": ["nobody", wanted]}
    async with ldap_backend(ldap_settings(slapd, **more)) as backend:
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        assert (await backend.check(ALICES_KEY)).outcome is Outcome.ACCEPT
        verdict = await backend.check(ROBOT)
        assert verdict == Verdict(Outcome.REJECT, Principal("r2"), "not_in_group")
        assert (await backend.check(ask("r2", b"mistaken"))).reason == "wrong_password"


async def test_a_group_may_be_denied(slapd):
    """Who is in a group of ``deny_group`` stays out, whatever else he is in."""
    more = {"group_base": GROUPS_BASE, "deny_group": "staff", "require_group": ["operators", "staff"]}
    async with ldap_backend(ldap_settings(slapd, **more)) as backend:
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        assert await backend.check(ROBOT) == Verdict(Outcome.LOCKED, Principal("r2"), "in_denied_group")


async def test_a_groups_name_is_no_dn(make_slapd):
    """Whoever may name groups cannot name one so that it passes for another's DN."""
    name = "cn='operators',ou='groups',dc='example',dc='org'"
    odd = f"dn: cn=odd,{GROUPS_BASE}\nobjectClass: groupOfNames\ncn: odd\nou: {name}\n"
    odd += f"member: uid=mallory,ou=people,{SUFFIX}\n"
    server = make_slapd(person("mallory", "mallory-Pw1"), online=[odd])
    more = {"group_base": GROUPS_BASE, "group_name": "ou", "require_group": OPERATORS}
    assert (await say(server, ask("mallory", b"mallory-Pw1"), **more)).reason == "not_in_group"


async def test_groups_may_be_called_otherwise(slapd):
    """With ``group_map`` only its groups are told, under its names; rules still know them by their own."""
    more = {
        "group_base": GROUPS_BASE,
        "group_depth": 2,
        "group_map": {"staff": "everybody", OPERATORS: "ops"},
        "require_group": "company",
    }
    assert (await say(slapd, ALICE, **more)).principal == Principal("alice", ("everybody", "ops"))


@pytest.mark.parametrize(
    "source", [{"group_base": GROUPS_BASE}, {"member_of": "memberOf"}], ids=["search", "entry"]
)
async def test_too_many_groups_are_a_doubt(make_slapd, source: dict[str, object]):
    """Beyond ``group_limit`` nobody can say what somebody may: "cannot tell" about this one."""
    groups = [group(f"g{number}", "alice") for number in range(3)]
    server = make_slapd(person("alice", "alice-Pw1"), online=groups)
    verdict = await say(server, ALICE, **source, group_limit=3)
    assert verdict.principal == Principal("alice", ("g0", "g1", "g2"))
    verdict = await say(server, ALICE, **source, group_limit=2)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "too_many_groups")
    assert verdict.principal == Principal("alice")


async def test_a_server_that_tells_less_than_all_is_trouble(make_slapd: SlapdMaker):
    """Where the server's own bound cuts the list of groups, nobody is refused for what was left out."""
    groups = [group(name, "alice") for name in ("first", "second")]
    server = make_slapd(person("alice", "alice-Pw1"), online=groups, size_limit="1")
    verdict = await say(server, ALICE, group_base=GROUPS_BASE, require_group="second")
    assert verdict.outcome is Outcome.UNAVAILABLE
