"""The agent: the small part of zapd that lives inside a libzmq application.

libzmq asks for permission only inside its own process, at ``inproc://zeromq.zap.01``, and with nothing bound
there CURVE and NULL sockets let everybody in. `start` binds that endpoint and carries each question to a
zapd; `guard` prepares a server socket so that libzmq really asks, and admits nobody when it cannot.

    context = zmq.Context()
    zapd.agent.start(context, keys="agent.key")
    socket = context.socket(zmq.ROUTER)
    zapd.agent.guard(socket, domain="orders", secret_key=server_secret)
    socket.bind("tcp://*:5555")

Fail closed is the whole point: a 200 leaves the agent only when a zapd with a pinned key gave it, for that very
question, on the connection where it was asked, in time. Everything else is 300, which libzmq clients retry.
The agent decides nothing, keeps no credential longer than its question, and knows nothing of zapd's inside.
"""

from zapd.agent.contexts import AgentError
from zapd.agent.guarding import guard
from zapd.agent.keyfile import AgentKeys, Endpoint, read_keys
from zapd.agent.starting import Agent, start

__all__ = ["Agent", "AgentError", "AgentKeys", "Endpoint", "guard", "read_keys", "start"]
