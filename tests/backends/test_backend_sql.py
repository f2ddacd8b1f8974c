"""The ``sql`` backend: right answers from memory, and changes in force at once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import argon2
import pytest
import pytest_asyncio
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from support.store_fixtures import *  # noqa: F403
from support.store_fixtures import MOMENT, key_record
from zapd_backends import sql
from zapd_backends.sql import SqlBackend

from zapd.auth.admission import card_of
from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.hashing import HashPool
from zapd.errors import ConfigurationError, Unavailable
from zapd.store import schema
from zapd.store.changes import ChangeLog
from zapd.store.engine import open_engine, writing
from zapd.store.feed import ChangeFeed
from zapd.store.keys import KeyRecord, KeyRegistry, KeyState
from zapd.store.users import UserRecord, UserRegistry, UserState
from zapd.testing import BackendContract, ask
from zapd.zmtp.keys import fingerprint

NOW = MOMENT.timestamp()
KEY = bytes(range(32))


class Harness:
    """A started backend over a real registry, with a clock that the test sets."""

    def __init__(self, engine: Engine, *, shared: bool = False) -> None:
        self.engine = engine
        self.now = NOW
        self.forgotten = 0
        self.pool = HashPool(workers=1)
        self.feed = ChangeFeed(engine, shared=shared)
        context = BackendContext(
            base_dir=Path("/nonexistent"),
            hash_pool=self.pool,
            database=engine,
            feed=self.feed,
            wall_clock=lambda: self.now,
            forget=self._forget,
        )
        self.backend = SqlBackend.from_settings("keys", {}, context)

    def _forget(self) -> None:
        self.forgotten += 1

    def put(self, *records: KeyRecord | UserRecord) -> None:
        """Write records as another process would: rows and change log in one transaction."""
        with writing(self.engine) as connection:
            for record in records:
                if isinstance(record, KeyRecord):
                    registry, kind, subject = KeyRegistry(), "key", record.fingerprint
                else:
                    registry, kind, subject = UserRegistry(), "user", record.name
                if registry.find(connection, subject) is None:
                    registry.add(connection, record)
                else:
                    registry.save(connection, record, MOMENT)
                ChangeLog().append(connection, kind=kind, subject=subject, time=MOMENT, event="{}")

    def ask(self, record: KeyRecord, domain: str = "orders") -> tuple[Outcome, str, str]:
        """A CURVE question, which must be answered without suspending: (outcome, reason, name). What the backend
        knows by heart must say the same, before and after."""
        before = self._ask(record, domain)
        (admission,) = self.backend.recall([record.public_key], domain)
        verdict = self._ask(record, domain)
        assert verdict == before
        if admission is not None:
            assert verdict.outcome is Outcome.ACCEPT
            assert verdict.principal is not None
            user, mark, groups, attributes = card_of(admission)
            assert Principal(user.decode(), groups, attributes) == verdict.principal
            assert fingerprint(record.public_key) == f"SHA256:{mark.decode()}"
            assert self.backend.recall([record.public_key] * 3, domain) == [admission] * 3
        elif self.now >= self.backend._latest:  # after a clock that went back, memory keeps still
            assert verdict.outcome is not Outcome.ACCEPT
        return verdict.outcome, verdict.reason, verdict.principal.name if verdict.principal else ""

    def _ask(self, record: KeyRecord, domain: str) -> Verdict:
        work = self.backend.check(Question(domain, "CURVE", "10.0.0.1", record.public_key))
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("the backend suspended over a CURVE question")

    async def login(self, name: str, password: bytes, domain: str = "orders") -> tuple[Outcome, str]:
        verdict = await self.backend.check(Question(domain, "PLAIN", "10.0.0.1", username=name, password=password))
        return verdict.outcome, verdict.reason


@pytest_asyncio.fixture
async def harness(engine: Engine) -> AsyncIterator[Harness]:
    made = Harness(engine)
    yield made
    await made.backend.aclose()
    await made.pool.aclose()


@pytest_asyncio.fixture
async def replica(engine: Engine) -> AsyncIterator[Harness]:
    """Another zapd changes the same database, and nothing is polled."""
    made = Harness(engine, shared=True)
    yield made
    await made.feed.aclose()
    await made.backend.aclose()
    await made.pool.aclose()


class TestSqlUsers(BackendContract):
    """The contract of every backend, for passwords."""

    engine: Engine

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def registry(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """One for all: the contract's tests change nothing in it."""
        folder = tmp_path_factory.mktemp("registry")
        engine = cls.engine = open_engine(f"sqlite:///{folder}/zapd.db", folder, create=True)
        schema.upgrade(engine)
        stored = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("lovelace")
        with writing(engine) as connection:
            for name, state in (("ada", UserState.ENABLED), ("bob", UserState.DISABLED)):
                user = UserRecord(name, stored, state, ("*",), (), (), None, MOMENT, MOMENT)
                UserRegistry().add(connection, user)
            KeyRegistry().add(connection, key_record(KEY))
        yield
        engine.dispose()

    async def make(self, context):
        whole = replace(context, database=self.engine, feed=None)
        return SqlBackend.from_settings("keys", {}, whole)

    def accepted(self):
        return ask("ada", b"lovelace")

    def rejected(self):
        return ask("ada", b"byron")

    def unknown(self):
        return ask("eve", b"lovelace")

    def barred(self):
        return ask("bob", b"lovelace")


class TestSqlKeys(TestSqlUsers):
    """The same for keys, which memory answers."""

    def accepted(self):
        return ask(key=KEY)

    def rejected(self):
        return None

    def unknown(self):
        return ask(key=bytes(reversed(KEY)))

    def barred(self):
        return None

    def from_memory(self):
        return ask(key=KEY)


async def test_an_active_key_is_accepted_with_all_that_is_known(harness: Harness):
    """The principal carries the user's name, groups and attributes; the same verdict comes again."""
    record = key_record(groups=("g", "h"), attributes=(("Desk", "7"),))
    harness.put(record)
    await harness.backend.start()
    question = Question("orders", "CURVE", "10.0.0.1", record.public_key)
    verdict = await harness.backend.check(question)
    assert verdict.outcome is Outcome.ACCEPT
    assert verdict.principal is not None
    assert (verdict.principal.name, verdict.principal.groups) == ("alice", ("g", "h"))
    assert verdict.principal.attributes == (("Desk", "7"),)
    assert await harness.backend.check(question) == verdict


async def test_each_state_has_its_own_answer(harness: Harness):
    """Pending may heal, revoked and expired never do, a stranger's key is another backend's affair."""
    day = timedelta(days=1)
    cases = [
        (key_record(state=KeyState.PENDING), (Outcome.NOT_YET, "pending", "alice")),
        (key_record(state=KeyState.PENDING, expires=MOMENT), (Outcome.LOCKED, "expired", "alice")),
        (key_record(state=KeyState.REVOKED), (Outcome.LOCKED, "revoked", "alice")),
        (key_record(expires=MOMENT), (Outcome.LOCKED, "expired", "alice")),
        (key_record(expires=MOMENT + day), (Outcome.ACCEPT, "granted", "alice")),
        (key_record(not_before=MOMENT + day), (Outcome.NOT_YET, "not_yet_valid", "alice")),
        (key_record(not_before=MOMENT), (Outcome.ACCEPT, "granted", "alice")),
    ]
    harness.put(*(record for record, _answer in cases))
    await harness.backend.start()
    for _ in range(2):  # cold and remembered
        for record, answer in cases:
            assert harness.ask(record) == answer
    assert harness.ask(key_record()) == (Outcome.UNKNOWN, "", "")


@pytest.mark.parametrize(
    ("granted", "domain", "accepted"),
    [
        (("*",), "orders", True),
        (("*",), "", False),
        (("*",), "zapd.agents", False),
        (("orders",), "orders", True),
        (("orders",), "orders2", False),
        (("orders",), "Orders", False),
        (("metrics.*",), "metrics.cpu", True),
        (("metrics.*",), "metrics", False),
        (("",), "", True),
        (("",), "orders", False),
    ],
)
async def test_nothing_leaks_from_one_domain_into_another(
    harness: Harness, granted: tuple[str, ...], domain: str, accepted: bool
):
    """A key decides only where it is granted; elsewhere it is refused, whatever its state is."""
    active, revoked = key_record(domains=granted), key_record(domains=granted, state=KeyState.REVOKED)
    pending = key_record(domains=granted, state=KeyState.PENDING)
    harness.put(active, revoked, pending)
    await harness.backend.start()
    if accepted:
        assert harness.ask(active, domain)[0] is Outcome.ACCEPT
        assert harness.ask(pending, domain)[0] is Outcome.NOT_YET
    else:
        for record in (active, revoked, pending):
            assert harness.ask(record, domain)[:2] == (Outcome.REJECT, "not_in_domain")


async def test_time_passes(harness: Harness):
    """A key becomes valid and expires while it is in memory, with no change of the registry."""
    record = key_record(not_before=MOMENT, expires=MOMENT + timedelta(hours=1))
    harness.put(record)
    await harness.backend.start()
    answers = []
    for moment in (NOW - 1, NOW, NOW + 3599, NOW + 3600):
        harness.now = moment
        answers.append(harness.ask(record)[0])
    assert answers == [Outcome.NOT_YET, Outcome.ACCEPT, Outcome.ACCEPT, Outcome.LOCKED]


async def test_a_clock_that_goes_back_revives_nobody(harness: Harness):
    """A key that had expired stays out when the clock is set back, with 300 since the clock may be put right;
    keys whose expiry was never in question go on."""
    short, lasting = key_record(expires=MOMENT + timedelta(hours=1)), key_record()
    harness.put(short, lasting)
    await harness.backend.start()
    harness.now = NOW + 7200
    assert harness.ask(lasting)[0] is Outcome.ACCEPT
    harness.now = NOW
    assert harness.ask(short)[:2] == (Outcome.UNAVAILABLE, "clock_went_back")
    assert harness.ask(lasting)[0] is Outcome.ACCEPT


async def test_changes_are_in_force_when_the_feed_has_caught_up(harness: Harness):
    """Adding, changing and revoking show at once, cached answers are forgotten, and nothing else is."""
    record, other = key_record(), key_record()
    harness.put(other)
    await harness.backend.start()
    assert harness.ask(record)[0] is Outcome.UNKNOWN
    harness.put(record)
    await harness.feed.catch_up()
    assert harness.ask(record)[0] is Outcome.ACCEPT
    harness.put(replace(record, user="bob"))
    await harness.feed.catch_up()
    assert harness.ask(record)[2] == "bob"
    before = harness.forgotten
    harness.put(replace(record, state=KeyState.REVOKED))
    await harness.feed.catch_up()
    assert harness.ask(record)[0] is Outcome.LOCKED
    assert harness.forgotten > before
    assert harness.ask(other)[0] is Outcome.ACCEPT


async def test_changes_while_loading_are_not_lost(harness: Harness):
    """Whatever is committed while the whole registry is read is in memory afterwards, in any order of arrival."""
    records = [key_record() for _ in range(20)]
    harness.put(*records)
    starting = asyncio.create_task(harness.backend.start())
    for record in records:
        await asyncio.to_thread(harness.put, replace(record, state=KeyState.REVOKED))
        await harness.feed.catch_up()
    await starting
    await harness.feed.catch_up()
    assert {harness.ask(record)[0] for record in records} == {Outcome.LOCKED}


async def test_many_changes_at_once_are_all_taken(harness: Harness, monkeypatch: pytest.MonkeyPatch):
    """A batch that is dearer row by row than whole is read whole, with the same end."""
    monkeypatch.setattr(sql, "RELOAD_FROM", 10)
    await harness.backend.start()
    records = [key_record() for _ in range(50)]
    harness.put(*records)
    await harness.feed.catch_up()
    assert len(harness.backend) == 50
    harness.put(*(replace(record, state=KeyState.REVOKED) for record in records))
    await harness.feed.catch_up()
    assert {harness.ask(record)[0] for record in records} == {Outcome.LOCKED}


async def test_a_key_that_is_removed_is_known_no_more(harness: Harness, monkeypatch: pytest.MonkeyPatch):
    """Whether it was asked about before or not, and without reading the others again: with a million that takes
    seconds, in which no revocation would take force. What else changed is in force."""
    records = [key_record() for _ in range(50)]
    harness.put(*records)
    await harness.backend.start()
    for record in records[::2]:
        assert harness.ask(record)[0] is Outcome.ACCEPT
    monkeypatch.setattr(sql, "load_keys", None)
    with writing(harness.engine) as connection:
        for record in records[:4]:
            KeyRegistry().remove(connection, record.fingerprint)
            ChangeLog().append(connection, kind="key", subject=record.fingerprint, time=MOMENT, event="{}")
    harness.put(replace(records[4], state=KeyState.REVOKED))
    before = harness.forgotten
    await harness.feed.catch_up()
    assert harness.forgotten > before
    assert {harness.ask(record)[0] for record in records[:4]} == {Outcome.UNKNOWN}
    assert harness.ask(records[4])[0] is Outcome.LOCKED
    assert {harness.ask(record)[0] for record in records[5:]} == {Outcome.ACCEPT}
    assert len(harness.backend) == 46


async def test_a_key_that_came_and_went_between_two_looks_is_nobodys(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
):
    """The change log tells of a key that neither memory nor the registry has."""
    kept, gone = key_record(), key_record()
    harness.put(kept)
    await harness.backend.start()
    monkeypatch.setattr(sql, "load_keys", None)
    harness.put(gone)
    with writing(harness.engine) as connection:
        KeyRegistry().remove(connection, gone.fingerprint)
        ChangeLog().append(connection, kind="key", subject=gone.fingerprint, time=MOMENT, event="{}")
    await harness.feed.catch_up()
    assert [harness.ask(record)[0] for record in (kept, gone)] == [Outcome.ACCEPT, Outcome.UNKNOWN]


async def test_a_database_that_went_away_stops_no_answer(harness: Harness):
    """What memory knows is answered while the database is gone, nothing is learned from the outage, and what
    changed is learned when it is back."""
    record = key_record()
    harness.put(record)
    await harness.backend.start()
    with harness.engine.begin() as connection:
        connection.execute(text("ALTER TABLE change_log RENAME TO elsewhere"))
    with pytest.raises(Unavailable):
        await harness.feed.catch_up()
    assert harness.ask(record)[0] is Outcome.ACCEPT
    assert harness.ask(key_record())[0] is Outcome.UNKNOWN
    with harness.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO change_log"))
    harness.put(replace(record, state=KeyState.REVOKED))
    await harness.feed.catch_up()
    assert harness.ask(record)[0] is Outcome.LOCKED


async def test_before_the_registry_was_read_nobody_is_known_and_nobody_unknown(empty_engine: Engine):
    """A start without a usable database fails with words, and questions meanwhile are answered 300."""
    harness = Harness(empty_engine)
    with pytest.raises(Unavailable):
        await harness.backend.start()
    assert harness.ask(key_record())[:2] == (Outcome.UNAVAILABLE, "registry_not_read")
    assert await harness.login("alice", b"x") == (Outcome.UNAVAILABLE, "registry_not_read")
    await harness.backend.aclose()
    await harness.pool.aclose()


async def test_users_are_told_by_password_state_and_domain(harness: Harness):
    """Right, wrong, disabled, expired and elsewhere each have their own answer; only the right one is a yes."""
    stored = await harness.pool.hash(b"right")
    user = UserRecord("bob", stored, UserState.ENABLED, ("orders",), (), (), None, MOMENT, MOMENT)
    harness.put(
        user,
        replace(user, name="off", state=UserState.DISABLED),
        replace(user, name="old", expires=datetime(2020, 1, 1, tzinfo=UTC)),
    )
    await harness.backend.start()
    assert await harness.login("bob", b"right") == (Outcome.ACCEPT, "granted")
    assert await harness.login("bob", b"wrong") == (Outcome.REJECT, "wrong_password")
    assert await harness.login("bob", b"") == (Outcome.REJECT, "wrong_password")
    assert await harness.login("Bob", b"right") == (Outcome.UNKNOWN, "")
    assert await harness.login("bob", b"right", "other") == (Outcome.REJECT, "not_in_domain")
    assert await harness.login("off", b"right") == (Outcome.LOCKED, "disabled")
    assert await harness.login("off", b"wrong") == (Outcome.REJECT, "wrong_password")
    assert await harness.login("old", b"right") == (Outcome.LOCKED, "expired")


async def test_a_user_changed_while_the_password_was_checked_is_asked_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
):
    """A password that was right for what was known a moment ago admits nobody now."""
    stored = await harness.pool.hash(b"right")
    user = UserRecord("bob", stored, UserState.ENABLED, ("*",), (), (), None, MOMENT, MOMENT)
    harness.put(user)
    await harness.backend.start()
    verify, changed = harness.pool.verify, asyncio.Event()

    async def slow(stored: str | None, password: bytes, *, slot: tuple[str, str]) -> bool:
        await changed.wait()
        return await verify(stored, password, slot=slot)

    monkeypatch.setattr(harness.pool, "verify", slow)
    login = asyncio.create_task(harness.login("bob", b"right"))
    await asyncio.sleep(0)
    harness.put(replace(user, state=UserState.DISABLED))
    await harness.feed.catch_up()
    changed.set()
    assert await login == (Outcome.UNAVAILABLE, "changed_meanwhile")
    assert await harness.login("bob", b"right") == (Outcome.LOCKED, "disabled")
    with writing(harness.engine) as connection:
        UserRegistry().remove(connection, "bob")
        ChangeLog().append(connection, kind="user", subject="bob", time=MOMENT, event="{}")
    await harness.feed.catch_up()
    assert await harness.login("bob", b"right") == (Outcome.UNKNOWN, "")


async def test_a_full_pool_is_doubt(harness: Harness):
    """When no hash can be checked now the answer may heal, for known and unknown users alike."""
    await harness.backend.start()
    await harness.pool.aclose()
    assert await harness.login("bob", b"x") == (Outcome.UNAVAILABLE, "hash_pool_full")


async def test_a_hash_that_cannot_be_verified_is_doubt_and_shown(harness: Harness):
    """A user with an unreadable hash is not let in, not refused for ever, and told to the administrator."""
    user = UserRecord("bob", "plainly no hash", UserState.ENABLED, ("*",), (), (), None, MOMENT, MOMENT)
    harness.put(user)
    await harness.backend.start()
    assert await harness.login("bob", b"x") == (Outcome.UNAVAILABLE, "hash_unusable")
    assert "1 users have a hash" in harness.backend.problem
    harness.put(replace(user, hash=await harness.pool.hash(b"x")))
    await harness.feed.catch_up()
    assert harness.backend.problem == ""
    assert await harness.login("bob", b"x") == (Outcome.ACCEPT, "granted")


async def test_other_mechanisms_are_not_its_affair(harness: Harness):
    """GSSAPI and NULL are unknown to it."""
    await harness.backend.start()
    for mechanism in ("GSSAPI", "NULL"):
        assert await harness.backend.check(Question("orders", mechanism, "10.0.0.1", username="x")) is UNKNOWN


async def test_wrong_settings_are_refused(harness: Harness):
    """Unknown settings, and a configuration without a database, are mistakes told by name."""
    context = BackendContext(base_dir=Path("/nonexistent"), hash_pool=harness.pool)
    with pytest.raises(ConfigurationError, match="colour"):
        SqlBackend.from_settings("keys", {"colour": "red"}, context)
    with pytest.raises(ConfigurationError, match="database"):
        SqlBackend.from_settings("keys", {}, context)


async def ask_replica(replica: Harness, record: KeyRecord) -> Verdict:
    return await replica.backend.check(Question("orders", "CURVE", "10.0.0.1", record.public_key))


async def test_a_replica_gives_no_final_no_that_another_zapd_has_undone(replica: Harness) -> None:
    """A key registered or granted, and a user made, a moment ago elsewhere is not refused for good; what is
    refused now is refused with the newest in view."""
    first, other = key_record(KEY), key_record(bytes(range(1, 33)))
    replica.put(first)
    await replica.backend.start()
    assert replica._ask(first, "orders").outcome is Outcome.ACCEPT, "a yes waits for nobody"
    assert (await ask_replica(replica, other)).outcome is Outcome.UNKNOWN
    replica.put(other)
    assert (await ask_replica(replica, other)).outcome is Outcome.ACCEPT
    replica.put(replace(first, domains=("lab",)))
    replica.put(replace(other, state=KeyState.REVOKED))
    assert (await ask_replica(replica, key_record(bytes(32)))).outcome is Outcome.UNKNOWN
    assert replica._ask(other, "orders").reason == "revoked", "for good, so nobody is asked"
    replica.put(first)
    assert (await ask_replica(replica, first)).outcome is Outcome.ACCEPT
    stored = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(b"old")
    user = UserRecord("ada", stored, UserState.ENABLED, ("orders",), (), (), None, MOMENT, MOMENT)
    assert (await replica.login("ada", b"old"))[0] is Outcome.UNKNOWN
    replica.put(user)
    assert (await replica.login("ada", b"old"))[1] == "changed_meanwhile"
    assert (await replica.login("ada", b"old"))[0] is Outcome.ACCEPT


async def test_many_refusals_share_a_look_at_the_database(
    replica: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of unknown keys asks the database no oftener than one look after the other."""
    await replica.backend.start()
    looks, read = 0, replica.feed._read

    def counted() -> object:
        nonlocal looks
        looks += 1
        return read()

    monkeypatch.setattr(replica.feed, "_read", counted)
    verdicts = await asyncio.gather(
        *(ask_replica(replica, key_record(number.to_bytes(32, "big"))) for number in range(1, 501))
    )
    assert {verdict.outcome for verdict in verdicts} == {Outcome.UNKNOWN}
    assert looks <= 5


async def test_a_replica_that_cannot_look_says_no_for_now(
    replica: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away memory goes on to say yes, and no is 300."""
    replica.put(key_record(KEY))
    await replica.backend.start()

    def away() -> None:
        raise OperationalError("", {}, Exception("away"))

    monkeypatch.setattr(replica.feed, "_read", away)
    assert (await ask_replica(replica, key_record(KEY))).outcome is Outcome.ACCEPT
    verdict = await ask_replica(replica, key_record(bytes(range(1, 33))))
    assert (verdict.outcome, verdict.reason) == (Outcome.NOT_YET, "registry_not_current")
