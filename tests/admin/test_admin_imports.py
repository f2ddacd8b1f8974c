"""Imports: a file of many rows goes in whole, or not at all, or without what cannot go in."""

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, LIMITED, OPERATOR, SERVER_KEY, VIEWER, Admin, make_admin, rename_table
from support.store_fixtures import *  # noqa: F403
from test_admin_api import Api, _problem, api  # noqa: F401 - a fixture

from zapd.admin.api.guards import LONG
from zapd.admin.exchange import cells
from zapd.admin.exchange.reading import Unreadable, read_rows
from zapd.admin.exchange.shapes import KeyRow, UserRow
from zapd.admin.exchange.writing import write_keys
from zapd.admin.services import changes
from zapd.admin.services.agents import NewAgent
from zapd.admin.services.importing import ImportRefused, Tally
from zapd.admin.services.keys import NewKey
from zapd.errors import Conflict, Forbidden, InvalidInput, Unavailable
from zapd.store import tables
from zapd.store.changes import ChangeLog
from zapd.store.engine import reading
from zapd.zmtp.keys import decode_public_key, encode_key, generate_keypair

BCRYPT = "$2y$05$BGOpAmPG5g5Cvka2GQ33zeA8ODVqVUWVHPrLwbmAAeIw8b.0AdHlC"


def _z85() -> str:
    return encode_key(generate_keypair()[0])


def _csv(*rows: str, heading: str = "public_key,user") -> bytes:
    return "\r\n".join([heading, *rows, ""]).encode()


def _quoted(key: str) -> str:
    return '"' + cells.guard(key).replace('"', '""') + '"'


async def _import(admin: Admin, octets: bytes, form: str = "csv", by: Any = ADMIN, **more: Any) -> Tally:
    return await admin.imports.keys(by, lambda: read_rows(io.BytesIO(octets), form, KeyRow), **more)  # type: ignore[arg-type]


def _items(tally: Tally) -> list[dict[str, Any]]:
    with tally.listing as listing:
        listing.seek(0)
        return [json.loads(line) for line in listing]


def _count(admin: Admin) -> tuple[int, int]:
    with reading(admin.engine) as connection:
        keys = connection.execute(select(func.count()).select_from(tables.keys)).scalar_one()
        return keys, connection.execute(select(func.count()).select_from(tables.change_log)).scalar_one()


async def test_a_file_goes_in_with_an_event_for_each_row(admin: Admin):
    """BOM, CRLF, quotes and lists are read; every key has its own event, journalled in order and in force."""
    rows = [f'{_quoted(_z85())},"user, number ""{number}""","g,h",Desk=7' for number in range(1203)]
    octets = b"\xef\xbb\xbf" + _csv(*rows, heading="public_key,User,groups,attributes")
    tally = await _import(admin, octets, by=OPERATOR)
    assert (tally.rows, tally.added, tally.refused, _items(tally)) == (1203, 1203, 0, [])
    assert [event.principal for event in admin.journal.events] == [f'user, number "{n}"' for n in range(1203)]
    assert {(event.event, event.actor) for event in admin.journal.events} == {("key.add", "op")}
    assert admin.feed.position == admin.journal.events[-1].change
    with reading(admin.engine) as connection:
        assert ChangeLog().unjournalled(connection) == []
    key = await admin.keys.show(VIEWER, admin.journal.events[7].subject)
    assert (key.domains, key.groups, key.attributes) == (("orders",), ("g", "h"), (("Desk", "7"),))


async def test_bad_rows_keep_all_out_unless_they_may_be_left_out(admin: Admin):
    """Three broken rows of many: nothing goes in and each is named; with partial the others do."""
    good = [f"{_quoted(_z85())},u{number}" for number in range(500)]
    bad = [*good[:100], "tooshort,x", *good[100:200], "only one cell", *good[200:], f"{_quoted(_z85())},"]
    with pytest.raises(ImportRefused) as refused:
        await _import(admin, _csv(*bad))
    assert [where for where, _what in refused.value.lines] == ["line 102", "line 203", "line 504"]
    assert _count(admin) == (0, 0)
    dry = await _import(admin, _csv(*bad), dry_run=True)
    items = _items(dry)
    assert (dry.added, dry.refused, len(items), _count(admin)) == (500, 3, 503, (0, 0))
    assert [item["line"] for item in items] == list(range(2, 505))
    assert [item["line"] for item in items if item["action"] == "refuse"] == [102, 203, 504]
    done = await _import(admin, _csv(*bad), partial=True)
    assert (done.added, done.refused, len(_items(done)), _count(admin)) == (500, 3, 3, (500, 500))
    again = await _import(admin, _csv(*bad), partial=True)
    assert (again.added, again.unchanged, again.refused) == (0, 500, 3)
    again.listing.close()


async def test_keys_that_are_somebody_elses_are_refused_in_an_import_too(admin: Admin):
    """The server's, an agent's, one that is registered, one that comes twice, one that is none; and what lies
    beyond the actor's domains. A holder is named only to those who may see it."""
    agents, theirs = generate_keypair()[0], generate_keypair()[0]
    await admin.agents.enroll(ADMIN, NewAgent("edge", agents))
    await admin.keys.add(ADMIN, NewKey(theirs, "mallory", domains=["elsewhere"]))
    twice = _z85()
    rows = [
        _quoted(encode_key(SERVER_KEY)) + ",a,orders",
        _quoted(encode_key(agents)) + ",a,orders",
        _quoted(encode_key(theirs)) + ",a,orders",
        _quoted(twice) + ",a,orders",
        _quoted(twice) + ",b,orders",
        _quoted(encode_key(theirs[:-1] + bytes([theirs[-1] | 0x80]))) + ",a,orders",
        _quoted(_z85()) + ",a,elsewhere",
    ]
    octets = _csv(*rows, heading="public_key,user,domains")
    seen = {item["line"]: item.get("what", "") for item in _items(await _import(admin, octets, dry_run=True))}
    hidden = _items(await _import(admin, octets, by=LIMITED, dry_run=True))
    words = ["server", "agent's", "for 'mallory'", "", "same as in line 5", "top bit", ""]
    for line, word in enumerate(words, 2):
        assert word in seen[line], line
        assert bool(word) == bool(seen[line]), line
    assert "mallory" not in str(hidden)
    assert [item["action"] for item in hidden].count("refuse") == 6
    with pytest.raises(ImportRefused, match="nothing was imported"):
        await _import(admin, octets)
    assert _count(admin)[0] == 1
    with pytest.raises(Forbidden):
        await _import(admin, octets, by=VIEWER)


async def test_an_import_without_a_journal_changes_nothing(admin: Admin):
    """It may open access: while the journal cannot be written nothing goes in; where it breaks half-way, all is in
    force, and what is missing is journalled later, each event once."""
    octets = _csv(*(f"{_quoted(_z85())},u" for _ in range(1100)))
    admin.journal.writable = False
    with pytest.raises(Unavailable):
        await _import(admin, octets)
    assert _count(admin) == (0, 0)
    admin.journal.writable = True
    record = admin.journal.record_changes

    async def fails_later(batch: Any) -> None:
        admin.journal.broken = len(admin.journal.events) >= changes._PAGE
        await record(batch)

    admin.journal.record_changes = fails_later  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="is made and in force"):
        await _import(admin, octets)
    assert admin.journal.story.count("in force key") == 1100
    admin.journal.record_changes = record  # type: ignore[method-assign]
    admin.journal.broken = False
    assert _count(admin) == (1100, 1100)
    await admin.road.journal_missing()
    assert [event.change for event in admin.journal.events] == sorted({e.change for e in admin.journal.events})
    assert len(admin.journal.events) == 1100


async def test_an_import_whose_registry_is_gone_behind_the_commit_is_said_truly(own_engine: Engine):
    """All of it is made; what is not on record or not in force yet comes by itself, each event once."""
    admin = make_admin(own_engine)
    await admin.feed.catch_up()
    octets = _csv(*(f"{_quoted(_z85())},u" for _ in range(1100)))
    record = admin.journal.record_changes

    async def records_and_loses(batch: Any) -> None:
        await record(batch)
        rename_table(admin.engine, "change_log", "lost_log")

    admin.journal.record_changes = records_and_loses  # type: ignore[method-assign]
    said = "is made, but not yet in force everywhere.*record follows.*log cannot be read"
    with pytest.raises(Unavailable, match=said):
        await _import(admin, octets)
    admin.journal.record_changes = record  # type: ignore[method-assign]
    rename_table(admin.engine, "lost_log", "change_log")
    assert _count(admin) == (1100, 1100)
    assert len(admin.journal.events) == changes._PAGE
    await admin.feed.catch_up()
    assert admin.journal.story.count("in force key") == 1100
    await admin.road.journal_missing()
    assert len({event.change for event in admin.journal.events}) == len(admin.journal.events) == 1100
    await admin.road.aclose()


async def test_whoever_looks_for_owed_events_meanwhile_journals_none_twice(admin: Admin):
    """The daemon looks for events that a crash kept out of the journal while an import is being journalled: each
    event is there once."""
    octets = _csv(*(f"{_quoted(_z85())},u" for _ in range(1600)))
    importing = asyncio.ensure_future(_import(admin, octets))
    found = 0
    while not importing.done():
        found += await admin.road.journal_missing()
        await asyncio.sleep(0)
    (await importing).listing.close()
    found += await admin.road.journal_missing()
    assert found > 0
    assert sorted(event.change for event in admin.journal.events) == sorted(
        {e.change for e in admin.journal.events}
    )
    assert len(admin.journal.events) == 1600


async def test_a_revocation_has_its_turn_before_an_import_is_journalled(admin: Admin):
    """However many pages an import has, whoever revokes meanwhile waits for one of them."""
    leaver = await admin.keys.add(ADMIN, NewKey(generate_keypair()[0], "leaver"))
    page = asyncio.Event()
    record = admin.journal.record_changes

    async def slowly(batch: Any) -> None:
        page.set()
        await asyncio.sleep(0.01)
        await record(batch)

    admin.journal.record_changes = slowly  # type: ignore[method-assign]
    octets = _csv(*(f"{_quoted(_z85())},u" for _ in range(1600)))
    importing = asyncio.ensure_future(_import(admin, octets))
    await page.wait()
    await admin.keys.revoke(ADMIN, leaver.fingerprint)
    assert not importing.done()
    with pytest.raises(Unavailable, match="Another import"):
        await _import(admin, _csv())
    (await importing).listing.close()
    events = [event.event for event in admin.journal.events]
    assert events.index("key.revoke") < len(events) - 1


@pytest.mark.parametrize("what", ["key", "agent", "else"])
async def test_what_happens_while_an_import_is_made(admin: Admin, monkeypatch: pytest.MonkeyPatch, what: str):
    """Rows are made while others change the registry: a key that was taken meanwhile, by a client or by an agent,
    keeps the file out whole; any other change lets it in."""
    key, rows = _z85(), [f"{_quoted(_z85())},alice" for _ in range(5)]
    enter = admin.road._move_in

    async def late(*arguments: Any) -> None:
        monkeypatch.setattr(admin.road, "_move_in", enter)
        admin.road._order.release()
        match what:
            case "key":
                await admin.keys.add(ADMIN, NewKey(decode_public_key(key), "bob"))
            case "agent":
                await admin.agents.enroll(ADMIN, NewAgent("edge", decode_public_key(key)))
            case _:
                await admin.keys.add(ADMIN, NewKey(decode_public_key(_z85()), "bob"))
        await admin.road._order.acquire()
        await enter(*arguments)

    monkeypatch.setattr(admin.road, "_move_in", late)
    if what == "else":
        tally = await _import(admin, _csv(f"{_quoted(key)},alice", *rows))
        assert (tally.added, _items(tally)) == (6, [])
        assert _count(admin) == (7, 7)
        return
    with pytest.raises(Conflict):
        await _import(admin, _csv(*rows, f"{_quoted(key)},alice"))
    assert _count(admin) == (1 if what == "key" else 0, 1)


async def test_users_come_with_their_hashes(admin: Admin):
    """Hashes that zapd can check go in as they are; others are told by line, and none is ever repeated."""
    rows = [{"name": "bob", "hash": BCRYPT, "groups": ["g"]}, {"name": "eve", "hash": "$1$canary$x"}]
    rows.append({"name": "..", "hash": BCRYPT})
    octets = json.dumps(rows).encode()

    def opened() -> Iterator[tuple[int, UserRow | Unreadable]]:
        return read_rows(io.BytesIO(octets), "json", UserRow)

    with pytest.raises(ImportRefused) as told:
        await admin.imports.users(OPERATOR, opened)
    assert "canary" not in str(told.value) + str(told.value.lines)
    tally = await admin.imports.users(OPERATOR, opened, partial=True)
    refused = _items(tally)
    assert (tally.added, [item["line"] for item in refused]) == (1, [2, 3])
    assert "no URL" in refused[1]["what"]
    bob = await admin.users.show(VIEWER, "bob")
    assert (bob.hash, bob.groups) == (BCRYPT, ("g",))
    assert BCRYPT not in str(admin.journal.events)
    other = await admin.imports.users(
        ADMIN,
        lambda: read_rows(
            io.BytesIO(b'{"name": "bob", "hash": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="}\n'), "jsonl", UserRow
        ),
        dry_run=True,
    )
    assert "bob" in _items(other)[0]["what"]


UNUSABLE = {
    "csv": [
        b"",
        b"\n",
        b"user\nx\n",
        b"public_key,user,colour\n",
        b"user,user,public_key\n",
        b"public_key;user\n",
    ],
    "json": [b"", b"{}", b"[1", b"nonsense", b"[" * 5000],
    "jsonl": [b"x" * 300_000],
}


@pytest.mark.parametrize("form", list(UNUSABLE))
def test_files_that_are_none_of_their_kind(form: str):
    """A file without a heading, with unknown columns, or that is no JSON is refused as a whole."""
    for octets in UNUSABLE[form]:
        with pytest.raises(InvalidInput):
            list(read_rows(io.BytesIO(octets), form, KeyRow))  # type: ignore[arg-type]


def test_rows_that_cannot_be_read_are_told_and_passed_over():
    """Wrong types, unknown members, octets that are not UTF-8, broken quotes, times without an offset: the next
    row is read."""
    key = _z85()
    row = {"public_key": key, "user": "alice"}
    lines = [b"[]", b"{", b"7", json.dumps(row | {"colour": 1}).encode(), json.dumps({"user": "x"}).encode()]
    lines += [
        json.dumps(row | {"expires": "2027-01-01T00:00:00"}).encode(),
        b'{"public_key": "\xff"}',
        b"[" * 9000,
    ]
    found = list(read_rows(io.BytesIO(b"\n".join([*lines, b"", json.dumps(row).encode()])), "jsonl", KeyRow))
    assert [isinstance(each, Unreadable) for _line, each in found] == [True] * len(lines) + [False]
    assert [line for line, _each in found] == [*range(1, len(lines) + 1), len(lines) + 2]
    octets = _csv('"a"b,c', "x,y", f"{_quoted(key)},[1],", heading="public_key,groups,user")
    assert [isinstance(each, Unreadable) for _line, each in read_rows(io.BytesIO(octets), "csv", KeyRow)] == [
        True
    ] * 3
    for _line, each in read_rows(io.BytesIO(b"public_key,user\nx,\xff\n"), "csv", KeyRow):
        assert not isinstance(each, Unreadable)
        assert each.user == "\udcff"  # refused where names are checked


_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
_KEYS = st.fixed_dictionaries(
    {
        "public_key": st.text("=+-@'ab,\"\n", min_size=1, max_size=6),
        "user": st.text("=+-@'ab,\"\t\r\n ü", min_size=1, max_size=8),
        "state": st.sampled_from(["pending", "active", "revoked"]),
        "domains": st.lists(st.sampled_from(["", "orders", "a,b", "[x", " ", "m.*"]), min_size=1, max_size=3),
        "groups": st.lists(_NAMES, max_size=3),
        "attributes": st.dictionaries(st.sampled_from(["A", "b.c", "D-e"]), st.text(max_size=6), max_size=3),
        "label": _NAMES | st.just(""),
        "expires": st.none() | st.just("2027-01-01T00:00:00.000001Z"),
    }
)


@given(st.lists(_KEYS, max_size=5), st.sampled_from(["csv", "json", "jsonl"]))
def test_what_is_exported_is_read_back_equal(keys: list[dict[str, Any]], form: Any):
    """Whatever stands in a key, in each form; and no cell of CSV begins as a formula."""
    for key in keys:
        key["attributes"] = {name: value for name, value in key["attributes"].items() if value.isprintable()}
    text = "".join(write_keys(keys, form))
    octets = text.encode("utf-8", "surrogatepass")
    found = [row for _line, row in read_rows(io.BytesIO(octets), form, KeyRow)]
    assert len(found) == len(keys)
    for key, row in zip(keys, found, strict=True):
        assert not isinstance(row, Unreadable), row
        for name in ("public_key", "user", "state", "domains", "groups", "attributes", "label"):
            assert getattr(row, name) == key[name], name
        assert (row.expires is None) == (key["expires"] is None)


@given(st.text())
def test_no_cell_is_a_formula_and_all_come_back(text: str):
    """What begins with = + - @, a tab or a carriage return gets an apostrophe, also behind apostrophes."""
    cell = cells.guard(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cells.unguard(cell) == text


@given(st.lists(st.text(), max_size=4), st.dictionaries(st.text(min_size=1), st.text(), max_size=4))
def test_lists_and_maps_come_back(items: list[str], pairs: dict[str, str]):
    """Whatever is in them."""
    assert cells.read_list(cells.write_list(items)) == items
    assert cells.read_map(cells.write_map(pairs)) == pairs


_CSV = {"Content-Type": "text/csv; charset=utf-8"}


async def test_an_import_over_http(api: Api):  # noqa: F811
    """Each form by its content type; the answer counts and lists; refusals are problems that name the lines."""
    key = _z85()
    rows = [{"public_key": key, "user": "alice"}, {"public_key": _z85(), "user": "bob"}]
    dry = await api("POST", "/v1/keys/import", params={"dry_run": True}, json=rows)
    assert dry.status_code == 200, dry.text
    assert [item["action"] for item in dry.json()["items"]] == ["add", "add"]
    assert (await api("GET", "/v1/keys")).json()["items"] == []
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    head = {"Content-Type": "application/x-ndjson"}
    done = await api("POST", "/v1/keys/import", content=lines, headers=head, params={"domain": ["lab", "orders"]})
    assert done.json() == {"dry_run": False, "rows": 2, "added": 2, "unchanged": 0, "refused": 0, "items": []}
    assert (await api("GET", "/v1/keys")).json()["items"][0]["domains"] == ["lab", "orders"]
    broken = _csv(f"{_quoted(key)},mallory", "x,y")
    body = _problem(await api("POST", "/v1/keys/import", content=broken, headers=_CSV), 422, "import_refused")
    assert body["errors"][0]["where"] == "line 3"
    partial = await api("POST", "/v1/keys/import", content=broken, headers=_CSV, params={"partial": True})
    assert [(item["line"], item["action"]) for item in partial.json()["items"]] == [(2, "refuse"), (3, "refuse")]
    users = await api("POST", "/v1/users/import", json=[{"name": "bob", "hash": BCRYPT}])
    assert users.json()["added"] == 1
    assert BCRYPT not in (await api("GET", "/v1/users")).text


async def test_bodies_that_no_import_takes(api: Api, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """No content type, a foreign one, no heading, too long, and callers who may not: each with its own code."""
    path = "/v1/keys/import"
    for more in ({"content": b"x"}, {"content": b"x", "headers": {"Content-Type": "text/html"}}):
        _problem(await api("POST", path, **more), 422, "invalid_input")
    _problem(await api("POST", path, content=b"", headers=_CSV), 422, "invalid_input")
    _problem(await api("POST", path, content=b"x", headers=_CSV, by="viewer"), 403, "forbidden")
    _problem(await api.http.post(path, content=b"x", headers=_CSV), 401, "unauthenticated")
    monkeypatch.setitem(LONG, path, (100, 5.0))  # type: ignore[arg-type]
    _problem(await api("POST", path, content=b"x" * 101, headers=_CSV), 413, "too_large")
    monkeypatch.setitem(LONG, path, (100, 0.05))  # type: ignore[arg-type]

    async def trickle() -> Any:
        for _ in range(1000):
            yield b" "
            await asyncio.sleep(0.01)

    _problem(await api("POST", path, content=trickle(), headers=_CSV), 408, "request_timeout")
