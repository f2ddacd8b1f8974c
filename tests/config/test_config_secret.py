"""Secrets that the configuration names: read late, guarded, never shown."""

import os
import pickle
from pathlib import Path

import pytest

from zapd.config import InvalidConfiguration, Secret, load
from zapd.errors import ConfigurationError


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "database.url"
    path.write_text("sqlite:///from-file.db\n")
    path.chmod(0o600)
    return path


def test_a_secret_is_read_when_it_is_needed(secret_file: Path) -> None:
    """A new content is seen without a new Secret, and the editor's line end is not part of it."""
    secret = Secret.parse("file:database.url", secret_file.parent)
    assert secret.reveal() == "sqlite:///from-file.db"
    secret_file.write_text("second")
    assert secret.reveal() == "second"


def test_a_secret_does_not_show() -> None:
    """repr, str, format and pickle give nothing away."""
    secret = Secret(inline="hush")
    assert (repr(secret), str(secret), f"{secret}") == ("***", "***", "***")
    with pytest.raises(TypeError):
        pickle.dumps(secret)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secret_that_others_can_read_is_refused(secret_file: Path, mode: int) -> None:
    """Any bit for group or others is too much, and the mend is named."""
    secret_file.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Secret(path=secret_file).reveal()


def test_credentials_of_systemd_are_taken(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In systemd's credentials folder access lists guard the file, and they show as group bits."""
    secret_file.chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file.parent))
    assert Secret(path=secret_file).reveal()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 70_000])
def test_files_that_hold_no_secret_are_refused(secret_file: Path, content: bytes) -> None:
    """Empty, binary and huge files are mistakes that name the file."""
    secret_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"database\.url"):
        Secret(path=secret_file).reveal()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """A pipe, a folder or nothing at all is told at once."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("pipe", "", "missing"):
        with pytest.raises(ConfigurationError):
            Secret(path=tmp_path / name).reveal()


def test_the_environment_is_for_development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """env:NAME works, with a warning; a variable that is not there is a mistake."""
    path = tmp_path / "zapd.toml"
    path.write_text('[database]\nurl = "env:ZAPD_TEST_DATABASE"\n')
    monkeypatch.setenv("ZAPD_TEST_DATABASE", "sqlite:///x.db")
    config = load(path)
    assert config.database_url() == f"sqlite:///{tmp_path}/x.db"
    assert any("for development" in str(warning) for warning in config.warnings)
    monkeypatch.delenv("ZAPD_TEST_DATABASE")
    with pytest.raises(InvalidConfiguration, match="ZAPD_TEST_DATABASE"):
        load(path)


def test_secret_files_are_checked_with_the_configuration(tmp_path: Path, secret_file: Path) -> None:
    """check-config finds a secret that others can read, at its line; who needs none may look away."""
    path = tmp_path / "zapd.toml"
    path.write_text(
        '[database]\nurl = "file:database.url"\n[backend.staff]\ntype = "passwd"\npath = "file:none"\n'
    )
    secret_file.chmod(0o644)
    with pytest.raises(InvalidConfiguration) as caught:
        load(path)
    assert [(each.line, each.setting) for each in caught.value.mistakes] == [
        (2, "database.url"),
        (5, "backend.staff.path"),
    ]
    load(path, check_files=False)
