"""Takes secrets out of what a backend says when something goes wrong.

Libraries like to quote in their errors what they were given: a URL with its password, a line that could not be
parsed. No such text reaches a log, an answer of the API or a metric before it has been through here. A net below a
net: backends are still to say nothing secret.
"""

from __future__ import annotations

import base64
import json
import traceback
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 4
"""Octets: what is shorter would be found everywhere, and taking it out would tell it."""
LONGEST_TEXT: Final = 16_384
"""Characters; of a longer one the end is kept."""
MARK: Final = "***"
_SEAM: Final = 4_096
"""Characters that go with the part cut off: what is left of a secret there would not be known again."""


class Scrubber:
    """Knows the secrets of one backend's settings."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = [guise for secret in secrets for guise in guises(secret.encode("utf-8", "surrogatepass"))]

    def text(self, text: str, password: bytes = b"") -> str:
        """``text`` without the secrets, and without the ``password`` that was asked about."""
        cut = len(text) > LONGEST_TEXT
        text = text[-LONGEST_TEXT:]
        for guise in sorted({*self._known, *guises(password)}, key=len, reverse=True):
            text = text.replace(guise, MARK)
        return text[_SEAM:] if cut else text

    def error(self, error: BaseException, password: bytes = b"") -> str:
        """The traceback of ``error``, which carries no local variables, likewise."""
        return self.text("".join(traceback.format_exception(error)).rstrip("\n"), password)

    def __repr__(self) -> str:
        return f"Scrubber({len(self._known)} guises)"


def guises(secret: bytes) -> Iterator[str]:
    """How a secret may look in a text: as it is, escaped, in URLs, hex, and base64 at each of its alignments."""
    if len(secret) < SHORTEST:
        return
    plain = secret.decode("utf-8", "backslashreplace")
    yield from {plain, repr(plain)[1:-1], repr(secret)[2:-1], json.dumps(plain)[1:-1], quote(secret)}
    yield quote_plus(secret)
    yield secret.hex()
    yield secret.hex().upper()
    for lead in range(3):
        # Of what stands beside it in the same three octets only the characters that depend on the secret alone.
        inner = secret[(3 - lead) % 3 :]
        core = base64.b64encode(inner[: len(inner) // 3 * 3]).decode()
        if len(core) >= 2 * SHORTEST:
            yield core
            yield core.replace("+", "-").replace("/", "_")
