"""The parts of the OpenAPI document for bodies that handlers check by themselves, and for query parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from banyan.api.continuations import EDIT
from banyan.api.schema.kinds import MAX_LINKS, Rules, date, identifier, identifiers, optional
from banyan.api.schema.reports import CURL_DATA, REPORT, SAMPLE
from banyan.api.schema.tasks import GIVEN
from banyan.api.schema.workers import LEAVING, QUEUE
from banyan.api.selection import MAX_PAGE
from banyan.api.steering import RETRY

Document = dict[str, Any]

ID_PATTERN = "^[0-9a-fA-F]{24}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A body: an object with these `fields`, or a list of such objects if it may be `listed`, or another `schema`."""

    fields: Mapping[str, Rules] | None = None
    listed: bool = False
    schema: Document | None = None
    required: bool = True
    media_type: str = "application/json"


def _lists(item: Mapping[str, Rules]) -> Rules:
    return {"type": "list", "meta": {"items": {"type": "dict", "schema": dict(item)}}}


_SET_ONCE = ("_id", "dependencies", "input_refs")
_CHANGES: dict[str, Rules] = {name: rules for name, rules in GIVEN.items() if name not in _SET_ONCE} | {
    "add_continuations": optional(identifiers()),
    "remove_continuations": optional(identifiers()),
    "update_execution_data": {"type": "dict", "schema": CURL_DATA},
}
_IDS = Taken(
    schema={
        "type": "array",
        "items": {"type": "string", "pattern": ID_PATTERN},
        "uniqueItems": True,
        "maxItems": MAX_LINKS,
    }
)
_BYTES = Taken(media_type="application/octet-stream", required=False)
_REPORTS: dict[str, Rules] = {
    "time": optional(date()),
    "reports": _lists(REPORT),
    "memory_usage": _lists(SAMPLE),
}
_ASKED: dict[str, Rules] = {"state": {"type": "string", "required": True}}
_RETRY = Taken(
    fields=RETRY | {n: rules for n, rules in GIVEN.items() if n not in (*_SET_ONCE, "state", "continuations")},
    required=False,
)
_TASK = "/tasks/<objectid:task_id>"
_WORKER = "/workers/<objectid:worker_id>"
_SENT = "/execution_history/<objectid:execution>"

BODIES: dict[str, Taken] = {
    "PATCH /tasks": Taken(fields=_CHANGES | {"_id": identifier()}, listed=True),
    f"PATCH {_TASK}": Taken(fields=_CHANGES),
    **{f"POST /tasks/{verb}_continuations": Taken(fields=EDIT, listed=True) for verb in ("add", "remove")},
    **{f"{method} {_TASK}/{verb}_continuations": _IDS for verb in ("add", "remove") for method in ("POST", "PATCH")},
    **{f"{method} {_TASK}/update_execution_data": Taken(fields=CURL_DATA) for method in ("POST", "PATCH")},
    f"POST {_TASK}/retry": _RETRY,
    "POST /sweeps/<objectid:sweep_id>/retry": _RETRY,
    f"POST {_WORKER}/report": Taken(fields=_REPORTS),
    f"PATCH {_WORKER}": Taken(fields=_ASKED),
    f"DELETE {_WORKER}": Taken(fields=LEAVING, required=False),
    "PATCH /queues/<name>": Taken(fields={name: {**rules, "required": False} for name, rules in QUEUE.items()}),
    "PUT /models/<path:name>/defaults": Taken(schema={"type": "object"}),
    f"PUT {_SENT}/stdout": _BYTES,
    f"PUT {_SENT}/stderr": _BYTES,
    f"PUT {_SENT}/files/<path:path>": _BYTES,
}
"""The bodies by endpoint; other routes declare theirs by `body` or `resource`."""

_OBJECT: Document = {"content": {"application/json": {"schema": {"type": "object"}}}}
_CHOICE: Document = {
    "content": {"application/json": {"schema": {"type": "object", "additionalProperties": {"enum": [0, 1]}}}}
}


def _of(**schema: Any) -> Document:
    return {"schema": schema}


PARAMETERS: dict[str, Document] = {
    "ids": {"schema": {"type": "string", "pattern": "^[0-9a-fA-F]{24}(,[0-9a-fA-F]{24}){0,99}$"}},
    "where": _OBJECT,
    "projection": _CHOICE,
    "embedded": _CHOICE,
    "sort": _of(type="string"),
    "max_results": _of(type="integer", minimum=1, maximum=MAX_PAGE),
    "page": _of(type="integer", minimum=1, maximum=MAX_PAGE),
    "attempt": _of(type="integer", minimum=0, maximum=999_999_999),
    "offset": _of(type="integer", minimum=0, maximum=10**18 - 1),
    "dry_run": _of(type="boolean"),
    "strict_json": _of(type="boolean"),
    "format": _of(enum=["json", "csv"]),
}
"""The schemas of query parameters."""

NEEDED = frozenset({("DELETE /tasks", "where"), ("GET /tasks/explain", "ids")})
"""Required query parameters, by endpoint and name."""
