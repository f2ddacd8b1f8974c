"""The services over the registry and the journal, and the API over the services."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
import uvicorn

from zapd.admin.api.app import create_app
from zapd.admin.api.context import AdminContext, Readiness
from zapd.admin.services.agents import AgentService
from zapd.admin.services.audit import AuditService
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.explain import ExplainService, Explanation, Supposed
from zapd.admin.services.imports import ImportService
from zapd.admin.services.keys import KeyService
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.topology import BackendInfo, BackendService, DomainInfo, DomainService, Endpoint
from zapd.admin.services.users import UserService
from zapd.app.http import BoundedHttp
from zapd.app.tls import TlsFront, server_context
from zapd.auth.hashing import HashPool
from zapd.errors import Unavailable

log = structlog.get_logger(__name__)


def admin_context(
    *,
    road: ChangeRoad,
    hash_pool: HashPool,
    explain: Callable[[Supposed], Awaitable[Explanation]],
    domains: Callable[[], Sequence[DomainInfo]],
    backends: Callable[[], Sequence[BackendInfo]],
    endpoints: Callable[[], Sequence[Endpoint]],
    audit: AuditService,
    ready: Callable[[], Readiness],
    metrics: Callable[[], tuple[bytes, str]],
) -> AdminContext:
    """Everything that the routes need."""

    def patterns() -> list[str]:
        return [domain.pattern for domain in domains()]

    def server_keys() -> list[bytes]:
        return [key for endpoint in endpoints() for key in endpoint.server_keys]

    return AdminContext(
        keys=KeyService(road, domains=patterns, server_keys=server_keys),
        users=UserService(road, domains=patterns, hasher=hash_pool),
        agents=AgentService(road, domains=patterns, server_keys=server_keys),
        tokens=TokenService(road),
        audit=audit,
        explain=ExplainService(explain),
        domains=DomainService(domains),
        backends=BackendService(backends, domains),
        road=road,
        imports=ImportService(road, domains=patterns, server_keys=server_keys),
        endpoints=endpoints,
        ready=ready,
        metrics=metrics,
    )


class AdminServer:
    """uvicorn in our loop: it leaves signals alone, and is bound before anything is told to be ready."""

    def __init__(
        self, context: AdminContext, listen: str, *, tls: tuple[Path, Path] | None, proxies: Sequence[str]
    ) -> None:
        self._sock = _bind(listen)
        self._stopping = context.stopping
        self._server = _Server(
            uvicorn.Config(
                create_app(context),
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
        self._task = asyncio.create_task(self._server.serve(sockets=sockets), name="zapd-admin")
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


def _bind(listen: str) -> socket.socket:
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
            f"The admin API cannot listen on {listen}: {error.strerror}. Is another zapd running? "
            "Stop it, or change [admin] listen."
        ) from None
    return sock
