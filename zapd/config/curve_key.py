"""The server's CURVE key pair in its file: two lines of TOML, mode 0600.

`zapd init` and `zapd keygen` write it, the daemon reads it. The two halves are checked against each other, so
that a file pasted together by hand is found before anybody trusts it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from zapd.config.secret import read_private
from zapd.errors import ConfigurationError, InvalidInput
from zapd.zmtp.keys import decode_public_key, decode_secret_key, encode_key, public_of


def format_curve_pair(public_key: bytes, secret_key: bytes) -> str:
    """What stands in the file: Z85 of both halves."""
    return (
        "# CURVE key pair (Z85, RFC 32). The secret half must stay secret: keep this file at mode 0600.\n"
        f'public_key = "{encode_key(public_key)}"\n'
        f'secret_key = "{encode_key(secret_key)}"\n'
    )


def read_curve_pair(path: Path) -> tuple[bytes, bytes]:
    """(public, secret), 32 octets each.

    Raises `ConfigurationError` that names the file and the mend: missing, readable by others, not such a file, or
    halves of different pairs. It never repeats the content.
    """
    if not path.exists():
        raise ConfigurationError(
            f"{path} is not there: bring the key pair back, or make a new one with `zapd keygen -o {path}` "
            "and give its public half to every agent."
        )
    text = read_private(path)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise ConfigurationError(f"{path} holds no key pair: `zapd keygen -o FILE` makes one.") from None
    if set(table) != {"public_key", "secret_key"} or not all(isinstance(each, str) for each in table.values()):
        raise ConfigurationError(f"{path} must hold public_key and secret_key and nothing else.")
    try:
        public_key = decode_public_key(table["public_key"])
        secret_key = decode_secret_key(table["secret_key"])
    except InvalidInput as error:
        raise ConfigurationError(f"{path}: {error}.") from None
    if public_of(secret_key) != public_key:
        raise ConfigurationError(f"{path}: public_key and secret_key do not belong together.")
    return public_key, secret_key
