"""ZMTP 3.0 and 3.1 (RFC 23, 37): bytes in, events out, bytes out. No I/O, no clock, nothing decided here."""

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import (
    Credentials,
    CurveCredentials,
    GssapiCredentials,
    NullCredentials,
    PlainCredentials,
)
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    HandshakeCompleted,
    MessagesReceived,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.framing import encode_message, encode_messages
from zapd.zmtp.handshake import Mechanism, PeerError
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer
from zapd.zmtp.mechanisms.gssapi import GSSAPI_LIMITS, GssapiClient, GssapiServer, SecurityContext
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer
from zapd.zmtp.metadata import check_property_name, decode_properties, encode_properties
from zapd.zmtp.state import State

__all__ = [
    "DEFAULT_LIMITS",
    "GSSAPI_LIMITS",
    "AuthenticationRequired",
    "Connection",
    "ConnectionClosed",
    "ConnectionFailed",
    "Credentials",
    "CurveClient",
    "CurveCredentials",
    "CurveServer",
    "Event",
    "GssapiClient",
    "GssapiCredentials",
    "GssapiServer",
    "HandshakeCompleted",
    "Limits",
    "Mechanism",
    "MessagesReceived",
    "NullClient",
    "NullCredentials",
    "NullServer",
    "PeerError",
    "PingReceived",
    "PlainClient",
    "PlainCredentials",
    "PlainServer",
    "PongReceived",
    "SecurityContext",
    "State",
    "SubscriptionReceived",
    "check_property_name",
    "decode_properties",
    "encode_message",
    "encode_messages",
    "encode_properties",
]
