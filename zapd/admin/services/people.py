"""People who sign in with OpenID Connect: a token of the issuer's (a JWT) becomes an `Actor`.

The issuer says who somebody is; the configuration says what the values of one claim may do here. A token is looked
at on the loop and its signature checked in a thread; keys are the issuer's, found by its discovery document
(OpenID Connect Discovery 1.0, section 4). While they cannot be had these tokens get "not now"; others go on.

Needs PyJWT and cryptography (the extra ``zapd[oidc]``), so it is imported only where it is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from zapd.admin.roles import Actor, Role
from zapd.auth.backend import BackendBusy
from zapd.auth.jwt.keys import fitting
from zapd.auth.jwt.source import RETRY, KeySource
from zapd.auth.jwt.token import BadToken, EarlyToken, Wanted, claim, glance, prove
from zapd.auth.threaded import Threads
from zapd.errors import Forbidden, InvalidInput, Unauthenticated, Unavailable
from zapd.store.domains import EVERYWHERE
from zapd.store.rules import check_domains, check_name

MAX_TOKEN: Final = 16 << 10
"""Octets of a token."""
PATIENCE: Final = 5.0
"""Seconds for its keys, and again for its signature."""
THREADS: Final = 2
WAITING: Final = 32

DISCOVERY: Final = "/.well-known/openid-configuration"

_NOT_VALID: Final = "The token is not one of the issuer's, is not meant for zapd, or is not good any more."
_ROLES: Final = tuple(Role)
"""From the weakest to the strongest."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of tokens, and what their claims mean."""

    issuer: str
    """Its URL, octet for octet as tokens and the discovery document have it."""
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    roles: Mapping[str, Role]
    """What a value of the role claim may do."""
    role_claim: str
    domains_claim: str = ""
    """Empty: everybody's role is for all domains."""
    name_claim: str = ""
    leeway: float = 0.0
    """Seconds that clocks may differ."""


class People:
    """See the module's text. For the event loop's thread."""

    def __init__(
        self,
        terms: Terms,
        *,
        refresh: float,
        max_age: float,
        tls_ca: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._terms = terms
        self._clock = clock
        self._wanted = Wanted(terms.issuer, terms.audience, ("sub",), terms.leeway)
        self._threads = Threads("oidc", THREADS, WAITING)
        self._source = KeySource(
            terms.issuer.rstrip("/") + DISCOVERY,
            refresh=refresh,
            max_age=max_age,
            tls_ca=tls_ca,
            issuer=terms.issuer,
        )
        self._starting: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why the issuer's keys cannot be read; empty when they can."""
        return self._source.problem

    async def start(self) -> None:
        """Begin to read the keys; an issuer that is away is asked again for ever, and holds nobody up."""
        self._starting = asyncio.create_task(self._keep_trying(), name="zapd-oidc")

    async def aclose(self) -> None:
        """Read no more."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        await self._source.aclose()
        await self._threads.aclose()

    async def authenticate(self, token: str) -> Actor:
        """Whose token this is. Raises `Unauthenticated`, `Forbidden` where it gives no role here, and
        `Unavailable` while that cannot be told."""
        octets = token.encode("ascii", "replace")
        seen = glance(octets) if len(octets) <= MAX_TOKEN else None
        if seen is None or seen.issuer != self._terms.issuer or seen.algorithm not in self._terms.algorithms:
            raise Unauthenticated(_NOT_VALID)
        source = self._source
        if not source.is_current:
            raise Unavailable("The keys of the issuer of your token cannot be read now. Try again later.")
        keys = fitting(source.keys, seen.algorithm, seen.key_name)
        if not keys:
            if not await source.look_again(PATIENCE):
                raise Unavailable("Your token was signed with a key that is not known yet. Try again later.")
            keys = fitting(source.keys, seen.algorithm, seen.key_name)
        work = partial(prove, octets, seen.algorithm, keys, self._wanted, self._clock())
        try:
            claims = await self._threads.run(work, PATIENCE)
        except EarlyToken:
            raise Unauthenticated("The token is not good yet: compare the clocks.") from None
        except BadToken:
            raise Unauthenticated(_NOT_VALID) from None
        except BackendBusy:
            raise Unavailable("Too many tokens are being checked. Try again later.") from None
        return self._actor(claims)

    async def _keep_trying(self) -> None:
        while True:
            try:
                return await self._source.start()
            except Unavailable:  # told by `problem`, and in the log
                await asyncio.sleep(RETRY)

    def _actor(self, claims: Mapping[str, Any]) -> Actor:
        terms = self._terms
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise Unauthenticated(_NOT_VALID)
        roles = {terms.roles[value] for value in _texts(claims, terms.role_claim) if value in terms.roles}
        if not roles:
            raise Forbidden("Your token gives you no role here: ask whoever keeps the issuer's groups.")
        domains: tuple[str, ...] = EVERYWHERE
        if terms.domains_claim:
            try:
                domains = check_domains(_texts(claims, terms.domains_claim))
            except InvalidInput:
                raise Forbidden("Your token names no domains, or what are none.") from None
        # The subject is quoted, so that nobody's can look like another's with a name behind it.
        name = f"{terms.issuer}#{quote(subject, safe='@|:+')}{_readable(claims, terms.name_claim)}"
        mark = hashlib.sha256(f"{terms.issuer}\0{subject}".encode()).hexdigest()
        return Actor(name, max(roles, key=_ROLES.index), domains, f"oidc:{mark[:32]}")


def _readable(claims: Mapping[str, Any], name: str) -> str:
    found = claim(claims, name) if name else None
    try:
        return f" ({check_name(found)})" if isinstance(found, str) else ""
    except InvalidInput:
        return ""


def _texts(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    """A list of texts, or one text of words with blanks between; empty for anything else."""
    found = claim(claims, name)
    if isinstance(found, str):
        return found.split()
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
