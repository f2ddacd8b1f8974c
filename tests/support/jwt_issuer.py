"""An issuer of tokens: keys that can be rotated, published over HTTPS as a set, and tokens of every kind."""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from support.http_service import Quiet

ISSUER = "https://id.example.org"


class Signer:
    """One key pair."""

    def __init__(self, name: str | None = "1", algorithm: str = "EdDSA") -> None:
        self.name = name
        self.algorithm = algorithm
        self.key = Ed25519PrivateKey.generate() if algorithm == "EdDSA" else generate_private_key(SECP256R1())

    @property
    def public(self) -> dict[str, Any]:
        """The public half, as a set has it."""
        told = get_default_algorithms()[self.algorithm].to_jwk(self.key.public_key(), as_dict=True)
        told.pop("key_ops", None)
        return told | {"use": "sig", "alg": self.algorithm} | ({"kid": self.name} if self.name else {})

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims: dict[str, Any], **header: Any) -> bytes:
        """A token of exactly these claims."""
        header = {"typ": None, **({"kid": self.name} if self.name else {}), **header}
        return jwt.api_jws.encode(
            json.dumps(claims, separators=(",", ":")).encode(), self.key, self.algorithm, headers=header
        ).encode()

    def token(self, user: str = "ada", **claims: Any) -> bytes:
        """A good token for zapd; None takes a claim out."""
        told = {"iss": ISSUER, "aud": "zapd", "sub": user, "exp": int(time.time()) + 600, **claims}
        return self.sign({name: value for name, value in told.items() if value is not None})


def key_set(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.public for signer in signers]}).encode()


class Issuer:
    """Publishes its keys. ``published`` and ``status`` may be replaced."""

    def __init__(self, tls: ssl.SSLContext | None = None, *signers: Signer) -> None:
        self.signer = signers[0] if signers else Signer()
        self.published = key_set(*(signers or (self.signer,)))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                published = issuer.published
                if self.path == "/.well-known/openid-configuration":
                    published = json.dumps(issuer.discovery).encode()
                self.send_response(issuer.status)
                told = {"Content-Length": str(len(published)), **issuer.headers}
                for name, value in told.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(published)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_port
        self.discovery: dict[str, object] = {"issuer": self.name, "jwks_uri": self.url()}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def name(self) -> str:
        """As an issuer of OpenID Connect."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def url(self, port: int | None = None) -> str:
        return f"{self.scheme}://127.0.0.1:{port or self.port}/keys"

    def token(self, user: str = "ada", **claims: Any) -> bytes:
        return self.signer.token(user, **claims)

    def publish(self, *signers: Signer) -> None:
        self.published = key_set(*signers)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
