"""zapd audit verify: the journal checked offline, with nothing but the files and a public key."""

import json
import os
from pathlib import Path

import pytest
from support.cli_server import run

from zapd.audit.event import AuditEvent
from zapd.audit.journal import Journal
from zapd.audit.signing import generate_signing_key


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A configuration whose journal holds twenty records."""
    (tmp_path / "zapd.toml").write_text('[audit]\nhead = "file:heads"\n')
    (tmp_path / "data").mkdir()
    generate_signing_key(tmp_path / "data" / "journal.key")
    journal = await Journal.open(tmp_path / "data" / "audit", durability="strict")
    for number in range(20):
        journal.append(AuditEvent(event="auth.accept", domain="default", principal=f"user-{number}", status=200))
    await journal.durable()
    await journal.close()
    return tmp_path


def segment_of(folder: Path) -> Path:
    """The one segment with records."""
    (path,) = [each for each in folder.glob("data/audit/*/*.jsonl") if "checkpoint" not in each.name]
    return path


async def test_an_honest_journal_is_intact(folder: Path) -> None:
    """Exit code 0, and how many records were checked, for people and for programs."""
    printed = run("audit", "verify", config=folder / "zapd.toml").stdout
    assert "intact" in printed
    told = json.loads(run("audit", "verify", "--json", config=folder / "zapd.toml").stdout)
    assert told["good"] is True
    assert told["records"] >= 20
    run("audit", "verify", str(folder / "data" / "audit"))


async def test_an_altered_record_is_named(folder: Path) -> None:
    """One changed name ends the verification with 1, and says which record it is."""
    path = segment_of(folder)
    path.write_bytes(path.read_bytes().replace(b"user-7", b"user-9", 1))
    printed = run("audit", "verify", config=folder / "zapd.toml", code=1).stdout
    assert "BAD altered" in printed
    told = json.loads(run("audit", "verify", "--json", config=folder / "zapd.toml", code=1).stdout)
    assert told["problems"][0]["kind"] == "altered"


async def test_what_cannot_be_verified_is_one_sentence(folder: Path) -> None:
    """No journal, no such folder and no key each have their words and exit codes."""
    assert (
        "public key is base64" in run("audit", "verify", "--key", "x", config=folder / "zapd.toml", code=2).stderr
    )
    run("audit", "verify", str(folder / "nowhere"), code=2)
    segment = segment_of(folder)
    segment.parent.rename(folder / "aside")
    (folder / "data" / "audit").rename(folder / "data" / "moved")
    assert "no journal at" in run("audit", "verify", config=folder / "zapd.toml", code=1).stderr


def test_nothing_is_never_called_intact(folder: Path, tmp_path: Path) -> None:
    """A folder beside the journal, above it or inside it, and an empty file, say what to name instead."""
    config = folder / "zapd.toml"
    (tmp_path / "empty").touch()
    for path in (folder, folder / "data", segment_of(folder).parent, tmp_path / "empty"):
        assert "name the folder `audit`" in run("audit", "verify", str(path), config=config, code=1).stderr
    for path in (folder, folder / "data", segment_of(folder).parent):
        assert "name the folder `audit`" in run("audit", "replay", str(path), config=config, code=1).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a moment")
def test_a_journal_of_somebody_elses_is_one_sentence(folder: Path) -> None:
    """Whoever may not look into data_dir is told who may, and nothing is called a fault of zapd's."""
    for each in (folder, *folder.parents):
        if each.parent != each and "pytest" in str(each):
            each.chmod(0o755)
    for verb in ("verify", "replay"):
        run("audit", verb, config=folder / "zapd.toml")  # what it imports root reads
        (folder / "data").chmod(0o700)
        os.seteuid(65534)
        try:
            refused = run("audit", verb, config=folder / "zapd.toml", code=1).stderr
        finally:
            os.seteuid(0)
        assert f"{folder / 'data' / 'audit'} cannot be read (Permission denied)" in refused
