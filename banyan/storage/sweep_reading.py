"""The reading side of sweeps: their progress, and their tasks as the rows of a table."""

from collections.abc import Iterator, Sequence
from typing import Any

from bson import ObjectId

from banyan.domain.task import CANCELLED, ENDED, SUCCESS, State
from banyan.storage.reading import Reader
from banyan.storage.waiting import count_assigned

Document = dict[str, Any]

_ROWS = 200
"""The number of tasks in one read; each may hold a result of 64 KiB."""
_LOOKED_AT = 5000
"""The most tasks that one query visits, whatever their size."""
_ROW = dict.fromkeys(("index", "state", "exit_status", "inputs", "result", "result_file"), 1)


def progress_of(reader: Reader, sweeps: Sequence[ObjectId]) -> dict[ObjectId, Document]:
    """The progress of each sweep: `count`, `states`, the ends of its points, and the finished `fraction`.

    `assigned` counts the running tasks that their workers have not begun. Deleted points count as finished. Points that
    a submission has yet to create do not.
    """
    known = {d["_id"]: d for d in reader.page("sweeps", {"_id": {"$in": list(sweeps)}}, {"count": 1, "barrier": 1})}
    unmade = {d["_id"] for d in reader.page("submissions", {"_id": {"$in": list(sweeps)}}, {"_id": 1})}
    barriers = [sweep["barrier"] for sweep in known.values() if "barrier" in sweep]
    states = {d["_id"]: d["state"] for d in reader.page("tasks", {"_id": {"$in": barriers}}, {"state": 1})}
    assigned = count_assigned(reader, {"sweep": {"$in": list(sweeps)}, "index": {"$gte": 0}}, "sweep")
    counts: dict[ObjectId, list[Document]] = {}
    for group in reader.aggregate("tasks", _by_end(sweeps)):
        counts.setdefault(group["_id"]["sweep"], []).append(group)
    shown = {}
    for id, sweep in known.items():
        shown[id] = _progress(sweep["count"], counts.get(id, []), assigned.get(id, 0), id in unmade)
        if "barrier" in sweep:
            shown[id]["barrier"] = states.get(sweep["barrier"], State.INACTIVE if id in unmade else "deleted")
    return shown


def _by_end(sweeps: Sequence[ObjectId]) -> list[Document]:
    key = {"sweep": "$sweep", "state": "$state", "well": {"$eq": ["$exit_status", SUCCESS]}}
    return [
        {"$match": {"sweep": {"$in": list(sweeps)}, "index": {"$gte": 0}}},
        {"$group": {"_id": key, "count": {"$sum": 1}}},
    ]


def _progress(count: int, groups: Sequence[Document], assigned: int, unmade: bool) -> Document:
    states: dict[str, int] = {}
    succeeded = 0
    for group in groups:
        state = group["_id"]["state"]
        states[state] = states.get(state, 0) + group["count"]
        succeeded += group["count"] if group["_id"]["well"] else 0
    deleted = 0 if unmade else count - sum(states.values())
    done = deleted + sum(states.get(state, 0) for state in ENDED)
    return {
        "count": count,
        "states": states,
        "assigned": min(assigned, states.get(State.RUNNING, 0)),
        "succeeded": succeeded,
        "failed": states.get(State.TERMINATED, 0) - succeeded,
        "cancelled": states.get(CANCELLED, 0),
        "deleted": deleted,
        "fraction": done / count,
    }


def keys_of(reader: Reader, sweep: Document, field: str) -> list[str]:
    """The names in an object field of the sweep's tasks, in the order in which the objects have them."""
    places: dict[str, int] = {}
    for span in _spans(sweep):
        for group in reader.aggregate("tasks", _keys(span, field)):
            places[group["_id"]] = min(group["place"], places.get(group["_id"], group["place"]))
    return sorted(places, key=lambda name: (places[name], name))


def _keys(where: Document, field: str) -> list[Document]:
    is_object = {"$eq": [{"$type": f"${field}"}, "object"]}
    pairs = {"$cond": [is_object, {"$objectToArray": f"${field}"}, []]}
    return [
        {"$match": where},
        {"$project": {"names": {"$map": {"input": pairs, "in": "$$this.k"}}}},
        {"$unwind": {"path": "$names", "includeArrayIndex": "place"}},
        {"$group": {"_id": "$names", "place": {"$min": "$place"}}},
    ]


def has_any(reader: Reader, sweep: Document, where: Document) -> bool:
    """Return whether a task of the sweep matches."""
    return any(reader.one("tasks", {**span, **where}, {"_id": 1}) is not None for span in _spans(sweep))


def _spans(sweep: Document) -> Iterator[Document]:
    """Filters that together match all tasks of a sweep, each small enough for the time limit of a query."""
    for start in range(0, sweep["count"], _LOOKED_AT):
        yield {"sweep": sweep["_id"], "index": {"$gte": start, "$lt": start + _LOOKED_AT}}


def rows_of(reader: Reader, sweep: ObjectId) -> Iterator[Document]:
    """The tasks of a sweep in the order of their index, read a few at a time."""
    after = -1
    while True:
        page = reader.page("tasks", {"sweep": sweep, "index": {"$gt": after}}, _ROW, [("index", 1)], limit=_ROWS)
        yield from page
        if len(page) < _ROWS:
            return
        after = page[-1]["index"]
