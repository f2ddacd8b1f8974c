"""Backends that fail in every way, with secrets in their hands and on their lips: zapd writes none of them."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest
from support.app_scene import CONFIGURATION, Asking
from support.hostile_canary import Hunt, canary
from support.serving import Zapd

CLUMSY = '''
import asyncio, base64
from urllib.parse import quote

from zapd.auth.backend import Outcome, Principal, Verdict
from zapd.errors import ConfigurationError, Unavailable


class Clumsy:
    """Quotes in every error what it was given."""

    mechanisms = frozenset({"PLAIN"})
    started = False

    def __init__(self, name, secret):
        self.name, self.secret = name, secret

    @classmethod
    def from_settings(cls, name, settings, context):
        if settings.get("refuse"):
            raise ConfigurationError(f"backend.{name}: bind_password {settings['bind_password']!r} is refused")
        return cls(name, settings["bind_password"])

    @property
    def problem(self):
        return f"bound with {self.secret}"

    async def start(self):
        if self.name == "absent":
            raise ConnectionError(f"ldap://zapd:{quote(self.secret)}@directory is not there")

    async def check(self, question):
        password = question.password
        told = password.decode("utf-8", "replace")
        match question.username:
            case "trouble":
                raise Unavailable(f"{told} could not be sent with {self.secret}")
            case "bug":
                raise ValueError(f"no such thing: {password!r}")
            case "chain":
                try:
                    raise KeyError(password.hex())
                except KeyError as error:
                    raise RuntimeError(base64.b64encode(b"zapd:" + password)) from error
            case "note":
                error = RuntimeError("see the note")
                error.add_note(f"Authorization: Basic {base64.b64encode(b'ada:' + password).decode()}")
                raise error
            case "group":
                raise ExceptionGroup(self.secret, [ValueError(told), OSError(5, told, told)])
            case "reason":
                return Verdict(Outcome.UNAVAILABLE, reason=f"cannot tell about {told}")
            case "nonsense":
                return told
            case "nobody":
                return Verdict(Outcome.ACCEPT, reason=told)
            case "unprintable":
                return Verdict(Outcome.ACCEPT, Principal(f"{told}\\n"))
            case "late":
                try:
                    await asyncio.sleep(60)
                finally:
                    raise ValueError(told)
            case "exit":
                raise asyncio.CancelledError(told)
        return Verdict(Outcome.REJECT, reason="wrong_password")

    async def aclose(self):
        raise RuntimeError(f"cannot unbind {self.secret}")
'''
FAILURES = (
    *("trouble", "bug", "chain", "note", "group", "reason", "nonsense", "nobody", "unprintable", "late", "exit"),
)
TABLES = """
[backend.clumsy]
type = "clumsy"
bind_password = "file:bind.secret"
deadline = "200ms"
circuit_failures = 0
[backend.absent]
type = "clumsy"
bind_password = "file:bind.secret"
[domain.clumsy]
mechanisms = ["PLAIN"]
backends = ["clumsy"]
[domain.absent]
mechanisms = ["PLAIN"]
backends = ["absent"]
"""


@pytest.fixture
def clumsy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with such a backend, as good as installed for every program that the test starts."""
    site = tmp_path / "site"
    info = site / "clumsy-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "clumsy.py").write_text(dedent(CLUMSY))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clumsy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zapd.backends]\nclumsy = clumsy:Clumsy\n")
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_no_failure_of_a_backend_tells_a_secret(tmp_path: Path, clumsy: None) -> None:
    """Passwords and a bind password through every kind of failure: then the log with its tracebacks, the journal,
    audit.db, the metrics, the API, the commands and /proc are searched for them in all their forms."""
    folder = tmp_path / "zapd"
    zapd = Zapd(folder, configuration=CONFIGURATION + TABLES)
    bind = canary()
    secret = folder / "bind.secret"
    secret.touch(mode=0o600)
    secret.write_text(bind)
    passwords = {kind: canary() for kind in (*FAILURES, "wrong", "absent")}
    named = {f"the password of {kind}": word.encode() for kind, word in passwords.items()}
    hunt = Hunt({"the bind password": bind.encode(), **named})

    zapd.configure(CONFIGURATION + TABLES.replace("deadline", "refuse = true\ndeadline", 1))
    for words in (["check-config"], ["serve"]):
        refused = zapd.run(*words)
        assert refused.returncode == 2
        assert "bind_password '***' is refused" in refused.stdout + refused.stderr
        hunt.through(f"zapd {' '.join(words)}", refused.stdout + refused.stderr)
    zapd.configure(CONFIGURATION + TABLES)
    with zapd, Asking(zapd) as asking:
        for kind in FAILURES:
            assert asking.plain(kind, passwords[kind], "clumsy") == 300, kind
            explained = zapd.call(
                "POST", "/v1/explain", {"domain": "clumsy", "mechanism": "PLAIN", "username": kind}
            )
            hunt.through("/v1/explain", explained.content)
            for path in ("/v1/backends", "/readyz"):
                hunt.through(f"{path} after {kind}", zapd.call("GET", path).content)
        assert asking.plain("anybody", passwords["wrong"], "clumsy") == 400
        assert asking.plain("anybody", passwords["absent"], "absent") == 300
        for path in ("/metrics", "/v1/audit?limit=1000", "/v1/domains"):
            hunt.through(path, zapd.call("GET", path).content)
        listed = zapd.run("backend", "list")
        assert "ldap://zapd:***@directory is not there" in listed.stdout
        assert "bound with ***" in listed.stdout
        hunt.through("zapd backend list", listed.stdout + listed.stderr)
        page = zapd.call("GET", "/metrics").text
        assert 'zapd_backend_errors_total{name="clumsy"} 0.0' not in page, "bugs were counted"
        assert zapd.process is not None
        hunt.through_process(zapd.process.pid)
    hunt.through_files(folder, but=[secret])
    assert (folder / "data" / "audit.db").exists()
    assert "Traceback" in zapd.logged(), "tracebacks are told, and were searched"
    assert "cannot unbind ***" in zapd.logged()
    assert hunt.searched > 30_000
    assert not hunt.found, sorted(set(hunt.found))
