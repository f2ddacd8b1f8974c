"""What a daemon owes its system: signals, readiness, and no trace of secrets outside.

It knows a `Runnable` by four verbs and nothing of what that does.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Protocol

import structlog

from zapd.errors import Unavailable

log = structlog.get_logger(__name__)

_PR_SET_DUMPABLE = 4


class Runnable(Protocol):
    """What can be run: in this order, ``reload`` any number of times."""

    async def start(self) -> None:
        """Come up. Raises what makes running pointless."""

    async def reload(self) -> None:
        """Read the configuration again. Never raises: what is wrong keeps the old and says so."""

    async def drain(self) -> None:
        """Send newcomers away and finish what is open."""

    async def stop(self) -> None:
        """Let go of everything. Called once, also when ``start`` failed."""


async def run(service: Runnable) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reloads. A second SIGTERM or SIGINT skips the draining."""
    loop = asyncio.get_running_loop()
    told_to_stop, in_a_hurry, told_to_reload = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (in_a_hurry if told_to_stop.is_set() else told_to_stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, told_to_reload.set)
    try:
        await service.start()
        settle()
        notify("READY=1")
        await _reload_until(told_to_stop, told_to_reload, service)
        notify("STOPPING=1")
        await _first(service.drain(), in_a_hurry.wait())
    finally:
        await service.stop()


async def _reload_until(told_to_stop: asyncio.Event, told_to_reload: asyncio.Event, service: Runnable) -> None:
    while not told_to_stop.is_set():
        await _first(told_to_stop.wait(), told_to_reload.wait())
        if told_to_reload.is_set() and not told_to_stop.is_set():
            told_to_reload.clear()
            notify("RELOADING=1")
            try:
                await service.reload()
            except Exception:  # a bad edit is no reason to stop deciding, nor is a bug of ours
                log.exception("the configuration was not reloaded, for a fault of zapd's own")
            notify("READY=1")


async def _first(*works: object) -> None:
    """Wait for the first of several; the others are cancelled. What a finished one raised is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        task.result()


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nothing where nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        log.warning("systemd could not be told", state=state, reason=str(error))


def hold_folder(folder: Path) -> int:
    """Make sure that no other zapd serves from ``folder``: two would each answer from a memory of its own.

    Gives the descriptor that holds it until it is closed. Raises `zapd.errors.Unavailable`.
    """
    return _hold(
        folder / "serve.lock",
        f"Another zapd serves from {folder}: stop it, or give this one a data_dir of its own.",
    )


def hold_database(file: Path) -> int:
    """As `hold_folder`, for a file of SQLite: whoever uses it takes itself for the only one."""
    return _hold(
        file.with_name(file.name + ".serve.lock"),
        f"Another zapd serves from the database {file}: stop it, give this one a database of its own, or let both"
        " use PostgreSQL.",
    )


def _hold(lock: Path, taken: str) -> int:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Unavailable(
            f"{lock} cannot be opened ({error.strerror}): whoever runs zapd must be able to write in its folder."
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise Unavailable(taken) from None
    return descriptor


def settle() -> None:
    """Set the interpreter up for many short-lived values beside a registry that lives as long as we do.

    The garbage collector is spared what start has made: walking it took 80 ms of every full collection with
    100,000 keys. What comes later is freed by its reference count; cycles are few, so looking for them can wait.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    # The journal's thread asks for the interpreter after each sync, and the replies of a group wait for it.
    sys.setswitchinterval(0.0005)


def keep_secrets_in() -> None:
    """No core dump, and no other process of the same user may read this one's memory (limits.md, R27)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("the process could not be made undumpable", errno=ctypes.get_errno())
