"""Rotation as a fleet meets it: both keys are let in, the use of each is shown, and agents change keys alive."""

from __future__ import annotations

from pathlib import Path

import zmq
from support.app_scene import ALICE, BOB, CONFIGURATION, EVER, STRANGER, Asking, wait_for, z85
from support.serving import serving

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import fingerprint_id

CURVE = CONFIGURATION.replace("[admin]", '[[zap]]\nlisten = "tcp://127.0.0.1:0"\nmechanism = "CURVE"\n[admin]', 1)


def test_both_keys_work_and_show_their_use_until_the_overlap_ends(tmp_path: Path) -> None:
    """The old key is let in until the overlap is over and then is expired; `key show` tells when each was used."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd, Asking(zapd) as asking:
        third = z85(STRANGER).decode()
        zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        assert asking.ask(ALICE) == 200
        done = zapd.run("key", "rotate", z85(ALICE).decode(), z85(BOB).decode(), "--overlap", "1h")
        assert done.returncode == 0, done.stderr
        assert asking.ask(ALICE, address="10.0.0.1") == 200
        assert asking.ask(BOB, address="10.0.0.2") == 200

        def used(key: bytes, address: str) -> bool:
            shown = zapd.run("key", "show", z85(key).decode())
            return "last used" in shown.stdout and address in shown.stdout

        assert wait_for(lambda: used(ALICE, "10.0.0.1"))
        assert wait_for(lambda: used(BOB, "10.0.0.2"))
        assert "LAST USED" in zapd.run("key", "list", "--usage").stdout
        zapd.ask("POST", f"/v1/keys/{fingerprint_id(BOB)}/rotate", {"public_key": third, "overlap": 1})
        assert wait_for(lambda: asking.ask(BOB) == 400)
        assert asking.ask(ALICE) == 200


def test_an_agent_changes_its_key_while_it_asks(tmp_path: Path) -> None:
    """With the old key and with the new one it is let in; when the overlap is over the old connection is cut and
    the old key is refused, while the new one goes on."""
    with serving(tmp_path, configuration=CURVE) as zapd:
        zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        enrolled = zapd.run("agent", "enroll", "edge", "-o", "old.key", "--domain", "orders")
        assert enrolled.returncode == 0, enrolled.stderr
        with _connected(tmp_path / "old.key") as old:
            assert _status(old) == b"200"
            rotated = zapd.run("agent", "rotate", "edge", "-o", "new.key", "--overlap", "3s")
            assert rotated.returncode == 0, rotated.stderr
            with _connected(tmp_path / "new.key") as new:
                assert _status(new) == b"200"
                assert wait_for(lambda: "agent was revoked" in zapd.logged() or "cut off" in zapd.logged())
                assert wait_for(lambda: '"reason":"agent_key_rotated"' in zapd.journal())
                assert _status(new) == b"200"


class _connected:
    """A DEALER with an agent's keys."""

    def __init__(self, path: Path) -> None:
        keys = read_keys(path)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.reconnect_ivl = 50
        self._socket.curve_publickey = keys.public_key
        self._socket.curve_secretkey = keys.secret_key
        self._socket.curve_serverkey = keys.endpoints[0].server_keys[0]
        self._socket.connect(keys.endpoints[0].address)

    def __enter__(self) -> zmq.Socket[bytes]:
        return self._socket

    def __exit__(self, *_error: object) -> None:
        self._socket.close()
        self._context.term()


def _status(socket: zmq.Socket[bytes]) -> bytes:
    socket.send_multipart([b"", b"1.0", b"1", b"orders", b"10.0.0.1", b"", b"CURVE", ALICE])
    assert socket.poll(int(EVER * 1000)), "no answer"
    return socket.recv_multipart()[3]
