"""The ldap backend when things go wrong: TLS, servers that die, hang, talk nonsense. Nobody valid hears no."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.ldap_scene import ldap_backend, ldap_settings, make_ldap, say
from support.slapd import KEY, SERVICE, SUFFIX, Certificates, make_slapd, person, slapd, slapd_certificates
from zapd_backends import ldap_servers
from zapd_backends.ldap_line import MAX_ANSWER, Trouble

from zapd.auth.backend import BackendBusy, Outcome
from zapd.errors import Unavailable
from zapd.testing import ask
from zapd.zmtp.keys import decode_public_key, encode_key

__all__ = ["make_slapd", "slapd", "slapd_certificates"]

ALICE = ask("alice", b"alice-Pw1")
ALICES_KEY = ask(key=decode_public_key(KEY))
EVE = ask("eve", b"alice-Pw1")
WRONG = ask("alice", b"mistaken")


@pytest.mark.parametrize("starttls", [False, True], ids=["ldaps", "StartTLS"])
async def test_tls_with_the_right_authority(slapd, starttls):
    """With the authority's certificate the directory is asked, by name and by address."""
    for host in ("localhost", "127.0.0.1"):
        url = f"ldap://{host}:{slapd.port}" if starttls else f"ldaps://{host}:{slapd.tls_port}"
        more = {"url": url, "starttls": starttls, "tls_ca": str(slapd.ca)}
        async with ldap_backend(ldap_settings(slapd, **more)) as backend:
            assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
            assert (await backend.check(ALICES_KEY)).outcome is Outcome.ACCEPT
            assert (await backend.check(WRONG)).outcome is Outcome.REJECT


@pytest.fixture(scope="module")
def other_authority(slapd_certificates, tmp_path_factory) -> Certificates:
    """A certificate of another authority's making, for another name."""
    return Certificates(tmp_path_factory.mktemp("ca"), "DNS:elsewhere.example")


async def refused(settings: dict[str, object]) -> str:
    """What a backend says that cannot start; it must not answer a question either."""
    backend = make_ldap(settings)
    try:
        with pytest.raises(Trouble) as trouble:
            await backend.start()
        verdict = await backend.check(ALICE)
        assert verdict.outcome is Outcome.UNAVAILABLE
        assert verdict.principal is None
        assert verdict.reason == trouble.value.reason
        assert backend.problem == str(trouble.value)
        return backend.problem
    finally:
        await backend.aclose()


@pytest.mark.parametrize("starttls", [False, True], ids=["ldaps", "StartTLS"])
async def test_tls_with_the_wrong_authority(slapd, other_authority, starttls, tmp_path):
    """A certificate of somebody else's making is refused, and so is what the system does not trust."""
    url = f"ldap://localhost:{slapd.port}" if starttls else slapd.tls_url
    for tls_ca in (str(other_authority.ca), None):
        problem = await refused(ldap_settings(slapd, url=url, starttls=starttls, tls_ca=tls_ca))
        assert "its certificate is refused" in problem
    (tmp_path / "empty").touch()
    for path in (tmp_path / "missing", tmp_path / "empty"):
        problem = await refused(ldap_settings(slapd, url=url, starttls=starttls, tls_ca=str(path)))
        assert "cannot be used as tls_ca" in problem


async def test_tls_with_the_wrong_name(make_slapd, other_authority):
    """A certificate of the right authority for another name is refused."""
    server = make_slapd(person("alice", "alice-Pw1"), certificates=other_authority)
    problem = await refused(ldap_settings(server, url=server.tls_url, tls_ca=str(server.ca)))
    assert "its certificate is refused: Hostname mismatch" in problem


async def test_a_new_authority_is_read_without_a_restart(slapd, other_authority, tmp_path):
    """The file of ``tls_ca`` is read again when it has changed."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(other_authority.ca.read_bytes())
    backend = make_ldap(ldap_settings(slapd, url=slapd.tls_url, tls_ca=str(ca)))
    assert (await backend.check(ALICE)).reason == "tls_failed"
    fresh = tmp_path / "fresh"
    fresh.write_bytes(slapd.ca.read_bytes())
    fresh.rename(ca)
    assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
    await backend.aclose()


async def test_a_server_without_starttls_gets_no_password(make_slapd):
    """Where StartTLS is wanted and refused, nothing else is sent."""
    with nonsense(says(NO_STARTTLS)) as (port, seen):
        settings = ldap_settings(url=f"ldap://127.0.0.1:{port}", starttls=True)
        assert "does not do StartTLS" in await refused(settings)
    assert SERVICE.encode() not in b"".join(seen)


async def test_a_service_that_is_refused_is_no_refusal(slapd):
    """With a wrong service password, or one for nobody, valid users hear "cannot tell", and operators why."""
    for more in ({"bind_password": "wrong"}, {"bind_dn": f"cn=gone,{SUFFIX}"}):
        assert "refuses bind_dn and bind_password" in await refused(ldap_settings(slapd, **more))


async def test_a_base_that_is_not_there_is_trouble(slapd):
    """A tree that is missing, or not to be seen by the service, makes nobody unknown."""
    assert "result 32" in await refused(ldap_settings(slapd, base=f"ou=nowhere,{SUFFIX}"))
    problem = await refused(ldap_settings(slapd, bind_dn=None, bind_password=None))
    assert "result 32" in problem or "cannot be read" in problem


async def test_a_server_is_killed_and_comes_back(make_slapd):
    """Killed mid-run it makes nobody a stranger; back again it answers the first question over new connections."""
    server = make_slapd(person("alice", "alice-Pw1", f"zmqCurvePublicKey: {KEY}"))
    async with ldap_backend(ldap_settings(server)) as backend:
        for _ in range(2):
            questions = [ALICE, ALICES_KEY, WRONG, EVE] * 4
            said = [verdict.outcome for verdict in await asyncio.gather(*map(backend.check, questions))]
            assert said == [Outcome.ACCEPT, Outcome.ACCEPT, Outcome.REJECT, Outcome.UNKNOWN] * 4
            server.stop(9)
            for verdict in await asyncio.gather(*map(backend.check, questions)):
                assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "directory_down")
            assert "cannot be reached: Connection refused" in backend.problem
            server.start()
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        assert backend.problem == ""


async def test_kept_connections_may_have_died(make_slapd):
    """A restart between two questions is not noticed: a dead connection is thrown away, not blamed."""
    server = make_slapd(person("alice", "alice-Pw1"))
    async with ldap_backend(ldap_settings(server)) as backend:
        await asyncio.gather(*(backend.check(ALICE) for _ in range(8)))
        server.stop()
        server.start()
        for _ in range(3):
            assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT


async def test_a_server_that_hangs_is_late(make_slapd):
    """A stopped server holds a question until its deadline and no longer, and answers once it goes on."""
    server = make_slapd(person("alice", "alice-Pw1"))
    backend = make_ldap(ldap_settings(server), deadline=0.3)
    server.pause()
    for question in (ALICE, ALICES_KEY):
        verdict = await refused_or_late(backend, question)
        assert verdict == "directory_late"
    server.resume()
    await backend.aclose()
    assert (await say(server, ALICE)).outcome is Outcome.ACCEPT


async def refused_or_late(backend, question) -> str:
    """The reason of an UNAVAILABLE, whether the backend or the threads around it give up first."""
    try:
        verdict = await backend.check(question)
    except Unavailable as error:
        assert "no answer within" in str(error)
        return "directory_late"
    assert verdict.outcome is Outcome.UNAVAILABLE
    return verdict.reason


async def test_the_next_server_is_asked(make_slapd, monkeypatch):
    """With the first server down or hung the second answers, within the time of one question; once the first is
    back it is asked again."""
    monkeypatch.setattr(ldap_servers, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(ldap_servers, "LAST_PAUSE", 0.05)
    first = make_slapd(person("alice", "alice-Pw1", "l: first"))
    second = make_slapd(person("alice", "alice-Pw1", "l: second"))
    settings = ldap_settings(url=[first.url, second.url], attributes={"Where": "l"})

    async def where(backend) -> str:
        verdict = await backend.check(ALICE)
        assert verdict.outcome is Outcome.ACCEPT, verdict
        return dict(verdict.principal.attributes)["Where"]

    async with ldap_backend(settings, deadline=6.0) as backend:
        assert await where(backend) == "first"
        assert backend.problem == ""
        first.stop()
        assert await where(backend) == "second"
        assert first.url in backend.problem
        assert "another server answers" in backend.problem
        first.start()
        async with asyncio.timeout(20):
            while await where(backend) != "first":
                await asyncio.sleep(0.02)
        assert backend.problem == ""
        first.pause()
        assert await where(backend) == "second"
        first.resume()
        second.stop()
        assert await where(backend) == "first"  # alone, and aside: asked all the same


async def test_a_replica_that_refuses_the_service_is_passed_over(make_slapd):
    """A server that does not know the service's new password yet is no reason to ask nobody."""
    behind = make_slapd(person("alice", "alice-Pw1"))
    behind.put(SERVICE, {"userPassword": [("MODIFY_REPLACE", ["older"])]})
    good = make_slapd(person("alice", "alice-Pw1"))
    async with ldap_backend(ldap_settings(url=[behind.url, good.url])) as backend:
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT


# -- servers that talk nonsense ------------------------------------------------------------------------------


def message(number: int, operation: str) -> bytes:
    """An LDAP message (RFC 4511, section 4.1.1) around the octets of an operation."""
    body = b"\x02\x04" + number.to_bytes(4, "big") + bytes.fromhex(operation)
    return b"\x30\x83" + len(body).to_bytes(3, "big") + body


def number_of(request: bytes) -> int:
    at = 2 + (request[1] & 0x7F if request[1] & 0x80 else 0)
    return int.from_bytes(request[at + 2 : at + 2 + request[at + 1]], "big")


BOUND = "61070a010004000400"
BUSY = "61070a013304000400"
DONE = "65070a010004000400"
REFERRAL = "61070a010a04000400"
NO_STARTTLS = "78070a010204000400"
GOOD_BYE = "78240a0134040004008a16" + b"1.3.6.1.4.1.1466.20036".hex()
ENTRY = "640a0403" + b"x=y".hex() + "3003040161"


def says(*operations: str) -> Callable[[socket.socket, bytes], None]:
    def talk(line: socket.socket, request: bytes) -> None:
        line.sendall(b"".join(message(number_of(request), each) for each in operations))

    return talk


def sends(octets: bytes) -> Callable[[socket.socket, bytes], None]:
    return lambda line, _: line.sendall(octets)


def hangs_up(line: socket.socket, _: bytes) -> None:
    line.shutdown(socket.SHUT_RDWR)


def dies_half_way(line: socket.socket, request: bytes) -> None:
    line.sendall(message(number_of(request), BOUND)[:-3])
    line.shutdown(socket.SHUT_RDWR)


def answers_another(line: socket.socket, request: bytes) -> None:
    line.sendall(message(number_of(request) + 1, BOUND))


def floods(line: socket.socket, _: bytes) -> None:
    line.sendall(b"\x30\x84\x7f\xff\xff\xff")
    for _ in range(MAX_ANSWER // 65536 + 2):
        line.sendall(bytes(65536))


def trickles(line: socket.socket, _: bytes) -> None:
    line.sendall(b"\x30\x84\x00\x00\xff\xff")
    for _ in range(2000):
        line.sendall(b"\x04")
        time.sleep(0.01)


Talk = Callable[[socket.socket, bytes], None]
"""What a server does with a request."""


@contextmanager
def nonsense(*talks: Talk) -> Iterator[tuple[int, list[bytes]]]:
    """A server that does these things with the first requests of each connection, the last with all further ones;
    its port, and what it was sent."""
    seen: list[bytes] = []
    lines: list[socket.socket] = []

    def serve(line: socket.socket) -> None:
        try:
            turn = 0
            while data := line.recv(65536):
                seen.append(data)
                talks[min(turn, len(talks) - 1)](line, data)
                turn += 1
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            threads.append(threading.Thread(target=serve, args=(line,)))
            threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        for line in lines:
            line.close()


NONSENSE: dict[str, tuple[Talk, ...]] = {
    "hangs up": (hangs_up,),
    "dies half-way": (dies_half_way,),
    "speaks HTTP": (sends(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),),
    "sends zeros": (sends(bytes(64)),),
    "sends empty messages": (sends(b"\x30\x00" * 10),),
    "answers another": (answers_another,),
    "answers something else": (says(DONE),),
    "is busy": (says(BUSY),),
    "refers elsewhere": (says(REFERRAL),),
    "says good-bye": (says(BOUND), says(GOOD_BYE)),
    "floods": (floods,),
    "trickles": (trickles,),
    "binds, then trickles": (says(BOUND), trickles),
    "sends many entries": (says(BOUND), says(*[ENTRY] * 5, DONE)),
    "sends entries without end": (says(BOUND), says(*[ENTRY] * 5)),
    "sends an entry that is none": (says(BOUND), says("64020400", DONE)),
    "binds, then another": (says(BOUND), says(BOUND)),
}


@pytest.mark.parametrize("talks", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_is_no_answer(talks):
    """Whatever a server says that is no LDAP, or no answer to the question: "cannot tell", within the deadline."""
    with nonsense(*talks) as (port, _):
        backend = make_ldap(ldap_settings(url=f"ldap://127.0.0.1:{port}"), deadline=0.5)
        for question in (ALICE, ALICES_KEY):
            await refused_or_late(backend, question)
        await backend.aclose()


async def test_random_octets_are_no_answer():
    """The same for random octets, wherever they begin."""
    chance = random.Random(9027)
    for heads in ((), (says(BOUND),)):

        def babbles(line: socket.socket, request: bytes) -> None:
            head = message(number_of(request), DONE)[: chance.randrange(18)]
            line.sendall(head + chance.randbytes(chance.randrange(1, 200)))
            line.shutdown(socket.SHUT_RDWR)

        with nonsense(*heads, babbles) as (port, _):
            backend = make_ldap(ldap_settings(url=f"ldap://127.0.0.1:{port}"))
            for _ in range(100):
                verdict = await backend.check(ALICES_KEY)
                assert verdict.outcome is Outcome.UNAVAILABLE, verdict
            await backend.aclose()


async def test_an_answer_under_another_is_not_taken():
    """A yes to the bind of nobody lets no stranger in: who is not there is unknown, whatever the bind says."""
    with nonsense(says(BOUND), says(DONE)) as (port, _):
        backend = make_ldap(ldap_settings(url=f"ldap://127.0.0.1:{port}"))
        assert (await backend.check(EVE)).outcome is Outcome.UNKNOWN
        await backend.aclose()


async def test_referrals_are_not_followed(slapd, make_slapd):
    """An entry that lies on another server is not fetched there; a base that does is trouble."""
    refers = f"dn: ou=far,{SUFFIX}\nobjectClass: referral\nobjectClass: extensibleObject\nou: far\n"
    server = make_slapd(person("bert", "bert-Pw1"), f"{refers}ref: {slapd.url}/ou=people,{SUFFIX}\n")
    assert (await say(server, ask("bert", b"bert-Pw1"), base=SUFFIX)).outcome is Outcome.ACCEPT
    assert (await say(server, ALICE, base=SUFFIX)).outcome is Outcome.UNKNOWN
    assert "result 10" in await refused(ldap_settings(server, base=f"ou=far,{SUFFIX}"))


async def test_ten_thousand_entries(make_slapd):
    """In a directory of 10,000 each is found by key and by name, and no more than it."""
    keys = [os.urandom(32) for _ in range(10_000)]
    server = make_slapd(
        "".join(
            person(f"robot{number}", f"pw-{number}", f"zmqCurvePublicKey: {encode_key(key)}")
            for number, key in enumerate(keys)
        )
    )
    async with ldap_backend(ldap_settings(server)) as backend:
        for number in range(0, 10_000, 199):
            verdict = await backend.check(ask(key=keys[number]))
            assert verdict.principal is not None
            assert verdict.principal.name == f"robot{number}"
            password = ask(f"robot{number}", f"pw-{number}".encode())
            assert (await backend.check(password)).principal == verdict.principal
            assert (await backend.check(ask(f"robot{number}", b"pw-x"))).outcome is Outcome.REJECT
        for name in ("robot*", "robot", "robot10000"):
            assert (await backend.check(ask(name, b"pw-1"))).outcome is Outcome.UNKNOWN


async def test_questions_beyond_the_threads_are_busy_not_refused(make_slapd):
    """While the directory hangs, what has no room hears so at once; nobody hears no."""
    server = make_slapd(person("alice", "alice-Pw1"))
    async with ldap_backend(ldap_settings(server, connections=2), deadline=1.0) as backend:
        server.pause()
        said = await asyncio.gather(*(backend.check(ALICE) for _ in range(100)), return_exceptions=True)
        assert [each for each in said if isinstance(each, BackendBusy)]
        for each in said:
            assert isinstance(each, Unavailable) or each.outcome is Outcome.UNAVAILABLE
        server.resume()
        async with asyncio.timeout(20):
            while (await refused_or_fine(backend)) is not Outcome.ACCEPT:
                pass


async def refused_or_fine(backend) -> Outcome:
    try:
        return (await backend.check(ALICE)).outcome
    except Unavailable:
        return Outcome.UNAVAILABLE
