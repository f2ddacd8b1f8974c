"""Child processes for the event loop: started without copying this process, waited for, always buried.

asyncio's own would do, but uvloop forks: for every child the loop stands still while the kernel copies the tables
of a process that knows a million keys by heart (20 to 60 ms). `subprocess.Popen` has vfork, and takes half a
millisecond at any size.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import threading
from collections.abc import Mapping


class Child:
    """A process, its standard input and output, and its end; for the event loop's thread."""

    def __init__(
        self, process: subprocess.Popen[bytes], stdout: asyncio.StreamReader, stdin: asyncio.StreamWriter
    ) -> None:
        self.pid = process.pid
        self.stdout = stdout
        self.stdin = stdin
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._gone = asyncio.Event()
        threading.Thread(target=self._bury, name=f"zapd-child-{self.pid}", daemon=True).start()

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.returncode

    def end_input(self) -> None:
        """It has been told everything."""
        with contextlib.suppress(OSError, RuntimeError):  # it is gone; uvloop says so with the latter
            self.stdin.write_eof()

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        await self._gone.wait()
        return self._process.wait()

    async def end(self) -> int:
        """Kill it, if it has not ended, and wait until it is gone; the exit code."""
        self._process.kill()
        self.stdin.close()
        return await self.wait()

    def _bury(self) -> None:
        """In a thread: nothing stays a zombie, whatever becomes of the loop."""
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._gone.set)


async def start_child(
    *words: str,
    stderr: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    start_new_session: bool = False,
) -> Child:
    """Start a process whose standard input and output are ours: a socket, for both.

    What else may be said is what `subprocess.Popen` takes. Raises `OSError`.
    """
    ours, theirs = socket.socketpair()
    with contextlib.ExitStack() as undo:
        undo.callback(ours.close)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes no time; our own words
                words,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=stderr,
                env=env,
                cwd=cwd,
                start_new_session=start_new_session,
            )
        undo.callback(process.wait)
        undo.callback(process.kill)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        undo.pop_all()
    return Child(process, reader, writer)
