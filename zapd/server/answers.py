"""What became of a run of questions on the express road."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from zapd.auth.backend import Admission


class Answers(NamedTuple):
    """What became of a run."""

    heads: Sequence[bytes]
    """How the replies begin, as octets: envelope, version and request id."""
    admissions: Sequence[Admission]
    """How they go on: one for each."""
    others: Sequence[list[bytes]]
    """Messages that must walk the whole road."""

    def octets(self) -> bytes:
        """The replies as they leave."""
        return b"".join(chain.from_iterable(zip(self.heads, self.admissions, strict=True)))

    def octets_with(self, reply: bytes) -> bytes:
        """Other replies to the same questions, all the same behind the request id."""
        return b"".join([head + reply for head in self.heads])
