"""``zapd audit replay``: what a new configuration would have made of the past, before it is applied."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zapd.cli.options import Moment, Settings, local_options, pass_settings
from zapd.cli.output import complain, print_json, print_rows, say
from zapd.errors import ConfigurationError, NotFound, Unavailable

if TYPE_CHECKING:
    from zapd.audit.selection import Selected, Sought
    from zapd.auth.differences import Differences
    from zapd.auth.replay import Replay
    from zapd.config import Config

_COLUMNS = {
    "domain": "DOMAIN",
    "then": "THEN",
    "now": "NOW",
    "why": "WHY",
    "count": "COUNT",
    "examples": "FOR EXAMPLE",
}
_ASKED = ("auth.accept", "auth.reject", "auth.defer")


@click.command("replay")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--against",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="The configuration in force, to tell which backends are set up otherwise; found like -c unless named.",
)
@click.option(
    "--since", type=Moment(past=True), metavar="TIME", help="12h ago, or a date; all of it unless named."
)
@click.option("--until", type=Moment(past=True), metavar="TIME", help="12h ago, or a date.")
@click.option("--domain", metavar="D", help="Questions about this ZAP domain only.")
@click.option(
    "--examples", type=click.IntRange(0, 100), default=3, show_default=True, metavar="N", help="Of each group."
)
@local_options
@pass_settings
def replay(
    settings: Settings,
    path: Path | None,
    against: Path | None,
    since: datetime | None,
    until: datetime | None,
    domain: str | None,
    examples: int,
) -> None:
    """Say which past questions the configuration (-c NEW.toml) would decide otherwise.

    The rules are the new ones; what each backend said is taken from the record. What cannot be known is listed
    with a ? and why. PATH is a journal's folder or an exported file; the new configuration's own journal unless
    named. Works beside a running server and without one, and changes nothing.
    """
    from zapd.audit.selection import Sought
    from zapd.auth.differences import Differences
    from zapd.config import load

    config = load(settings.config_path(), check_files=False)
    source = path or config.journal_dir
    if not _there(source):
        raise NotFound(
            f"There is no journal at {source}: name the folder `audit` of a data_dir, or an exported file."
        )
    current = _in_force(config, against)
    rules = _rules(config, current)
    found = Differences(examples)
    sought = Sought(domain=domain, since=_text(since), until=_text(until))
    try:
        for record in _records(source, sought):
            if record.event in _ASKED and record.status:
                found.add(record, rules.decide(record), _example(record))
            elif record.event in ("auth.summary", "auth.gap"):
                found.uncounted += record.count
    except OSError as error:
        raise unreadable(source, error) from None
    _show(settings, found, rules, current)


def _there(source: Path) -> bool:
    """Whether it is an export, or a folder with a journal in it."""
    from zapd.audit.instance import list_instances

    try:
        return bool(list_instances(source)) if source.is_dir() else source.exists()
    except OSError as error:
        raise unreadable(source, error) from None


def unreadable(source: Path, error: OSError) -> Unavailable:
    """What is said of a journal that this user may not look into."""
    return Unavailable(
        f"{error.filename or source} cannot be read ({error.strerror}): only zapd's own user and root can."
    )


def _in_force(config: Config, against: Path | None) -> Config | None:
    """The configuration to compare with, where there is one that is about the same journal."""
    from zapd.config import load

    if against is not None:
        return load(against, check_files=False)
    try:
        current = load(Settings().config_path(), check_files=False)
    except ConfigurationError:
        return None
    return current if current.journal_dir == config.journal_dir else None


def _rules(config: Config, current: Config | None) -> Replay:
    from zapd.admin.services.signing_in import ASKER
    from zapd.auth.policy import Policy
    from zapd.auth.replay import Replay

    then = {} if current is None else current.backend
    listeners = {f"local:{each.listen}": each.domains for each in config.zap if each.mechanism != "CURVE"}
    listeners |= {ASKER: tuple(config.signin)} if config.signin else {}
    return Replay(
        Policy(config.rules()),
        asyncio.run(_mechanisms(config)),
        listeners,
        frozenset(
            name
            for name, section in config.backend.items()
            if name in then and (section.type, section.settings) != (then[name].type, then[name].settings)
        ),
        frozenset(name for name, section in config.backend.items() if section.stale_if_error),
    )


async def _mechanisms(config: Config) -> dict[str, frozenset[str]]:
    """What each backend of a configuration answers: it is built, and neither opened nor asked. One that cannot be
    built here may answer everything."""
    import structlog

    from zapd.auth.backend import BackendContext
    from zapd.auth.catalog import Catalog
    from zapd.auth.hashing import HashPool
    from zapd.store.engine import open_engine
    from zapd.zap.request import CREDENTIALS

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    catalog, pool = Catalog(), HashPool(1)
    engine = open_engine("sqlite:///nowhere.db", config.base_dir)  # never connected to
    context = BackendContext(config.base_dir, pool, engine)
    found: dict[str, frozenset[str]] = {}
    try:
        for name, section in config.backend.items():
            found[name] = frozenset(CREDENTIALS)
            with suppress(ConfigurationError):
                handle = catalog.build(name, section.type, section.revealed_settings(), context, section.keeping)
                found[name] = handle.mechanisms
                await handle.aclose()
    finally:
        await pool.aclose()
        engine.dispose()
        structlog.configure(**before)
    return found


def _records(source: Path, sought: Sought) -> Iterator[Selected]:
    from zapd.audit.selection import read_export, select

    found = select(source, sought) if source.is_dir() else read_export(source, sought)
    return (each[0] for each in found if each is not None)


def _text(moment: datetime | None) -> str:
    return (
        "" if moment is None else moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def _example(record: Selected) -> dict[str, object]:
    return {
        "time": record.time,
        "instance": record.instance,
        "sequence": record.sequence,
        "mechanism": record.mechanism,
        "who": record.principal or record.username or record.key,
        "address": record.address,
        "agent": record.agent,
        "reason": record.reason,
    }


def _show(settings: Settings, found: Differences, rules: Replay, current: Config | None) -> None:
    otherwise, unknown = found.count(decidable=True), found.count(decidable=False)
    if settings.json:
        print_json(
            {
                "questions": found.questions,
                "same": found.same,
                "otherwise": otherwise,
                "undecidable": unknown,
                "only_counted": found.uncounted,
                "backends_changed": sorted(rules.changed) if current is not None else None,
                "groups": [
                    {
                        "domain": domain,
                        "then": then,
                        "now": now or None,
                        "why": why,
                        "count": each.count,
                        "examples": each.examples,
                    }
                    for (domain, then, now, why), each in found.ordered()
                ],
            }
        )
        return
    if found.groups:
        rows: list[dict[str, Any]] = [
            {
                "domain": domain or '""',
                "then": then,
                "now": str(now or "?"),
                "why": why,
                "count": each.count,
                "examples": ", ".join(
                    f"{one['who'] or one['mechanism']} from {one['address']}" for one in each.examples
                ),
            }
            for (domain, then, now, why), each in found.ordered()
        ]
        print_rows(rows, _COLUMNS, empty="")
    say(
        f"{found.questions} questions: {found.same} the same, {otherwise} otherwise, {unknown} not to be known."
        + (f" {found.uncounted} more answers of 300 were only counted." if found.uncounted else "")
    )
    if current is None:
        complain(
            "Backends are taken to be set up as they were; --against FILE names the configuration in force, "
            "and then those that are not are told."
        )
