"""Counts and distributions over many tasks, computed by MongoDB."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from banyan.storage.reading import Reader

Document = dict[str, Any]

NEWEST = 100_000
"""Waits, run times and memory are those of so many attempts at most, the newest ones."""

RATE_SECONDS = 60


def count_tasks(reader: Reader, where: Mapping[str, Any], now: datetime) -> Document:
    """How many tasks there are by state, by queue and state, and by exit status, and what the last minute saw."""
    since = now - timedelta(seconds=RATE_SECONDS)
    groups = reader.aggregate(
        "tasks",
        [
            {"$match": where},
            {
                "$group": {
                    "_id": {"state": "$state", "queue": "$queue", "exit_status": "$exit_status"},
                    "count": {"$sum": 1},
                    "submitted": {"$sum": {"$cond": [{"$gte": ["$_created", since]}, 1, 0]}},
                    "ended": {"$sum": {"$cond": [{"$gte": ["$time_terminated", since]}, 1, 0]}},
                }
            },
        ],
    )
    states: dict[str, int] = {}
    queues: dict[str, dict[str, int]] = {}
    exits: dict[str, int] = {}
    for group in groups:
        key, count = group["_id"], group["count"]
        _add(states, key["state"], count)
        _add(queues.setdefault(key["queue"], {}), key["state"], count)
        if key.get("exit_status"):
            _add(exits, key["exit_status"], count)
    return {
        "total": sum(states.values()),
        "states": states,
        "queues": queues,
        "exit_statuses": exits,
        "rates": {
            "submitted_per_minute": sum(group["submitted"] for group in groups),
            "ended_per_minute": sum(group["ended"] for group in groups),
        },
    }


def measure_tasks(reader: Reader, where: Mapping[str, Any]) -> Document:
    """How long the newest ended tasks waited and ran, and what memory they took: min, median, p95, max."""
    seconds = {"$divide": [{"$subtract": ["$time_started", "$time_available"]}, 1000]}
    ran = {"$divide": [{"$subtract": ["$time_terminated", "$time_started"]}, 1000]}
    rows = reader.aggregate(
        "tasks",
        [
            {
                "$match": {
                    "$and": [dict(where), {"time_started": {"$type": "date"}, "time_terminated": {"$type": "date"}}]
                }
            },
            {"$sort": {"_id": -1}},
            {"$limit": NEWEST},
            {"$project": {"_id": 0, "wait": seconds, "run": ran, "peak": "$peak_memory_bytes"}},
        ],
    )
    return {
        "wait_seconds": summary([row["wait"] for row in rows if row.get("wait") is not None]),
        "run_seconds": summary([row["run"] for row in rows if row.get("run") is not None]),
        "peak_memory_bytes": summary([row["peak"] for row in rows if row.get("peak") is not None]),
    }


def count_workers(reader: Reader) -> dict[str, int]:
    """How many workers there are by state."""
    groups = reader.aggregate("workers", [{"$group": {"_id": "$state", "count": {"$sum": 1}}}])
    return {group["_id"]: group["count"] for group in groups}


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """The least, the middle, the 95th percentile and the greatest of some values; None of each when there are none."""
    if not values:
        return dict.fromkeys(("min", "median", "p95", "max"))
    ordered = sorted(values)
    last = len(ordered) - 1
    middle = (ordered[last // 2] + ordered[(last + 1) // 2]) / 2
    return {"min": ordered[0], "median": middle, "p95": ordered[round(0.95 * last)], "max": ordered[-1]}


def _add(counts: dict[str, int], name: str, count: int) -> None:
    counts[name] = counts.get(name, 0) + count
