"""Counts and distributions over many tasks, computed by MongoDB."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from banyan.storage.reading import Reader
from banyan.storage.waiting import count_assigned

Document = dict[str, Any]

NEWEST, NEWEST_OF_ALL = 100_000, 10_000
"""The largest samples for waits, run times and memory: the newest tasks that match, or the newest that ended at all."""

RATE_SECONDS = 60


def count_tasks(reader: Reader, where: Mapping[str, Any], now: datetime) -> Document:
    """The number of tasks by state, by queue and state, and by exit status, and the rates of the last minute.

    `assigned` counts, by queue, the running tasks that their workers have not begun. The time of submission is the time
    in a task's id.
    """
    assigned = count_assigned(reader, where, "queue")  # first, so that it never exceeds the count of running tasks
    states: dict[str, int] = {}
    queues: dict[str, dict[str, int]] = {}
    exits: dict[str, int] = {}
    for group in _groups(reader, where):
        key, count = group["_id"], group["count"]
        _add(states, key["state"], count)
        _add(queues.setdefault(key["queue"], {}), key["state"], count)
        if key.get("exit_status"):
            _add(exits, key["exit_status"], count)
    return {
        "total": sum(states.values()),
        "states": states,
        "queues": queues,
        "assigned": assigned,
        "exit_statuses": exits,
        "rates": _rates(reader, where, now),
    }


def count_queues(reader: Reader) -> dict[str, dict[str, int]]:
    """The number of tasks by queue and state."""
    queues: dict[str, dict[str, int]] = {}
    for group in _groups(reader, {}):
        _add(queues.setdefault(group["_id"]["queue"], {}), group["_id"]["state"], group["count"])
    return queues


def _groups(reader: Reader, where: Mapping[str, Any]) -> list[Document]:
    """The number of tasks of each state, queue and exit status; without a filter it is read from an index alone."""
    key = {"state": "$state", "queue": "$queue", "exit_status": "$exit_status"}
    pipeline: list[Document] = [{"$match": where}, {"$group": {"_id": key, "count": {"$sum": 1}}}]
    return reader.aggregate("tasks", pipeline, hint=None if where else "monitor")


def _rates(reader: Reader, where: Mapping[str, Any], now: datetime) -> Document:
    """The rates; the cost of each is a range of an index that covers the minute."""
    minute = timedelta(seconds=RATE_SECONDS)
    # A client may choose an id of any time, even in the future.
    ids = {"$gte": ObjectId.from_datetime(now - minute), "$lt": ObjectId.from_datetime(now + minute)}
    ended = {"_updated": {"$gte": now - minute}, "time_terminated": {"$gte": now - minute}}
    return {
        "submitted_per_minute": reader.count("tasks", {"$and": [dict(where), {"_id": ids}]}),
        "ended_per_minute": reader.count("tasks", {"$and": [dict(where), ended]}),
    }


def measure_tasks(reader: Reader, where: Mapping[str, Any]) -> Document:
    """The waits, run times and memory of ended tasks: min, median, p95, max.

    `measured` is the size of the sample. With a filter it has the newest tasks that match; without one it has the
    newest ends, so that no other task is visited.
    """
    seconds = {"$divide": [{"$subtract": ["$time_started", "$time_available"]}, 1000]}
    ran = {"$divide": [{"$subtract": ["$time_terminated", "$time_started"]}, 1000]}
    started = {"time_started": {"$type": "date"}, "time_terminated": {"$type": "date"}}
    newest: list[Document] = [
        {"$match": {"time_terminated": {"$exists": True}}},
        {"$sort": {"_updated": -1, "_id": -1}},
        {"$limit": NEWEST_OF_ALL},
        {"$match": started},
    ]
    if where:
        newest = [{"$match": {"$and": [dict(where), started]}}, {"$sort": {"_id": -1}}, {"$limit": NEWEST}]
    shown = {"$project": {"_id": 0, "wait": seconds, "run": ran, "peak": "$peak_memory_bytes"}}
    rows = reader.aggregate("tasks", [*newest, shown], hint=None if where else "ended")
    return {
        "measured": len(rows),
        "wait_seconds": summary([row["wait"] for row in rows if row.get("wait") is not None]),
        "run_seconds": summary([row["run"] for row in rows if row.get("run") is not None]),
        "peak_memory_bytes": summary([row["peak"] for row in rows if row.get("peak") is not None]),
    }


def count_workers(reader: Reader) -> dict[str, int]:
    """The number of workers by state."""
    groups = reader.aggregate("workers", [{"$group": {"_id": "$state", "count": {"$sum": 1}}}])
    return {group["_id"]: group["count"] for group in groups}


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """The minimum, median, 95th percentile and maximum of some values; each is None when there are none."""
    if not values:
        return dict.fromkeys(("min", "median", "p95", "max"))
    ordered = sorted(values)
    last = len(ordered) - 1
    middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
    return {"min": ordered[0], "median": middle, "p95": ordered[round(0.95 * last)], "max": ordered[-1]}


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count
