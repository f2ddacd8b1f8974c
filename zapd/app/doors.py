"""The ZAP endpoints: each ``[[zap]]`` with its mechanism and its admission, and who came through which."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

import structlog

from zapd.admin.services.topology import Endpoint as AgentsEndpoint
from zapd.app.listening import endpoints, lines, name_of
from zapd.app.translate import engine_limits, net_limits
from zapd.auth.authority import Authority
from zapd.auth.grant import KEY
from zapd.config import Config
from zapd.config.curve_key import read_curve_pair
from zapd.config.limits import LimitsSection
from zapd.config.sections import ZapSection
from zapd.errors import LocalProtocolError
from zapd.net.address import Address
from zapd.net.admission import Admission
from zapd.net.failures import Failure
from zapd.net.listener import Entrance
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.server.door import Decide, Door, at_its_address
from zapd.server.endpoint import Endpoint, EndpointPeer
from zapd.server.recorder import Recorder
from zapd.store.agents_index import AgentsIndex
from zapd.store.domains import RESERVED
from zapd.zap import Asker
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.mechanisms.curve import CurveServer
from zapd.zmtp.mechanisms.null import NullServer
from zapd.zmtp.mechanisms.plain import PlainServer
from zapd.zmtp.metadata import decode_properties

log = structlog.get_logger(__name__)

_KEY = KEY.lower()
"""Where the door's reply says with which key an agent came."""


class Doors:
    """The router and its listeners."""

    def __init__(
        self,
        config: Config,
        authority: Authority,
        endpoint: Endpoint,
        recorder: Recorder,
        agents: AgentsIndex,
    ) -> None:
        self._config = config
        self._authority = authority
        self._recorder = recorder
        self._agents = agents
        self._locals: dict[str, Asker] = {}
        """Listener's name to whoever comes through it without an agent's identity."""
        self._doors: list[Door] = []
        self._bound: list[tuple[Address, ZapSection]] = []
        self._curve: CurveServer | None = None
        self.router = Router(
            endpoint.on_messages,
            on_ready=self._on_ready,
            on_failure=_log_failure,
            limits=net_limits(config.limits),
        )
        agents.on_change(self._on_agents_changed)

    async def open(self) -> None:
        """Listen everywhere. Raises `ZapdError` that says the mend."""
        if any(section.mechanism == "CURVE" for section in self._config.zap):
            _, secret = await asyncio.to_thread(read_curve_pair, self._config.curve_key_file)
            self._curve = CurveServer(secret, clock=time.monotonic)
        addresses = self._config.addresses()
        for number, (section, address) in enumerate(zip(self._config.zap, addresses, strict=True), 1):
            name = name_of(number, section)
            mechanism, admission = self._guard(section, name)
            bound = await self.router.listen(
                address,
                mechanism,
                admission,
                name=name,
                limits=engine_limits(self._config.limits),
                mode=section.permissions,
                group=section.gid(),
                uids=section.uids(),
            )
            self._bound.append((bound, section))

    def receive(self, secret: bytes) -> list[Callable[[socket.socket], None]]:
        """For each ``[[zap]]`` what takes the connections that another process accepts there. ``secret`` is the
        server's CURVE key, or empty where no endpoint needs one."""
        if secret:
            self._curve = CurveServer(secret, clock=time.monotonic)
        takers = []
        addresses = self._config.addresses()
        for number, (section, address) in enumerate(zip(self._config.zap, addresses, strict=True), 1):
            name = name_of(number, section)
            mechanism, admission = self._guard(section, name)
            takers.append(
                self.router.receive(
                    address,
                    mechanism,
                    admission,
                    name=name,
                    limits=engine_limits(self._config.limits),
                    uids=section.uids(),
                )
            )
        return takers

    async def close(self) -> None:
        """Send everybody away."""
        await self.router.close()

    @property
    def draining(self) -> bool:
        """Nobody new comes in."""
        return any(door.draining for door in self._doors)

    @draining.setter
    def draining(self, value: bool) -> None:
        for door in self._doors:
            door.draining = value

    @property
    def listening(self) -> list[str]:
        """A line for each endpoint: address, mechanism, and the server's public key where there is one."""
        return lines(self._bound, self._public_key)

    def endpoints(self) -> Sequence[AgentsEndpoint]:
        """What an agent needs to connect."""
        return endpoints(self._bound, self._public_key)

    @property
    def _public_key(self) -> bytes | None:
        return None if self._curve is None else self._curve.public_key

    def set_limits(self, limits: LimitsSection) -> None:
        """Use these bounds for everybody who comes from now on."""
        self.router.set_limits(net_limits(limits))

    def release(self, count: int) -> None:
        """Let so many peers go of whom no question is open, so that they come back; fewer where there are not as
        many."""
        idle = [
            peer
            for peer in self.router.peers
            if isinstance(peer.context, EndpointPeer) and not peer.context.in_flight
        ]

        def let_go(_durable: bool) -> None:  # what was answered waits for its record, and leaves before
            for peer in idle[:count]:
                peer.close("another worker has fewer connections")

        self._recorder.journal.when_durable(let_go)

    def _guard(self, section: ZapSection, name: str) -> tuple[Mechanism, Admission | None]:
        """The mechanism of a listener, and who judges those who come."""
        name_of_local = f"local:{section.listen}"
        local = Asker(name_of_local, section.domains)
        if section.mechanisms:
            local = Asker(name_of_local, section.domains, frozenset(section.mechanisms))
        deadline = self._config.limits.handshake_deadline
        if section.mechanism == "CURVE":
            if self._curve is None:
                raise LocalProtocolError("a CURVE endpoint needs the server's key")
            door = self._door(at_its_address(self._authority.decide_door, self._agents))
            return self._curve, Admission(door, RESERVED, deadline=deadline)
        self._locals[name] = local
        if section.mechanism == "PLAIN":
            return PlainServer(), Admission(
                self._door(self._authority.decide), section.domains[0], deadline=deadline, asker=local
            )
        return NullServer(), None

    def _door(self, decide: Decide) -> Door:
        door = Door(decide, self._recorder)
        self._doors.append(door)
        return door

    def _on_ready(self, peer: Peer) -> None:
        """Say who asks; a peer that lost its right since its handshake leaves at once."""
        listener = peer.listener
        name = listener.name if isinstance(listener, Entrance) else ""
        asker = self._locals.get(name) or self._agent(peer)
        if asker is None:
            peer.abort(reason="the agent was revoked meanwhile")
            return
        peer.context = EndpointPeer(asker)

    def _agent(self, peer: Peer) -> Asker | None:
        """The agent that came with this peer's key, if it may still be here. Its name alone would not do: that of
        a revoked agent may belong to another by now, with another key."""
        name = peer.user_id.decode()
        known = self._agents.by_name(name)
        if known is None or not self._agents.holds(name, decode_properties(peer.metadata).get(_KEY, b"")):
            return None
        return known.asker

    def _on_agents_changed(self, names: Sequence[str]) -> None:
        """Revoked agents are cut; changed ones go on under their new rights."""
        changed = set(names)
        for peer in list(self.router.peers):
            context = peer.context
            if not isinstance(context, EndpointPeer) or context.asker.name not in changed:
                continue
            asker = self._agent(peer)
            if asker is None:
                log.info("a revoked agent was cut off", agent=context.asker.name, address=peer.remote_address)
                peer.abort(reason="the agent was revoked")
            else:
                context.asker = asker


def _log_failure(failure: Failure) -> None:
    log.info(
        "a connection failed",
        listener=failure.listener,
        address=failure.remote_address,
        ending=failure.ending.value,
        reason=failure.reason,
        status=failure.status,
        suppressed=failure.suppressed,
    )
