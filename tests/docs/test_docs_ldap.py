"""docs/backends/ldap.md is run: its schema, entries and configuration, each command with what it prints, and a
libzmq client that logs in with them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq
from support.agent_app import App
from support.serving import PATIENCE, Zapd, serving
from support.slapd import ADMIN_PASSWORD, SUFFIX, Slapd, SlapdMaker, make_slapd, slapd_certificates
from test_docs_readme import lines_fit, steps
from zapd_backends import ldap
from zapd_backends.ldap_settings import LdapSettings

from zapd.agent.keyfile import read_keys

__all__ = ["make_slapd", "slapd_certificates"]

PAGE = (Path(__file__).parents[2] / "docs/backends/ldap.md").read_text()
HEAD = """
[server]
data_dir = "data"
[database]
url = "sqlite:///data/zapd.db"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[admin]
listen = "127.0.0.1:0"
"""


def block(kind: str) -> str:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def directory(make_slapd: SlapdMaker) -> Slapd:
    """A server that holds nothing of the page but its schema."""
    server = make_slapd()
    (schema,) = re.findall(r"attributetype.*?MAY zmqCurvePublicKey \)", block("schema"), re.DOTALL)
    server.stop()
    (server.folder / "zmq.schema").write_text(schema + "\n")
    server.start()
    server.change(lambda connection: connection.delete(f"cn=zapd,{SUFFIX}"))
    return server


@pytest.fixture
def zapd_(directory: Slapd, tmp_path: Path) -> Iterator[Zapd]:
    """A zapd with the page's configuration, the server's place in it changed to this one's."""
    text = block("toml")
    for number in (1, 2):
        text = text.replace(f"ldaps://ldap{number}.example.org", directory.tls_url)
    shutil.copy(directory.ca, tmp_path / "ldap-ca.pem")
    for name, secret in (("ldap.secret", "a-long-random-password"), ("admin.secret", ADMIN_PASSWORD)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(secret)
    (tmp_path / "fleet.ldif").write_text(block("ldif"))
    with serving(tmp_path, configuration=HEAD + text) as started:
        yield started


def test_the_page_is_true(zapd_: Zapd, directory: Slapd) -> None:
    """Typed as it stands, each command prints what it shows, though the entries came after zapd had started."""
    if shutil.which("ldapadd") is None:
        pytest.skip("ldapadd is not installed (apt-get install ldap-utils)")
    zapd_.enroll("agent")
    bin_ = Path(sys.executable).parent
    for command, printed in steps(block("console")):
        typed = command.replace("-H ldap://127.0.0.1", f"-H {directory.url}").replace("zapd ", f"{bin_}/zapd ")
        typed = typed.replace("tcp://127.0.0.1:9027", zapd_.zap[0])
        shown = type_until(zapd_, typed, printed)
        assert lines_fit(printed, shown, {}), f"$ {command}\n" + "\n".join(shown)
    assert "a-long-random-password" not in zapd_.logged() + zapd_.journal()
    assert "analytical-engine" not in zapd_.logged() + zapd_.journal()


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def type_until(zapd_: Zapd, command: str, printed: list[str]) -> list[str]:
    """What it prints; a question more than once, while zapd has not yet found the directory or is slow."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=zapd_.folder,
            env={"PATH": "/usr/bin:/bin", "ZAPD_URL": zapd_.admin, "ZAPD_TOKEN": zapd_.token},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        shown = done.stdout.splitlines()
        if done.returncode == 0 and lines_fit(printed, shown, {}):
            return shown
        if "ldapadd" in command or time.monotonic() > deadline:
            return [*shown, *done.stderr.splitlines()]
        time.sleep(0.2)


def test_a_libzmq_client_logs_in_with_the_directorys_password(zapd_: Zapd, directory: Slapd) -> None:
    """Through the agent: the right password is in, with name, groups and mail; a wrong one is refused; while the
    directory is down nobody is, and who waited is in when it is back."""
    directory.add(block("ldif"))
    assert wait_for(lambda: zapd_.call("GET", "/readyz").is_success)
    keys = read_keys(zapd_.enroll("edge-1"))
    with App(keys.endpoints, keys=keys, mechanism="PLAIN", domain="metrics", deadline=1.5, handshake=2.0) as app:
        app.visitor(user="ada", password="analytical-engine", says=b"first")
        assert app.socket.poll(int(PATIENCE * 1000))
        frame = app.socket.recv(copy=False)
        assert frame.bytes == b"first"
        told = {name: frame.get(name) for name in ("User-Id", "X-Zapd-Groups", "X-Mail")}
        assert told == {"User-Id": "ada", "X-Zapd-Groups": "fleet", "X-Mail": "ada@example.org"}
        directory.set("robot7", "userPassword", "none")
        directory.stop()
        app.visitor(user="ada", password="analytical-engine ", says=b"wrong")
        app.visitor(user="robot7", password="none", says=b"wrong")
        assert wait_for(lambda: "auth.defer" in zapd_.journal())
        assert '"reason":"wrong_password"' not in zapd_.journal()
        directory.start()
        assert app.socket.poll(int(PATIENCE * 1000))
        assert app.socket.recv(copy=False).get("User-Id") == "robot7"
        assert wait_for(lambda: '"reason":"wrong_password"' in zapd_.journal())
        assert not app.socket.poll(0, zmq.POLLIN)


def test_every_setting_is_in_the_page() -> None:
    """Each in the table, and no other."""
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    told = [
        name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(told) == sorted(LdapSettings.model_fields)


def test_every_reason_is_in_the_page() -> None:
    """Each code that the backend writes into the journal is in the table of outcomes."""
    table = PAGE.partition("## Outcomes")[2].partition("\n## ")[0]
    code = "".join(path.read_text() for path in Path(ldap.__file__).parent.glob("ldap*.py"))
    reasons = set(re.findall(r'(?:Trouble|Doubt)\("(\w+)"', code)) | set(re.findall(r'reason="(\w+)"', code))
    reasons |= set(ldap._POLICY_REASONS.values()) | set(ldap._ACTIVE_DIRECTORY.values())
    assert len(reasons) > 15
    assert sorted(reason for reason in reasons if f"`{reason}`" not in table) == []
