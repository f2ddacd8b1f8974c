"""The settings of the ldap backend, and how names enter filters and DNs; nothing is connected."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.ldap_scene import ldap_settings, make_ldap
from zapd_backends.ldap_driver import check_filter, fill_dn, fill_filter, first_value, ldap3, normal_dn

from zapd.config import load
from zapd.errors import ConfigurationError

URL = {"url": "ldaps://ldap.example.org"}


def mistake(**more: object) -> str:
    """What is said about these settings."""
    with pytest.raises(ConfigurationError) as error:
        make_ldap(ldap_settings(None, **(URL | more)))
    text = str(error.value)
    assert text.startswith("backend.staff: ")
    return text


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"url": None}, "url: must be set"),
        ({"url": []}, "url"),
        ({"url": "http://x"}, "url is ldaps://HOST"),
        ({"url": "ldaps://"}, "url is ldaps://HOST"),
        ({"url": "ldaps://x:0"}, "url is ldaps://HOST"),
        ({"url": "ldaps://x:99999"}, "url is ldaps://HOST"),
        ({"url": "ldaps://[::1"}, "url is ldaps://HOST"),
        ({"url": "ldaps://x/dc=org?uid"}, "url is ldaps://HOST"),
        ({"url": "ldaps://cn=a:secret-7@x"}, "url is ldaps://HOST"),
        ({"url": "ldap://x"}, "would carry passwords"),
        ({"url": ["ldaps://x", "ldap://y"]}, "ldap://y:389 would carry passwords"),
        ({"starttls": True}, "starttls is for ldap://"),
        ({"url": "ldap://x", "starttls": True, "plaintext": True}, "exclude each other"),
        ({"starttls": "yes"}, "starttls"),
        ({"bind_password": None}, "bind_dn and bind_password belong together"),
        ({"bind_dn": None}, "bind_dn and bind_password belong together"),
        ({"bind_password": 7}, "bind_password"),
        ({"base": None}, "base is needed"),
        ({"base": "people"}, "base: write a distinguished name"),
        ({"user_dn": "uid={user}", "base": None}, "base is needed"),  # for keys
        ({"user_dn": "uid=ada,dc=x"}, "user_dn is a DN with {user}"),
        ({"user_dn": "{user}@example.org"}, "user_dn is a DN with {user}"),
        ({"user_dn": "uid={name},dc=x"}, "there is no {name} here"),
        ({"user_attribute": []}, "user_attribute"),
        ({"user_attribute": "uid)(x"}, "name an attribute"),
        ({"key_attribute": "jpegPhoto;binary"}, "name an attribute"),
        ({"user_filter": "objectClass=person"}, "no LDAP filter"),
        ({"user_filter": "(uid={user})"}, "there is no {user} here; there is domain"),
        ({"locked_filter": "(a=b"}, "no LDAP filter"),
        ({"group_filter": "(member={DN})"}, "there is no {DN} here"),
        ({"scope": "base"}, "scope"),
        ({"connections": 0}, "connections"),
        ({"connections": True}, "connections"),
        ({"group_depth": 11, "group_base": "dc=x"}, "group_depth"),
        ({"group_depth": 1}, "group_depth needs group_base"),
        ({"require_group": "ops"}, "need member_of or group_base"),
        ({"member_of": "memberOf", "require_group": "cn=ops,,dc=x"}, "neither a DN nor a name"),
        ({"member_of": "memberOf", "group_map": {"ops": "a,b"}}, "holds a comma"),
        ({"attributes": {"Zapd-Key": "uid"}}, "reserved"),
        ({"attributes": {"a b": "uid"}}, "attribute name"),
        ({"timeout": "1s"}, "timeout: there is no such setting"),
    ],
)
def test_what_cannot_work_is_said_at_once(more, says):
    """Each mistake names its setting and its mend, and shows no secret."""
    text = mistake(**more)
    assert says in text
    assert "service-Qx3k" not in text
    assert "secret-7" not in text


@pytest.mark.parametrize(
    "url", ["ldaps://x", "ldaps://10.0.0.1:1636", "ldaps://[2001:db8::1]", "ldap://127.0.0.1:1389", "ldap://[::1]"]
)
def test_what_stays_private_is_allowed(url):
    """TLS anywhere, and plain LDAP on this machine, need no leave."""
    assert make_ldap(ldap_settings(None, url=url)).warnings == []


def test_check_config_warns_of_passwords_in_the_clear(tmp_path: Path):
    """Plain LDAP across the network needs an explicit word, and is warned of with its line; so is a password in
    the file."""
    path = tmp_path / "zapd.toml"
    path.write_text(
        '[backend.staff]\ntype = "ldap"\nurl = "ldap://ldap.example.org"\nplaintext = true\n'
        'base = "dc=example,dc=org"\nbind_dn = "cn=zapd,dc=example,dc=org"\nbind_password = "secret-7"\n'
        '[domain.lab]\nmechanisms = ["PLAIN"]\nbackends = ["staff"]\n'
    )
    warnings = [str(each) for each in load(path).warnings]
    assert any(
        each.startswith("line 4: backend.staff.plaintext: passwords cross the network") for each in warnings
    )
    assert any("backend.staff.bind_password: a secret stands in this file" in each for each in warnings)
    assert "secret-7" not in "".join(warnings)
    path.write_text(path.read_text().replace("plaintext = true\n", ""))
    with pytest.raises(ConfigurationError, match=r"line 3: backend\.staff\.url: .*would carry passwords"):
        load(path)


NAMES = [
    "a",
    "",
    " ",
    "*",
    "(",
    ")",
    "\\",
    "\0",
    "\\2a",
    "\\",
    "#a",
    "a ",
    "ä",
    "\u202e",
    "😀",
    "a=b,c+d",
    '"<>;',
    "{user}",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_stays_a_name(name):
    """In a filter and in a DN it is one value, and the octets that were given."""
    filled = fill_filter("(uid={user})", {"user": name})
    check_filter(filled or "x")
    assert filled.isascii()
    assert filled.count("(") == filled.count(")") == filled.count("=") == 1
    assert "*" not in filled
    if name:
        dn = fill_dn("uid={user},dc=x", {"user": name})
        assert first_value(dn) == name
        assert len(ldap3.utils.dn.parse_dn(dn)) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CN=Ops, OU=Groups,dc=x", "cn=ops,ou=groups,DC=X"),
        ("cn=a\\2cb,dc=x", "cn=a\\,b,dc=x"),
        ("cn=\\c3\\a4,dc=x", "cn=ä,dc=x"),
        ("cn=a  b,dc=x", "cn=A b,dc=x"),
    ],
)
def test_dns_are_compared_as_directories_do(one, other):
    """Case, spaces and ways to escape make no difference."""
    assert normal_dn(one) == normal_dn(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("cn=a,dc=x", "cn=a+dc=x"), ("cn=a\\,dc=x", "cn=a,dc=x"), ("cn=a',b='c,dc=x", "cn=a,b=c,dc=x")],
)
def test_other_dns_are_other_dns(one, other):
    """What is part of a value is no part of the structure."""
    try:
        assert normal_dn(one) != normal_dn(other)
    except ValueError as error:
        assert "no DN" in str(error)
