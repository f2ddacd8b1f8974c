"""What deploy/ holds works where it is meant for: systemd reads the units, and their limits leave zapd room."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "zapd.service"


def need(tool: str) -> str:
    path = shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"missing: {tool}")
    return path


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    copy = tmp_path / "zapd.service"
    copy.write_text(UNIT.read_text().replace("/opt/zapd/bin/zapd", "/bin/true"))
    return copy


def test_systemd_accepts_the_unit(unit: Path) -> None:
    """No unknown setting, no warning."""
    done = subprocess.run([need("systemd-analyze"), "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_is_hardened(unit: Path) -> None:
    """systemd's own judgement of exposure, 0 to 10, stays below 2."""
    done = subprocess.run(
        [need("systemd-analyze"), "security", "--offline=yes", "--no-pager", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    if "offline" in done.stderr:
        pytest.skip("this systemd judges running units only")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "User=zapd",
        "StateDirectory=zapd",
        "RestartPreventExitStatus=2",
        "LimitCORE=0",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
    ],
)
def test_the_unit_keeps_its_promises(line: str) -> None:
    """Settings that zapd's behaviour is built on are there."""
    assert line in UNIT.read_text().splitlines()


def test_stopping_waits_for_the_drain() -> None:
    """systemd waits longer than zapd drains by default (5 s)."""
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= 10


def test_the_user_of_the_unit_is_made() -> None:
    """sysusers.d knows the unit's user, and tmpfiles.d gives it a folder that only root writes."""
    assert re.search(r"^u zapd ", (ROOT / "deploy" / "zapd.sysusers").read_text(), re.MULTILINE)
    assert re.search(
        r"^d /etc/zapd +0750 root zapd ", (ROOT / "deploy" / "zapd.tmpfiles").read_text(), re.MULTILINE
    )
    if os.getuid() == 0:
        done = subprocess.run(
            [need("systemd-sysusers"), "--dry-run", ROOT / "deploy" / "zapd.sysusers"],
            capture_output=True,
            text=True,
            check=False,
        )
        if "unrecognized option" not in done.stderr:
            assert done.returncode == 0, done.stderr


def test_our_libraries_bear_write_xor_execute() -> None:
    """MemoryDenyWriteExecute: the kernel's own switch is set, then libsodium, libzmq and ctypes are used."""
    code = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, since Linux 6.3
    sys.exit(77)
import nacl.bindings as sodium, zmq, argon2
public, secret = sodium.crypto_box_keypair()
box = sodium.crypto_box(b"x", b"n" * 24, public, secret)
assert sodium.crypto_box_open(box, b"n" * 24, public, secret) == b"x"
argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("x")
context = zmq.Context(); context.socket(zmq.ROUTER).close(); context.term()
assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)(41) == 42
try:
    import uvloop
except ImportError:
    pass
else:
    async def main(): return 42
    assert uvloop.run(main()) == 42
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
