"""What wrong tries cost: the settings of `zapd.auth.throttle`, and what follows from them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

ENTRIES: Final = 65_536
HOUR: Final = 3600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What wrong tries cost. Times are seconds."""

    trusted: tuple[str, ...] = ()
    """Networks (and ``ipc``, ``ipc:uid=N``, ``ipc:gid=N``) that nothing here holds up."""
    tries: int = 5
    """Wrong tries that cost nothing: of one name from one address."""
    address_tries: int = 20
    """The same for one address, whatever the name."""
    account_tries: int = 100
    """Wrong tries of one name in any hour, from all addresses together that are not in good standing with it."""
    key_tries: int = 20
    """Addresses at which one key may be refused at no cost."""
    shortest: float = 1.0
    """The first wait; each further one is twice as long …"""
    longest: float = 300.0
    """… up to this."""
    forgive: float = 300.0
    """After so long one wrong try is forgiven."""
    standing: float = 30 * 86400.0
    """How long a name that was let in from an address is in good standing there."""
    entries: int = ENTRIES
    """Debtors that are remembered; and as many in good standing."""

    @property
    def account_burst(self) -> int:
        """Of `account_tries` two fifths may come at once, one fifth trickles in through the hour, and two fifths
        come again when a success has reset them, once an hour at most. So no hour sees more than all."""
        return max(1, self.account_tries * 2 // 5)

    @property
    def account_forgive(self) -> float:
        """After so long one of an account's wrong tries is forgiven."""
        return HOUR / max(1, self.account_tries // 5)

    def hourly(self, tries: int) -> int:
        """How many wrong tries one debtor with so many free ones has in its worst hour."""
        spent, wait, made = 0.0, self.shortest, tries + 1
        while spent <= HOUR and made < 1_000_000:
            made += 1
            pause = min(max(wait, 0.001), self.longest or math.inf)
            spent += min(pause, self.forgive)
            wait *= 2
        return made
