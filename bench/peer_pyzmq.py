"""A bare pyzmq REP that says 200 to everything, asking nobody: the least that Python can do.

python peer_pyzmq.py ENDPOINT
"""

from __future__ import annotations

import sys

import zmq


def main(endpoint: str) -> None:
    socket = zmq.Context().socket(zmq.REP)
    socket.bind(endpoint)
    while True:
        frames = socket.recv_multipart()
        socket.send_multipart([b"1.0", frames[1], b"200", b"OK", b"somebody", b""])


if __name__ == "__main__":
    main(sys.argv[1])
