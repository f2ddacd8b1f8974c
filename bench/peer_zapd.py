"""zapd itself as a peer: a folder of its own with every key of the site registered, then ``zapd serve``.

The keys go into the registry by its own tables, in one transaction: registering 100,000 of them one by one, each
with its audit record, would take longer than the run. Everything else is as in operation: an expiry, a group
and an attribute for each key, policy, metrics, and the journal as the peer's name says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert

from bench.peers import DOMAIN, Peer, Site
from zapd.cli.init import initialize
from zapd.store.engine import open_engine, writing
from zapd.store.tables import keys
from zapd.zmtp.keys import fingerprint_id

CONFIGURATION = """
[server]
data_dir = "data"
[[zap]]
listen = "{endpoint}"
mechanism = "NULL"
domains = ["{domain}"]
[admin]
listen = "127.0.0.1:0"
[audit]
durability = "{durability}"
head = "file:heads"
[backend.keys]
type = "sql"
[domain.{domain}]
mechanisms = ["CURVE"]
backends = ["keys"]
allow = ["127.0.0.0/8"]
"""


def zapd_peer(durability: str) -> Peer:
    """zapd with this ``[audit] durability``."""

    def prepare(site: Site) -> None:
        folder = site.folder / "zapd"
        initialize(folder)
        register(site)
        text = CONFIGURATION.format(endpoint=site.endpoint, domain=DOMAIN, durability=durability)
        (folder / "zapd.toml").write_text(text)

    return Peer(
        f"zapd, {durability}",
        f"zapd serve, one process, audit {durability}",
        lambda site: [sys.executable, "-m", "zapd", "serve", "-c", str(site.folder / "zapd" / "zapd.toml")],
        prepare,
    )


def register(site: Site) -> None:
    """Put the site's keys into the registry."""
    now = datetime.now(UTC)
    octets = site.keys.read_bytes()

    def rows() -> Iterator[dict[str, object]]:
        for number, start in enumerate(range(0, len(octets), 32)):
            key = octets[start : start + 32]
            yield {
                "fingerprint": fingerprint_id(key),
                "public_key": key,
                "user": f"device-{number}",
                "state": "active",
                "not_before": None,
                "expires": now + timedelta(days=90),
                "domains": (DOMAIN,),
                "groups": ("devices",),
                "attributes": (("Site", str(number % 100)),),
                "label": "",
                "reason": "",
                "created": now,
                "updated": now,
                "version": 1,
            }

    engine = open_engine("sqlite:///data/zapd.db", site.folder / "zapd")
    batch: list[dict[str, object]] = []
    with writing(engine) as connection:
        for row in rows():
            batch.append(row)
            if len(batch) == 5000:
                connection.execute(insert(keys), batch)
                batch.clear()
        if batch:
            connection.execute(insert(keys), batch)
    engine.dispose()


PEERS = [zapd_peer(durability) for durability in ("off", "relaxed", "strict")]
