"""One row of a file: a key or a user, with the same names as the REST API has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Short = Annotated[str, msgspec.Meta(max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=1024)]
Items = Annotated[list[Short], msgspec.Meta(max_length=256)]
Pairs = Annotated[dict[Short, Text], msgspec.Meta(max_length=64)]


class KeyRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A CURVE public key. What is left out is as when a key is added one by one."""

    COLUMNS: ClassVar = (
        *("public_key", "user", "state", "domains", "groups", "attributes", "label"),
        *("not_before", "expires", "reason"),
    )
    """In the order of an export."""

    public_key: Annotated[str, msgspec.Meta(max_length=128)]
    user: Short
    state: Literal["pending", "active", "revoked"] = "active"
    domains: Items | None = None
    groups: Items = []
    attributes: Pairs = {}
    label: Text = ""
    not_before: Moment | None = None
    expires: Moment | None = None
    reason: Text = ""
    source: Text = ""
    """Where the row comes from, such as a file's name: only for the report."""


class UserRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A PLAIN user with a finished password hash."""

    COLUMNS: ClassVar = ("name", "hash", "state", "domains", "groups", "attributes", "expires")

    name: Short
    hash: Text
    state: Literal["enabled", "disabled"] = "enabled"
    domains: Items | None = None
    groups: Items = []
    attributes: Pairs = {}
    expires: Moment | None = None
    source: Text = ""

    def __repr__(self) -> str:
        return f"UserRow({self.name!r})"


LISTS = frozenset({"domains", "groups"})
MAPS = frozenset({"attributes"})
OPTIONAL = frozenset({"state", "domains", "not_before", "expires"})
"""An empty cell leaves these out."""
