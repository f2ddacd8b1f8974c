"""The shapes of exports and verifications."""

from __future__ import annotations

from typing import Any, Final

from fastapi.responses import Response
from pydantic import ConfigDict

from zapd.admin.api.schemas import Shape

EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The records",
        "headers": {
            "X-Zapd-Journal-Octets": {
                "description": "How much there is to read, at most: for showing how far it is.",
                "schema": {"type": "integer"},
            }
        },
        "content": {
            "application/jsonl": {
                "schema": {"type": "string"},
                "example": '{"kind":"export","instance":"5f0c9a77e1b2d384","first":1,"previous":"9c…"}\n',
            },
            "text/csv": {"schema": {"type": "string"}, "example": "time,instance,sequence,event\r\n"},
        },
    }
}
"""For the OpenAPI document."""


class Records(Response):
    """Names the media type for the OpenAPI document."""

    media_type = "application/jsonl"


class ProblemFound(Shape):
    """The first bad record of an instance, and what is wrong with it."""

    kind: str
    instance: str
    segment: str
    line: int
    sequence: int
    detail: str


class InstanceFound(Shape):
    """One instance, as far as its first bad record."""

    instance: str
    first: int
    last: int
    segments: int
    head: str
    began: str
    ended: str
    open: bool
    checkpointed: int
    checkpoints: int
    outside: int
    problem: ProblemFound | None
    notes: list[str]


class VerifyOut(Shape):
    """What ``zapd audit verify --json`` says."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "good": True,
                    "records": 7,
                    "instances": [],
                    "problems": [],
                    "blind": ["a tail cut together with its checkpoints: no outside head was given"],
                }
            ]
        }
    )

    good: bool
    records: int
    """Good records, before the first bad one of each instance."""
    instances: list[InstanceFound]
    problems: list[ProblemFound]
    blind: list[str]
    """What could not be seen, in sentences."""
