"""The tasks that wait, by class and by reason, counted by MongoDB from indexes: there may be very many."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from banyan.domain.task import LIVE, State
from banyan.storage.reading import Reader
from banyan.storage.references import plain

Document = dict[str, Any]

LOOKED_AT = 100_000
"""The most inactive tasks whose reasons for waiting are counted."""

_NEEDS = (
    "_id name class_key queue owner model command requested_resources requires timeout avoid priority time_available"
).split()
_BEST_FIRST = {"class_key": 1, "priority": -1, "order": 1}
_CLAIMABLE: Document = {"class_key": {"$gt": ""}}
_EPOCH = datetime.fromtimestamp(0, UTC)
_NOBODY = ObjectId(bytes(12))
"""An id below the ids of all workers."""
_NOT_ENDED = sorted([State.INACTIVE, State.AVAILABLE, *LIVE])


def best_of_classes(reader: Reader) -> list[Document]:
    """The needs of the best claimable task of each class; one index step for each class."""
    best: Document = {name: f"${name}" for name in _NEEDS}
    pipeline: list[Document] = [
        {"$match": _CLAIMABLE},
        {"$sort": _BEST_FIRST},
        {"$group": {"_id": "$class_key", "best": {"$first": best}}},
    ]
    return plain(group["best"] for group in reader.aggregate("tasks", pipeline, hint="claim"))


def count_classes(reader: Reader) -> dict[str, int]:
    """The number of claimable tasks of each class, from the index alone."""
    pipeline: list[Document] = [{"$match": _CLAIMABLE}, {"$group": {"_id": "$class_key", "count": {"$sum": 1}}}]
    return {group["_id"]: group["count"] for group in reader.aggregate("tasks", pipeline, hint="claim")}


def count_before(
    reader: Reader,
    task: Mapping[str, Any],
    keys: Sequence[str],
    workers: Sequence[ObjectId],
    limit: int,
    max_timeout: float | None = None,
) -> int:
    """The number of claimable tasks of these classes that come before a task and that one of the workers may take.

    At most `limit` are counted. With `max_timeout` (seconds) only tasks that must end within it count.
    """
    if not keys:
        return 0
    later = {"priority": {"$gt": task["priority"]}}
    older = {"priority": task["priority"], "order": {"$lt": task["order"]}}
    in_time: Document = {} if max_timeout is None else {"timeout": {"$lte": max_timeout}}
    count = 0
    for first in (later, older):
        where = {"class_key": {"$in": list(keys)}, **first, **in_time}
        count += _count(reader, where, limit - count, "claim")
        avoiding = {**where, "avoid_until": {"$exists": True}, "avoid": {"$all": list(workers)}}
        count -= _count(reader, avoiding, limit, "avoid_until")
    return count


def _count(reader: Reader, where: Mapping[str, Any], limit: int, index: str) -> int:
    if limit <= 0:
        return 0
    pipeline: list[Document] = [{"$match": where}, {"$limit": limit}, {"$count": "count"}]
    return sum(group["count"] for group in reader.aggregate("tasks", pipeline, hint=index))


def count_not_ended(reader: Reader, visible: Mapping[str, Any]) -> dict[str, int]:
    """The number of tasks that have not ended, by state."""
    pipeline: list[Document] = [
        {"$match": {"state": {"$in": _NOT_ENDED}, **visible}},
        {"$group": {"_id": "$state", "count": {"$sum": 1}}},
    ]
    groups = reader.aggregate("tasks", pipeline, hint=None if visible else "monitor")
    return {group["_id"]: group["count"] for group in groups}


def count_inactive(reader: Reader, visible: Mapping[str, Any]) -> list[Document]:
    """The first `LOOKED_AT` inactive tasks, grouped by the cause: `waits` (for parents), `hold`; `count`, `example`."""
    pipeline: list[Document] = [
        {"$match": {"state": State.INACTIVE, **visible}},
        {"$limit": LOOKED_AT},
        {"$project": {"hold": {"$eq": ["$hold", True]}, "waits": {"$gt": ["$pending_dependency_count", 0]}}},
        {"$group": {"_id": {"hold": "$hold", "waits": "$waits"}, "count": {"$sum": 1}, "example": {"$first": "$_id"}}},
    ]
    groups = reader.aggregate("tasks", pipeline)
    return [{**group["_id"], "count": group["count"], "example": group["example"]} for group in groups]


def count_not_due(reader: Reader, visible: Mapping[str, Any]) -> tuple[int, Document | None]:
    """The number of available tasks that wait for a date, and the one with the earliest date."""
    where: Document = {"wake_at": {"$gt": _EPOCH}, **visible}
    fields = {"wake_at": 1}
    first = reader.page("tasks", where, fields, sort=[("wake_at", 1)], limit=1)
    return (reader.count("tasks", where), first[0]) if first else (0, None)


def count_assigned(reader: Reader, where: Mapping[str, Any], by: str) -> dict[Any, int]:
    """The number of matching running tasks that their workers have not begun, grouped by the field `by`."""
    pipeline: list[Document] = [
        {"$match": {"worker": {"$gt": _NOBODY}, "state": State.RUNNING, "time_started": {"$exists": False}}},
        {"$match": where},
        {"$group": {"_id": f"${by}", "count": {"$sum": 1}}},
    ]
    return {group["_id"]: group["count"] for group in reader.aggregate("tasks", pipeline, hint="held")}


def load_of_workers(reader: Reader, visible: Mapping[str, Any]) -> dict[ObjectId, Document]:
    """The tasks that each worker holds, by its id: `running` counts those that it has begun, `assigned` the rest."""
    begun = {"$cond": [{"$gt": ["$time_started", None]}, 1, 0]}
    pipeline: list[Document] = [
        {"$match": {"worker": {"$gt": _NOBODY}, **visible}},
        {"$group": {"_id": "$worker", "held": {"$sum": 1}, "running": {"$sum": begun}}},
    ]
    return {
        group["_id"]: {"running": group["running"], "assigned": group["held"] - group["running"]}
        for group in reader.aggregate("tasks", pipeline, hint="held")
    }
