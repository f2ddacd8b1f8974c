"""What an attack once found, and must not find again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from support.hostile_scene import PASSWORD, Scene, status_of
from support.hostile_wire import question, wait_for

from zapd.config import load
from zapd.config.findings import InvalidConfiguration


@pytest.mark.parametrize(
    "message",
    [
        question(b"1", b"lab\n", b"NULL"),
        question(b"1", b"lab", b"BOGUS"),
        question(b"1", b"\xff", b"NULL"),
        question(b"1", b"staff", b"PLAIN", (b"bo\0b", PASSWORD)),
        question(b"1", b"staff", b"PLAIN", (b"bob", PASSWORD + b"\0")),
    ],
)
def test_every_400_has_its_record(tmp_path: Path, message: list[bytes]) -> None:
    """Names that no rule can admit are refused on record like everything else (contract, promise 3)."""
    scene = Scene.prepare(tmp_path)
    try:
        name = os.urandom(16)
        with scene.stranger() as asking:
            assert asking.ask([name, *message])[4] == b"400"
        assert name.hex() in scene.zapd.journal()
        assert PASSWORD.decode() not in scene.zapd.journal()
    finally:
        scene.zapd.stop()


def test_a_configuration_cut_to_nothing_is_no_policy(tmp_path: Path) -> None:
    """A file without any domain is refused at SIGHUP: the old stays in force, nobody is told a final no."""
    scene = Scene.prepare(tmp_path)
    try:
        scene.zapd.config.write_text("")
        scene.zapd.signal(signal.SIGHUP)
        assert wait_for(lambda: "was not reloaded" in scene.zapd.logged())
        with scene.stranger() as asking:
            assert status_of(asking.ask(scene.valid(b"1"))) == b"200"
    finally:
        scene.zapd.stop()


def test_a_second_zapd_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Each would answer from a memory of its own, and a revocation would be in force in one of them first."""
    scene = Scene.prepare(tmp_path)
    try:
        second = scene.zapd.run("serve", "-c", str(scene.zapd.config))
        assert second.returncode == 1
        assert "Another zapd serves from" in second.stderr
    finally:
        scene.zapd.stop()


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = " + "9" * 5000], ids=["nesting", "digits"])
def test_a_file_that_breaks_its_reader_is_a_mistake_like_any_other(tmp_path: Path, content: str) -> None:
    """Nesting without end and numbers without end are told as mistakes, not as faults of zapd."""
    path = tmp_path / "zapd.toml"
    path.write_text(content)
    with pytest.raises(InvalidConfiguration, match="absurd"):
        load(path)


def test_an_older_database_put_back_resurrects_nobody(tmp_path: Path) -> None:
    """A revoked key stays out although an older database took the place of the one that knew; the mend is said."""
    scene = Scene.prepare(tmp_path)
    data = tmp_path / "data"
    try:
        leaver = scene.add_key("leaver")
        scene.zapd.stop()
        shutil.copy(data / "zapd.db", tmp_path / "backup.db")
        scene.zapd.start()
        scene.zapd.ask("POST", f"/v1/keys/{scene.ids[leaver]}/revoke")
        scene.zapd.stop()
        for name in ("zapd.db-wal", "zapd.db-shm"):
            (data / name).unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", data / "zapd.db")
        scene.zapd.start()
        with scene.stranger() as asking:
            assert status_of(asking.ask(question(b"1", b"orders", b"CURVE", (leaver,)))) == b"300"
        readiness = scene.zapd.call("GET", "/readyz")
        assert readiness.status_code == 503
        assert "newest-change" in readiness.text
    finally:
        scene.zapd.stop()
