"""A realm with alice in it: her ticket in the test's process and in those with libzmq, and the service's key."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from support.kdc import HOST_BASED, Kdc, libzmq_with_gssapi

from zapd.zmtp.mechanisms.gssapi import GssapiClient, GssapiServer

ALICE = b"alice@ZAPD.TEST"


@dataclass
class Alice:
    """Who has the ticket. `zapd.net.kerberos` is imported late: it needs a library that may be missing."""

    kdc: Kdc
    environment: dict[str, str]
    """For a process that runs Debian's libzmq as her."""

    @property
    def service(self) -> dict[str, str]:
        """For such a process with the service's key and nobody's ticket."""
        return {**self.kdc.environment, **libzmq_with_gssapi()}

    def server(self, *, plaintext: bool = False) -> GssapiServer:
        """Our side with the service's key."""
        from zapd.net.kerberos import KerberosAcceptor

        return GssapiServer(KerberosAcceptor(self.kdc.keytab), plaintext)

    def client(self, *, plaintext: bool = False, service: str = HOST_BASED) -> GssapiClient:
        """Our side with her ticket, its first token made; outside a running loop."""
        from zapd.net.kerberos import KerberosInitiator

        return asyncio.run(KerberosInitiator(service, plaintext=plaintext)())


def signed_in(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> Alice:
    """Sign alice in, for this process too."""
    mine = kdc.ticket("alice", "alice-Pw1")
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    return Alice(kdc, {**mine, **libzmq_with_gssapi()})


@pytest.fixture
def alice(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> Alice:
    """Alice, signed in to the realm of all tests."""
    return signed_in(kdc, monkeypatch)
