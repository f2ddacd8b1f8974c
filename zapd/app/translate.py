"""From the configuration's words to the rooms' own. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from zapd.admin.services.signing_in import SignInRule
from zapd.admin.services.topology import BackendInfo, DomainInfo
from zapd.auth.catalog import BackendHealth, State
from zapd.auth.policy import Rule
from zapd.config import Config
from zapd.config.limits import LimitsSection
from zapd.net.limits import NetLimits, PeerLimits
from zapd.zmtp.limits import Limits


def engine_limits(limits: LimitsSection) -> Limits:
    """What one peer may make the engine hold."""
    return Limits(
        handshake_command=limits.handshake_command,
        command=limits.command_size,
        frame=limits.frame_size,
        parts=limits.message_frames,
        message=limits.message_size,
        properties=limits.properties,
    )


def net_limits(limits: LimitsSection) -> NetLimits:
    """What all peers may take."""
    return NetLimits(
        peer=PeerLimits(
            handshake_deadline=limits.handshake_deadline,
            held_shortest=limits.hold_min,
            held_longest=limits.hold_max,
            linger=limits.linger,
            write_high=limits.write_high,
            unsent=limits.unsent,
            stalled=limits.stalled,
            ping_after=limits.ping_after,
            ping_timeout=limits.ping_timeout,
        ),
        connections=limits.connections,
        descriptors_reserved=limits.descriptors_reserved,
        handshakes=limits.handshakes_total,
        handshakes_start=limits.handshakes_start,
        handshakes_spared=limits.handshakes_spared,
        known_sources=limits.known_sources,
        handshakes_per_ipv4=limits.handshakes_per_source,
        handshakes_per_ipv6_64=limits.handshakes_per_source,
        handshakes_per_ipv6_48=limits.handshakes_per_site,
        handshake_octets=limits.handshake_memory,
        handshake_steps=limits.handshake_steps,
        held=limits.held_total,
        backlog=limits.backlog,
        accept_batch=limits.accept_batch,
        failure_interval=limits.failure_interval,
    )


def domain_infos(rules: Sequence[Rule]) -> list[DomainInfo]:
    """The rules as administration shows them."""
    return [
        DomainInfo(
            pattern=rule.pattern,
            mechanisms=tuple(sorted(rule.mechanisms)),
            backends=tuple(link.backend for link in rule.backends),
            allow=rule.allow,
            deny=rule.deny,
            unknown_keys=rule.unknown_keys,
            grace_seconds=rule.grace,
            null_user=rule.null_user or None,
        )
        for rule in rules
    ]


def signin_rules(config: Config) -> dict[str, SignInRule]:
    """Where one may sign in, and what it gives."""
    return {
        name: SignInRule(
            domains=section.domains or (name,),
            lifetime=timedelta(seconds=section.lifetime),
            hints=tuple(sorted(section.hints.items())),
        )
        for name, section in config.signin.items()
    }


def backend_info(health: BackendHealth, mechanisms: frozenset[str]) -> BackendInfo:
    """A backend's health as administration shows it."""
    state = {State.STARTING: "starting", State.RUNNING: "ready"}.get(health.state, "disabled")
    return BackendInfo(
        name=health.name,
        type=health.type,
        mechanisms=tuple(sorted(mechanisms)),
        state=state,  # type: ignore[arg-type]  # one of the three
        reason=health.reason,
        circuit=health.circuit.value,
        in_flight=health.open,
        last_error=health.last_error,
        last_error_at=datetime.fromtimestamp(health.last_error_at, UTC) if health.last_error_at else None,
    )
