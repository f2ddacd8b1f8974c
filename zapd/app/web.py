"""Where HTTP is spoken: one app on one address, TLS where the configuration has it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from zapd.app.http import BoundedHttp
from zapd.app.tls import TlsFront, server_context
from zapd.errors import Unavailable


class Listening(Protocol):
    """What a table of the configuration says of a listener."""

    @property
    def listen(self) -> str: ...

    @property
    def tls_cert(self) -> Path | None: ...

    @property
    def tls_key(self) -> Path | None: ...

    @property
    def trusted_proxies(self) -> Sequence[str]: ...


class WebServer:
    """uvicorn in our loop: it leaves signals alone, and is bound before anything is told to be ready."""

    def __init__(
        self, app: FastAPI, table: str, section: Listening, *, stopping: asyncio.Event | None = None
    ) -> None:
        """``table`` is the configuration's, as people know it. ``stopping`` is set when the server goes down, for
        answers that would have no end. Raises `Unavailable` where it cannot listen."""
        self._sock = _bind(section.listen, table)
        self._name = table
        self._stopping = stopping
        tls = (section.tls_cert, section.tls_key) if section.tls_cert and section.tls_key else None
        proxies = section.trusted_proxies
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                proxy_headers=bool(proxies),
                forwarded_allow_ips=list(proxies),
                http=BoundedHttp,
                ws="none",
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._front = TlsFront(self._sock, server_context(*tls), self._protocol) if tls else None
        self._task: asyncio.Task[None] | None = None
        host, port = self._sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{port}"

    async def start(self) -> None:
        """Answer requests."""
        sockets = [self._sock] if self._front is None else []
        self._task = asyncio.create_task(self._server.serve(sockets=sockets), name=f"zapd-{self._name}")
        # uvicorn has no event for it, only a flag.
        while not self._server.started and not self._task.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task
        if self._front is not None:
            self._front.start(self._server.config.backlog)

    def reload_tls(self, certificate: Path | None, key: Path | None) -> None:
        """Use what these files hold now for new connections. Raises `ConfigurationError`, and changes nothing."""
        if self._front is not None and certificate is not None and key is not None:
            self._front.context = server_context(certificate, key)

    async def aclose(self) -> None:
        """Finish what is being answered, within two seconds, and close."""
        if self._task is not None:
            if self._stopping is not None:
                self._stopping.set()
            self._server.should_exit = True
            if self._front is not None:
                self._front.close()
            await self._task
        self._sock.close()

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn makes for a connection that it accepts itself."""
        return BoundedHttp(config=self._server.config, server_state=self._server.server_state, app_state={})


class _Server(uvicorn.Server):
    """Signals are the daemon's affair."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _bind(listen: str, table: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    except OSError as error:
        sock.close()
        raise Unavailable(
            f"[{table}] cannot listen on {listen}: {error.strerror}. Is another zapd running? "
            f"Stop it, or change [{table}] listen."
        ) from None
    return sock
