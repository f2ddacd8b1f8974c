"""Where keys are had: the services of the ``[enroll]`` listener, and the listener."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

import structlog

from zapd.admin.api.enroll import EnrollContext, create_enroll_app
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.enrolling import Braking, EnrolService
from zapd.admin.services.key_checks import ServerKeys
from zapd.admin.services.signing_in import Judging, SignInRule, SignInService
from zapd.app.gauges import Gauge
from zapd.app.parts import Parts
from zapd.app.registry import Registry
from zapd.app.web import WebServer
from zapd.auth.bans import Bans
from zapd.config import Config
from zapd.errors import ZapdError
from zapd.server.recorder import EventRecorder
from zapd.store.bans import BanRecord
from zapd.store.keys import KeyRecord

log = structlog.get_logger(__name__)

_SWEEP = 6 * 3600.0
"""Seconds between two looks for keys that ended."""


class Enrolment:
    """Answers at ``[enroll] listen``, and forgets keys that ended. Does nothing at all where that is empty."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._enrol: EnrolService | None = None
        self._sign_in: SignInService
        self._web: WebServer | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._bans = Bans()

    async def start(
        self,
        road: ChangeRoad,
        recording: EventRecorder,
        *,
        braking: Braking,
        judging: Judging,
        offered: Callable[[], Mapping[str, SignInRule]],
        server_keys: ServerKeys,
        registry: Registry,
    ) -> None:
        """Come up. ``offered`` says where one may sign in, ``judging`` whether a password is right."""
        section, limits = self._config.enroll, self._config.limits
        if not section.listen:
            return
        registry.bans.on_change(self._bar)
        self._enrol = EnrolService(
            road,
            recording,
            braking=braking,
            barring=self._banned,
            server_keys=server_keys,
            is_current=registry.is_current,
        )
        self._sign_in = SignInService(
            road,
            recording,
            offered=offered,
            judging=judging,
            braking=braking,
            server_keys=server_keys,
            keys_each=limits.signin_keys_per_user,
            at_once=limits.signins,
        )
        proxies = [ipaddress.ip_network(network) for network in section.trusted_proxies]
        app = create_enroll_app(EnrollContext(self._enrol, self._sign_in, proxies))
        self._web = WebServer(app, "enroll", section)
        self._parts.up("enroll", self._web.aclose)
        await self._web.start()
        self._sweeping = asyncio.create_task(self._sweep(), name="zapd-expired-keys")
        self._parts.up("sweeping", self._sweep_no_more)

    @property
    def url(self) -> str:
        """Where it listens; empty for nowhere."""
        return "" if self._web is None else self._web.url

    def reload_tls(self, config: Config) -> None:
        """Use what the TLS files hold now. Raises `ConfigurationError`, and changes nothing."""
        if self._web is not None:
            self._web.reload_tls(config.enroll.tls_cert, config.enroll.tls_key)

    def gauges(self) -> Iterator[Gauge]:
        """How exchanges and sign-ins ended."""
        if self._enrol is not None:
            yield "zapd_enrolments_total", "Exchanges of join tokens by result.", dict(self._enrol.results)
            yield "zapd_signins_total", "Sign-ins for a key by result.", dict(self._sign_in.results)

    def _bar(self, records: Sequence[BanRecord]) -> None:
        self._bans = Bans(records)

    def _banned(self, address: str, key: KeyRecord) -> str:
        """The reason code of a ban that holds where the key would be granted."""
        bans = self._bans
        for domain in key.domains if bans.any else ():
            found = (
                bans.of_address(address, domain)
                or bans.of_key(key.public_key, domain)
                or bans.of_user(key.user, domain)
            )
            if found is not None:
                return found.reason
        return ""

    async def _sweep(self) -> None:
        while True:
            try:
                gone = await self._sign_in.forget_expired()
                if gone:
                    log.info("keys that had been signed in for are forgotten", count=gone)
            except ZapdError as trouble:
                log.warning("keys that ended could not be forgotten", reason=str(trouble))
            except Exception:
                log.exception("forgetting keys that ended failed")
            await asyncio.sleep(_SWEEP)

    async def _sweep_no_more(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
