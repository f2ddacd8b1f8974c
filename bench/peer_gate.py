"""Our own engine's listener, as a Python service without libzmq would have it, with zapd deciding in the process.

    python peer_gate.py CONFIGURATION ENDPOINT DOMAIN

zapd's own NULL listeners ask nobody (who may open loopback may ask), so this stands beside `zapd serve` where NULL
handshakes are measured: a listener with `zapd.net.admission`, and behind it the same authority, recorder and
journal.
"""

from __future__ import annotations

import asyncio
import sys

from zapd.app.service import Service
from zapd.config import Config, load
from zapd.net.admission import Admission
from zapd.net.loop import loop_factory
from zapd.net.router import Router
from zapd.server import lifecycle, logs
from zapd.server.door import Door
from zapd.zap import Asker
from zapd.zmtp.mechanisms.null import NullServer


class Gate(Service):
    """A zapd with one listener more."""

    def __init__(self, config: Config, endpoint: str, domain: str) -> None:
        super().__init__(config)
        self._endpoint, self._domain = endpoint, domain
        self._gate = Router(lambda peer, messages: None)

    async def start(self) -> None:
        await super().start()
        door = Door(self._deciding.authority.decide, self._deciding.recorder)
        admission = Admission(door, self._domain, asker=Asker("local:gate", (self._domain,)))
        await self._gate.listen(self._endpoint, NullServer(), admission)

    async def stop(self) -> None:
        await self._gate.close()
        await super().stop()


def main(configuration: str, endpoint: str, domain: str) -> None:
    logs.configure()
    lifecycle.keep_secrets_in()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(lifecycle.run(Gate(load(configuration), endpoint, domain)))


if __name__ == "__main__":
    main(*sys.argv[1:])
