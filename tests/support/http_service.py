"""The service of docs/backends/http.md, run as it stands there, in the clear or behind TLS, or misbehaving."""

from __future__ import annotations

import base64
import re
import ssl
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme
from nacl.signing import SigningKey

PAGE = (Path(__file__).parents[2] / "docs/backends/http.md").read_text()
(EXAMPLE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Quiet(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what tests are about."""


class Service:
    """A running service. ``answers`` may be replaced: from the request's body to (status, headers, body)."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.example: dict[str, Any] = {"__name__": "example"}
        exec(compile(EXAMPLE, "docs/backends/http.md", "exec"), self.example)
        self.key = SigningKey.generate()
        self.answers: Callable[[bytes], tuple[int, dict[str, str], bytes]] = self.honest
        self.bodies: list[bytes] = []
        self.peers: set[int] = set()
        service = self

        class Handler(self.example["Service"]):  # type: ignore[misc, name-defined]
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.bodies.append(body)
                service.peers.add(self.client_address[1])
                status, headers, told = service.answers(body)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(told)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            # The handshake is the handler's affair: one that hangs must not keep others from being accepted.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def public_key(self) -> str:
        return base64.b64encode(bytes(self.key.verify_key)).decode()

    def honest(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, self.example["answer"](body, self.key).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Authority:
    """A CA in a folder: contexts for servers, and files for clients."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))
        mine = self._ca.issue_cert("zapd.example.org")
        self.cert, self.key = folder / "zapd.pem", folder / "zapd.key"
        mine.cert_chain_pems[0].write_to_path(str(self.cert))
        mine.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)

    def server(self, *names: str, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
        if mutual:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
