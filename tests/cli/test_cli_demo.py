"""`zapd demo`, as it is typed."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import zapd.demo
from zapd.zmtp.keys import generate_keypair

ZAPD = [sys.executable, "-m", "zapd"]
PATIENCE = 60


def environment(folder: Path) -> dict[str, str]:
    """One in which everything temporary is in ``folder``, and another zapd is named to lead it astray."""
    return os.environ | {"TMPDIR": str(folder), "ZAPD_URL": "http://127.0.0.1:9", "ZAPD_CONFIG": "/nowhere"}


def test_it_ends_well_shows_each_decision_and_leaves_nothing(tmp_path: Path) -> None:
    """The whole road: in, out, revoked and out, the record, and a forgery found."""
    done = subprocess.run(
        [*ZAPD, "demo"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    assert "\x1b" not in shown
    steps = (
        "IN   the application hears 'good morning' from alice, groups traders",
        "auth.accept 200 granted",
        "OUT  libzmq tells mallory's client: 400",
        "auth.reject 400 unknown_key",
        "OUT  libzmq tells alice's client: 400",
        "auth.reject 400 revoked",
        "intact: ",
        "BAD altered: ",
        "All went as it must",
    )
    places = [shown.find(step) for step in steps]
    assert -1 not in places, shown
    assert places == sorted(places)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """No folder and no daemon, and an exit code that says so."""
    with subprocess.Popen(
        [*ZAPD, "demo"], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        port = 0
        for line in demo.stdout:
            if found := re.search(r"admin  http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if "agent enroll" in line:
                break
        assert list(tmp_path.iterdir())
        with socket.create_connection(("127.0.0.1", port), PATIENCE):
            pass
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(PATIENCE) == 1
        assert demo.stderr.read() == ""
    assert f"Stopped by {number.name}; nothing is left behind." in rest
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)


def test_it_fails_when_a_client_gets_in_that_must_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Mallory comes with alice's key here, and is let in: the demo ends with 1 and says what went wrong."""
    pair = generate_keypair()
    monkeypatch.setattr(zapd.demo, "generate_keypair", lambda: pair)
    monkeypatch.setattr(zapd.demo.tempfile, "tempdir", str(tmp_path))
    assert zapd.demo.run() == 1
    assert "The demo failed: mallory was not refused with 400" in capsys.readouterr().out.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []
