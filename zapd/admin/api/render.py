"""From the registry's records to the shapes that leave."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from zapd.admin.api.permits import BanOut, JoinOut, TokenOut
from zapd.admin.api.schemas import AgentOut, KeyOut, SightingOut, UsageOut, UserOut
from zapd.admin.services.usage import LastUse
from zapd.store.agents import AgentRecord
from zapd.store.bans import BanKind, BanRecord
from zapd.store.joins import JoinRecord
from zapd.store.keys import KeyRecord
from zapd.store.sightings import Sighting
from zapd.store.tokens import TokenRecord
from zapd.store.users import UserRecord
from zapd.zmtp.keys import encode_key, fingerprint, fingerprint_of


def key_out(record: KeyRecord, use: LastUse | None = None, sightings: Iterable[Sighting] = ()) -> KeyOut:
    return KeyOut(
        id=record.fingerprint,
        fingerprint=fingerprint(record.public_key),
        public_key=encode_key(record.public_key),
        user=record.user,
        state=record.state.value,
        domains=list(record.domains),
        groups=list(record.groups),
        attributes=dict(record.attributes),
        label=record.label,
        not_before=record.not_before,
        expires=record.expires,
        reason=record.reason,
        created=record.created,
        updated=record.updated,
        version=record.version,
        replaces=record.replaces,
        replaced_by=record.replaced_by,
        origin=record.origin or "",
        usage=None
        if use is None
        else UsageOut(last_used=use.time, domain=use.domain, address=use.address, agent=use.agent),
        sightings=[
            SightingOut(
                domain=each.domain,
                address=each.address,
                agent=each.agent,
                first_seen=each.first_seen,
                last_seen=each.last_seen,
                tries=each.tries,
            )
            for each in sightings
        ],
    )


def user_out(record: UserRecord) -> UserOut:
    return UserOut(
        name=record.name,
        state=record.state.value,
        domains=list(record.domains),
        groups=list(record.groups),
        attributes=dict(record.attributes),
        expires=record.expires,
        created=record.created,
        updated=record.updated,
        version=record.version,
    )


def agent_out(record: AgentRecord) -> AgentOut:
    return AgentOut.model_validate(
        {
            "name": record.name,
            "id": record.fingerprint,
            "fingerprint": fingerprint(record.public_key),
            "public_key": encode_key(record.public_key),
            "state": record.state.value,
            "domains": list(record.domains),
            "mechanisms": list(record.mechanisms),
            "addresses": list(record.addresses),
            "reason": record.reason,
            "created": record.created,
            "updated": record.updated,
            "version": record.version,
            "previous_fingerprint": None if record.previous_key is None else fingerprint(record.previous_key),
            "previous_until": record.previous_until,
        }
    )


def ban_out(record: BanRecord, moment: datetime) -> BanOut:
    """``moment``: now, for its state."""
    over = record.expires is not None and record.expires <= moment
    return BanOut(
        id=record.id,
        state="over" if over else "in_force",
        address=record.subject if record.kind is BanKind.ADDRESS else None,
        key=fingerprint_of(record.subject) if record.kind is BanKind.KEY else None,
        user=record.subject if record.kind is BanKind.USER else None,
        domains=list(record.domains),
        reason=record.reason,
        expires=record.expires,
        created=record.created,
        created_by=record.created_by,
        version=record.version,
    )


def token_out(record: TokenRecord) -> TokenOut:
    return TokenOut.model_validate(
        {
            "id": record.id,
            "name": record.name,
            "role": record.role,
            "domains": list(record.domains),
            "expires": record.expires,
            "created": record.created,
            "revoked": record.revoked,
            "last_used": record.last_used,
        }
    )


def join_out(record: JoinRecord) -> JoinOut:
    return JoinOut(
        id=record.id,
        user=record.user,
        domains=list(record.domains),
        groups=list(record.groups),
        attributes=dict(record.attributes),
        label=record.label,
        addresses=list(record.addresses),
        uses=record.uses,
        used=record.used,
        expires=record.expires,
        key_lifetime=record.key_lifetime,
        hints=dict(record.hints),
        created=record.created,
        created_by=record.created_by,
        revoked=record.revoked,
        last_used=record.last_used,
    )


def etag(version: int) -> str:
    """The ``ETag`` of a version (RFC 9110, section 8.8.3)."""
    return f'"{version}"'
