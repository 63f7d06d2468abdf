"""`/sweeps/<id>/results`: inputs and results of all points as one table, written while it is read."""

import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from bson import ObjectId
from flask import Response, request

from banyan.api import strict_json
from banyan.api.bodies import render
from banyan.api.data import reader
from banyan.api.routes import route
from banyan.api.sweeps import readable_sweep
from banyan.domain.tables import INPUTS, RESULT, RESULT_FILE, Table
from banyan.errors import BadRequest, Invalid
from banyan.storage.reading import Reader
from banyan.storage.sweep_reading import has_any, keys_of, rows_of

Document = dict[str, Any]

FORMATS = ("json", "csv")
MAX_CSV_COLUMNS = 10_000

_TOGETHER = 200


@route(
    "GET",
    "/sweeps/<objectid:sweep_id>/results",
    query={"format": "json (if not given) or csv"},
    summary="Inputs and results of a sweep's points as a table",
)
def results(sweep_id: ObjectId) -> Response:
    """One row for each task in the order of the index: index, task, state, exit status, inputs, results."""
    wanted = request.args.get("format", "json")
    if wanted not in FORMATS:
        raise BadRequest(f"format is {wanted!r}; it is json or csv")
    sweep = readable_sweep(sweep_id)
    reading = reader()
    table = _table(reading, sweep)
    tasks = rows_of(reading, sweep_id)
    if wanted == "json":
        return Response(_joined(_json(table, tasks, strict_json.is_asked())), mimetype="application/json")
    if len(table.labels) > MAX_CSV_COLUMNS:
        reason = f"it would have {len(table.labels)} columns, at most {MAX_CSV_COLUMNS}; take json"
        raise Invalid({"format": reason})
    head = {"Content-Disposition": f'attachment; filename="sweep-{sweep_id}.csv"'}
    return Response(_joined(_csv(table, tasks)), content_type="text/csv; charset=utf-8; header=present", headers=head)


def _table(reading: Reader, sweep: Document) -> Table:
    """The sweep's own inputs first, in their order; then the other columns of its tasks."""
    inputs = dict.fromkeys([*sweep["input_names"], *keys_of(reading, sweep, INPUTS)])
    plain: Document = {RESULT: {"$exists": True, "$not": {"$type": "object"}}}
    wanted: dict[str, Document] = {RESULT: plain, RESULT_FILE: {RESULT_FILE: {"$exists": True}}}
    whole = [name for name, where in wanted.items() if has_any(reading, sweep, where)]
    return Table.of(list(inputs), keys_of(reading, sweep, RESULT), whole)


def _json(table: Table, tasks: Iterable[Document], strict: bool) -> Iterator[bytes]:
    nulls = strict_json.Nulls()
    yield b'{"columns":' + render(table.labels) + b',"_items":['
    comma = b"\n"
    for index, task in enumerate(tasks):
        row = dict(table.row(task))
        yield comma + render(nulls.replaced(row, f"/_items/{index}") if strict else row)
        comma = b",\n"
    yield b"\n]" + (b"," + render({strict_json.NOTE: nulls.noted})[1:-1] if nulls.noted else b"") + b"}\n"


def _csv(table: Table, tasks: Iterable[Document]) -> Iterator[bytes]:
    """CSV by RFC 4180; a value that is no text is written as JSON, a missing one is empty."""
    writer = csv.writer(_Line())
    yield writer.writerow(table.labels)
    for task in tasks:
        row = dict(table.row(task))
        yield writer.writerow([_cell(row.get(label)) for label in table.labels])


class _Line:
    """A file whose `write` returns the bytes, which the CSV writer passes on."""

    def write(self, text: str) -> bytes:
        return text.encode(errors="replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else render(value).decode()


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces."""
    while some := list(islice(pieces, _TOGETHER)):
        yield b"".join(some)
