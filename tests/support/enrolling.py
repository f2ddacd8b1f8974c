"""The app of the listener where keys are had, over a real registry; its backends are a table of passwords."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

import httpx
import pytest_asyncio
from fastapi import FastAPI
from support.store_admin import SERVER_KEY, Admin

from zapd.admin.api.enroll import EnrollContext, create_enroll_app
from zapd.admin.services.enrolling import EnrolService
from zapd.admin.services.pausing import Pause
from zapd.admin.services.signing_in import Judged, Login, SignInRule, SignInService
from zapd.audit.event import AuditEvent
from zapd.errors import Unavailable
from zapd.zmtp.keys import encode_key, generate_keypair

PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}


@dataclass
class Brake:
    """Counts what it hears; turns everybody away while ``held``."""

    held: str = ""
    failed: int = 0
    passed: int = 0
    seen: set[tuple[str, bytes]] = field(default_factory=set)

    def __call__(self, address: str, mark: bytes) -> Brake:
        self.seen.add((address, mark))
        return self

    def ask(self) -> str:
        return self.held

    def fail(self) -> None:
        self.failed += 1

    def succeed(self) -> None:
        self.passed += 1

    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...


@dataclass
class Record:
    """Takes events beside those of changes, or refuses."""

    events: list[AuditEvent] = field(default_factory=list)
    counted: list[tuple[str, str]] = field(default_factory=list)
    writable: bool = True

    async def record_event(self, event: AuditEvent) -> None:
        await asyncio.sleep(0)
        if not self.writable:
            raise Unavailable("full")
        self.events.append(event)

    def count(self, address: str, reason: str) -> None:
        self.counted.append((address, reason))


@dataclass
class Entrance:
    """A caller at the listener, and what stands behind it."""

    http: httpx.AsyncClient
    app: FastAPI
    admin: Admin
    enrol: EnrolService
    sign_in: SignInService
    brake: Brake
    record: Record
    answer: dict[str, Any]
    """``status`` and ``reason`` that backends give instead; the ``groups`` that people have, ``until`` when."""
    logins: list[Login]
    signins: dict[str, SignInRule]

    async def join(self, token: str, key: str, **more: Any) -> httpx.Response:
        return await self.http.post("/v1/enroll", json={"token": token, "public_key": key, **more})

    async def enter(self, user: str, password: str, key: str, **more: Any) -> httpx.Response:
        body = {"user": user, "password": password, "public_key": key, **more}
        return await self.http.post("/v1/signin", json=body)

    def at(self, address: str) -> Entrance:
        """The same for a caller from elsewhere."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 1))
        http = httpx.AsyncClient(transport=transport, base_url="http://zapd")
        return Entrance(
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "http"}, http=http
        )

    def set_clock(self, moment: datetime) -> None:
        self.admin.road.clock = lambda: moment


def new_key() -> str:
    return encode_key(generate_keypair()[0])


@pytest_asyncio.fixture
async def entrance(admin: Admin) -> AsyncIterator[Entrance]:
    """Over an empty registry on each database; pauses are short."""
    brake, record = Brake(), Record()
    answer: dict[str, Any] = {"groups": ("traders",)}
    logins: list[Login] = []
    signins = {"orders": SignInRule(("orders",), timedelta(hours=12), (("server", "tcp://127.0.0.1:1"),))}

    async def judging(login: Login) -> Judged:
        logins.append(login)
        await asyncio.sleep(0)
        if "status" in answer:
            return Judged(answer["status"], answer["reason"])
        if PASSWORDS.get(login.username, "").encode() != login.password:
            return Judged(400, "wrong_password" if login.username in PASSWORDS else "unknown_user")
        return Judged(200, "granted", login.username, answer["groups"], (("Desk", "7"),), answer.get("until"))

    enrol = EnrolService(admin.road, record, braking=brake, server_keys=lambda: [SERVER_KEY], pause=Pause(0.01))
    sign_in = SignInService(
        admin.road,
        record,
        offered=lambda: signins,
        judging=judging,
        braking=brake,
        server_keys=lambda: [SERVER_KEY],
        keys_each=3,
        pause=Pause(0.01),
    )
    app = create_enroll_app(EnrollContext(enrol, sign_in, [ip_network("127.9.0.0/16")]))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://zapd") as http:
        yield Entrance(http, app, admin, enrol, sign_in, brake, record, answer, logins, signins)
