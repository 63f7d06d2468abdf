"""`/statistics`: the state of the whole queue, or of the tasks that match a filter, in one answer."""

from typing import Any

from flask import request

from banyan.api.context import context
from banyan.api.data import both, reader, visible
from banyan.api.query import Filter, parse_where
from banyan.api.routes import route
from banyan.storage.statistics import count_tasks, count_workers, measure_tasks

Document = dict[str, Any]


@route(
    "GET",
    "/statistics",
    query={"where": "a filter on tasks"},
    summary="Counts, waits, run times, memory and rates of tasks, and the workers by state",
)
def statistics() -> Document:
    """Counts of all matching tasks; distributions over the newest 100,000 of them that ran and ended.

    Without a filter the distributions are those of the newest 10,000 that have ended, as far as they ran. `measured` is
    the number of tasks behind them.
    """
    return figures(both(parse_where("tasks", request.args.get("where")), visible("tasks")))


def figures(where: Filter) -> Document:
    """All counts and measures of the tasks that match an already checked filter."""
    counts = count_tasks(reader(), where, context().now())
    return {**counts, **measure_tasks(reader(), where), "workers": count_workers(reader())}
