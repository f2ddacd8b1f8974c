"""Bans by hand, made ready for asking: who may not be let in, whatever any backend says.

Three kinds: an address rule, a key, a user. Each holds in some domains or in all; one without an end is a no
(400), one with an end a not now (300). A key is banned by its fingerprint, registered or not. A user is banned by
the name that it gives (PLAIN, GSSAPI) and by the name that a backend finds for it, so with all its keys; without
regard to case and blanks, since a directory does not regard them either.

A `Bans` never changes; whoever decides is given another one (`zapd.auth.authority.Authority.bar`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zapd.auth.address import AddressMap, read_again
from zapd.auth.admission import MARK, user_of
from zapd.auth.backend import Admission, Question
from zapd.auth.decision import Decision
from zapd.auth.memo import Memo
from zapd.auth.question import folded_name
from zapd.store.bans import BanKind, BanRecord
from zapd.store.domains import Grant, is_everywhere
from zapd.zap import REFUSED, TRY_AGAIN
from zapd.zmtp.keys import fingerprint, mark_of

REASONS: Final = {kind: f"banned_{kind.value}" for kind in BanKind}
"""Reason codes."""

_ADDRESSES: Final = 4096
"""Addresses whose bans are remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class Ban:
    """One that holds."""

    record: BanRecord
    everywhere: bool
    grant: Grant

    @property
    def final(self) -> bool:
        """Without an end: 400."""
        return self.record.expires is None

    @property
    def reason(self) -> str:
        """A reason code."""
        return REASONS[self.record.kind]

    def answer(
        self, mark: str = "", principal: str = "", trail: tuple[tuple[str, str, float], ...] = ()
    ) -> Decision:
        """What whoever it bars is told: no, or not now. ``mark`` is the key's fingerprint, if there is a key; the
        others say who it turned out to be, where somebody was asked."""
        if self.final:
            return Decision(REFUSED, self.reason, principal, mark, trail)
        return Decision(TRY_AGAIN, self.reason, principal, mark, trail, asked=bool(trail))

    def holds_in(self, domain: str) -> bool:
        """Whether it holds there. ``*`` is every domain: a pattern that grants leaves the empty one out, one that
        bars must not."""
        return self.everywhere or self.grant.covers(domain)


class Bans:
    """All that hold."""

    __slots__ = ("_addresses", "_keys", "_memo", "_users", "any", "named")

    def __init__(self, records: Iterable[BanRecord] = ()) -> None:
        """Raises `ConfigurationError` for an address rule that cannot be read."""
        self._addresses: AddressMap[Ban] = AddressMap()
        self._keys: dict[bytes, list[Ban]] = {}
        """By the fingerprint's base64, as admissions have it."""
        self._users: dict[bytes, list[Ban]] = {}
        self._memo: Memo[str, tuple[Ban, ...]] = Memo(_ADDRESSES)
        self.any = False
        """Whether there is one at all."""
        for record in records:
            self.any = True
            ban = Ban(record, is_everywhere(record.domains), Grant.of(record.domains))
            match record.kind:
                case BanKind.ADDRESS:
                    self._addresses.add(record.subject, ban)
                case BanKind.KEY:
                    mark = mark_of(record.subject).encode("ascii")
                    self._keys.setdefault(mark, []).append(ban)
                case BanKind.USER:
                    self._users.setdefault(folded_name(record.subject), []).append(ban)
        self.named = bool(self._keys or self._users)
        """Whether there is one of a key or a user."""

    def of_address(self, address: str, domain: str) -> Ban | None:
        """The ban of an address, as libzmq writes it or normalised."""
        found = self._memo.get(address)
        if found is None:
            read = read_again(address)
            found = self._memo.put(address, () if read is None else tuple(self._addresses.find(read)))
        return _strongest(found, domain)

    def of_user(self, name: str, domain: str) -> Ban | None:
        """The ban of a user."""
        return _strongest(self._users.get(folded_name(name), ()), domain) if self._users else None

    def of_key(self, key: bytes, domain: str) -> Ban | None:
        """The ban of a key of 32 octets."""
        if not self._keys or not key:
            return None
        mark = fingerprint(key).removeprefix("SHA256:").encode("ascii")
        return _strongest(self._keys.get(mark, ()), domain)

    def of_question(self, question: Question) -> Ban | None:
        """The ban that speaks before anybody is asked; one without an end before one with an end."""
        domain = question.domain
        found = (
            self.of_address(question.address, domain),
            self.of_key(question.key, domain),
            self.of_user(question.username, domain) if question.username else None,
        )
        return _strongest([ban for ban in found if ban is not None], domain)

    def sift(self, admissions: Sequence[Admission | None], domain: str) -> Sequence[Admission | None]:
        """The same without those whose key or user is banned there. Only where `named`."""
        keys, users = self._keys, self._users
        kept = []
        for admission in admissions:
            if admission is not None:
                bans = [*keys.get(admission[MARK:], ())]
                if users:
                    bans += users.get(_folded(user_of(admission)), ())
                if bans and _strongest(bans, domain) is not None:
                    admission = None
            kept.append(admission)
        return kept


def _strongest(bans: Sequence[Ban], domain: str) -> Ban | None:
    """One that holds there, without an end if there is one."""
    found: Ban | None = None
    for ban in bans:
        if ban.holds_in(domain):
            if ban.final:
                return ban
            found = found or ban
    return found


def _folded(user: bytes) -> bytes:
    """`folded_name`, for the ASCII names of admissions."""
    return b" ".join(user.lower().split())
