"""The hash pool: its bounds, its kinds, and that it leaves the event loop alone."""

from __future__ import annotations

import asyncio
import threading
import time

import argon2
import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from passlib.hash import apr_md5_crypt, ldap_sha1, sha512_crypt

from zapd.auth import hash_kinds
from zapd.auth.hashing import HashPool, HashPoolFull, check_hash
from zapd.errors import InvalidInput

SHA512 = sha512_crypt.using(rounds=5000).hash("lovelace")
OTHERS = {
    "bcrypt": bcrypt.hashpw(b"lovelace", bcrypt.gensalt(4)).decode(),
    "sha512": SHA512,
    "apr1": apr_md5_crypt.hash("lovelace"),
    "sha": ldap_sha1.hash("lovelace"),
}


@pytest.fixture
async def pool():
    pool = HashPool(workers=2, waiting=4)
    yield pool
    await pool.aclose()


@pytest.fixture
def gate(monkeypatch):
    """Holds every argon2id check until the test sets it."""
    gate = threading.Event()
    kind = hash_kinds.KINDS[0]

    def verify(stored: str, password: bytes) -> bool:
        assert gate.wait(30)
        return password == b"lovelace"

    held = hash_kinds.Kind(kind.name, kind.prefixes, kind.cost, verify)
    monkeypatch.setattr(hash_kinds, "KINDS", (held, *hash_kinds.KINDS[1:]))
    yield gate
    gate.set()


async def test_what_is_hashed_is_verified(pool):
    """A new hash is argon2id with the current parameters, differs each time, and fits its password alone."""
    one, two = await pool.hash(b"lovelace"), await pool.hash(b"lovelace")
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one != two
    assert await pool.verify(one, b"lovelace", slot=("a", "ada"))
    assert not await pool.verify(one, b"Lovelace", slot=("a", "ada"))


@pytest.mark.parametrize("stored", OTHERS.values(), ids=OTHERS)
async def test_every_other_kind_is_verified(pool, stored):
    """Each kind fits the right password, and neither another, an empty one, nor one with NUL behind it."""
    check_hash(stored)
    assert await pool.verify(stored, b"lovelace", slot=("a", "ada"))
    for wrong in (b"lovelacf", b"", b"lovelace\0", b"lovelace\0x", b"x" * 255):
        assert not await pool.verify(stored, wrong, slot=("a", "ada"))


async def test_no_hash_is_work_and_never_fits(pool):
    """None takes the work of a current hash and says no, whatever the password."""
    before = time.perf_counter()
    assert not await pool.verify(None, b"lovelace", slot=("a", "ada"))
    assert not await pool.verify(None, b"", slot=("a", "ada"))
    assert time.perf_counter() - before > 0.002


async def test_the_queue_is_bounded(pool, gate):
    """With all workers busy and all places taken, the next one is refused at once, and later there is room."""
    stored = hash_kinds.decoy()
    taken = [asyncio.ensure_future(pool.verify(stored, b"lovelace", slot=("a", f"u{n}"))) for n in range(6)]
    await asyncio.sleep(0.01)
    assert pool.waiting == 6
    with pytest.raises(HashPoolFull):
        await pool.verify(stored, b"lovelace", slot=("a", "late"))
    with pytest.raises(HashPoolFull):
        await pool.hash(b"x")
    assert pool.refused == 2
    gate.set()
    assert await asyncio.gather(*taken) == [True] * 6
    assert await pool.verify(stored, b"lovelace", slot=("a", "late"))
    assert pool.waiting == 0


async def test_one_at_a_time_for_an_address_and_name(pool, gate):
    """A second guess at one name from one address is refused while the first is at work; others are not."""
    stored = hash_kinds.decoy()
    first = asyncio.ensure_future(pool.verify(stored, b"a", slot=("192.0.2.1", "ada")))
    await asyncio.sleep(0.01)
    with pytest.raises(HashPoolFull):
        await pool.verify(stored, b"b", slot=("192.0.2.1", "ada"))
    other = asyncio.ensure_future(pool.verify(stored, b"b", slot=("192.0.2.2", "ada")))
    gate.set()
    assert await asyncio.gather(first, other) == [False, False]


async def test_giving_up_leaves_the_queue(pool, gate):
    """Who is cancelled while waiting frees place and slot; what is at work keeps its slot until its end."""
    stored = hash_kinds.decoy()
    tasks = [asyncio.ensure_future(pool.verify(stored, b"a", slot=("a", f"u{n}"))) for n in range(3)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert pool.waiting == 2
    with pytest.raises(HashPoolFull):
        await pool.verify(stored, b"a", slot=("a", "u0"))
    waiting = asyncio.ensure_future(pool.verify(stored, b"lovelace", slot=("a", "u2")))
    gate.set()
    assert await waiting
    while pool.waiting:
        await asyncio.sleep(0.005)
    assert await pool.verify(stored, b"lovelace", slot=("a", "u0"))


async def test_a_closed_pool_is_full():
    """After aclose nothing is hashed, and the answer is the same as for a full pool."""
    pool = HashPool(workers=1)
    await pool.aclose()
    with pytest.raises(HashPoolFull):
        await pool.verify(None, b"x", slot=("a", "b"))


@pytest.mark.parametrize("stored", [hash_kinds.decoy(), *OTHERS.values()], ids=["argon2id", *OTHERS])
async def test_hashing_leaves_the_loop_alone(stored):
    """While every worker is busy and the queue is full, the event loop still gets its turns."""
    pool = HashPool()
    stop = asyncio.Event()

    async def guess(name: str) -> None:
        while not stop.is_set():
            await pool.verify(stored, b"wrong", slot=("a", name))

    guessing = [asyncio.ensure_future(guess(f"u{n}")) for n in range(10)]
    delays = []
    end = time.perf_counter() + 0.4
    while (before := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        delays.append(time.perf_counter() - before - 0.001)
    stop.set()
    await asyncio.gather(*guessing)
    await pool.aclose()
    # Measured: a 99th percentile below 5 ms for each kind. Ten times that here, for a busy machine.
    assert sorted(delays)[int(len(delays) * 0.9)] < 0.05


async def test_the_dearest_hash_is_known(pool):
    """The pool tells what the dearest hash in use costs, from its own kind upwards."""
    assert pool.dearest == pytest.approx(0.028)
    pool.note(OTHERS["apr1"])
    assert pool.dearest == pytest.approx(0.028)
    pool.note("$2b$12$" + OTHERS["bcrypt"][7:])
    assert 0.2 < pool.dearest <= 0.25


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        ("", "unknown kind"),
        ("plain", "unknown kind"),
        ("$1$salt$aaaaaaaaaaaaaaaaaaaaaa", "unknown kind"),
        ("$5$salt$" + "a" * 43, "unknown kind"),
        ("$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$aGFzaA", "unknown kind"),
        ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ", "malformed argon2id"),
        ("$argon2id$v=16$m=19456,t=2,p=1$" + "c29tZXNhbHRzb21l$" + "aGFzaGhhc2hoYXNoaGFzaA", "malformed argon2id"),
        ("$2b$12$tooshort", "malformed bcrypt"),
        ("$2b$13$" + "a" * 53, "too dear: about 480 ms"),
        ("$2b$31$" + "a" * 53, "too dear"),
        ("$6$salt$short", "malformed SHA-512-crypt"),
        ("$6$rounds=999999999$salt$" + "a" * 86, "too dear"),
        ("$6$rounds=656000$salt$" + "a" * 86, "too dear"),
        ("$apr1$salt$short", "malformed Apache MD5"),
        ("{SHA}AAAA", "malformed Apache SHA-1"),
        (argon2.PasswordHasher(time_cost=1, memory_cost=65_600, parallelism=1).hash("x"), "64 MiB"),
        ("$argon2id$v=19$m=65536,t=9,p=1$c29tZXNhbHRzb21l$aGFzaGhhc2hoYXNoaGFzaA", "too dear: about 424 ms"),
    ],
    ids=lambda value: "",  # some differ in each process, and so must not be part of a test's name
)
def test_what_may_not_be_used_is_refused(stored, says):
    """Unknown, malformed and too dear hashes are refused with the reason, and never shown."""
    with pytest.raises(InvalidInput) as caught:
        check_hash(stored)
    assert says in str(caught.value)
    assert stored == "" or stored not in str(caught.value)


def test_what_common_tools_write_may_be_used():
    """argon2-cffi's default, bcrypt's default cost and the usual crypt hashes are within the bound."""
    for stored in (argon2.PasswordHasher().hash("x"), "$2b$12$" + "a" * 53, SHA512, OTHERS["apr1"]):
        check_hash(stored)


@given(st.text(max_size=80))
def test_no_text_breaks_the_check(text):
    """Whatever stands where a hash should, checking it gives a cost or InvalidInput."""
    for prefix in ("", "$argon2id$", "$2b$", "$6$", "$apr1$", "{SHA}"):
        try:
            check_hash(prefix + text)
        except InvalidInput:
            continue


def test_without_the_systems_crypt_the_answer_is_the_same(monkeypatch):
    """Where no crypt_r is found, SHA-512-crypt is worked out in Python, with the same result."""
    kind = hash_kinds.kind_of(SHA512)
    assert kind.verify(SHA512, b"lovelace")
    monkeypatch.setattr(hash_kinds, "libcrypt", lambda: None)
    assert kind.verify(SHA512, b"lovelace")
    assert not kind.verify(SHA512, b"Lovelace")
