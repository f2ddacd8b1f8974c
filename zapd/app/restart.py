"""The settings that only a start reads, and which of them a reload would have changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from zapd.config import Config

_START_ONLY: Final[Mapping[str, tuple[str, ...]]] = {
    "server": ("data_dir", "workers", "curve_key"),
    "database": ("max_staleness",),
    "admin": ("listen", "behind_proxy", "trusted_proxies", "oidc"),
    "enroll": ("listen", "behind_proxy", "trusted_proxies"),
    "telemetry": ("endpoint", "service", "sample", "tls_ca"),
    "limits": (
        # Listeners keep what they were opened with, …
        "connections",
        "descriptors_reserved",
        "backlog",
        "accept_batch",
        # … and so do the engine,
        "handshake_command",
        "command_size",
        "frame_size",
        "message_size",
        "message_frames",
        "properties",
        # the endpoint and the hash pool.
        "max_in_flight",
        "max_in_flight_per_agent",
        "hash_workers",
        "hash_waiting",
        # Services are made once.
        "audit_followers",
        "audit_exports",
        "joins",
        "pending_lifetime",
        "signins",
        "signin_keys_per_user",
    ),
}


def start_only(config: Config) -> dict[str, object]:
    """Each such setting by its name, as a start would take it now. Holds the database's URL: never show values."""
    found: dict[str, object] = {"zap": config.zap, "audit": config.audit, "database.url": config.database_url()}
    for table, settings in _START_ONLY.items():
        section = getattr(config.sections, table)
        found |= {f"{table}.{setting}": getattr(section, setting) for setting in settings}
    # Other files, and other content, are taken on reload; TLS itself cannot come or go.
    found["admin.tls_cert"] = config.admin.tls_cert is not None
    found["enroll.tls_cert"] = config.enroll.tls_cert is not None
    return found


def keeping_start_only(started: Config, config: Config) -> Config:
    """``config`` with those settings as ``started`` has them: what is in force after a reload."""
    old, new = started.sections, config.sections
    tables = {}
    for table, settings in _START_ONLY.items():
        kept = {name: getattr(getattr(old, table), name) for name in settings}
        tables[table] = getattr(new, table).model_copy(update=kept)
    tables["database"] = tables["database"].model_copy(update={"url": old.database.url})
    return replace(config, sections=new.model_copy(update=tables | {"zap": old.zap, "audit": old.audit}))


def needs_restart(started: Mapping[str, object], config: Config) -> list[str]:
    """The names of the settings that are not in force as ``config`` has them, ``started`` being those that are."""
    return [name for name, value in start_only(config).items() if started[name] != value]
