"""The http backend against a real service: the contract, and every answer that must admit nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey
from support.fault_proxy import BehindProxy, FaultProxy
from support.http_service import EXAMPLE, PAGE, Authority, Service
from zapd_backends.http import HttpBackend, HttpSettings

from zapd.auth.backend import Backend, BackendBusy, BackendContext, Outcome, Principal, Question, Verdict
from zapd.config.load import load
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract, ask
from zapd.zmtp.keys import encode_key

PATIENCE = 20.0
ADA = ask("ada", b"analytical-engine")
GRANTED = Verdict(Outcome.ACCEPT, Principal("ada", ("engineers",)))


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as made:
        yield made


def make(service: Service, folder: Path = Path(), deadline: float = PATIENCE, **settings: object) -> HttpBackend:
    table = {"url": f"http://127.0.0.1:{service.port}/", "public_key": service.public_key, **settings}
    return HttpBackend.from_settings("portal", table, BackendContext(folder, None, deadline=deadline))


@asynccontextmanager
async def running(*places: Any, **settings: Any) -> AsyncIterator[HttpBackend]:
    backend = make(*places, **settings)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.aclose()


def signed(key: SigningKey, payload: bytes, purpose: bytes = b"zapd-http-answer-1\0") -> bytes:
    signature = key.sign(purpose + payload).signature
    told = {"payload": payload, "signature": signature}
    return json.dumps({name: base64.b64encode(value).decode() for name, value in told.items()}).encode()


def changed(service: Service, **members: object) -> Callable[[bytes], tuple[int, dict[str, str], bytes]]:
    """The honest answer with other members, rightly signed; None takes one out."""

    def answers(body: bytes) -> tuple[int, dict[str, str], bytes]:
        payload = json.loads(base64.b64decode(json.loads(service.honest(body)[2])["payload"])) | members
        kept = {name: value for name, value in payload.items() if value is not None}
        return 200, {}, signed(service.key, json.dumps(kept).encode())

    return answers


class TestHttpContract(BehindProxy, BackendContract):
    """The contract of every backend."""

    @pytest.fixture(autouse=True)
    def _service(self) -> Iterator[None]:
        with Service() as service, FaultProxy(service.port) as proxy:
            self.service, self.proxy = service, proxy
            yield

    async def make(self, context: BackendContext) -> Backend:
        seconds = PATIENCE if context.deadline >= 0.8 else context.deadline
        table = {"url": f"http://127.0.0.1:{self.proxy.port}/", "public_key": self.service.public_key}
        return HttpBackend.from_settings("portal", table, replace(context, deadline=seconds))

    def accepted(self) -> Question:
        return ADA

    def rejected(self) -> Question:
        return ask("ada", b"mistaken")

    def unknown(self) -> Question:
        return ask("eve", b"analytical-engine")


async def test_the_service_is_told_who_comes(service):
    """Names, keys and principals, each with its mechanism; a password only with PLAIN; over one connection."""
    key = bytes(range(32))
    async with running(service) as backend:
        assert await backend.check(ADA) == GRANTED
        await backend.check(Question("orders", "CURVE", "192.0.2.7", key=key))
        await backend.check(Question("orders", "GSSAPI", "192.0.2.7", username="ada@EXAMPLE.ORG"))
    plain, curve, gssapi = map(json.loads, service.bodies)
    assert base64.b64decode(plain["password"]) == b"analytical-engine"
    assert (curve["key"], curve["domain"], curve["address"]) == (encode_key(key), "orders", "192.0.2.7")
    assert gssapi["username"] == "ada@EXAMPLE.ORG"
    assert "password" not in curve | gssapi
    assert len({each["nonce"] for each in (plain, curve, gssapi)}) == 3
    assert len(service.peers) == 1


async def test_every_outcome_and_all_that_goes_with_it(service):
    """Groups, attributes and the end come through; each no is its own."""
    until = time.time() + 100
    async with running(service) as backend:
        service.answers = changed(service, attributes={"Team": "blue"}, groups=["b", "a"], until=until)
        principal = Principal("ada", ("a", "b"), (("Team", "blue"),))
        assert await backend.check(ADA) == Verdict(Outcome.ACCEPT, principal, "", until)
        for told, outcome, reason in (
            ("reject", Outcome.REJECT, "wrong_password"),
            ("locked", Outcome.LOCKED, "http_locked"),
            ("not_yet", Outcome.NOT_YET, "http_not_yet"),
            ("unknown", Outcome.UNKNOWN, ""),
        ):
            service.answers = changed(service, outcome=told)
            verdict = await backend.check(ADA)
            assert (verdict.outcome, verdict.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"nonce": "0" * 64}, "http_other_question"),
        ({"question": "0" * 64}, "http_other_question"),
        ({"backend": "staff"}, "http_other_question"),
        ({"expires": 0.0}, "http_expired"),
        ({"expires": 1e12}, "http_expired"),
        ({"expires": None}, "http_invalid"),
        ({"expires": "tomorrow"}, "http_invalid"),
        ({"outcome": "unavailable"}, "http_invalid"),
        ({"outcome": "ACCEPT"}, "http_invalid"),
        ({"outcome": None}, "http_invalid"),
        ({"user": None}, "http_invalid"),
        ({"user": ""}, "http_invalid"),
        ({"user": "a\nb"}, "http_invalid"),
        ({"user": "a" * 256}, "http_invalid"),
        ({"user": "\ud800"}, "http_invalid"),
        ({"user": 7}, "http_invalid"),
        ({"groups": ["a,b"]}, "http_invalid"),
        ({"groups": "ops"}, "http_invalid"),
        ({"attributes": {"Zapd-Key": "x"}}, "http_invalid"),
        ({"attributes": {"Team": "x" * 5000}}, "http_invalid"),
        ({"attributes": {"Team": 1}}, "http_invalid"),
        ({"until": 1.0}, "http_invalid"),
        ({"more": True}, "http_invalid"),
    ],
    ids=str,
)
async def test_what_does_not_fit_admits_nobody(service, members, reason):
    """Though rightly signed: another question's answer, an old one, one that breaks a rule. Never a no."""
    service.answers = changed(service, **members)
    async with running(service) as backend:
        verdict = await backend.check(ADA)
        assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, reason)
        assert backend.problem
        service.answers = service.honest
        assert await backend.check(ADA) == GRANTED
        assert backend.problem == ""


async def test_a_stranger_s_answer_admits_nobody(service):
    """One signed by another key, one signed for another purpose, one changed behind its signature, a bare one."""
    other = SigningKey.generate()

    def by(sign: Callable[[bytes], bytes]) -> Callable[[bytes], tuple[int, dict[str, str], bytes]]:
        return lambda body: (200, {}, sign(base64.b64decode(json.loads(service.honest(body)[2])["payload"])))

    def altered(payload: bytes) -> bytes:
        told = json.loads(signed(service.key, payload))
        forged = payload.replace(b'"reject"', b'"accept"').replace(b"engineers", b"governors")
        return json.dumps(told | {"payload": base64.b64encode(forged).decode()}).encode()

    async with running(service) as backend:
        for sign, reason in (
            (lambda payload: signed(other, payload), "http_signature"),
            (lambda payload: signed(service.key, payload, b""), "http_signature"),
            (altered, "http_signature"),
            (lambda payload: payload, "http_invalid"),
        ):
            service.answers = by(sign)
            verdict = await backend.check(ADA)
            assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, reason)


async def test_an_answer_is_good_once(service):
    """The right answer to the very same question, heard again, admits nobody."""
    heard = []
    async with running(service) as backend:
        service.answers = lambda body: heard.append(service.honest(body)) or heard[0]
        assert await backend.check(ADA) == GRANTED
        assert (await backend.check(ADA)).reason == "http_other_question"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((302, {"Location": "/elsewhere"}, b""), "http_status_302"),
        ((403, {}, b"{}"), "http_status_403"),
        ((500, {}, b""), "http_status_500"),
        ((204, {}, b""), "http_status_204"),
        ((200, {}, b""), "http_invalid"),
        ((200, {}, b"\xff" * 100), "http_invalid"),
        ((200, {}, b"[" * 10000), "http_invalid"),
        ((200, {}, b'{"payload": "e30=", "signature": "e30="}'), "http_invalid"),
        ((200, {}, b" " * 20000), "http_too_long"),
        ((200, {"Content-Length": "900"}, b"{}"), "http_late"),
        ((200, {"Content-Length": "900", "Connection": "close"}, b"{}"), "http_cut_off"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_what_is_no_answer_is_cannot_tell(service, answer, reason):
    """Redirects, other statuses, nonsense, floods, half an answer; asked once, since something was answered."""
    service.answers = lambda _body: answer
    async with running(service, deadline=1.0 if reason == "http_late" else PATIENCE) as backend:
        verdict = await backend.check(ADA)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, reason)
    assert len(service.bodies) == 1


async def test_a_question_nobody_answered_is_asked_again(service):
    """A connection hung up without a word costs nothing: the same question goes out anew; thrice, not more."""
    hung_up = []
    async with running(service) as backend:

        def hang_up_once(body: bytes) -> tuple[int, dict[str, str], bytes]:
            if not hung_up:
                hung_up.append(body)
                raise ConnectionAbortedError
            return service.honest(body)

        service.answers = hang_up_once
        assert await backend.check(ADA) == GRANTED
        assert service.bodies == hung_up * 2

        def hang_up(_body: bytes) -> tuple[int, dict[str, str], bytes]:
            raise ConnectionAbortedError

        service.answers = hang_up
        assert (await backend.check(ADA)).reason == "http_away"
        assert len(service.bodies) == 5


async def test_too_many_questions_are_busy(service):
    """More than connections and places to wait hear so at once; the others get their answers."""
    go = threading.Event()
    service.answers = lambda body: service.honest(body) if go.wait(PATIENCE) else (500, {}, b"")
    async with running(service, connections=2) as backend:
        crowd = [asyncio.ensure_future(backend.check(ADA)) for _ in range(70)]
        try:
            done, _ = await asyncio.wait(crowd, timeout=PATIENCE, return_when=asyncio.FIRST_EXCEPTION)
            assert done
        finally:
            go.set()
        said = await asyncio.gather(*crowd, return_exceptions=True)
    assert len([each for each in said if isinstance(each, BackendBusy)]) == 4
    assert said.count(GRANTED) == 66
    assert len(service.peers) == 2


async def test_both_sides_prove_who_they_are(tmp_path):
    """With the right CA and certificate it works; without zapd's certificate, from another CA, or under another
    name, nobody is admitted, and no password is told."""
    ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other")
    mine = {"tls_ca": str(ours.ca), "tls_cert": str(ours.cert), "tls_key": str(ours.key)}
    with Service(ours.server(mutual=True)) as service:
        url = f"https://127.0.0.1:{service.port}/"
        async with running(service, url=url, **mine) as backend:
            assert await backend.check(ADA) == GRANTED
        told = len(service.bodies)
        wrong_certificate = {"tls_cert": str(other.cert), "tls_key": str(other.key)}
        for settings in ({"tls_ca": str(ours.ca)}, mine | wrong_certificate, mine | {"tls_ca": str(other.ca)}, {}):
            async with running(service, url=url, **settings) as backend:
                assert (await backend.check(ADA)).outcome is Outcome.UNAVAILABLE
        assert len(service.bodies) == told
    with Service(ours.server("elsewhere.example.org")) as service:
        url = f"https://127.0.0.1:{service.port}/"
        async with running(service, url=url, **mine) as backend:
            assert (await backend.check(ADA)).reason == "http_away"
            assert "certificate is not to be trusted" in backend.problem
        assert service.bodies == []


async def test_files_that_cannot_be_used_are_said_at_the_start(tmp_path, service):
    """A CA that is not there, a key that others can read: the backend shows why, and can start once mended."""
    ours = Authority(tmp_path)
    ours.key.chmod(0o644)
    files = {"url": "https://127.0.0.1:1/", "tls_cert": "zapd.pem", "tls_key": "zapd.key"}
    for more in ({"tls_ca": "missing.pem"}, {"tls_ca": "ca.pem"}):
        backend = make(service, tmp_path, **files, **more)
        with pytest.raises(Unavailable, match=r"cannot be used: No such file|others can read or change it"):
            await backend.start()
        await backend.aclose()
    ours.key.chmod(0o600)
    await backend.start()
    await backend.aclose()


async def test_no_password_crosses_the_network_in_the_clear(service):
    """With leave to ask in the clear keys may be; a password never is."""
    async with running(service, url="http://192.0.2.1/", plaintext=True) as backend:
        assert (await backend.check(ADA)).reason == "http_needs_tls"
        assert [setting for setting, _, _ in backend.warnings] == ["plaintext"]


async def test_the_environment_chooses_nobody(service, monkeypatch):
    """A proxy named by the environment is not heeded."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with running(service) as backend:
        assert await backend.check(ADA) == GRANTED


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "http://auth.example.org/"}, "in the clear"),
        ({"url": "ftp://auth.example.org/"}, "https://HOST"),
        ({"url": "https://ada:secret-7@auth.example.org/"}, "without a name or password"),
        ({"url": "https://auth.example.org:99999/"}, "https://HOST"),
        ({"url": "https://x/#part"}, "https://HOST"),
        ({"public_key": "c2hvcnQ="}, "32 octets"),
        ({"public_key": "!"}, "base64"),
        ({"tls_ca": "ca.pem"}, "for https"),
        ({"url": "https://x/", "tls_cert": "a.pem"}, "belong together"),
        ({"connections": 0}, "connections"),
        ({"verify": False}, "no such setting"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_at_once(service, settings, says):
    """Each mistake names its setting, and shows no secret."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        make(service, **settings)
    assert "secret-7" not in str(caught.value)


def test_check_config_warns_of_questions_in_the_clear(tmp_path, service):
    """Plain HTTP across the network needs an explicit word, and is warned of with its line."""
    path = tmp_path / "zapd.toml"
    path.write_text(
        f'[backend.portal]\ntype = "http"\nurl = "http://192.0.2.1/"\npublic_key = "{service.public_key}"\n'
        'plaintext = true\n[domain.lab]\nmechanisms = ["CURVE"]\nbackends = ["portal"]\n'
    )
    warnings = [str(each) for each in load(path).warnings]
    assert any(each.startswith("line 5: backend.portal.plaintext: who asks") for each in warnings)
    path.write_text(path.read_text().replace("plaintext = true\n", ""))
    with pytest.raises(ConfigurationError, match="in the clear"):
        load(path)


def test_the_page_names_every_setting_and_reason():
    """Each in its table."""
    for name in HttpSettings.model_fields:
        assert f"`{name}`" in PAGE
    code = (Path(__file__).parents[2] / "backends/zapd_backends/http.py").read_text()
    reasons = {part.split('"')[0] for part in code.split('"http_')[1:]} - {"status_{code}"}
    assert len(reasons) > 8
    assert [reason for reason in reasons if f"`http_{reason}`" not in PAGE and "{" not in reason] == []


async def test_the_example_runs_as_it_stands(tmp_path):
    """Started as the page's reader would, it makes its key for nobody else's eyes, and is believed."""
    assert len(EXAMPLE.splitlines()) < 60
    (tmp_path / "service.py").write_text(EXAMPLE)
    process = subprocess.Popen(
        [sys.executable, "service.py", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = await asyncio.to_thread(process.stdout.readline)
        port, key = line.removeprefix("port ").split(",")[0], line.split('"')[1]
        table = {"url": f"http://127.0.0.1:{port}/", "public_key": key}
        backend = HttpBackend.from_settings("portal", table, BackendContext(tmp_path, None, deadline=PATIENCE))
        await backend.start()
        assert await backend.check(ADA) == GRANTED
        await backend.aclose()
        assert os.stat(tmp_path / "service.key").st_mode & 0o077 == 0
    finally:
        process.kill()
        process.communicate()
