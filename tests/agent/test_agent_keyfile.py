"""The agent's key file is read strictly, and complains without giving the secret away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.agent_central import new_pair

from zapd.agent import AgentKeys, Endpoint, read_keys
from zapd.errors import ConfigurationError
from zapd.zmtp.keys import encode_key

PAIR = new_pair()
SERVER = new_pair()
PUBLIC, SECRET, SERVER_KEY = (encode_key(key) for key in (PAIR.public, PAIR.secret, SERVER.public))

GOOD = f"""
name = "edge-1"
public_key = "{PUBLIC}"
secret_key = "{SECRET}"
[[endpoint]]
address = "tcp://10.0.0.5:9027"
server_keys = ["{SERVER_KEY}"]
"""


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_reads_what_enrolment_wrote(tmp_path: Path) -> None:
    """A whole file becomes a name, a pair and pinned endpoints."""
    keys = read_keys(write(tmp_path / "agent.key", GOOD))
    assert keys == AgentKeys(
        "edge-1", PAIR.public, PAIR.secret, (Endpoint("tcp://10.0.0.5:9027", (SERVER.public,)),)
    )


def test_several_endpoints_and_keys(tmp_path: Path) -> None:
    """More zapds, more keys of one zapd, and a local one named by its user."""
    text = (
        GOOD
        + f"""
[[endpoint]]
address = "tcp://[::1]:9027"
server_keys = ["{SERVER_KEY}", "{PUBLIC}"]
[[endpoint]]
address = "ipc:///run/zapd/zap.sock"
user = "zapd"
"""
    )
    endpoints = read_keys(write(tmp_path / "agent.key", text)).endpoints
    assert [len(each.server_keys) for each in endpoints] == [1, 2, 0]
    assert endpoints[2].user == "zapd"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_refuses_a_file_that_others_can_reach(tmp_path: Path, mode: int) -> None:
    """A secret that others may read or replace is no secret (R27)."""
    path = write(tmp_path / "agent.key", GOOD, mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_keys(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace('name = "edge-1"', ""), "name is missing"),
        (GOOD.replace('"edge-1"', "7"), "name is missing, or not a string"),
        (GOOD.replace('"edge-1"', r'"a\u0007b"'), "printable"),
        (GOOD.replace(SECRET, SECRET[:-1]), "secret_key: not a Z85 key"),
        (GOOD.replace(SECRET, SECRET[:-1] + "~"), "secret_key: not a Z85 key"),
        (GOOD.replace(SECRET, SERVER_KEY), "do not belong together"),
        (GOOD.replace(SERVER_KEY, SERVER_KEY + "1"), "server_keys"),
        (GOOD.replace(f'["{SERVER_KEY}"]', f'"{SERVER_KEY}"'), "list of Z85"),
        (GOOD.replace(f'server_keys = ["{SERVER_KEY}"]', ""), "must be pinned"),
        (GOOD.replace(f'server_keys = ["{SERVER_KEY}"]', "server_keys = []"), "must be pinned"),
        (GOOD.replace("server_keys", "server_key"), "unknown setting 'server_key'"),
        (GOOD + "colour = 1", "unknown setting 'colour'"),
        (GOOD.replace(":9027", ""), "tcp://HOST:PORT"),
        (GOOD.replace("tcp://10", "udp://10"), "begins with tcp:// or ipc://"),
        (GOOD.replace("tcp://10.0.0.5:9027", "ipc://@zap"), "socket file"),
        (GOOD[: GOOD.index("[[")], "no \\[\\[endpoint\\]\\]"),
        (GOOD[: GOOD.index("[[")] + "endpoint = [1]", "write it as"),
        (GOOD.replace(SECRET, SECRET + '"'), "not TOML"),
        ("\n".join([GOOD] + ['[[endpoint]]\naddress = "ipc:///z"'] * 16), "more than 16 endpoints"),
        (GOOD + "#" * 70_000, "longer than"),
    ],
    ids=range(20),
)
def test_names_the_mistake_and_never_the_secret(tmp_path: Path, text: str, says: str) -> None:
    """Each mistake is named together with its file; the secret is in no message."""
    path = write(tmp_path / "agent.key", text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_keys(path)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    """No file: the message names the command that makes one."""
    with pytest.raises(ConfigurationError, match="zapd agent enroll"):
        read_keys(tmp_path / "absent.key")


def test_only_regular_files(tmp_path: Path) -> None:
    """A directory (or anything else) is no key file."""
    with pytest.raises(ConfigurationError):
        read_keys(tmp_path)


def test_binary_file(tmp_path: Path) -> None:
    """Octets that are no text are refused as such."""
    path = tmp_path / "agent.key"
    path.write_bytes(os.urandom(4) + b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not TOML"):
        read_keys(path)


def test_the_secret_is_not_in_repr() -> None:
    """Printing the keys shows no secret, in any spelling."""
    keys = AgentKeys("edge-1", PAIR.public, PAIR.secret)
    shown = repr(keys)
    assert repr(PAIR.secret)[2:-1] not in shown
    assert PAIR.secret.hex() not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9027", "tcp://[::1]:9027", "tcp://localhost:9027", "ipc:///x"]
)
def test_local_endpoints_may_do_without_keys(address: str) -> None:
    """On loopback and ipc NULL is allowed, nowhere else."""
    assert not Endpoint(address).secured


@pytest.mark.parametrize(
    "address", ["tcp://zap.example.org:9027", "tcp://0.0.0.0:9027", "tcp://localhost.evil.example:1"]
)
def test_the_network_needs_keys(address: str) -> None:
    """Everything that is not plainly this machine must prove a pinned key (R9, R12)."""
    with pytest.raises(ConfigurationError, match="pinned"):
        Endpoint(address)


def test_a_server_key_is_32_octets() -> None:
    """A key of another length is refused where it is given, not at the first connection."""
    with pytest.raises(ConfigurationError, match="32 octets"):
        Endpoint("tcp://10.0.0.5:1", (b"short",))
    with pytest.raises(ConfigurationError, match="more than"):
        Endpoint("tcp://10.0.0.5:1", (SERVER.public,) * 9)
