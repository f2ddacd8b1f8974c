"""What the backends themselves say of their settings, before anything is started.

A backend's table is its plugin's own affair, so the plugin is asked: it is built, never started, and forgotten.
Nothing is connected and no file of a backend is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import cast

from sqlalchemy import Engine

from zapd.auth.backend import Backend, BackendContext
from zapd.auth.hashing import HashPool
from zapd.auth.scrub import Scrubber
from zapd.config.backends import BackendSection
from zapd.config.findings import Findings
from zapd.config.sections import Sections
from zapd.errors import ConfigurationError, InvalidInput
from zapd.net.address import parse_address
from zapd.store.engine import open_engine


def ask_plugins(
    sections: Sections, base: Path, database_url: str, found: dict[str, EntryPoint], findings: Findings
) -> None:
    """Report what the database's driver and each backend refuse. ``found``: the installed types."""
    engine: Engine | None = None
    try:
        engine = open_engine(database_url, base)
    except ConfigurationError as error:
        findings.mistake(("database", "url"), str(error), "")
    context = BackendContext(base_dir=base, hash_pool=HashPool(1), database=engine)
    answered: dict[str, frozenset[str]] = {}
    for name, backend in sections.backend.items():
        point = found.get(backend.type)
        if point is not None and (engine is not None or backend.type != "sql"):
            made = _ask(name, backend, point, context, findings)
            if made is not None:
                answered[name] = made.mechanisms
    _check_domains(sections, answered, findings)
    _check_whose_word(sections, base, answered, findings)
    if engine is not None:
        engine.dispose()


def _check_domains(sections: Sections, answered: Mapping[str, frozenset[str]], findings: Findings) -> None:
    """Warn of mechanisms that a domain allows and none of its backends answers."""
    for pattern, domain in sections.domain.items():
        names = [link.backend for link in domain.backends]
        if not names or not all(name in answered for name in names):
            continue
        could = frozenset[str]().union(*(answered[name] for name in names))
        for mechanism in domain.mechanisms:
            # NULL beside others is the address rules' own, unless a backend answers it.
            if mechanism not in could and (mechanism != "NULL" or len(domain.mechanisms) == 1):
                findings.warn(
                    ("domain", pattern, "backends"),
                    f"none of them answers {mechanism}, so that its questions hear 300",
                    "add one that does"
                    + (", or name none: then allow alone grants" if mechanism == "NULL" else ""),
                )


def _check_whose_word(
    sections: Sections, base: Path, answered: Mapping[str, frozenset[str]], findings: Findings
) -> None:
    """Warn where a backend says by the address alone who somebody is, as it must under NULL, and another machine
    may tell the address: a user's number is somebody else's there."""
    if not any(_is_public(endpoint.listen, base) for endpoint in sections.zap):
        return
    for pattern, domain in sections.domain.items():
        for link in domain.backends:
            if "NULL" in domain.mechanisms and "NULL" in answered.get(link.backend, ()):
                findings.warn(
                    ("domain", pattern, "backends"),
                    f"under NULL {link.backend} says who somebody is on the word of agents, also of those on "
                    "other machines, whose users it does not know",
                    "unless all machines have the same accounts, enrol agents of others for other domains, or "
                    "without NULL (zapd agent enroll --domain, --mechanism)",
                )


def _is_public(listen: str, base: Path) -> bool:
    try:
        return parse_address(listen, base).is_public
    except InvalidInput:
        return False  # reported with the endpoint


def _ask(
    name: str, backend: BackendSection, point: EntryPoint, context: BackendContext, findings: Findings
) -> Backend | None:
    try:
        settings = backend.revealed_settings()
    except ConfigurationError:
        return None  # reported with the secret
    try:
        made = cast(type[Backend], point.load()).from_settings(name, settings, context)
        for setting, problem, mend in getattr(made, "warnings", ()):
            findings.warn(("backend", name, setting), problem, mend)
        return made
    except (ImportError, AttributeError) as error:
        findings.warn(
            ("backend", name, "type"),
            f"{backend.type!r} cannot be loaded ({error}), so that its questions hear 300",
            f"install what it needs, perhaps zapd[{backend.type}]",
        )
    except ConfigurationError as error:
        told = Scrubber(backend.revealed_secrets()).text(str(error))
        words = re.sub(rf"^\[?backend\.{re.escape(name)}\]?:?\s*", "", told)
        places = {setting: re.search(rf"\b{re.escape(setting)}\b", words) for setting in settings}
        named = sorted((place.start(), setting) for setting, place in places.items() if place is not None)
        findings.mistake(("backend", name, *(setting for _, setting in named[:1])), words, "")
    return None
