"""Addresses as libzmq writes them, and the rules about them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapd.auth.address import MEMO, AddressRules, AddressSet, read_address
from zapd.errors import ConfigurationError

V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("0:0:0:0:0:FFFF:7f00:1", "127.0.0.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost:0:0:22071", "ipc:uid=0,gid=0,pid=22071"),
        ("localhost:4294967295:100:1", "ipc:uid=4294967295,gid=100,pid=1"),
    ],
)
def test_what_libzmq_writes_is_read(text, normal):
    """Each of libzmq's forms is read, and IPv4-mapped addresses become IPv4."""
    address = read_address(text)
    assert address is not None
    assert address.text == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 127.0.0.1",
        "127.0.0.1 ",
        "127.0.0.01",
        "127.1",
        "1.2.3.4:80",
        "[::1]",
        "localhost",
        "localhost:0:0",
        "localhost:0:0:1:2",
        "localhost:00:0:1",
        "localhost:-1:0:1",
        "localhost:4294967296:0:1",
        "localhost:٣:0:1",
        "ipc",
        "ipc:uid=0,gid=0,pid=1",
        "::ffff:127.0.0.1%eth0",
        "2001:db8::1%eth0",
        "fe80::1%a b",
        "fe80::1%",
        "example.org",
        "10.0.0.0/8",
        "٣.1.1.1",
    ],
)
def test_anything_else_is_no_address(text):
    """Names, ports, zones on routable addresses, leading zeros and foreign digits are refused, never guessed."""
    assert read_address(text) is None
    assert AddressRules().check(text)[1] == "bad_address"


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text):
    """Whatever the text, reading it gives an address or nothing, and never raises."""
    address = read_address(text)
    assert address is None or address.text


@given(V4 | V6)
def test_every_address_is_read_back(address):
    """Each address is read as the same number, and mapped ones as the IPv4 behind them."""
    found = read_address(str(address))
    assert found is not None
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert (found.version, found.number) == (mapped.version, int(mapped))


@given(V4 | V6, st.lists(st.tuples(V4 | V6, st.integers(0, 128)), max_size=6))
def test_networks_hold_what_ipaddress_says(address, nets):
    """Membership is what the standard library says, for any address and any networks."""
    networks = [ipaddress.ip_network((base, min(bits, base.max_prefixlen)), strict=False) for base, bits in nets]
    mapped = getattr(address, "ipv4_mapped", None) or address
    expected = any(mapped in (_as_ipv4(network) or network) for network in networks)
    found = read_address(str(address))
    assert found is not None
    assert (found in AddressSet(map(str, networks))) == expected


def _as_ipv4(network):
    if network.version == 4 or network.prefixlen < 96 or network.network_address.ipv4_mapped is None:
        return None
    return ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))


def test_a_mapped_address_meets_ipv4_rules():
    """An IPv4 client on an IPv6 socket is under the IPv4 rules, whichever way it or the rule is written."""
    rules = AddressRules(["10.0.0.0/8"], ["10.9.0.0/16"])
    assert rules.check("::ffff:10.1.2.3") == ("10.1.2.3", "")
    assert rules.check("::ffff:10.9.2.3") == ("10.9.2.3", "address_denied")
    assert AddressRules(["::ffff:10.0.0.0/104"]).check("10.1.2.3")[1] == ""


def test_deny_wins_over_allow():
    """An address on both lists is denied, however narrow the allowing rule."""
    rules = AddressRules(["10.9.1.1"], ["10.0.0.0/8"])
    assert rules.check("10.9.1.1")[1] == "address_denied"


def test_an_allow_list_shuts_out_the_rest():
    """With an allow list, what is not on it may not come; ipc is not on a list of networks."""
    rules = AddressRules(["10.0.0.0/8"])
    assert rules.check("192.0.2.1")[1] == "address_not_allowed"
    assert rules.check("2001:db8::1")[1] == "address_not_allowed"
    assert rules.check("localhost:0:0:1")[1] == "address_not_allowed"


def test_without_rules_every_sound_address_may_come():
    """No lists allow every address that can be read."""
    rules = AddressRules()
    assert not rules.restricted
    assert [rules.check(text)[1] for text in ("192.0.2.1", "::1", "localhost:1:2:3")] == ["", "", ""]


@pytest.mark.parametrize(
    ("rule", "peer", "allowed"),
    [
        ("ipc", "localhost:1000:100:5", True),
        ("ipc:uid=1000", "localhost:1000:100:5", True),
        ("ipc:uid=1001", "localhost:1000:100:5", False),
        ("ipc:gid=100", "localhost:1000:100:5", True),
        ("ipc:gid=1000", "localhost:1000:100:5", False),
        ("ipc", "127.0.0.1", False),
        ("0.0.0.0/0", "localhost:1000:100:5", False),
        ("::/0", "127.0.0.1", False),
    ],
)
def test_ipc_rules(rule, peer, allowed):
    """ipc peers are let in by ipc rules alone, by their user or group."""
    assert (AddressRules([rule]).check(peer)[1] == "") is allowed


@pytest.mark.parametrize(
    ("rule", "mend"),
    [
        ("10.0.0.1/8", "write 10.0.0.0/8"),
        ("example.org", "is no address rule"),
        ("ipc:pid=1", "is no address rule"),
        ("ipc:uid=", "is no address rule"),
        ("ipc:uid=01", "is no address rule"),
        ("IPC", "is no address rule"),
        ("", "is no address rule"),
        ("10.0.0.0/33", "is no address rule"),
    ],
)
def test_a_wrong_rule_says_its_mend(rule, mend):
    """A rule that cannot be read is a mistake that names the rule and what to write."""
    with pytest.raises(ConfigurationError, match=mend):
        AddressRules([rule])


def test_a_flood_of_addresses_fills_no_memory():
    """The memory of answers stays within its bound, and answers stay right."""
    rules = AddressRules(["10.0.0.0/8"])
    for number in range(3 * MEMO):
        rules.check(f"192.0.{number >> 8 & 255}.{number & 255}")
        rules.check(f"junk {number}")
    assert len(rules._memo) <= MEMO
    assert rules.check("10.0.0.1")[1] == ""
