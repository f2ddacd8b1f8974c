"""The network: asyncio around the engine. Peers in, messages out, strangers kept in their bounds.

Any Python service can listen with it and let peers in by a ZAP handler, without libzmq:

    router = Router(on_messages)
    address = await router.listen("tcp://127.0.0.1:0", PlainServer(), Admission(handler, "orders"))

where ``on_messages(peer, messages)`` gets all that one read brought and answers with ``peer.send_messages(...)``.
`RemoteHandler` is a handler that asks a distant zapd; `Dealer` is the connecting side by itself; `loop_factory`
says which event loop to run it all on.
"""

from zapd.net.address import Address, IpcAddress, TcpAddress, parse_address
from zapd.net.admission import Admission
from zapd.net.dealer import Dealer, DealerLimits, Down
from zapd.net.ending import Ending
from zapd.net.failures import Failure
from zapd.net.limits import NetCounters, NetLimits, PeerLimits
from zapd.net.loop import loop_factory
from zapd.net.peer import Peer
from zapd.net.remote import RemoteCounters, RemoteHandler
from zapd.net.router import Router

__all__ = [
    "Address",
    "Admission",
    "Dealer",
    "DealerLimits",
    "Down",
    "Ending",
    "Failure",
    "IpcAddress",
    "NetCounters",
    "NetLimits",
    "Peer",
    "PeerLimits",
    "RemoteCounters",
    "RemoteHandler",
    "Router",
    "TcpAddress",
    "loop_factory",
    "parse_address",
]
