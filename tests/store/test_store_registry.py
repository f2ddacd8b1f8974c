"""Rows of the registry on SQLite and on PostgreSQL, and the engine under them."""

import os
import stat
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from support.postgres import PostgresServer
from support.store_fixtures import *  # noqa: F403
from support.store_fixtures import MOMENT, key_record

from zapd.errors import ConfigurationError, NotFound
from zapd.store import schema, snapshot, tables
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.changes import ChangeLog
from zapd.store.domains import Grant
from zapd.store.engine import open_engine, reading, writing
from zapd.store.filters import collect, granted_in, granted_within
from zapd.store.keys import KeyRegistry, KeyState
from zapd.store.snapshot import NEVER, load_keys, load_some_keys, load_users, unpack
from zapd.store.tokens import TokenRecord, TokenRegistry
from zapd.store.users import UserRecord, UserRegistry, UserState

NASTY = ["alice", "Alice", "ALICE ", "älice", "a\u0308lice", "%", "_", "'; DROP TABLE keys; --", "a/b", "\\", '"']


def test_a_key_comes_back_as_it_went_in(engine: Engine):
    """Every field of a key survives the database, to the microsecond and the octet."""
    record = key_record(
        user="älice 名",
        state=KeyState.PENDING,
        domains=("", "a.*"),
        groups=("g", "h"),
        attributes=(("A", '"\\'), ("B", "")),
        label="it's",
        not_before=MOMENT,
        expires=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    )
    with writing(engine) as connection:
        KeyRegistry().add(connection, record)
    with reading(engine) as connection:
        assert KeyRegistry().get(connection, record.fingerprint) == record
        with pytest.raises(NotFound):
            KeyRegistry().get(connection, "x" * 43)


def test_saving_a_key_raises_its_version_and_keeps_its_identity(engine: Engine):
    """A changed record takes its row's place with a new version and time; octets and birth stay."""
    registry, record = KeyRegistry(), key_record()
    later = MOMENT + timedelta(seconds=1)
    with writing(engine) as connection:
        registry.add(connection, record)
        saved = registry.save(connection, replace(record, user="bob"), later)
    assert (saved.version, saved.updated, saved.user) == (2, later, "bob")
    with reading(engine) as connection:
        assert registry.get(connection, record.fingerprint) == saved


def test_one_key_is_registered_once(engine: Engine):
    """The database itself refuses the same key twice, and its error shows no parameters."""
    record = key_record(label="canary-parameter")
    with writing(engine) as connection:
        KeyRegistry().add(connection, record)
    with pytest.raises(IntegrityError) as caught, writing(engine) as connection:
        KeyRegistry().add(connection, record)
    assert "canary-parameter" not in str(caught.value)


def test_names_are_told_apart_octet_for_octet(engine: Engine):
    """Users whose names differ in case, blanks or Unicode form are different users, found only by their own."""
    registry = UserRegistry()
    record = UserRecord("", "h", UserState.ENABLED, ("*",), (), (), None, MOMENT, MOMENT)
    with writing(engine) as connection:
        for name in NASTY:
            registry.add(connection, replace(record, name=name, hash=f"hash of {name}"))
    with reading(engine) as connection:
        for name in NASTY:
            assert registry.get(connection, name).hash == f"hash of {name}"
        assert registry.find(connection, "aLICE") is None
        assert [user.name for user in registry.page(connection, limit=100)] == sorted(NASTY, key=str.encode)
        assert load_users(connection).keys() == set(NASTY)
        assert load_users(connection, ["Alice", "nobody"]).keys() == {"Alice"}


def test_secrets_do_not_show_in_repr(engine: Engine):
    """The repr of a user or a token holds no hash."""
    user = UserRecord("bob", "canary", UserState.ENABLED, ("*",), (), (), None, MOMENT, MOMENT)
    token = TokenRecord("1", "t", b"canary", "viewer", ("*",), None, MOMENT)
    assert "canary" not in repr(user) + repr(token)


def test_agents_and_tokens_come_back_as_they_went_in(engine: Engine):
    """Agents are found by name and key, tokens by hash and id."""
    octets = os.urandom(32)
    agent = AgentRecord(
        "edge", "f" * 43, octets, AgentState.ACTIVE, ("a",), ("CURVE",), ("10.0.0.0/8",), "", MOMENT, MOMENT
    )
    token = TokenRecord("id", "ci", octets, "viewer", ("*",), MOMENT, MOMENT)
    with writing(engine) as connection:
        AgentRegistry().add(connection, agent)
        TokenRegistry().add(connection, token)
        TokenRegistry().used(connection, "id", MOMENT)
        TokenRegistry().revoke(connection, "id", MOMENT)
    with reading(engine) as connection:
        assert AgentRegistry().find_key(connection, octets) == agent == AgentRegistry().get(connection, "edge")
        assert TokenRegistry().find(connection, octets) == replace(token, revoked=MOMENT, last_used=MOMENT)
        assert TokenRegistry().find(connection, os.urandom(32)) is None


def test_memory_gets_every_key_as_the_registry_has_it(engine: Engine):
    """The packed records say exactly what the rows say, for every state and with every kind of text."""
    records = [
        key_record(user=name, state=state, domains=("a", "b*"), groups=("g",), attributes=(("A", name),))
        for name in NASTY
        for state in KeyState
    ]
    records.append(key_record(not_before=MOMENT, expires=MOMENT + timedelta(days=1)))
    with writing(engine) as connection:
        for record in records:
            KeyRegistry().add(connection, record)
    with reading(engine) as connection:
        found = load_keys(connection)
        some = load_some_keys(connection, [records[0].fingerprint, records[-1].fingerprint, "x" * 43])
    assert len(found) == len(records)
    assert some == {key: found[key] for key in (records[0].public_key, records[-1].public_key)}
    for record in records:
        facts = unpack(found[record.public_key])
        assert (facts.user, facts.state, facts.groups) == (record.user, record.state, record.groups)
        assert facts.attributes == record.attributes
        assert facts.grant == Grant.of(record.domains)
        assert facts.not_before == (record.not_before.timestamp() if record.not_before else 0.0)
        assert facts.expires == (record.expires.timestamp() if record.expires else NEVER)


def test_more_keys_than_one_fetch_are_all_there(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """Loading goes on over the driver's batches: none is lost at a seam."""
    monkeypatch.setattr(snapshot, "_ROWS", 100)
    with writing(engine) as connection:
        rows = [key_record() for _ in range(350)]
        names = [column.name for column in tables.keys.columns]
        values = [{name: getattr(row, name) for name in names} for row in rows]
        connection.execute(tables.keys.insert(), values)
    with reading(engine) as connection:
        assert load_keys(connection).keys() == {row.public_key for row in rows}


_names = st.text('ab"\\', max_size=3)
_patterns = st.one_of(_names, _names.map(lambda name: name + "*"))


@pytest.fixture
def granted(engine: Engine) -> Engine:
    """A registry with keys of many different grants."""
    grants = [("*",), ("a",), ("a*",), ("ab*", "b"), ("",), ('"',), ("\\*",), ("A",), ('a"b',), ("a", "b", '"*')]
    with writing(engine) as connection:
        for number, grant in enumerate(grants * 3):
            KeyRegistry().add(connection, key_record(domains=grant, user=str(number)))
    return engine


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(domain=_names, limits=st.lists(_patterns, min_size=1, max_size=2), limit=st.integers(1, 40))
def test_pages_hold_exactly_what_is_sought(granted: Engine, domain: str, limits: list[str], limit: int):
    """Page by page, SQL finds the keys of a domain within a token's limits: all, once, in order, none beside."""
    grant = Grant.of(limits)

    def wanted(record):
        seen = record.domains if "*" in limits else [p for p in record.domains if grant.covers_pattern(p)]
        return Grant.of(seen).covers(domain)

    where = [granted_within(tables.keys.c.domains, limits), granted_in(tables.keys.c.domains, domain)]
    registry, found, after = KeyRegistry(), [], ""
    with reading(granted) as connection:
        everything = registry.page(connection, limit=100)
        while after is not None:
            items, after = collect(
                lambda start, count: registry.page(connection, after=start, limit=count, where=where),
                wanted,
                lambda record: record.fingerprint,
                after=after,
                limit=limit,
            )
            assert len(items) <= limit
            found += items
    assert found == [record for record in everything if wanted(record)]


def test_the_change_log_remembers_what_no_journal_has(engine: Engine):
    """Changes wait until they are marked; what nobody was named for is claimed by one instance only."""
    log = ChangeLog()
    with writing(engine) as connection:
        rows = [
            log.append(connection, kind="key", subject=str(n), time=MOMENT, event="{}", instance=instance)
            for n, instance in enumerate(["one", "two", "", "one"])
        ]
        assert rows == sorted(set(rows))
        assert log.last(connection) == rows[-1]
    with writing(engine) as connection:
        assert log.claim(connection, "one") == 1
        assert log.claim(connection, "two") == 0
        assert [row.sequence for row in log.unjournalled(connection, "one")] == [rows[0], rows[2], rows[3]]
        log.mark_journalled(connection, [rows[0], rows[2]])
        assert [row.sequence for row in log.unjournalled(connection, "one")] == [rows[3]]
        assert len(log.unjournalled(connection)) == 2


def test_writers_come_one_after_another(engine: Engine):
    """A second writer waits for the first, so that a lower sequence is never committed after a higher one."""
    log, order, entered = ChangeLog(), [], threading.Event()

    def second() -> None:
        entered.wait()
        with writing(engine) as connection:
            order.append(log.append(connection, kind="key", subject="2", time=MOMENT, event="{}"))

    thread = threading.Thread(target=second)
    thread.start()
    with writing(engine) as connection:
        entered.set()
        thread.join(0.2)
        assert thread.is_alive()
        order.append(log.append(connection, kind="key", subject="1", time=MOMENT, event="{}"))
    thread.join(10)
    assert order == sorted(order)
    with reading(engine) as connection:
        rows = log.unjournalled(connection)
    assert [row.subject for row in rows] == ["1", "2"]


def test_what_raises_leaves_nothing(engine: Engine):
    """A use case that fails half-way undoes the row and its change-log row together."""
    with pytest.raises(RuntimeError), writing(engine) as connection:
        KeyRegistry().add(connection, key_record())
        ChangeLog().append(connection, kind="key", subject="x", time=MOMENT, event="{}")
        raise RuntimeError
    with reading(engine) as connection:
        assert not KeyRegistry().page(connection, limit=1)
        assert ChangeLog().last(connection) == 0


def test_the_sqlite_file_is_private_and_relative(tmp_path: Path):
    """A new database file is readable by its owner alone, wherever the umask stands, beside the configuration."""
    old = os.umask(0)
    try:
        engine = open_engine("sqlite:///data.db", tmp_path, create=True)
        schema.upgrade(engine)
    finally:
        os.umask(old)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "data.db").stat().st_size > 0
    engine.dispose()


def test_a_missing_sqlite_file_is_an_outage(tmp_path: Path):
    """Without being told to, no empty registry is made where a file has gone."""
    engine = open_engine("sqlite:///gone.db", tmp_path)
    with pytest.raises(OperationalError), reading(engine) as connection:
        connection.execute(text("SELECT 1"))
    assert not (tmp_path / "gone.db").exists()
    engine.dispose()


def test_a_server_that_hangs_is_given_up(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A PostgreSQL that is stopped keeps its connections open and says nothing: whoever asked comes back with an
    error all the same, and asks successfully once it runs again."""
    monkeypatch.setattr("zapd.store.engine.WAIT", 2.0)
    monkeypatch.setattr("zapd.store.engine.PATIENCE", 0.5)
    engine = open_engine(postgres_url, tmp_path)
    ask = text("SELECT 1")
    try:
        with pytest.raises(OperationalError, match="keeps silent"), reading(engine) as connection:
            connection.execute(ask)
            postgres_server.pause()
            connection.execute(ask)
    finally:
        postgres_server.resume()
    postgres_server.pause()
    try:
        with pytest.raises(OperationalError), reading(engine) as connection:
            connection.execute(ask)
    finally:
        postgres_server.resume()
    with reading(engine) as connection:
        assert connection.execute(ask).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://x/y",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x.db?timeout=1",
        "postgresql+asyncpg://x/y",
    ],
)
def test_urls_that_cannot_be_used_are_refused(url: str, tmp_path: Path):
    """A wrong URL is a mistake of the configuration, told without repeating what may hold a password."""
    with pytest.raises(ConfigurationError):
        open_engine(url, tmp_path)


def test_a_password_in_a_wrong_url_is_not_shown(tmp_path: Path):
    """The message about a URL never quotes it."""
    with pytest.raises(ConfigurationError) as caught:
        open_engine("oracle://zapd:canary@db/zapd", tmp_path)
    assert "canary" not in str(caught.value)


def test_a_path_with_odd_characters_works(tmp_path: Path):
    """Question marks, hashes, blanks and percent signs in a folder's name are just characters."""
    folder = tmp_path / "a?b#c %20"
    folder.mkdir()
    engine = open_engine("sqlite:///zapd.db", folder, create=True)
    schema.upgrade(engine)
    engine.dispose()
    assert (folder / "zapd.db").stat().st_size > 0


def test_keys_of_a_domain_are_found_among_all(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """The values of ``domains`` are found by steps; the keys of some of them come page by page as if all had been
    looked at; too many values are said to be too many."""
    registry, sets = KeyRegistry(), [("*",), ("a", "b"), ("a",), ("metrics.*",), ("b", "z")]
    with reading(engine) as connection:
        assert registry.granted_sets(connection) == []
    with writing(engine) as connection:
        for number in range(50):
            registry.add(connection, key_record(domains=sets[number % 5]))
    with reading(engine) as connection:
        assert sorted(registry.granted_sets(connection) or ()) == sorted(sets)
        every = [record.fingerprint for record in registry.page(connection, limit=100, among=sets)]
        assert every == sorted(every)
        assert len(every) == 50
        some, found, after = sets[1:3], [], ""
        while page := registry.page(connection, limit=7, after=after, among=some):
            found += page
            after = page[-1].fingerprint
        whole = registry.page(connection, limit=100)
        assert found == [record for record in whole if record.domains in some]
        assert registry.page(connection, limit=7, among=[]) == []
        monkeypatch.setattr("zapd.store.keys.MOST_SETS", 4)
        assert registry.granted_sets(connection) is None
