"""Cancellation and retry, of one task, of listed tasks, or of all that match a filter."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from bson import ObjectId

from banyan.api import audit
from banyan.api.bodies import read_bytes, read_object
from banyan.api.context import actor, context
from banyan.api.queues import if_match
from banyan.api.routes import ADMIN, PROVIDER, route
from banyan.api.schema.kinds import Rules, flag, free, identifiers
from banyan.api.schema.tasks import DOWNSTREAM
from banyan.api.tasks import flagged, own_ids, refused, shown, wanted
from banyan.api.validation import check_count, validated
from banyan.domain.task import ENDED, State
from banyan.errors import BanyanError, Invalid, NotFound
from banyan.queue.cancel import cancel
from banyan.queue.retry import BATCH, Outcome, retry, retry_all
from banyan.queue.retry_options import Downstream, RetryOptions
from banyan.queue.update import Update, existing, owned

Document = dict[str, Any]

STEERS = (PROVIDER, ADMIN)
_NAMED = 1000
"""The most descendants or refusals that a response names."""

RETRY: dict[str, Rules] = {
    "downstream": DOWNSTREAM,
    "without": identifiers(),
    "dry_run": flag(default=False),
}
"""The fields of a retry besides fields of the task."""
WHICH: dict[str, Rules] = {"ids": identifiers(), "where": free(), "dry_run": flag(default=False)}
MANY_RETRIES: dict[str, Rules] = {**WHICH, **RETRY, "changes": free()}
DRY_RUN = {"dry_run": "true only reports the outcome, and changes nothing"}


@route("POST", "/tasks/<objectid:task_id>/cancel", roles=STEERS, summary="Cancel a task and what waits for it")
def cancel_task(task_id: ObjectId) -> Document:
    """The task after the cancellation; one that has ended stays as it is."""
    owned(context(), task_id, actor(), if_match())
    cancel(context(), [task_id], {"user": actor().name})
    return shown(existing(context(), task_id))


@route(
    "POST",
    "/tasks/<objectid:task_id>/retry",
    roles=STEERS,
    summary="Run an ended task again, also with other values",
    query=DRY_RUN,
    told=tuple(RETRY),
)
def retry_task(task_id: ObjectId) -> Document:
    """The task after the retry, and the descendants that begin again or stay."""
    options = single_options()
    owned(context(), task_id, actor(), if_match())
    outcome = retry(context(), task_id, options)
    answer = shown(existing(context(), task_id)) | {"descendants": descendants(outcome)}
    if options.dry_run:
        answer |= {"dry_run": True, "becomes": outcome.again[task_id]}
    return answer


@route("POST", "/tasks/cancel", roles=STEERS, body=WHICH, summary="Cancel many tasks, by ids or by a filter")
def cancel_many(body: Document) -> Document:
    """The numbers of tasks that matched and were cancelled, or requested to end; for `ids` an item for each."""

    def act(ids: Sequence[ObjectId]) -> set[ObjectId]:
        going_on = {id for id, task in context().storage.tasks.load(ids).items() if _can_be_cancelled(task.state)}
        if body["dry_run"]:
            return going_on
        return set(cancel(context(), ids, {"user": actor().name}).changed)

    ids, faults = _chosen(body)
    changed = {id for start in range(0, len(ids), BATCH) for id in act(ids[start : start + BATCH])}
    counts = {"matched": len(ids) + len(faults), "cancelled": len(changed), "refused": len(faults)}
    return _answer(body, counts, ids, faults)


@route("POST", "/tasks/retry", roles=STEERS, body=MANY_RETRIES, summary="Retry many tasks, by ids or by a filter")
def retry_many(body: Document) -> Document:
    """The numbers of tasks that matched, begin again and cannot; for `ids` an item for each, else for each refusal."""
    options = _options(body, body.get("changes") or {}, dry_run=body["dry_run"])
    ids, faults = _chosen(body)
    outcome = retry_all(context(), ids, options)
    faults |= outcome.refused
    counts = {"matched": len(ids) + len(faults) - len(outcome.refused), "retried": outcome.retried}
    counts |= {"refused": len(faults)}
    return _answer(body, counts, ids, faults) | {"descendants": descendants(outcome)}


def single_options() -> RetryOptions:
    """The options in the body of a retry of one task, or of one sweep; the body may be missing."""
    body = read_object() if read_bytes() else {}
    asked = validated(RETRY, {name: value for name, value in body.items() if name in RETRY})
    changes = {name: value for name, value in body.items() if name not in RETRY}
    return _options(asked, changes, dry_run=asked["dry_run"] or flagged("dry_run"))


def _options(asked: Document, changes: Document, *, dry_run: bool) -> RetryOptions:
    return RetryOptions(
        downstream=Downstream(asked["downstream"]),
        without=frozenset(asked.get("without") or ()),
        changes=_changes(changes),
        actor=actor(),
        dry_run=dry_run,
    )


def _changes(fields: Document) -> Update:
    """New values for tasks that are retried: of fields that may change while a task is inactive, except its edges."""
    update = wanted(fields)
    if update.state is not None:
        raise Invalid({"state": "a retry sets it; add 'hold': true to keep the task back"})
    if update.edits_edges:
        raise Invalid({"continuations": "a retry leaves them as they are; change them while the task is inactive"})
    return update


def descendants(outcome: Outcome) -> Document:
    """The numbers of other tasks that begin again or stay as they are, and the first thousand of them."""
    again = {id: state for id, state in outcome.again.items() if id not in outcome.roots}
    items: list[Document] = [{"_id": id, "becomes": state} for id, state in list(again.items())[:_NAMED]]
    items += [{"_id": id, "kept": why} for id, why in list(outcome.kept.items())[: _NAMED - len(items)]]
    return {"again": len(again), "kept": len(outcome.kept), "_items": items}


def _chosen(body: Document) -> tuple[list[ObjectId], dict[ObjectId, BanyanError]]:
    """The tasks that a body names and the user may change, and the refusals of the others."""
    if ("ids" in body) == ("where" in body):
        raise Invalid({"ids": "name the tasks by 'ids' or choose them by 'where', one of the two"})
    if "where" in body:
        return own_ids(json.dumps(body["where"])), {}
    ids: list[ObjectId] = body["ids"]
    check_count(ids, context().settings.limits.max_list_items)
    found = context().storage.tasks.load(ids)
    faults: dict[ObjectId, BanyanError] = {}
    for id in ids:
        try:
            if id not in found:
                raise NotFound(f"there is no task {id}")
            actor().must_own(found[id].owner, f"task {id}")
        except BanyanError as error:
            faults[id] = error
    audit.touches(id for id in ids if id not in faults)
    return [id for id in ids if id not in faults], faults


def _can_be_cancelled(state: State) -> bool:
    return state not in ENDED and state != State.PENDING_CANCELLATION


def _answer(body: Document, counts: Document, ids: Iterable[ObjectId], faults: dict[ObjectId, BanyanError]) -> Document:
    named: Iterable[ObjectId] = body["ids"] if "ids" in body else list(faults)[:_NAMED]
    tasks = context().storage.tasks.load(ids if "ids" in body else ())
    items = [
        refused(faults[id], id) if id in faults else {"_status": "OK", "_id": id, "state": tasks[id].state}
        for id in named
        if id in faults or id in tasks
    ]
    told = {"dry_run": True} if body["dry_run"] else {}
    return {"_status": "OK", **counts, **told, "_items": items}
