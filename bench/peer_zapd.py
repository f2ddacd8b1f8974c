"""zapd itself as a peer: a folder of its own with every key of the site registered, then ``zapd serve``.

The keys go into the registry by its own tables, in one transaction: registering 100,000 of them one by one, each
with its audit record, would take longer than the run. Everything else is as in operation: an expiry, a group
and an attribute for each key, policy, metrics, and the journal as the peer's name says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert

from bench.material import PASSWORD, user_names, write_clients, write_users
from bench.peers import DOMAIN, Peer, Site
from zapd.auth.hash_kinds import new_hash
from zapd.cli.init import initialize
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.engine import open_engine, writing
from zapd.store.tables import keys
from zapd.store.users import UserRecord, UserRegistry, UserState
from zapd.zmtp.keys import decode_public_key, fingerprint_id

DOMAINS = (DOMAIN, "orders", "metrics.eu-west-1", "lab")
"""What is asked about where questions are mixed; the first alone where they are not."""
ADDRESSES = ("127.0.0.1", "10.0.0.7", "10.20.30.40", "192.168.100.101", "192.0.2.9", "2001:db8::17", "::1")
"""Where mixed questions come from."""
USERS = 64
AGENTS = 64

_CONFIGURATION = """
[server]
data_dir = "data"
[[zap]]
listen = "{endpoint}"
mechanism = "{link}"
{local}
[admin]
listen = "127.0.0.1:0"
[audit]
durability = "{durability}"
head = "file:heads"
[backend.keys]
type = "sql"
cache_good = "1h"
"""
_DOMAIN = """
[domain."{domain}"]
mechanisms = ["CURVE", "PLAIN"]
backends = ["keys"]
allow = ["127.0.0.0/8", "10.0.0.0/8", "192.168.0.0/16", "192.0.2.0/24", "2001:db8::/32", "::1/128"]
"""


def zapd_peer(
    durability: str,
    *,
    name: str = "",
    link: str = "NULL",
    extra: str = "",
    users: bool = False,
    domains: tuple[str, ...] = (),
    more: Callable[[Site], None] | None = None,
    **changes: object,
) -> Peer:
    """zapd with this ``[audit] durability`` and this mechanism on the link, its clients enrolled.

    ``extra`` is put behind the configuration, and its ``domains`` may be asked about without an agent's identity;
    ``users`` registers PLAIN users; ``more`` prepares further.
    """

    def prepare(site: Site) -> None:
        made = initialize(site.folder / "zapd")
        write_configuration(site, durability, link, extra, domains)
        engine = open_engine("sqlite:///data/zapd.db", site.folder / "zapd")
        with writing(engine) as connection:
            _register_keys(connection, site)
            if users:
                _register_users(connection, site)
            if link == "CURVE":
                server = decode_public_key(made["server_public_key"])
                _enrol(connection, write_clients(site.clients, server, AGENTS))
        engine.dispose()
        if more is not None:
            more(site)

    fields: dict[str, object] = {
        "command": lambda site: [
            *(sys.executable, "-m", "zapd", "serve", "-c", str(site.folder / "zapd" / "zapd.toml")),
        ],
        "is_zapd": True,
        "records": durability != "off",
        **changes,
    }
    about = f"zapd serve, one process, {link} on the link, audit {durability}"
    return Peer(name or f"zapd, {durability}", about, prepare=prepare, **fields)  # type: ignore[arg-type]


def write_configuration(
    site: Site, durability: str, link: str, extra: str = "", domains: tuple[str, ...] = ()
) -> None:
    names = ", ".join(f'"{domain}"' for domain in (*DOMAINS, *domains))
    text = _CONFIGURATION.format(
        endpoint=site.endpoint,
        link=link,
        durability=durability,
        local="" if link == "CURVE" else f"domains = [{names}]",
    )
    text += "".join(_DOMAIN.format(domain=domain) for domain in DOMAINS)
    (site.folder / "zapd" / "zapd.toml").write_text(text + extra)


def _register_keys(connection: Connection, site: Site) -> None:
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
                "domains": DOMAINS,
                "groups": ("devices",),
                "attributes": (("Site", str(number % 100)),),
                "label": "",
                "reason": "",
                "created": now,
                "updated": now,
                "version": 1,
            }

    batch: list[dict[str, object]] = []
    for row in rows():
        batch.append(row)
        if len(batch) == 5000:
            connection.execute(insert(keys), batch)
            batch.clear()
    if batch:
        connection.execute(insert(keys), batch)


def _register_users(connection: Connection, site: Site) -> None:
    """PLAIN users with zapd's usual hash: what is measured is its cache, filled before the clock runs."""
    now, stored = datetime.now(UTC), new_hash(PASSWORD.encode())
    names = user_names(USERS)
    for name in names:
        UserRegistry().add(
            connection,
            UserRecord(
                name=name,
                hash=stored,
                state=UserState.ENABLED,
                domains=DOMAINS,
                groups=("people",),
                attributes=(),
                expires=None,
                created=now,
                updated=now,
            ),
        )
    write_users(site.users, names)


def _enrol(connection: Connection, clients: list[bytes]) -> None:
    """Let these CURVE keys come through zapd's own door, as agents."""
    now = datetime.now(UTC)
    for number, public in enumerate(clients):
        AgentRegistry().add(
            connection,
            AgentRecord(
                name=f"agent-{number}",
                fingerprint=fingerprint_id(public),
                public_key=public,
                state=AgentState.ACTIVE,
                domains=DOMAINS,
                mechanisms=("CURVE", "PLAIN"),
                addresses=(),
                reason="",
                created=now,
                updated=now,
            ),
        )


PEERS = [zapd_peer(durability) for durability in ("off", "relaxed", "strict")]
