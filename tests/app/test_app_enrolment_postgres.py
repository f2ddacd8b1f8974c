"""Two running zapds on one PostgreSQL, and scripts that come to either."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from support.app_scene import CONFIGURATION, Asking, wait_for
from support.enrolling import new_key
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd

from zapd.zmtp.keys import decode_public_key

SHARED = (
    '[database]\nurl = "file:data/database.url"\n'
    + CONFIGURATION
    + '[enroll]\nlisten = "127.0.0.1:0"\n[signin.orders]\n[penalties]\ntrusted = ["127.0.0.0/8"]\n'
)


def test_uses_and_keys_are_counted_over_all_zapds(tmp_path: Path, postgres_url: str) -> None:
    """Twelve scripts race for four uses, and ten sign-ins for eight keys, at two zapds: not one too many. What one
    has registered the other lets in; what one has revoked is worth nothing at the other."""
    first = Zapd(tmp_path / "a", configuration=SHARED, database=postgres_url)
    second = Zapd(tmp_path / "b", configuration=SHARED, database=postgres_url)
    with first, second, ThreadPoolExecutor(6) as threads, Asking(second) as asking:
        first.ask("POST", "/v1/users", {"name": "alice", "password": "correct horse", "domains": ["orders"]})
        join = first.ask("POST", "/v1/joins", {"user": "robot", "domains": ["orders"], "uses": 4})
        keys = [new_key() for _ in range(12)]

        def exchange(number: int) -> int:
            body = {"token": join["token"], "public_key": keys[number]}
            return httpx.post(
                (first, second)[number % 2].enroll_url + "/v1/enroll", json=body, timeout=30
            ).status_code

        results = list(threads.map(exchange, range(12)))
        assert Counter(results) == {201: 4, 403: 8}
        (shown,) = second.ask("GET", "/v1/joins")["items"]
        assert (shown["used"], shown["uses"]) == (4, 4)
        for key, status in zip(keys, results, strict=True):
            wanted = 200 if status == 201 else 400
            assert wait_for(lambda key=key, wanted=wanted: asking.ask(decode_public_key(key)) == wanted)
        assert [exchange(number) for number in range(12)] == [200 if status == 201 else 403 for status in results]
        more = first.ask("POST", "/v1/joins", {"domains": ["orders"]})
        first.ask("DELETE", f"/v1/joins/{more['id']}")
        body = {"token": more["token"], "public_key": new_key()}
        assert httpx.post(second.enroll_url + "/v1/enroll", json=body, timeout=30).status_code == 403
        assert wait_for(lambda: sign_in(second, new_key()) == 201), "the second has heard of alice"

        def enter(number: int) -> int:
            return sign_in((first, second)[number % 2], new_key())

        assert Counter(threads.map(enter, range(9))) == {201: 7, 409: 2}


def sign_in(zapd: Zapd, key: str) -> int:
    body = {"user": "alice", "password": "correct horse", "public_key": key}
    answer = httpx.post(zapd.enroll_url + "/v1/signin", json=body, timeout=30)
    while answer.status_code == 503:  # one hash at a time for a name from an address
        answer = httpx.post(zapd.enroll_url + "/v1/signin", json=body, timeout=30)
    return answer.status_code
