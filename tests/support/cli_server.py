"""A real admin API over a real registry, in a thread; and a way to type commands that ask it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from click.testing import CliRunner, Result

from zapd.admin.api.app import create_app
from zapd.admin.api.context import AdminContext, Endpoint
from zapd.admin.services.agents import AgentService
from zapd.admin.services.approval import ApprovalService
from zapd.admin.services.audit import AuditFilter, AuditRecord, AuditService
from zapd.admin.services.bans import BanService
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.explain import ExplainService, Explanation, Step, Supposed
from zapd.admin.services.imports import ImportService
from zapd.admin.services.joins import JoinService
from zapd.admin.services.keys import KeyService
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.topology import BackendInfo, BackendService, DomainInfo, DomainService
from zapd.admin.services.users import UserService
from zapd.auth.hashing import HashPool
from zapd.cli import root as program
from zapd.config import load, read_curve_pair
from zapd.store.engine import open_engine

RECORDS: list[dict[str, object]] = [
    {
        "time": f"2026-11-22T12:00:{number:02d}.000000Z",
        "instance": "one",
        "sequence": number,
        "event": "auth.accept" if number % 2 else "auth.reject",
        "domain": "default",
        "mechanism": "CURVE",
        "address": "192.0.2.7",
        "agent": "edge-1",
        "principal": "alice" if number % 2 else "",
        "key": "SHA256:" + "A" * 43,
        "status": 200 if number % 2 else 400,
        "reason": "granted" if number % 2 else "unknown_key\x1b[31m",
    }
    for number in range(1, 8)
]
"""What the searchable copy holds here, oldest first; the reason of a refusal would colour a terminal."""


@dataclass
class Served:
    """A running server, and the folder that `zapd init` made for it."""

    folder: Path
    url: str
    domains: list[str] = field(default_factory=lambda: ["default"])
    searched: list[AuditFilter] = field(default_factory=list)
    explained: list[Supposed] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "zapd.toml"

    def run(self, *words: str, code: int = 0, text: str | None = None) -> Result:
        """Type one command; it must end with ``code``."""
        return run(*words, config=self.config, code=code, text=text)

    def json(self, *words: str, text: str | None = None) -> Any:
        """Type one command with --json; what it printed."""
        return json.loads(self.run(*words, "--json", text=text).stdout)


def run(
    *words: str,
    config: Path | None = None,
    code: int = 0,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Result:
    """Type ``zapd words…`` as `zapd.cli.main` would run it, through click's runner."""
    clean = {"ZAPD_CONFIG": str(config) if config is not None else None, "ZAPD_URL": None, "ZAPD_TOKEN": None}
    runner = CliRunner()
    with runner.isolation(input=text, env={**clean, **(environment or {})}) as (out, err, _both):
        ended = program.run(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
        result = Result(runner, out.getvalue(), err.getvalue(), b"", None, ended, None)
    assert ended == code, f"zapd {' '.join(words)} ended with {ended}:\n{result.stdout}{result.stderr}"
    return result


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """The API over ``folder``'s registry on a free port, which its configuration names from then on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        config = folder / "zapd.toml"
        config.write_text(config.read_text().replace("127.0.0.1:8027", f"127.0.0.1:{port}"))
        served = Served(folder, f"http://127.0.0.1:{port}")
        context, close = _context(served)
        server = uvicorn.Server(uvicorn.Config(create_app(context), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.should_exit = True
            thread.join(10)
            close()


def _context(served: Served) -> tuple[AdminContext, Any]:
    config = load(served.config)
    engine = open_engine(config.database_url(), config.base_dir)
    road = ChangeRoad(engine)
    pool = HashPool(1)
    public_key, _ = read_curve_pair(config.curve_key_file)

    def domains() -> list[DomainInfo]:
        return [DomainInfo(name, ("CURVE", "PLAIN"), ("keys",)) for name in served.domains]

    def backends() -> list[BackendInfo]:
        return [BackendInfo("keys", "sql", ("CURVE", "PLAIN"), "disabled", "the database is away\x07")]

    async def search(
        wanted: AuditFilter, limit: int, cursor: str | None
    ) -> tuple[Sequence[AuditRecord], str | None]:
        served.searched.append(wanted)
        found = [
            each
            for each in reversed(RECORDS)
            if (wanted.user is None or each["principal"] == wanted.user)
            and (wanted.status is None or each["status"] == wanted.status)
        ]
        start = int(cursor or 0)
        page = found[start : start + min(limit, 3)]  # pages may be shorter than asked for
        return page, str(start + 3) if start + 3 < len(found) else None

    async def explain(supposed: Supposed) -> Explanation:
        served.explained.append(supposed)
        steps = (Step("domain", "ok", supposed.domain), Step("backend keys", "unknown", "", 0.25))
        return Explanation(400, "unknown_key", steps=steps)

    def patterns() -> list[str]:
        return list(served.domains)

    context = AdminContext(
        keys=KeyService(road, domains=patterns, server_keys=lambda: {public_key}),
        users=UserService(road, domains=patterns, hasher=pool),
        agents=AgentService(road, domains=patterns, server_keys=lambda: {public_key}),
        tokens=TokenService(road),
        joins=JoinService(road, domains=patterns),
        bans=BanService(road),
        approvals=ApprovalService(road, domains=patterns, server_keys=lambda: {public_key}),
        audit=AuditService(search),
        explain=ExplainService(explain),
        domains=DomainService(domains),
        backends=BackendService(backends, domains),
        road=road,
        imports=ImportService(road, domains=patterns, server_keys=lambda: {public_key}),
        endpoints=lambda: [
            Endpoint("tcp://*:9027", "CURVE", (public_key,)),
            Endpoint("ipc:///run/zapd/zap.sock", "NULL"),
        ],
    )

    def close() -> None:
        engine.dispose()
        asyncio.run(pool.aclose())

    return context, close
