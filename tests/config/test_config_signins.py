"""What ``[signin.DOMAIN]`` may say, and what is unwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from zapd.config import Config, load
from zapd.config.findings import InvalidConfiguration

BASE = """
[enroll]
listen = "127.0.0.1:8028"
[backend.keys]
type = "sql"
[backend.staff]
type = "passwd"
path = "staff.passwd"
[domain.orders]
mechanisms = ["CURVE"]
backends = ["keys"]
[domain.people]
mechanisms = ["PLAIN"]
backends = ["staff"]
[domain."metrics.*"]
mechanisms = ["CURVE", "PLAIN"]
backends = ["keys"]
"""


def read(folder: Path, more: str, base: str = BASE) -> Config:
    (folder / "staff.passwd").touch(mode=0o600)
    path = folder / "zapd.toml"
    path.write_text(base + more)
    return load(path)


@pytest.mark.parametrize(
    "more",
    [
        '[signin.people]\ndomains = ["orders"]',
        '[signin.people]\ndomains = ["orders", "metrics.*"]\nlifetime = "1h"\nhints = { server = "tcp://x:1" }',
        '[signin."metrics.cpu"]',
        '[signin.people]\ndomains = ["*"]',
    ],
)
def test_a_domain_that_judges_passwords_and_a_registry_that_knows_keys(tmp_path: Path, more: str) -> None:
    """These say nothing that is wrong or unwise; the domain itself is granted unless others are named."""
    config = read(tmp_path, more)
    assert config.warnings == ()
    assert config.signin


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[signin.peple]", "did you mean 'people'?"),
        ('[signin."metrics.*"]', "there is no such domain"),
        ("[signin.orders]", "judges no passwords"),
        ('[signin.people]\ndomains = ["zapd.agents"]', "reserved"),
        ('[signin.people]\ndomains = ["a*b"]', "not at its end"),
        ('[signin.people]\nlifetime = "10s"', "out of range"),
        ('[signin.people]\nlifetime = "500d"', "out of range"),
        ('[signin.people]\nhints = { a = "\\n" }', "unprintable"),
        ("[signin.people]\nhints = { a = 7 }", "not a text"),
        ("[signin.people]\nhour = 1", "unknown setting"),
        ("signin = 7", "not a table"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(tmp_path: Path, more: str, said: str) -> None:
    """Before anything starts."""
    base = BASE if more.startswith("[") else ""
    with pytest.raises(InvalidConfiguration) as refused:
        read(tmp_path, more, base)
    assert said in str(refused.value), refused.value
    assert "line" in str(refused.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[signin.people]", "good for nothing"),
        ('[signin.people]\ndomains = ["nowhere"]', "good for nothing"),
        ('[signin.people]\ndomains = ["orders"]\nlifetime = "30d"', "keeps a key for up to 30d"),
    ],
)
def test_what_is_unwise_is_warned_of(tmp_path: Path, more: str, said: str) -> None:
    """A key that nobody would know, or that outlives a person for long."""
    (warning,) = read(tmp_path, more).warnings
    assert said in str(warning)


def test_a_sign_in_without_a_listener_is_warned_of(tmp_path: Path) -> None:
    """It would be asked by nobody."""
    (warning,) = read(
        tmp_path, '[signin.people]\ndomains = ["orders"]', BASE.replace('listen = "127.0.0.1:8028"', "")
    ).warnings
    assert "nobody can sign in" in str(warning)
