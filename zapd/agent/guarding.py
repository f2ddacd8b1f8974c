"""`guard`: make a server socket ask, and admit nobody when nobody answers.

libzmq asks for permission only where it was told to, and several combinations of its options admit everybody in
silence: no domain with NULL, no handler with CURVE, enforcement without a domain. `guard` sets the options that
together fail closed, reads them back, and refuses every combination that does not. It must run before bind.
"""

from __future__ import annotations

from typing import Any, Literal

import zmq

from zapd.agent import contexts
from zapd.agent.contexts import AgentError

Mechanism = Literal["CURVE", "PLAIN", "NULL", "GSSAPI"]

_MECHANISMS = {"NULL": zmq.NULL, "PLAIN": zmq.PLAIN, "CURVE": zmq.CURVE, "GSSAPI": zmq.GSSAPI}
_SERVES = {"CURVE": zmq.CURVE_SERVER, "PLAIN": zmq.PLAIN_SERVER, "GSSAPI": zmq.GSSAPI_SERVER}
MAX_DOMAIN = 255
RESERVED_DOMAIN = "zapd.agents"
"""The domain of zapd's own door (contract)."""
OLDEST_LIBZMQ = (4, 2)
"""Earlier ones send ERROR for 300 as well, which no client comes back from."""


def guard(
    socket: zmq.Socket[Any],
    *,
    domain: str,
    secret_key: str | bytes | None = None,
    mechanism: Mechanism = "CURVE",
    handshake: float = 5.0,
) -> None:
    """Prepare a server socket so that each newcomer is asked about, in ``domain``. Call it before bind.

    ``secret_key`` is a CURVE server's own secret: 40 characters of Z85 or 32 octets. A GSSAPI server's is the
    keytab of its environment (``KRB5_KTNAME``), and its traffic is encrypted. ``handshake`` is how many
    seconds a newcomer may take, and how long libzmq holds one that was told to try again; it must be longer
    than the agent's deadline.

    Raises `AgentError`, and leaves a socket that must not be bound, when its context has no living agent in this
    process, when it is bound or connected already, or when the options would let somebody in unasked.
    """
    if zmq.zmq_version_info() < OLDEST_LIBZMQ:
        raise AgentError(f"libzmq {zmq.zmq_version()} cannot be guarded: use 4.2 or newer")
    if mechanism not in _MECHANISMS:
        raise AgentError(f"mechanism {mechanism!r}: guard knows CURVE, PLAIN, NULL and GSSAPI")
    if mechanism == "GSSAPI" and not zmq.has("gssapi"):
        raise AgentError("this libzmq was built without GSSAPI, as in pyzmq's wheels: see docs/agent.md")
    _check_domain(domain)
    _check_socket(socket)
    _check_time(socket, handshake)
    if mechanism == "CURVE":
        secret = _secret(secret_key)
    elif secret_key is not None:
        raise AgentError(f"secret_key belongs to CURVE: it does nothing under {mechanism}")
    try:
        socket.setsockopt(zmq.HANDSHAKE_IVL, int(handshake * 1000))
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        # Not before the domain is set: enforcement with an empty one skips the question altogether under CURVE.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        if mechanism == "CURVE":
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
        elif mechanism == "PLAIN":
            socket.setsockopt(zmq.PLAIN_SERVER, 1)
        elif mechanism == "GSSAPI":
            socket.setsockopt(zmq.GSSAPI_SERVER, 1)
            socket.setsockopt(zmq.GSSAPI_PLAINTEXT, 0)
    except zmq.ZMQError as error:
        raise AgentError(f"libzmq {zmq.zmq_version()} cannot guard this socket: {error.strerror}") from None
    _read_back(socket, domain, mechanism)


def _check_domain(domain: object) -> None:
    if not isinstance(domain, str) or not domain:
        raise AgentError("domain: libzmq asks nobody for a socket without one; name a domain that zapd knows")
    if len(domain) > MAX_DOMAIN or not domain.isascii() or not domain.isprintable():
        raise AgentError(f"domain: 1 to {MAX_DOMAIN} printable ASCII characters")
    if domain == RESERVED_DOMAIN:
        raise AgentError(f"domain: {RESERVED_DOMAIN} is zapd's own door")


def _check_socket(socket: object) -> None:
    if not isinstance(socket, zmq.Socket) or socket.closed:
        raise AgentError("guard() takes an open zmq.Socket")
    if _octets(socket, zmq.LAST_ENDPOINT):
        raise AgentError(
            "this socket is bound or connected already: newcomers were not asked about. Guard it first"
        )


def _check_time(socket: zmq.Socket[Any], handshake: float) -> None:
    agent = contexts.agent_of(int(socket.context.underlying))
    if agent is None:
        raise AgentError(
            "no agent answers in this socket's context, so libzmq would ask nobody: "
            "call zapd.agent.start(context, …) first, in this process"
        )
    if not agent.deadline < handshake <= 60:
        raise AgentError(f"handshake: more than the agent's deadline ({agent.deadline:g} s), at most 60 s")


def _secret(secret_key: str | bytes | None) -> bytes:
    if secret_key is None:
        raise AgentError("CURVE needs secret_key, the server's own")
    if isinstance(secret_key, str):
        try:
            secret_key = secret_key.encode("ascii")
        except UnicodeEncodeError:
            raise AgentError("secret_key: not a Z85 key") from None
    if len(secret_key) not in (32, 40):
        raise AgentError("secret_key: 40 characters of Z85, or 32 octets")
    return secret_key


def _read_back(socket: zmq.Socket[Any], domain: str, mechanism: str) -> None:
    """What the socket will really do, from its own mouth: options set earlier by somebody else may disagree."""
    if socket.getsockopt(zmq.MECHANISM) != _MECHANISMS[mechanism]:
        raise AgentError(f"the socket has another mechanism than {mechanism}: guard a fresh one")
    serves = _SERVES.get(mechanism)
    if serves is not None and socket.getsockopt(serves) != 1:
        raise AgentError(f"the socket does not serve {mechanism}: guard a fresh one")
    if mechanism == "GSSAPI" and socket.getsockopt(zmq.GSSAPI_PLAINTEXT) != 0:
        raise AgentError("the socket would send what it says in clear: leave GSSAPI_PLAINTEXT alone")
    if _octets(socket, zmq.ZAP_DOMAIN) != domain.encode("ascii"):
        raise AgentError("libzmq did not take the domain")
    if socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) != 1:
        raise AgentError("libzmq did not take ZAP_ENFORCE_DOMAIN")


def _octets(socket: zmq.Socket[Any], option: int) -> bytes:
    """A string option as libzmq holds it, its closing NUL removed."""
    value = socket.getsockopt(option)
    return value.rstrip(b"\0") if isinstance(value, bytes) else b""
