"""What a PATCH names, and texts that no database takes."""

from __future__ import annotations

from collections.abc import Collection

from zapd.admin.api.schemas import Shape
from zapd.errors import InvalidInput


def named(body: Shape, may_be_null: Collection[str]) -> dict[str, object]:
    """The fields that a body names, null only where that means something. Raises `InvalidInput`."""
    found: dict[str, object] = {name: getattr(body, name) for name in body.model_fields_set}
    for name, value in found.items():
        if value is None and name not in may_be_null:
            raise InvalidInput(f"{name} cannot be null; leave it out to keep it.")
    return found


def no_nul(text: str | None) -> str | None:
    """A filter of the query: PostgreSQL takes no NUL in text."""
    if text is not None and "\0" in text:
        raise InvalidInput("A filter holds a NUL character.")
    return text
