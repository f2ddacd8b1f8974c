"""Keys, users and CURVE clients for the load and for whoever is asked about them."""

from __future__ import annotations

import random
from pathlib import Path

from zapd.zmtp.keys import generate_keypair

PASSWORD = "correct horse"


def make_keys(count: int) -> bytes:
    """Public keys as a registry takes them: 32 octets, the same in every run, the top bit clear (RFC 7748)."""
    octets = bytearray(random.Random(27).randbytes(32 * count))
    octets[31::32] = bytes(octet & 0x7F for octet in octets[31::32])
    return bytes(octets)


def user_names(count: int) -> list[str]:
    return [f"user-{number}" for number in range(count)]


def write_users(path: Path, names: list[str]) -> None:
    """As the load programs read them; all have the same password, since hashing is not what is measured."""
    path.write_text("".join(f"{name} {PASSWORD}\n" for name in names))


def write_pair(path: Path) -> bytes:
    """A server's key pair for the peers in C; gives the public half."""
    public, secret = generate_keypair()
    path.write_bytes(public + secret)
    return public


def write_clients(path: Path, server: bytes, count: int) -> list[bytes]:
    """CURVE clients of this server for the load programs; gives their public keys."""
    pairs = [generate_keypair() for _ in range(count)]
    path.write_bytes(b"".join(public + secret + server for public, secret in pairs))
    return [public for public, _ in pairs]
