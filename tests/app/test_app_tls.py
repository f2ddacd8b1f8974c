"""TLS of the admin listener: strangers' handshakes are bounded in time and number."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from support.app_scene import CONFIGURATION, wait_for
from support.serving import PATIENCE, Zapd

from zapd.app.tls import HANDSHAKE, HANDSHAKES

AUTHORITY = trustme.CA()


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Running, with TLS on its admin listener."""
    pem, key = tmp_path / "admin.pem", tmp_path / "admin.key"
    issued = AUTHORITY.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(pem)
    key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(key)
    tls = f'listen = "127.0.0.1:0"\ntls_cert = "{pem}"\ntls_key = "{key}"'
    made = Zapd(tmp_path / "zapd", configuration=CONFIGURATION.replace('listen = "127.0.0.1:0"', tls))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def connect(zapd: Zapd) -> socket.socket:
    host, _, port = zapd.admin.removeprefix("https://").partition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


def descriptors(zapd: Zapd) -> int:
    assert zapd.process is not None
    return len(list(Path(f"/proc/{zapd.process.pid}/fd").iterdir()))


def is_well(zapd: Zapd, trust: ssl.SSLContext) -> bool:
    return httpx.get(zapd.admin + "/healthz", verify=trust, timeout=PATIENCE).status_code == 200


def test_a_handshake_has_a_deadline(zapd: Zapd, trust: ssl.SSLContext) -> None:
    """Who says nothing, half a greeting, or no TLS is gone in seconds; an honest client comes in beside them."""
    began = time.monotonic()
    with ExitStack() as stack:
        crowd = [stack.enter_context(connect(zapd)) for _ in range(3)]
        crowd[1].sendall(b"\x16\x03\x01\x02\x00")
        crowd[2].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert is_well(zapd, trust)
        for sock in crowd:
            sock.settimeout(HANDSHAKE + 10)
            try:
                while sock.recv(4096):  # an alert, perhaps
                    pass
            except ConnectionResetError:
                pass
    assert time.monotonic() - began < HANDSHAKE + 10


def test_handshakes_are_bounded_in_number(zapd: Zapd, trust: ssl.SSLContext) -> None:
    """A crowd that never shakes hands takes no more descriptors than there is room for, and keeps nobody out."""
    assert is_well(zapd, trust)
    before = descriptors(zapd)
    with ExitStack() as stack:
        for _ in range(HANDSHAKES + 150):
            stack.enter_context(connect(zapd))
        assert is_well(zapd, trust)
        assert wait_for(lambda: descriptors(zapd) <= before + HANDSHAKES + 5)
    assert wait_for(lambda: descriptors(zapd) <= before + 5)
    assert "error" not in zapd.logged()


def test_old_tls_is_refused(zapd: Zapd, trust: ssl.SSLContext) -> None:
    """1.2 and 1.3 are spoken, nothing older."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trust.minimum_version = trust.maximum_version = version
        assert is_well(zapd, trust)
    trust.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        trust.minimum_version = trust.maximum_version = ssl.TLSVersion.TLSv1_1
    with connect(zapd) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        trust.wrap_socket(plain, server_hostname="127.0.0.1")
