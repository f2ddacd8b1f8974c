"""SIGHUP: what changes at once, what waits for a restart, and the certificate of the admin API."""

from __future__ import annotations

import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.app_scene import ALICE, CONFIGURATION, Asking, plain_file, wait_for, z85
from support.serving import PATIENCE, Zapd


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    made = Zapd(tmp_path, configuration=CONFIGURATION)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def reload(zapd: Zapd, configuration: str) -> None:
    """Edit, tell, and wait until it says that it has read it."""
    before = zapd.logged().count("the configuration was reloaded")
    zapd.configure(configuration)
    zapd.signal(signal.SIGHUP)
    assert wait_for(lambda: zapd.logged().count("the configuration was reloaded") > before), zapd.logged()


def test_domains_backends_and_deadlines_are_in_force_after_sighup(zapd: Zapd) -> None:
    """A new domain with a new backend answers, a changed one obeys, a removed one is refused; open ones go on."""
    zapd.add_key(z85(ALICE), "alice", domains=["*"])
    plain_file(zapd.folder / "staff.passwd", ada="lovelace")
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200
        assert asking.plain("ada", "lovelace", "staff") == 400
        staff = (
            '[backend.staff]\ntype = "passwd"\npath = "staff.passwd"\n'
            '[domain.staff]\nmechanisms = ["PLAIN"]\nbackends = ["staff"]\n'
        )
        reload(zapd, CONFIGURATION.replace('null_user = "lab"', 'null_user = "bench"') + staff)
        assert asking.plain("ada", "lovelace", "staff") == 200
        assert asking.whole(domain="lab", mechanism="NULL") == (200, "bench")
        assert asking.ask(ALICE) == 200

        closed = CONFIGURATION.replace("[domain.orders]\n", '[domain.orders]\ndeny = ["127.0.0.0/8"]\n')
        reload(zapd, closed)
        assert asking.ask(ALICE) == 400
        assert asking.plain("ada", "lovelace", "staff") == 400, "what was removed admits nobody"
        assert [each["name"] for each in zapd.ask("GET", "/v1/backends")["items"]] == ["keys"]
    assert zapd.journal().count('"event":"service.reload"') == 2


def test_what_needs_a_restart_is_named_and_keeps_its_value(zapd: Zapd) -> None:
    """Each setting that only a start reads is in the log, and nothing of it changes."""
    changed = (
        CONFIGURATION.replace('drain = "5s"', 'drain = "6s"\nworkers = 2')
        .replace("ipc://data/zap.sock", "ipc://data/other.sock")
        .replace('listen = "127.0.0.1:0"', 'listen = "127.0.0.1:1"\nbehind_proxy = true')
        .replace('head = ""', 'head = ""\ndurability = "off"')
        + "[limits]\nhash_workers = 1\nmax_in_flight = 7\nhandshakes_start = 77\n"
        + '[database]\nmax_staleness = "9s"\n'
    )
    reload(zapd, changed)
    named = [line for line in zapd.logged().splitlines() if "needs a restart" in line]
    for setting in (
        "server.workers", "zap", "audit", "database.max_staleness", "admin.listen", "admin.behind_proxy",
        "limits.hash_workers", "limits.max_in_flight",
    ):  # fmt: skip
        assert any(f'"setting": "{setting}"' in line for line in named), (setting, named)
    assert not any("handshakes_start" in line or "drain" in line for line in named), "those are in force"
    with Asking(zapd) as asking:
        assert asking.ask(domain="lab", mechanism="NULL") == 200
    assert not (zapd.folder / "data" / "other.sock").exists()
    assert '"auth.accept"' in zapd.journal()
    reload(zapd, changed)
    again = [line for line in zapd.logged().splitlines() if "needs a restart" in line]
    assert len(again) == 2 * len(named), "it is said each time, until there was a restart"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 by this name; (certificate, key)."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(pem)),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return pem, key


def test_the_admin_api_speaks_tls_and_takes_a_new_certificate_on_sighup(tmp_path: Path) -> None:
    """Connections after the signal see the new one; a pair that does not fit changes nothing and is said."""
    pem, key = certificate(tmp_path, "old")
    tls = f'listen = "127.0.0.1:0"\ntls_cert = "{pem}"\ntls_key = "{key}"'
    zapd = Zapd(tmp_path / "zapd", configuration=CONFIGURATION.replace('listen = "127.0.0.1:0"', tls))
    zapd.start()
    try:
        assert zapd.admin.startswith("https://")
        old = pem.read_text()

        def answers(trusted: str) -> bool:
            context = ssl.create_default_context(cadata=trusted)
            try:
                return httpx.get(f"{zapd.admin}/readyz", verify=context, timeout=PATIENCE).status_code == 200
            except httpx.ConnectError:
                return False

        assert answers(old)
        with pytest.raises(httpx.HTTPError):
            httpx.get(zapd.admin.replace("https", "http") + "/readyz", timeout=PATIENCE)

        new_pem, new_key = certificate(tmp_path, "new")
        new_pem.replace(pem)
        zapd.signal(signal.SIGHUP)
        assert wait_for(lambda: "the TLS files cannot be used" in zapd.logged()), "half of an edit"
        assert answers(old)
        new_key.replace(key)
        reload(zapd, zapd.config.read_text())
        assert answers(pem.read_text())
        assert not answers(old)
    finally:
        assert zapd.stop() == 0
