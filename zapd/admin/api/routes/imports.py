"""``/v1/keys/import`` and ``/v1/users/import``: the only long bodies, which go to a file as they come."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import IO, Annotated, Any, BinaryIO, Final, TypeVar, cast

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from zapd.admin.api.deps import Caller, Context
from zapd.admin.api.schemas import ImportOut
from zapd.admin.exchange.reading import Form, read_rows
from zapd.admin.exchange.shapes import KeyRow, UserRow
from zapd.admin.roles import Operation
from zapd.admin.services.importing import Tally
from zapd.admin.services.imports import ImportService
from zapd.errors import InvalidInput

router = APIRouter()

_FORMS: Final[dict[str, Form]] = {
    "text/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
}
Row = TypeVar("Row", KeyRow, UserRow)

_MEMORY: Final = 4 << 20
"""Octets of a body before it goes to a temporary file that has no name."""
_PIECE: Final = 64 * 1024

DryRun = Annotated[bool, Query(description="Only say what would be done, row by row.")]
Partial = Annotated[bool, Query(description="Leave out rows that cannot go in; without it, they keep all out.")]
Default = Annotated[
    list[Annotated[str, Query(max_length=255)]],
    Query(alias="domain", max_length=256, description="For rows that name no domain; may be repeated."),
]


def _body(shape: type[KeyRow | UserRow], lines: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document's words on the body."""
    item = msgspec.json.schema_components([shape], ref_template="#/components/schemas/{name}")[1]
    rows = {"type": "array", "items": item[shape.__name__]}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "text/csv": {"schema": {"type": "string"}, "example": "\r\n".join(lines) + "\r\n"},
                "application/json": {"schema": rows},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    }


def _add_route(
    path: str,
    shape: type[Row],
    operation: Operation,
    service: Callable[[ImportService], Callable[..., Awaitable[Tally]]],
    *,
    words: str,
    example: Sequence[str],
) -> None:
    """One of the two paths: the rows are of ``shape``, and ``service`` is what takes them."""
    kind = path.strip("/").partition("/")[0]

    @router.post(
        path,
        name=f"import_{kind}",
        tags=[kind],
        description=words,
        openapi_extra=_body(shape, example),
        response_model=ImportOut,
    )
    async def import_rows(
        request: Request,
        context: Context,
        caller: Caller,
        dry_run: DryRun = False,
        partial: Partial = False,
        domain: Default = [],  # noqa: B006 - FastAPI copies it
    ) -> StreamingResponse:
        context.imports.require(caller, operation)
        form = _form(request)
        with await _received(request) as file:
            return _answer(
                await service(context.imports)(
                    caller, lambda: read_rows(file, form, shape), domains=domain, dry_run=dry_run, partial=partial
                )
            )


_add_route(
    "/keys/import",
    KeyRow,
    Operation.CHANGE_KEYS,
    lambda imports: imports.keys,
    words="Register many keys from CSV, a JSON array or JSON lines: all of them in one transaction, or none.",
    example=["public_key,user,domains,groups", "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID,alice,orders,"],
)
_add_route(
    "/users/import",
    UserRow,
    Operation.CHANGE_USERS,
    lambda imports: imports.users,
    words="Register many PLAIN users by finished password hashes, as keys are imported.",
    example=["name,hash,domains", "bob,$2y$05$BGOpAmPG5g5Cvka2GQ33zeA8ODVqVUWVHPrLwbmAAeIw8b.0AdHlC,metrics.*"],
)


def _form(request: Request) -> Form:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _FORMS:
        raise InvalidInput(f"Say what the file is: Content-Type is one of {', '.join(_FORMS)}.")
    return _FORMS[kind]


async def _received(request: Request) -> BinaryIO:
    """The body in a file, at its beginning; how long it may be and take is the guards' affair."""
    file = tempfile.SpooledTemporaryFile(_MEMORY)  # noqa: SIM115 - the caller closes it
    try:
        async for piece in request.stream():
            file.write(piece)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return cast(BinaryIO, file)


def _answer(tally: Tally) -> StreamingResponse:
    return StreamingResponse(_written(tally), media_type="application/json")


def _written(tally: Tally) -> Iterator[bytes]:
    """`ImportOut`, with the rows from the file that they were listed in."""
    with tally.listing as listing:
        counts = {name: getattr(tally, name) for name in ("dry_run", "rows", "added", "unchanged", "refused")}
        yield msgspec.json.encode(counts)[:-1] + b',"items":['
        yield from _items(listing)
        yield b"]}"


def _items(listing: IO[bytes]) -> Iterator[bytes]:
    listing.seek(0)
    before = b""
    while lines := listing.readlines(_PIECE):
        yield before + b",".join(line.rstrip() for line in lines)
        before = b","
