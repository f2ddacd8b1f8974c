"""Reads rows from a file one by one: CSV with a heading, a JSON array, or JSON lines.

A row that cannot be read is told with its line and does not end the reading; a file that is none of its kind
does. Memory holds one row, of a JSON array the file's octets.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Literal, TypeVar

import msgspec

from zapd.admin.exchange.cells import read_list, read_map, unguard
from zapd.admin.exchange.shapes import LISTS, MAPS, OPTIONAL, KeyRow, UserRow
from zapd.errors import InvalidInput

Row = TypeVar("Row", KeyRow, UserRow)
Form = Literal["csv", "json", "jsonl"]

MAX_LINE: Final = 256 * 1024
"""Octets of a row."""

_BOM: Final = b"\xef\xbb\xbf"


class Unreadable(str):
    """What is wrong with a row, in words that do not quote it."""

    __slots__ = ()


def read_rows(file: BinaryIO, form: Form, shape: type[Row]) -> Iterator[tuple[int, Row | Unreadable]]:
    """(line, row); in a JSON array the number of the item stands for the line. Raises `InvalidInput`."""
    start = file.read(len(_BOM))
    if start != _BOM:
        file.seek(0)
    if form == "csv":
        return _read_csv(file, shape)
    if form == "jsonl":
        return _read_lines(file, shape)
    return _read_array(file, shape)


def _read_array(file: BinaryIO, shape: type[Row]) -> Iterator[tuple[int, Row | Unreadable]]:
    try:
        items = msgspec.json.decode(file.read(), type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidInput(
            "This is not a JSON array. For one object on each line, say that it is JSON lines."
        ) from None
    decode = msgspec.json.Decoder(shape).decode
    return ((number, _decoded(decode, item)) for number, item in enumerate(items, 1))


def _read_lines(file: BinaryIO, shape: type[Row]) -> Iterator[tuple[int, Row | Unreadable]]:
    decode = msgspec.json.Decoder(shape).decode
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise InvalidInput(f"Line {number} has more than {MAX_LINE} octets: is this JSON lines?")
        if line.strip():
            yield number, _decoded(decode, line)


def _decoded(decode: Callable[[bytes | msgspec.Raw], Row], octets: bytes | msgspec.Raw) -> Row | Unreadable:
    try:
        return decode(octets)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return Unreadable(_words(error))


def _read_csv(file: BinaryIO, shape: type[Row]) -> Iterator[tuple[int, Row | Unreadable]]:
    # Octets that are not UTF-8 come through as lone surrogates: their row is told, the others are read.
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    try:
        reader = csv.reader(_bounded(text), strict=True)
        columns = _heading(reader, shape)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Unreadable(f"not CSV: {error}")
                continue
            if cells:
                yield line, _from_cells(columns, cells, shape)
    finally:
        text.detach()  # the file is the caller's


def _bounded(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE):
        yield line


def _heading(reader: Iterator[list[str]], shape: type[Row]) -> list[str]:
    try:
        names = [name.strip().lower() for name in next(reader)]
    except (StopIteration, csv.Error):
        raise InvalidInput(
            f"The file has no heading: its first line names columns, such as {_example(shape)}."
        ) from None
    known = set(shape.__struct_fields__)
    needed = {field.name for field in msgspec.structs.fields(shape) if field.required}
    if missing := sorted(needed - set(names)):
        raise InvalidInput(
            f"The heading lacks {', '.join(missing)}: the first line names columns, separated by commas,"
            f" such as {_example(shape)}."
        )
    if unknown := sorted(set(names) - known):
        shown = ", ".join(name[:40] if name.isprintable() else "?" for name in unknown[:5])
        raise InvalidInput(f"The heading names unknown columns ({shown}); known are {', '.join(sorted(known))}.")
    if len(set(names)) < len(names):
        raise InvalidInput("The heading names a column twice.")
    return names


def _example(shape: type[Row]) -> str:
    return ",".join(shape.COLUMNS[:4])


def _from_cells(columns: list[str], cells: list[str], shape: type[Row]) -> Row | Unreadable:
    if len(cells) != len(columns):
        return Unreadable(f"{len(cells)} cells under {len(columns)} columns")
    values: dict[str, object] = {}
    try:
        for name, cell in zip(columns, map(unguard, cells), strict=True):
            if name in OPTIONAL and not cell:
                continue
            values[name] = read_list(cell) if name in LISTS else read_map(cell) if name in MAPS else cell
        return msgspec.convert(values, shape)
    except (InvalidInput, msgspec.ValidationError) as error:
        return Unreadable(_words(error))


def _words(error: Exception) -> str:
    if isinstance(error, InvalidInput | msgspec.ValidationError):
        return str(error).replace("`$.", "`")
    return "not JSON"
