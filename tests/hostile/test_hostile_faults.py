"""The world and its operators at their worst: no journal, half-edited files, signals without end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile_scene import CONFIGURATION, Scene, status_of
from support.hostile_wire import Stranger, wait_for
from support.serving import Zapd

pytestmark = pytest.mark.xdist_group("hostile-faults")
"""One worker, one zapd."""

NEW_DOMAIN = '[domain.new]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\n'


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-faults"))
    try:
        yield scene
    finally:
        scene.zapd.stop()


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    """The same zapd for all, under its own configuration again behind each."""
    yield shared
    shared.zapd.configure(CONFIGURATION)
    shared.zapd.signal(signal.SIGHUP)
    assert wait_for(lambda: answer(shared) == b"200")


def block_journal(zapd: Zapd) -> None:
    """Put a file where the journal's folder was: nothing can be written there, whoever tries."""
    folder = zapd.folder / "data" / "audit"
    if folder.exists():
        folder.rename(zapd.folder / "data" / "audit.away")
    folder.write_text("")


def unblock_journal(zapd: Zapd) -> None:
    folder = zapd.folder / "data" / "audit"
    folder.unlink()
    away = zapd.folder / "data" / "audit.away"
    if away.exists():
        away.rename(folder)


def answer(scene: Scene) -> bytes:
    with scene.stranger() as asking:
        return status_of(asking.ask(scene.valid(b"1")))


def ready(zapd: Zapd) -> bool:
    return zapd.call("GET", "/readyz").status_code == 200


def test_a_reload_while_the_journal_cannot_be_written_does_not_end_the_service(scene: Scene) -> None:
    """It answers 300, reloads, is not ready, and grants again by itself once the journal is back."""
    block_journal(scene.zapd)
    assert wait_for(lambda: answer(scene) == b"300")
    scene.zapd.configure(CONFIGURATION + NEW_DOMAIN)
    reloaded = scene.zapd.logged().count("the configuration was reloaded")
    for _ in range(3):
        scene.zapd.signal(signal.SIGHUP)
    assert wait_for(lambda: scene.zapd.logged().count("the configuration was reloaded") > reloaded)
    assert answer(scene) == b"300"
    assert not ready(scene.zapd)
    unblock_journal(scene.zapd)
    assert wait_for(lambda: answer(scene) == b"200")
    assert ready(scene.zapd)
    assert scene.zapd.run("audit", "verify").returncode == 0


def test_a_journal_that_cannot_be_written_at_start_is_waited_for(tmp_path: Path) -> None:
    """zapd starts, answers 300, is not ready, keeps trying, and grants once it can record."""
    scene = Scene.prepare(tmp_path)
    scene.zapd.stop()
    block_journal(scene.zapd)
    scene.zapd.start()
    try:
        assert answer(scene) == b"300"
        assert not ready(scene.zapd)
        unblock_journal(scene.zapd)
        assert wait_for(lambda: answer(scene) == b"200")
        assert wait_for(lambda: ready(scene.zapd))
    finally:
        assert scene.zapd.stop() == 0


def test_a_reload_is_all_or_nothing_with_a_broken_certificate(tmp_path: Path) -> None:
    """A new domain beside a certificate that cannot be read: the log says that the old stays, and it does."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    configuration = CONFIGURATION.replace(
        '[admin]\nlisten = "127.0.0.1:0"',
        f'[admin]\nlisten = "127.0.0.1:0"\ntls_cert = "{certificate}"\ntls_key = "{key}"',
    )
    zapd = Zapd(tmp_path / "zapd", configuration=configuration)
    zapd.start()
    try:
        certificate.write_text("-----BEGIN CERTIFICATE-----\n")
        zapd.configure(configuration + '[domain.new]\nmechanisms = ["NULL"]\nallow = ["127.0.0.0/8"]\n')
        zapd.signal(signal.SIGHUP)
        assert wait_for(lambda: "was not reloaded" in zapd.logged())
        with Stranger(zapd.zap[0]) as asking:
            new = [b"", b"1.0", b"1", b"new", b"127.0.0.1", b"", b"NULL"]
            assert status_of(asking.ask(new)) == b"400", "the new domain is in force"
    finally:
        assert zapd.stop() == 0


BROKEN = {
    "not UTF-8": b"\xff\xfe\x00[server]",
    "NULs": b"\0" * 4096,
    "half a table": b"[domain.",
    "cut in a string": CONFIGURATION.encode()[: CONFIGURATION.index("orders") + 3],
    "a merge conflict": b"<<<<<<< ours\n" + CONFIGURATION.encode(),
    "unknown setting": CONFIGURATION.encode() + b"[domain.more]\nmechanism = ['CURVE']\nbackends = ['keys']\n",
    "unknown backend": CONFIGURATION.replace('backends = ["keys"]', 'backends = ["kyes"]').encode(),
    "unknown type": CONFIGURATION.replace('"sql"', '"sqll"').encode(),
    "a 4 MiB string": b'x = "' + b"y" * (4 << 20) + b'"',
}


def test_no_broken_edit_changes_or_ends_anything(scene: Scene) -> None:
    """Each kind of broken file, a missing one, a folder in its place: said in the log, the old stays in force."""
    config = scene.zapd.config
    for number, content in enumerate([*BROKEN.values(), None, "folder"]):
        if isinstance(content, bytes):
            config.write_bytes(content)
        else:
            config.unlink(missing_ok=True)
            if content:
                config.mkdir()
        said = scene.zapd.logged().count("was not reloaded")
        scene.zapd.signal(signal.SIGHUP)
        assert wait_for(lambda said=said: scene.zapd.logged().count("was not reloaded") > said), number  # type: ignore[misc]
        assert answer(scene) == b"200"
        if content == "folder":
            config.rmdir()


@pytest.mark.parametrize(
    "content",
    [b"x = " + b"[" * 5000, CONFIGURATION.encode() + b"[limits]\nbacklog = " + b"9" * 5000 + b"\n"],
    ids=["deep nesting", "a huge number"],
)
def test_a_file_that_breaks_its_reader_does_not_break_the_service(scene: Scene, content: bytes) -> None:
    """What makes the reading of the configuration itself fail leaves the old one in force too."""
    said = scene.zapd.logged().count("was not reloaded")
    scene.zapd.config.write_bytes(content)
    scene.zapd.signal(signal.SIGHUP)
    assert wait_for(lambda: scene.zapd.logged().count("was not reloaded") > said)
    assert answer(scene) == b"200"


def test_a_storm_of_reloads_under_load_loses_no_answer(scene: Scene) -> None:
    """A hundred SIGHUPs, domains coming and going: every question of a standing domain is granted."""
    edited = scene.zapd.folder / "edited.toml"
    with scene.stranger() as asking:
        for number in range(100):
            edited.write_text(CONFIGURATION + (NEW_DOMAIN if number % 2 else ""))
            edited.rename(scene.zapd.config)  # as good editors do
            scene.zapd.signal(signal.SIGHUP)
            for _ in range(5):
                assert status_of(asking.ask(scene.valid(b"1"))) == b"200"


def test_draining_answers_300_and_still_ends(tmp_path: Path) -> None:
    """SIGTERM in the middle of a flood: 300 or 200 until the end, never 400, and exit code 0."""
    scene = Scene.prepare(tmp_path)
    statuses: set[bytes] = set()
    with scene.stranger() as asking:
        assert status_of(asking.ask(scene.valid(b"first"))) == b"200"
        asking.send(*[scene.valid(b"%d" % number) for number in range(200)])
        scene.zapd.signal(signal.SIGTERM)  # read before the flood or behind it, as it happens
        asking.send(*[scene.valid(b"%d" % number) for number in range(200)])
        statuses = {status_of(reply) for reply in asking.linger(3.0)}
    assert scene.zapd.stop() == 0
    assert statuses
    assert statuses <= {b"200", b"300"}
