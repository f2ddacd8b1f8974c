"""Searching a record of millions: ``python -m bench.audit_search DATABASE [--records N] [--explain]``.

Fills the searchable copy at DATABASE (an SQLite file, or a ``postgresql+psycopg://`` URL) with invented decisions
of a fleet over thirty days, unless it is filled already, and measures the first page of each filter of ``audit
list``, and of some together. With ``--explain`` it prints how the database goes about each question.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, event, insert, text
from sqlalchemy.schema import CreateIndex, CreateTable

from zapd.audit.sinks.search import Filters, search
from zapd.audit.sinks.table import audit_events, metadata
from zapd.store.engine import open_engine

DAYS = 30
BEGIN = int(datetime(2026, 10, 24, tzinfo=UTC).timestamp() * 1e6)
BATCH = 20_000
KEYS = 20_000
DOMAINS = ("orders", "metrics.cpu", "metrics.disk", "robots", "lab")
WEIGHTS = (60, 20, 15, 4, 1)


def key(number: int) -> str:
    return "SHA256:" + hashlib.sha256(b"%d" % number).hexdigest()[:43]


def rows(count: int) -> Iterator[list[dict[str, Any]]]:
    """Decisions in batches: most are grants, some keys are busy and most are not, a few domains are seldom."""
    source = random.Random(7)
    keys = [key(number) for number in range(KEYS)]
    step = DAYS * 86_400_000_000 // count
    for start in range(0, count, BATCH):
        batch = []
        for number in range(start + 1, min(start + BATCH, count) + 1):
            who = min(int(source.expovariate(1 / 3000)), KEYS - 1)
            status = 200 if source.random() < 0.97 else 300 if source.random() < 0.3 else 400
            domain = "seldom" if number % 100_003 == 0 else source.choices(DOMAINS, WEIGHTS)[0]
            address = f"10.{who >> 8 & 255}.{who & 255}.{number % 4}"
            tag = {200: "auth.accept", 300: "auth.defer", 400: "auth.reject"}[status]
            moment = BEGIN + number * step
            stamp = (datetime(1970, 1, 1) + timedelta(microseconds=moment)).isoformat()  # noqa: DTZ001
            line = (
                f'{{"time":"{stamp}Z","instance":"0123456789abcdef","sequence":{number},"event":"{tag}",'
                f'"domain":"{domain}","mechanism":"CURVE","address":"{address}","agent":"edge-1",'
                f'"principal":"device-{who}","key":"{keys[who]}","status":{status},"reason":"granted",'
                f'"question_id":"{number:032x}","trail":[["keys","accept",0.01]],"hash":"{number:064x}"}}'
            )
            batch.append(
                {
                    "instance": "0123456789abcdef",
                    "sequence": number,
                    "time": moment,
                    "event": tag,
                    "domain": domain,
                    "mechanism": "CURVE",
                    "address": address,
                    "agent": "edge-1",
                    "principal": f"device-{who}",
                    "key": keys[who],
                    "username": None,
                    "status": status,
                    "reason": "granted",
                    "question_id": f"{number:032x}",
                    "hash": f"{number:064x}",
                    "json": line,
                }
            )
        yield batch


def fill(engine: Engine, count: int) -> None:
    """Make the table, fill it, then index it, as nobody else need hurry."""
    with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        if connection.dialect.has_table(connection, audit_events.name):
            return
        connection.execute(CreateTable(audit_events))
    started = time.monotonic()
    for batch in rows(count):
        with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
            connection.execute(insert(audit_events), batch)
    print(f"{count} records in {time.monotonic() - started:.0f} s")
    started = time.monotonic()
    for index in audit_events.indexes:
        with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(CreateIndex(index))
    metadata.create_all(engine)
    print(f"indexed in {time.monotonic() - started:.0f} s")


def questions() -> dict[str, Filters]:
    end = datetime.fromtimestamp(BEGIN / 1e6, UTC) + timedelta(days=DAYS)
    hour = timedelta(hours=1)
    return {
        "no filter": Filters(),
        "--user, busy": Filters(user="device-7"),
        "--user, seldom": Filters(user="device-19000"),
        "--user, nobody": Filters(user="nobody"),
        "--key": Filters(key=key(7)),
        "--address": Filters(address="10.0.7.3"),
        "--domain, busy": Filters(domain="orders"),
        "--domain, seldom": Filters(domain="seldom"),
        "--status 400": Filters(status=400),
        "--event auth.defer": Filters(event="auth.defer"),
        "--event key.*": Filters(event="key.*"),
        "--since --until, an hour long ago": Filters(since=end - 700 * hour, until=end - 699 * hour),
        "--domain orders --status 400": Filters(domain="orders", status=400),
        "--domain seldom --status 400": Filters(domain="seldom", status=400),
        "--domain seldom --status 200 --user": Filters(domain="seldom", status=200, user="device-7"),
        "--user --status 400": Filters(user="device-7", status=400),
        "--key --address of another": Filters(key=key(7), address="10.0.8.3"),
        "--status 400 --address, busy": Filters(status=400, address="10.0.7.3"),
        "--domain lab --status 300 --until": Filters(domain="lab", status=300, until=end - 300 * hour),
        "a token of domain seldom": Filters(domains=("seldom",)),
        "a token of metrics.*": Filters(domains=("metrics.*",)),
        "a token of x.*, which nobody asks": Filters(domains=("x.*",)),
        "a token of seldom, --status 400": Filters(domains=("seldom",), status=400),
    }


def measure(engine: Engine, explain: bool) -> None:
    for name, wanted in questions().items():
        times = []
        for _ in range(5):
            started = time.perf_counter()
            found, cursor = search(engine, filters=wanted, limit=100)
            times.append((time.perf_counter() - started) * 1000)
        print(
            f"{name:<40} first {times[0]:8.1f} ms, then {median(times[1:]):8.1f} ms, {len(found)} records"
            f"{', more' if cursor else ''}"
        )
        if explain:
            with said(engine) as statements:
                search(engine, filters=wanted, limit=100)
            for statement, parameters in statements:
                with engine.connect() as connection:
                    prefix = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
                    for row in connection.exec_driver_sql(prefix + statement, parameters):
                        print("     ", row[-1])


class said:
    """The statements that the engine was given within."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statements: list[tuple[str, Any]] = []

    def _note(self, *given: Any) -> None:
        self._statements.append((given[2], given[3]))

    def __enter__(self) -> list[tuple[str, Any]]:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self._statements

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--explain", action="store_true")
    given = parser.parse_args()
    url = given.database if "://" in given.database else f"sqlite:///{Path(given.database).absolute()}"
    engine = open_engine(url, Path.cwd(), create=True)
    fill(engine, given.records)
    measure(engine, given.explain)
    engine.dispose()


if __name__ == "__main__":
    main()
