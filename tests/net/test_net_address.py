"""Endpoints as people write them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapd.errors import InvalidInput
from zapd.net.address import IpcAddress, TcpAddress, credential_address, parse_address, zap_address


@pytest.mark.parametrize(
    ("text", "host", "port", "public"),
    [
        ("tcp://127.0.0.1:9027", "127.0.0.1", 9027, False),
        ("tcp://127.9.9.9:1", "127.9.9.9", 1, False),
        ("tcp://[::1]:0", "::1", 0, False),
        ("tcp://[::ffff:127.0.0.1]:1", "::ffff:7f00:1", 1, False),
        ("tcp://localhost:1", "localhost", 1, False),
        ("tcp://*:9027", "*", 9027, True),
        ("tcp://0.0.0.0:9027", "0.0.0.0", 9027, True),
        ("tcp://[::]:9027", "::", 9027, True),
        ("tcp://192.0.2.1:65535", "192.0.2.1", 65535, True),
        ("tcp://localhost.example.org:1", "localhost.example.org", 1, True),
        ("tcp://[fe80::1%eth0]:5", "fe80::1%eth0", 5, True),
    ],
)
def test_tcp_endpoints_say_who_can_reach_them(text: str, host: str, port: int, public: bool) -> None:
    """Hosts of every kind are read, and only loopback counts as private."""
    address = parse_address(text)
    assert address == TcpAddress(host, port)
    assert address.is_public is public
    assert parse_address(str(address)) == address


def test_an_ipc_path_starts_at_the_base(tmp_path: Path) -> None:
    """Relative paths start at the folder that is given, absolute ones stand for themselves; none is public."""
    assert parse_address("ipc://data/zap.sock", tmp_path) == IpcAddress(tmp_path / "data/zap.sock")
    absolute = parse_address("ipc:///run/zapd/zap.sock", tmp_path)
    assert str(absolute) == "ipc:///run/zapd/zap.sock"
    assert not absolute.is_public


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("", "tcp://host:port or ipc://path"),
        ("127.0.0.1:9027", "tcp://host:port or ipc://path"),
        ("inproc://zeromq.zap.01", "tcp://host:port or ipc://path"),
        ("TCP://127.0.0.1:1", "tcp://host:port or ipc://path"),
        ("tcp://127.0.0.1", "tcp://host:port"),
        ("tcp://:9027", "tcp://host:port"),
        ("tcp://::1:9027", "brackets"),
        ("tcp://127.0.0.1:65536", "0 to 65535"),
        ("tcp://127.0.0.1:-1", "0 to 65535"),
        ("tcp://127.0.0.1:٩", "0 to 65535"),
        ("tcp://127.1:9027", "four numbers"),
        ("tcp://010.0.0.1:9027", "four numbers"),
        ("tcp://[127.0.0.1]:1", "not an IPv6 address"),
        ("tcp://[::1:1", "not an IPv6 address"),
        ("tcp://-host:1", "neither a host name"),
        ("tcp://a b:1", "neither a host name"),
        (" tcp://127.0.0.1:1", "remove spaces"),
        ("tcp://127.0.0.1:1\n", "remove spaces"),
        ("ipc://", "name the socket's path"),
        ("ipc://@zapd", "abstract"),
        ("ipc://*", "abstract"),
        ("ipc:///run/zapd/", "names a directory"),
        ("ipc://..", "names a directory"),
        ("ipc:///" + "x" * 107, "107 octets"),
    ],
)
def test_mistakes_are_answered_with_the_mend(text: str, mend: str) -> None:
    """Whatever cannot be an endpoint is refused with a sentence that helps."""
    with pytest.raises(InvalidInput, match=mend):
        parse_address(text)


@given(st.text() | st.text().map("tcp://".__add__) | st.text().map("ipc://".__add__))
def test_no_text_raises_anything_else(text: str) -> None:
    """Any text is an endpoint that reads back equal, or `InvalidInput`."""
    try:
        address = parse_address(text)
    except InvalidInput:
        return
    assert parse_address(str(address)) == address


def test_addresses_stand_in_zap_as_libzmq_writes_them() -> None:
    """Numeric without port or scope over tcp, uid, gid and pid over ipc."""
    assert zap_address("::ffff:127.0.0.1") == "::ffff:127.0.0.1"
    assert zap_address("fe80::1%eth0") == "fe80::1"
    assert credential_address(1000, 100, 4711) == "localhost:1000:100:4711"
