"""The documentation of the configuration holds for the code."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from support import cli_reference

from zapd.app.translate import engine_limits, net_limits
from zapd.config import LimitsSection, load
from zapd.config.values import format_duration, format_size, parse_duration, parse_size
from zapd.net.limits import NetLimits, PeerLimits
from zapd.zmtp.limits import Limits

PAGE = cli_reference.DOCS / "configuration.md"


def test_every_setting_says_what_it_means() -> None:
    """No table and no setting is without words of its own."""
    for header, model in cli_reference.TABLES:
        assert model.__doc__, header
        for name, field in model.model_fields.items():
            assert len(field.description or "") > 10, f"{header} {name}"


def test_the_page_is_current() -> None:
    """docs/configuration.md holds every setting with its default, as the code has it."""
    text = PAGE.read_text()
    assert cli_reference.with_generated(text, cli_reference.configuration()) == text


def test_the_examples_of_the_page_are_good(tmp_path: Path) -> None:
    """Each TOML block of the page passes, the first as it stands."""
    first, *others = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "zapd.toml"
    path.write_text(first)
    assert load(path).warnings == ()
    for block in others:
        tomllib.loads(block)


def test_bounds_have_the_defaults_of_the_rooms_that_keep_them() -> None:
    """A default that changes in one place and not in the other is found here."""
    limits = LimitsSection()
    renamed = {
        "held_shortest": "hold_min",
        "held_longest": "hold_max",
        "handshakes": "handshakes_total",
        "handshakes_per_ipv4": "handshakes_per_source",
        "handshakes_per_ipv6_64": "handshakes_per_source",
        "handshakes_per_ipv6_48": "handshakes_per_site",
        "handshake_octets": "handshake_memory",
        "held": "held_total",
        "command": "command_size",
        "frame": "frame_size",
        "parts": "message_frames",
        "message": "message_size",
    }
    for room in (NetLimits(), PeerLimits(), Limits()):
        for each in fields(room):
            if each.name != "peer":
                assert getattr(limits, renamed.get(each.name, each.name)) == getattr(room, each.name), each.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("100ms", 0.1),
        ("5s", 5),
        ("5m", 300),
        ("12h", 43200),
        ("90d", 7776000),
        ("0s", 0),
        ("800ms", 0.8),
        ("1100ms", 1.1),
    ],
)
def test_times_are_written_as_they_are_read(text: str, seconds: float) -> None:
    """A time survives the way there and back."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "octets"), [("20GB", 20 * 10**9), ("16MiB", 16 << 20), ("256KiB", 1 << 18), ("7B", 7)]
)
def test_sizes_are_written_as_they_are_read(text: str, octets: int) -> None:
    """A size survives the way there and back."""
    assert parse_size(text) == octets
    assert format_size(octets) == text


def test_every_bound_arrives_where_it_is_kept() -> None:
    """A bound that is changed in the configuration changes what the rooms are given."""
    asked_elsewhere = {
        *("plan_deadline", "backend_deadline"),  # the rules of each domain
        "agent_deadline",  # the order of times alone
        *("max_in_flight_per_agent", "max_in_flight", "hash_workers", "hash_waiting"),  # service's own arguments
        "penalty_entries",  # the terms of penalties
        *("refusals_per_source", "refusals_per_agent"),  # what is recorded
        *("pending_per_domain", "pending_per_source", "pending_per_agent"),  # the list's
        "pending_lifetime",
        *("audit_followers", "audit_exports"),  # the admin API's
        *("joins", "signins", "signin_keys_per_user"),  # the services'
    }
    usual = LimitsSection()
    for name in set(LimitsSection.model_fields) - asked_elsewhere:
        changed = usual.model_copy(update={name: getattr(usual, name) + 1})
        given = (net_limits(changed), engine_limits(changed))
        assert given != (net_limits(usual), engine_limits(usual)), name
