"""A link to one zapd: whatever breaks it, nothing of it stays open."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import zmq

from zapd.agent.keyfile import Endpoint
from zapd.agent.upstream import Upstream


@pytest.mark.parametrize("kind", [zmq.PAIR, zmq.DEALER])
def test_a_context_that_ends_while_a_link_is_made_is_not_held_up(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terminating waits for every socket: one that was made and not yet known would make it wait for ever."""
    made: list[zmq.Socket[Any]] = []
    create, connect = zmq.Context.socket, zmq.Socket.connect

    def remember(context: zmq.Context[Any], *arguments: Any) -> Any:
        made.append(create(context, *arguments))
        return made[-1]

    def ends(socket: zmq.Socket[Any], address: str) -> Any:
        if socket.type == kind:
            raise zmq.ContextTerminated
        return connect(socket, address)

    monkeypatch.setattr(zmq.Context, "socket", remember)
    monkeypatch.setattr(zmq.Socket, "connect", ends)
    context = zmq.Context()
    upstream = Upstream(context, 0, Endpoint("tcp://127.0.0.1:1"), None, Counter())
    try:
        with pytest.raises(zmq.ContextTerminated):
            upstream.tend(0.0)
        upstream.close()
        assert [socket.closed for socket in made] == [True, True]
    finally:
        context.destroy(linger=0)
