"""The agent's key file: who this agent is, and which zapds it may believe.

`zapd agent enroll` writes the file; `read_keys` reads it strictly and says what is wrong in words that never
contain the secret. The rules for endpoints live here too, so that no agent ever connects in clear across a
network, whoever wrote its list.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zapd.errors import ConfigurationError, InvalidInput
from zapd.zmtp.keys import decode_public_key, decode_secret_key, public_of

MAX_FILE = 64 * 1024
MAX_ENDPOINTS = 16
MAX_SERVER_KEYS = 8


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One zapd, as the agent reaches it. Raises `ConfigurationError` when it could not be trusted."""

    address: str
    """``tcp://HOST:PORT`` or ``ipc://PATH``."""
    server_keys: tuple[bytes, ...] = ()
    """Public keys (32 octets each) that this zapd may prove to hold; several while it changes its key. None only
    for ipc and loopback, where the system vouches for the other end."""
    user: str | int | None = None
    """ipc without keys: the user (name or number) who must own the socket file."""

    def __post_init__(self) -> None:
        if len(self.server_keys) > MAX_SERVER_KEYS:
            raise ConfigurationError(f"{self.address}: more than {MAX_SERVER_KEYS} server keys")
        if any(len(key) != 32 for key in self.server_keys):
            raise ConfigurationError(f"{self.address}: a server key is 32 octets")
        scheme, _, rest = self.address.partition("://")
        if scheme == "ipc":
            if not rest or rest.startswith("@"):
                # Anybody on the machine may take an abstract name before zapd does (limits.md, R12).
                raise ConfigurationError(
                    f"{self.address}: an ipc endpoint is the path of a socket file, ipc://PATH"
                )
        elif scheme == "tcp":
            host, _, port = rest.rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
                raise ConfigurationError(f"{self.address}: write tcp://HOST:PORT")
            if not self.server_keys and not _is_loopback(host):
                raise ConfigurationError(
                    f"{self.address}: across a network zapd must be pinned: give server_keys, its public keys"
                )
        else:
            raise ConfigurationError(f"{self.address!r}: an endpoint begins with tcp:// or ipc://")

    @property
    def secured(self) -> bool:
        """CURVE protects it; otherwise it is NULL on ipc or loopback."""
        return bool(self.server_keys)

    @property
    def path(self) -> str | None:
        """The socket file of an ipc endpoint."""
        return self.address.removeprefix("ipc://") if self.address.startswith("ipc://") else None


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """An enrolled agent: its name, its CURVE pair, and the zapds it asks."""

    name: str
    public_key: bytes
    secret_key: bytes = field(repr=False)
    endpoints: tuple[Endpoint, ...] = ()


def read_keys(path: str | os.PathLike[str]) -> AgentKeys:
    """Read an agent's key file (TOML, 0600).

    Raises `ConfigurationError` naming the file, the mistake and the mend: missing or readable by others, not
    TOML, unknown or missing settings, keys that are not Z85, a pair whose halves do not belong together.
    """
    name = os.fspath(path)
    try:
        table = tomllib.loads(_read_private(Path(name)).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name}: not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}: not TOML: it is not UTF-8 text") from None
    try:
        return _keys_from(table)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _read_private(path: Path) -> bytes:
    """The content, judged by the open file itself so that nobody can swap it in between."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: {error.strerror}; `zapd agent enroll NAME -o {path}` writes this file"
        ) from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise ConfigurationError(f"{path}: not a regular file")
        if info.st_mode & 0o077:
            raise ConfigurationError(
                f"{path}: others may read or change this secret (mode {stat.S_IMODE(info.st_mode):04o}); "
                f"chmod 600 it, or enrol again if somebody may have seen it"
            )
        if info.st_uid not in (0, os.geteuid()):
            raise ConfigurationError(f"{path}: it belongs to another user (uid {info.st_uid}); chown it")
        content = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE:
        raise ConfigurationError(f"{path}: longer than {MAX_FILE} octets")
    return content


def _keys_from(table: Mapping[str, object]) -> AgentKeys:
    _only(table, {"name", "public_key", "secret_key", "endpoint"}, "the file")
    name = _text(table, "name")
    if not name or len(name) > 255 or not name.isprintable():
        raise ConfigurationError("name: 1 to 255 printable characters")
    public_key = _public(_text(table, "public_key"), "public_key")
    try:
        # A secret scalar is any 32 octets: only its spelling is checked, and its public half below.
        secret_key = decode_secret_key(_text(table, "secret_key"))
    except InvalidInput:
        raise ConfigurationError("secret_key: not a Z85 key of 40 characters") from None
    if public_of(secret_key) != public_key:
        raise ConfigurationError("public_key and secret_key do not belong together")
    entries = table.get("endpoint")
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError("no [[endpoint]]: the agent must know at least one zapd")
    if len(entries) > MAX_ENDPOINTS:
        raise ConfigurationError(f"more than {MAX_ENDPOINTS} endpoints")
    endpoints = tuple(_endpoint(entry, number) for number, entry in enumerate(entries, 1))
    return AgentKeys(name, public_key, secret_key, endpoints)


def _endpoint(entry: object, number: int) -> Endpoint:
    where = f"endpoint {number}"
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: write it as an [[endpoint]] table")
    _only(entry, {"address", "server_keys", "user"}, where)
    keys: Sequence[object] = entry.get("server_keys", [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ConfigurationError(f"{where}: server_keys is a list of Z85 public keys")
    user = entry.get("user")
    if user is not None and not isinstance(user, str | int):
        raise ConfigurationError(f"{where}: user is a name or a number")
    return Endpoint(
        _text(entry, "address", where),
        tuple(_public(str(key), f"{where}: server_keys") for key in keys),
        user,
    )


def _only(table: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigurationError(
            f"unknown setting {unknown[0]!r} in {where}; there are {', '.join(sorted(known))}"
        )


def _text(table: Mapping[str, object], key: str, where: str = "") -> str:
    value = table.get(key)
    if not isinstance(value, str):
        raise ConfigurationError(f"{where}{': ' if where else ''}{key} is missing, or not a string")
    return value


def _public(text: str, what: str) -> bytes:
    try:
        return decode_public_key(text)
    except InvalidInput as error:
        raise ConfigurationError(f"{what}: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
