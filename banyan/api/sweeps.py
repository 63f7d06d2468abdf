"""`/sweeps`: post, cancel, retry, delete many tasks as one. Reading is Eve's; see also `sweep_results`."""

from typing import Any

from bson import ObjectId

from banyan.api import idempotency
from banyan.api.context import actor, context
from banyan.api.data import both, reader, visible
from banyan.api.queues import if_match
from banyan.api.routes import ADMIN, PROVIDER, route
from banyan.api.schema.sweeps import NEW_SWEEP
from banyan.api.statistics import figures
from banyan.api.steering import DRY_RUN, RETRY, descendants, single_options
from banyan.api.sweep_plan import plan_of
from banyan.api.tasks import refused
from banyan.errors import NotFound
from banyan.queue.sweep import cancel, delete_sweep, make, owned_sweep
from banyan.queue.sweep_retry import retry_sweep
from banyan.storage.sweep_reading import progress_of
from banyan.storage.sweeps import points_of

Document = dict[str, Any]

STEERS = (PROVIDER, ADMIN)
_ANSWERED = ("_id", "_etag", "_created", "_updated", "count", "barrier")
_NAMED = 1000
"""The most refused tasks that a response names."""


@route("POST", "/sweeps", roles=STEERS, body=NEW_SWEEP, summary="Make many tasks of one request", status=201)
def add_sweep(body: Document) -> Document:
    """The sweep's id, the number of its points, and its barrier; all tasks are made, or none."""

    def answered(made: list[Document]) -> Document:
        sweep = made[0]
        answer = {"_status": "OK", **{name: sweep[name] for name in _ANSWERED if name in sweep}}
        return answer | ({"seed": sweep["samples"]["seed"]} if "samples" in sweep else {})

    return answered([make(context(), plan_of(body), actor(), idempotency.recorder(201, answered))])


@route("POST", "/sweeps/<objectid:sweep_id>/cancel", roles=STEERS, summary="Cancel a sweep with its barrier")
def cancel_sweep(sweep_id: ObjectId) -> Document:
    """The number of points that were cancelled, or requested to end; those that have ended stay as they are."""
    sweep = _owned(sweep_id)
    cancelled = cancel(context(), sweep, {"user": actor().name})
    return {"_status": "OK", "_id": sweep_id, "cancelled": cancelled, "progress": _progress(sweep_id)}


@route(
    "POST",
    "/sweeps/<objectid:sweep_id>/retry",
    roles=STEERS,
    summary="Retry the tasks of a sweep that did not succeed, also with other values",
    query=DRY_RUN,
    told=tuple(RETRY),
)
def retry_failed(sweep_id: ObjectId) -> Document:
    """The number of tasks that run again, and the refusals with reasons; the barrier comes back to wait for them."""
    options = single_options()
    outcome = retry_sweep(context(), _owned(sweep_id), options)
    named = list(outcome.refused)[:_NAMED]
    indexes = context().storage.sweeps.indexes(named)
    return {
        "_status": "OK",
        "_id": sweep_id,
        "retried": outcome.retried,
        "refused": len(outcome.refused),
        "_items": [{**refused(outcome.refused[id], id), "index": indexes.get(id)} for id in named],
        "descendants": descendants(outcome),
        "progress": _progress(sweep_id),
        **({"dry_run": True} if options.dry_run else {}),
    }


@route("DELETE", "/sweeps/<objectid:sweep_id>", roles=STEERS, summary="Delete a sweep that has ended")
def remove_sweep(sweep_id: ObjectId) -> Document:
    """The number of deleted tasks; their histories, samples and files are deleted as well."""
    return {"_status": "OK", "_id": sweep_id, "deleted": delete_sweep(context(), _owned(sweep_id))}


@route(
    "GET",
    "/sweeps/<objectid:sweep_id>/statistics",
    summary="Counts, waits, run times, memory and rates of a sweep's tasks",
)
def sweep_statistics(sweep_id: ObjectId) -> Document:
    """The same as `/statistics` for these tasks."""
    readable_sweep(sweep_id)
    return figures(points_of(sweep_id))


def readable_sweep(sweep_id: ObjectId) -> Document:
    """The stored sweep, if the user may read it; raises `NotFound`."""
    sweep = reader().one("sweeps", both({"_id": sweep_id}, visible("sweeps")))
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id}")
    return sweep


def _owned(sweep_id: ObjectId) -> Document:
    """The stored sweep, if the user may change it and it is at the revision that the request names."""
    wanted = if_match()
    revision = None if wanted is None else wanted.partition("-")[0]  # the part after the dash belongs to its progress
    return owned_sweep(context(), sweep_id, actor(), revision)


def _progress(sweep_id: ObjectId) -> Document | None:
    return progress_of(reader(), [sweep_id]).get(sweep_id)
