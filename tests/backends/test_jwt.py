"""The jwt backend and an issuer that publishes over HTTPS: the contract, and tokens that must admit nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import RSAAlgorithm
from support.fault_proxy import BehindProxy, FaultProxy
from support.http_service import Authority
from support.jwt_issuer import ISSUER, Issuer, Signer, key_set
from zapd_backends import jwt as backend_module
from zapd_backends.jwt import JwtBackend, JwtSettings

from zapd.auth.authority import Authority as Deciding
from zapd.auth.backend import Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.jwt import source as source_module
from zapd.auth.jwt.keys import MAX_KEYS, MAX_SET, fitting, read_keys
from zapd.auth.policy import Link, Policy, Rule
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract, ask, started
from zapd.zap import Asker, ZapRequest

PATIENCE = 20.0
PAGE = (Path(__file__).parents[2] / "docs/backends/jwt.md").read_text()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def issuer(authority: Authority) -> Iterator[Issuer]:
    with Issuer(authority.server()) as made:
        yield made


def make(
    at: Issuer, authority: Authority, forget: Callable[[], None] = lambda: None, **settings: object
) -> JwtBackend:
    table = {"issuer": ISSUER, "audience": "zapd", "keys": at.url(), "tls_ca": str(authority.ca), **settings}
    context = BackendContext(Path(), None, forget=forget, deadline=PATIENCE)  # type: ignore[arg-type]
    return JwtBackend.from_settings("tokens", {name: value for name, value in table.items() if value}, context)


@asynccontextmanager
async def running(*places: Any, **settings: Any) -> AsyncIterator[JwtBackend]:
    backend = make(*places, **settings)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.aclose()


async def said(backend: JwtBackend, token: bytes, user: str = "ada") -> tuple[str, str]:
    verdict = await backend.check(ask(user, token))
    return verdict.outcome.value, verdict.reason


class TestJwtContract(BehindProxy, BackendContract):
    """The contract of every backend."""

    @pytest.fixture(autouse=True)
    def _issuer(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        self.authority = Authority(tmp_path_factory.mktemp("ca"))
        with Issuer(self.authority.server()) as issuer, FaultProxy(issuer.port) as proxy:
            self.issuer, self.proxy = issuer, proxy
            self.good, self.old = issuer.token(), issuer.token(exp=int(time.time()) - 100)
            yield

    async def make(self, context: BackendContext) -> Backend:
        seconds = PATIENCE if context.deadline >= 0.8 else context.deadline
        table = {"issuer": ISSUER, "audience": ["zapd"], "keys": self.issuer.url(self.proxy.port)}
        table["tls_ca"] = str(self.authority.ca)
        return JwtBackend.from_settings("tokens", table, replace(context, deadline=seconds))

    def accepted(self) -> Question:
        return ask("ada", self.good)

    def rejected(self) -> Question:
        return ask("ada", Signer("1").token())

    def barred(self) -> Question:
        return ask("ada", self.old)

    def unknown(self) -> Question:
        return ask("ada", b"analytical-engine")


async def test_a_token_says_who_comes_and_until_when(issuer, authority):
    """Name, groups, attributes and end of the verdict are the token's."""
    ends = int(time.time()) + 300
    token = issuer.token(exp=ends, roles=["b", "a"], t="blue", n=7)
    settings = {"groups": "roles", "attributes": {"Team": "t", "Shift": "n", "Desk": "not.there"}}
    async with running(issuer, authority, **settings) as backend:
        verdict = await backend.check(ask("ada", token))
    principal = Principal("ada", ("a", "b"), (("Shift", "7"), ("Team", "blue")))
    assert verdict == Verdict(Outcome.ACCEPT, principal, "granted", float(ends))


async def test_claims_are_found_within_others(issuer, authority):
    """A dotted name is a claim's own, or a path; one text of names is a list, as scope is."""
    token = issuer.token(sub=None, **{"x.y": "ada", "r": {"s": "p q"}})
    async with running(issuer, authority, user="x.y", groups="r.s") as backend:
        verdict = await backend.check(ask("ada", token))
    assert verdict.principal == Principal("ada", ("p", "q"))


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"iss": "https://other.example.org"}, ("unknown", "")),
        ({"iss": None}, ("unknown", "")),
        ({"iss": [ISSUER]}, ("unknown", "")),
        ({"aud": "shop"}, ("reject", "token_audience")),
        ({"aud": ["shop", "Zapd"]}, ("reject", "token_audience")),
        ({"aud": None}, ("reject", "token_claim_missing")),
        ({"aud": {"zapd": 1}}, ("reject", "token_audience")),
        ({"exp": None}, ("reject", "token_claim_missing")),
        ({"exp": True}, ("reject", "token_invalid")),
        ({"exp": "4000000000"}, ("reject", "token_invalid")),
        ({"exp": 10**400}, ("reject", "token_invalid")),
        ({"exp": float("inf")}, ("reject", "token_invalid")),
        ({"exp": 1}, ("locked", "token_expired")),
        ({"nbf": 4000000000}, ("not_yet", "token_not_yet")),
        ({"iat": 4000000000}, ("not_yet", "token_not_yet")),
        ({"nbf": "1"}, ("reject", "token_invalid")),
        ({"sub": None}, ("reject", "token_user")),
        ({"sub": 7}, ("reject", "token_user")),
        ({"sub": ""}, ("reject", "token_user")),
        ({"sub": "a\nb"}, ("reject", "token_user")),
        ({"sub": "Ada"}, ("reject", "token_other_user")),
        ({"g": ["a,b"]}, ("unavailable", "token_claims")),
        ({"g": [1]}, ("unavailable", "token_claims")),
        ({"g": {"a": 1}}, ("unavailable", "token_claims")),
        ({"t": ["x"]}, ("unavailable", "token_claims")),
    ],
)
async def test_a_claim_that_is_wrong_lets_nobody_in(issuer, authority, claims, expected):
    """Each claim has its own no; another issuer's token is none of ours."""
    async with running(issuer, authority, groups="g", attributes={"Team": "t"}) as backend:
        assert await said(backend, issuer.token(**claims)) == expected


async def test_clocks_may_differ_a_little(issuer, authority):
    """Within the leeway a token is good, and kept by no cache past its own end."""
    now = int(time.time())
    async with running(issuer, authority, leeway="30s") as backend:
        assert (await said(backend, issuer.token(nbf=now + 20, iat=now + 20)))[0] == "accept"
        assert (await said(backend, issuer.token(nbf=now + 90)))[0] == "not_yet"
        verdict = await backend.check(ask("ada", issuer.token(exp=now - 20)))
        assert (verdict.outcome, verdict.until) == (Outcome.ACCEPT, now - 20)
        assert (await said(backend, issuer.token(exp=now - 40)))[0] == "locked"


def part(value: object) -> str:
    octets = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def forged(header: dict[str, Any], sign: Callable[[bytes], bytes] = lambda _octets: b"") -> bytes:
    told = {"iss": ISSUER, "aud": "zapd", "sub": "ada", "exp": 4000000000}
    octets = f"{part(header)}.{part(told)}".encode()
    return octets + b"." + part(sign(octets)).encode()


async def test_no_forged_token_lets_anybody_in(issuer, authority):
    """Unsigned, signed with what is public, by another's key, with another's name, cut, joined, or padded."""
    public = issuer.signer.pem
    shared = json.dumps(issuer.signer.public).encode()
    thief, ec = Signer("1"), Signer("1", "ES256")
    good = issuer.token()
    head, claims, signature = good.split(b".")
    _, others, _ = issuer.token("eve").split(b".")
    tokens = [
        forged({"alg": "none"}),
        forged({"alg": "None"}),
        forged({"alg": "NONE", "kid": "1"}),
        forged({"alg": ""}),
        *(
            forged(
                {"alg": alg, "kid": "1"}, lambda octets, key=key: hmac.new(key, octets, hashlib.sha256).digest()
            )
            for alg in ("HS256", "EdDSA", "ES256")
            for key in (public, public.strip(), shared, b"")
        ),
        thief.token(),
        ec.token(),
        thief.sign({"iss": ISSUER, "aud": "zapd", "sub": "ada", "exp": 4000000000}, jwk=thief.public),
        head + b"." + others + b"." + signature,
        good + b".",
        b"." + good,
        good.rsplit(b".", 1)[0] + b".",
        good[:-1],
        good + b"==",
        good[:-1] + bytes((good[-1] ^ 1,)),
        good.replace(b".", b"\n.", 1),
        head + b".." + signature,
        issuer.signer.sign({"iss": ISSUER, "aud": "zapd", "sub": "ada", "exp": 4000000000}, crit=["x"], x=1),
        issuer.signer.sign([]),
        b"a.b.c",
        b"..",
        part({"alg": "EdDSA"}).encode() + b"." + part([1]).encode() + b"." + signature,
        part([1]).encode() + b"." + claims + b"." + signature,
        part({"alg": ["EdDSA"]}).encode() + b"." + claims + b"." + signature,
        part({"alg": "EdDSA", "kid": 7}).encode() + b"." + claims + b"." + signature,
        part(b"[" * 150).encode() + b"." + claims + b"." + signature,
    ]
    async with running(issuer, authority) as backend:
        assert (await said(backend, good))[0] == "accept"
        for token in tokens:
            outcome, reason = await said(backend, token)
            assert outcome in {"reject", "unknown"}, (token, outcome, reason)


async def test_only_allowed_algorithms_are_taken(issuer, authority):
    """A key of another kind in the issuer's set signs nothing that its algorithm is not allowed for."""
    ec = Signer("ec", "ES256")
    issuer.publish(issuer.signer, ec)
    async with running(issuer, authority, algorithms=["EdDSA"]) as backend:
        assert await said(backend, ec.token()) == ("reject", "token_algorithm")
    async with running(issuer, authority, algorithms=["ES256"]) as backend:
        assert (await said(backend, ec.token()))[0] == "accept"
        assert await said(backend, issuer.token()) == ("reject", "token_algorithm")


async def test_a_placeholder_stands_for_every_name(issuer, authority):
    """With a placeholder the user name is that and nothing else, and the token says who it is."""
    async with running(issuer, authority, placeholder="jwt") as backend:
        verdict = await backend.check(ask("jwt", issuer.token()))
        assert verdict.principal == Principal("ada")
        assert await said(backend, issuer.token(), "ada") == ("reject", "token_other_user")


async def test_a_longer_token_takes_the_user_name_too(issuer, authority):
    """Split at its last dot, a token of up to 510 octets fits; what stands in the name proves nothing alone."""
    token = issuer.token(groups=["g" * 30, "h" * 30])
    name, _, signature = token.rpartition(b".")
    assert len(token) > 255 and len(name) <= 255
    async with running(issuer, authority, token_in="username+password", groups="groups") as backend:
        verdict = await backend.check(ask(name.decode(), signature))
        assert verdict.principal == Principal("ada", ("g" * 30, "h" * 30))
        assert (await said(backend, signature[:-1], name.decode()))[0] in {"reject", "unknown"}
        assert (await said(backend, b"x", name.decode()))[0] in {"reject", "unknown"}
        assert (await said(backend, token, "ada"))[0] == "unknown"


async def test_keys_are_rotated_without_a_restart(issuer, authority):
    """An unknown key has the set read again, and a token that names nobody's key is refused after it."""
    new = Signer("2")
    async with running(issuer, authority) as backend:
        backend._source._again = 0.0
        assert await said(backend, new.token()) == ("reject", "token_key_unknown")
        issuer.publish(issuer.signer, new)
        assert (await said(backend, new.token()))[0] == "accept"
        assert (await said(backend, issuer.token()))[0] == "accept"


async def test_unknown_keys_do_not_make_us_a_burden(issuer, authority):
    """However many tokens name keys that nobody knows, the set is read once a minute; they hear "not now"."""
    async with running(issuer, authority) as backend:
        told = await asyncio.gather(*(said(backend, Signer(str(n)).token()) for n in range(2, 40)))
        assert set(told) == {("not_yet", "token_key_unknown")}
        assert issuer.asked == 1
        backend._source._tried_at -= 61.0
        told = await asyncio.gather(*(said(backend, Signer(str(n)).token()) for n in range(2, 40)))
        assert set(told) == {("reject", "token_key_unknown")}
        assert issuer.asked == 2


async def test_a_key_that_is_withdrawn_is_out_with_its_tokens(issuer, authority):
    """When a key is gone from the set, what was remembered of its tokens is forgotten at once."""
    forgotten: list[bool] = []
    async with running(issuer, authority, lambda: forgotten.append(True), refresh="1s") as backend:
        token = issuer.token()
        assert (await said(backend, token))[0] == "accept"
        issuer.publish(Signer("2"))
        async with asyncio.timeout(PATIENCE):
            while not forgotten:
                await asyncio.sleep(0.02)
        assert (await said(backend, token))[0] in {"not_yet", "reject"}


async def test_an_empty_set_lets_nobody_in_and_refuses_nobody(issuer, authority):
    """An issuer that publishes no key at all has slipped or withdrawn everything: 300 until it says more."""
    async with running(issuer, authority, refresh="1s") as backend:
        issuer.published = b'{"keys": []}'
        async with asyncio.timeout(PATIENCE):
            while (await said(backend, issuer.token())) != ("unavailable", "jwt_keys_unavailable"):
                await asyncio.sleep(0.02)
        assert "no key" in backend.problem


async def test_while_the_issuer_is_away_its_last_keys_are_believed_for_a_while(issuer, authority):
    """An outage is no refusal: tokens are good until max_age, then "cannot tell", and again once it is back."""
    async with running(issuer, authority, refresh="1s", max_age="2s") as backend:
        issuer.status = 503
        heard: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while "unavailable" not in heard:
                heard.append((await said(backend, issuer.token()))[0])
                await asyncio.sleep(0.05)
            assert set(heard) == {"accept", "unavailable"}
            assert "503" in backend.problem
            issuer.status = 200
            while (await said(backend, issuer.token()))[0] != "accept":
                await asyncio.sleep(0.05)
        assert not backend.problem


@pytest.mark.parametrize(
    ("published", "problem"),
    [
        (b"<html>", "neither a key set"),
        (b"[]", "no list 'keys'"),
        (b'{"keys": {}}', "no list 'keys'"),
        (b"[" * 100_000, "neither a key set"),
        (b" " * (MAX_SET + 1), "KiB"),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(), f"more than {MAX_KEYS} keys"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0LXRoYXQtaXMtc2hhcmVk", "alg": "HS256"}]}', "secret or private"),
        (json.dumps({"keys": [{**Signer().public, "d": "AAAA"}]}).encode(), "secret or private"),
        (json.dumps({"keys": [{**Signer().public, "use": "enc"}]}).encode(), "no key"),
        (json.dumps({"keys": [{**Signer().public, "x": "AAAA"}]}).encode(), "no key"),
        (json.dumps({"keys": [1, None, {"kty": "EC", "crv": "secp256k1"}]}).encode(), "no key"),
    ],
)
async def test_a_set_that_is_none_is_not_taken(issuer, authority, published, problem):
    """What cannot be read, is too long, or holds what is the issuer's alone gives no key; it is not shown."""
    issuer.published = published
    backend = make(issuer, authority)
    try:
        with pytest.raises(Unavailable) as told:
            await backend.start()
        assert problem in str(told.value)
        assert "c2VjcmV0" not in str(told.value)
    finally:
        await backend.aclose()


async def test_keys_come_from_nobody_else(issuer, authority, tmp_path):
    """A wrong authority, another name, a redirect: no keys, and what is wrong is said."""
    with pytest.raises(Unavailable, match="not to be trusted"):
        async with running(issuer, Authority(tmp_path / "other")):
            pass
    with Issuer(authority.server("id.example.org")) as elsewhere, pytest.raises(Unavailable, match="not to be"):
        async with running(elsewhere, authority):
            pass
    issuer.status, issuer.headers = 302, {"Location": issuer.url()}
    with pytest.raises(Unavailable, match="302"):
        async with running(issuer, authority):
            pass
    assert issuer.asked == 1


async def test_keys_may_lie_in_a_file(issuer, authority, tmp_path):
    """A set or public keys in PEM, read again when a token needs it; a private key or an open file is refused."""
    old, new, named = Signer(None), Signer(None, "ES256"), Signer("8")
    path = tmp_path / "issuer.pem"
    path.write_bytes(old.pem + b"\n# and the next\n" + new.pem)
    async with running(issuer, authority, keys=str(path), tls_ca="") as backend:
        assert [(await said(backend, signer.token()))[0] for signer in (old, new)] == ["accept"] * 2
        path.write_bytes(key_set(Signer("7"), named))
        backend._source._tried_at -= 61.0
        assert (await said(backend, named.token()))[
            0
        ] == "reject"  # PEM keys fit every name: no need to look again
        await backend._source.start()
        assert (await said(backend, named.token()))[0] == "accept"
    path.write_bytes(key_set(Signer("7")))
    async with running(issuer, authority, keys=str(path), tls_ca="") as backend:
        assert await said(backend, Signer("7").token()) == ("reject", "token_signature")
    for octets, words in (
        (private_pem(), "private"),
        (b"-----BEGIN X-----\nAA\n-----END X-----\n", "no public key"),
    ):
        path.write_bytes(octets)
        with pytest.raises(Unavailable, match=words):
            async with running(issuer, authority, keys=str(path), tls_ca=""):
                pass
    path.write_bytes(new.pem)
    path.chmod(0o666)
    with pytest.raises(Unavailable, match="chmod"):
        async with running(issuer, authority, keys=str(path), tls_ca=""):
            pass
    path.unlink()
    with pytest.raises(Unavailable, match="No such file"):
        async with running(issuer, authority, keys=str(path), tls_ca=""):
            pass


def private_pem() -> bytes:
    return Signer().key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


async def test_a_file_that_hangs_holds_up_nobody(issuer, authority, tmp_path, monkeypatch):
    """A pipe in the place of the file: start fails in time, and can be closed."""
    monkeypatch.setattr(source_module, "PATIENCE", 0.3)
    os.mkfifo(tmp_path / "pipe")
    backend = make(issuer, authority, keys=str(tmp_path / "pipe"), tls_ca="")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await backend.start()
        await backend.aclose()
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))


async def test_no_remembered_yes_outlives_its_token(issuer, authority):
    """zapd's cache keeps a token's yes no longer than the token is good, whatever cache_good says."""
    async with running(issuer, authority, leeway="0s") as backend:
        handle = await started(backend, "tokens")
        rule = Rule("lab", frozenset({"PLAIN"}), (Link("tokens"),), refusal_tick=0.01, cache_good=600.0)
        deciding = Deciding(Policy((rule,)), {"tokens": handle})
        token = issuer.token(exp=int(time.time()) + 3)
        credentials = (b"ada", token)
        asker = Asker("test", mechanisms=frozenset({"PLAIN"}))
        request = ZapRequest(b"1", "lab", "192.0.2.1", b"", "PLAIN", credentials, asker=asker)
        assert (await deciding.decide(request)).reason == "granted"
        assert (await deciding.decide(request)).cached
        async with asyncio.timeout(PATIENCE):
            while (decision := await deciding.decide(request)).reason == "granted":
                await asyncio.sleep(0.1)
        assert (int(decision.status), decision.reason) == (400, "token_expired")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"issuer": ""}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"keys": ""}, "keys"),
        ({"keys": "http://id.example.org/keys", "tls_ca": ""}, "in the clear"),
        ({"keys": "https://ada:x@id.example.org/keys"}, "without a name or password"),
        ({"keys": "ftp://id.example.org/keys"}, "https://"),
        ({"keys": "issuer.pem"}, "tls_ca"),
        ({"algorithms": ["none"]}, "write some of"),
        ({"algorithms": ["HS256"]}, "write some of"),
        ({"algorithms": ["RS256"]}, "do not fit"),
        ({"leeway": "2m"}, "leeway"),
        ({"refresh": "1h", "max_age": "1h"}, "twice"),
        ({"token_in": "header"}, "token_in"),
        ({"token_in": "username+password", "placeholder": "jwt"}, "placeholder"),
        ({"attributes": {"Zapd-Groups": "g"}}, "attributes"),
        ({"secret": "x"}, "no such setting"),
    ],
)
def test_mistakes_are_named(issuer, authority, settings, words):
    """Every mistake of the configuration names its setting and the mend."""
    with pytest.raises(ConfigurationError, match=words):
        make(issuer, authority, **settings)


def test_every_setting_and_reason_is_on_the_page():
    """docs/backends/jwt.md explains each setting, and each reason that the journal may show."""
    for name in JwtSettings.model_fields:
        assert f"`{name}`" in PAGE, name
    sources = [backend_module.__file__, Path(source_module.__file__).with_name("token.py")]
    for source in sources:
        for reason in re.findall(r'"((?:token|jwt)_[a-z_]+)"', Path(source).read_text()):
            if reason != "token_in":
                assert f"`{reason}`" in PAGE, reason


def test_a_set_passes_over_what_it_cannot_use():
    """Keys of other kinds and uses, weak ones and unnamed algorithms do not spoil their neighbours."""
    weak = RSAAlgorithm.to_jwk(generate_private_key(65537, 1024).public_key(), as_dict=True)
    strong = RSAAlgorithm.to_jwk(generate_private_key(65537, 2048).public_key(), as_dict=True)
    ec = Signer("ec", "ES256").public
    told = [weak, strong | {"kid": "rsa"}, ec, {**ec, "alg": "ES384"}, {"kty": "AKP"}, "x", {**ec, "kid": 5}]
    keys = read_keys(json.dumps({"keys": told}).encode())
    assert [key.name for key in keys] == ["rsa", "ec"]
    assert [key.name for key in fitting(keys, "PS256", None)] == ["rsa"]
    assert not fitting(keys, "RS256", "ec")
    assert not fitting(keys, "HS256", None)
