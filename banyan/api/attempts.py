"""`update_execution_data`: claims and reports of one task by hand, with the attempt's token as the key."""

from collections.abc import Collection
from typing import Any

from bson import ObjectId

from banyan.api import audit
from banyan.api.bodies import read_object
from banyan.api.context import actor, context
from banyan.api.routes import ADMIN, WORKER, route
from banyan.api.schema.reports import CURL_DATA
from banyan.api.validation import validated
from banyan.api.workers import check_result, kept_exit_status
from banyan.errors import Forbidden, IllegalTransition, Invalid, StaleAttempt
from banyan.queue.claim import grants_of
from banyan.queue.grant import claim_one
from banyan.queue.register import owned_worker
from banyan.queue.report import Report, report
from banyan.queue.update import existing

Document = dict[str, Any]

WORKS = (WORKER, ADMIN)
_ENDS = ("terminated", "cancelled")


@route(
    ["POST", "PATCH"],
    "/tasks/<objectid:task_id>/update_execution_data",
    roles=WORKS,
    summary="Write into the record of a task's attempt; needs the attempt's token",
)
def update_execution_data(task_id: ObjectId) -> Document:
    """The changed task."""
    return write_execution_data(task_id, {"update_execution_data": read_object()})


def write_execution_data(task_id: ObjectId, body: Document) -> Document:
    """Perform a worker's request for one task: claim it, report on its attempt, end it, give it back.

    Raises `Forbidden` for a provider.
    """
    audit.stay_quiet()
    if actor().role not in WORKS:
        raise Forbidden("an attempt is claimed and reported by workers; update_execution_data is not for providers")
    unknown = sorted(body.keys() - {"state", "update_execution_data"})
    if unknown:
        raise Invalid(dict.fromkeys(unknown, "cannot be changed together with update_execution_data"))
    state = body.get("state")
    try:
        data = validated(CURL_DATA, body["update_execution_data"])
    except Invalid as error:
        raise Invalid({"update_execution_data": error.issues}) from error
    if state == "running" and data.get("worker") is not None and data.get("token") is None:
        _refuse_others(data, {"worker"}, "is reported after the claim, with the token of the attempt")
        return _claim(task_id, data["worker"])
    return _report(task_id, state, data)


def _refuse_others(data: Document, allowed: Collection[str], reason: str) -> None:
    """Raise `Invalid` for additional fields, which would be ignored."""
    others = [name for name, value in data.items() if name not in allowed and value is not None]
    if others:
        raise Invalid({"update_execution_data": dict.fromkeys(others, reason)})


def _claim(task_id: ObjectId, worker_id: ObjectId) -> Document:
    owned_worker(context(), worker_id, actor())
    task = claim_one(context(), worker_id, task_id)
    (granted,) = grants_of(context(), [task])
    shown = ("execution", "token", *(("inputs", "input_error") if task.get("input_refs") else ()))
    return _answer(task_id) | {name: granted[name] for name in shown if name in granted}


def _answer(task_id: ObjectId) -> Document:
    task = existing(context(), task_id)
    return {"_status": "OK", **{name: task[name] for name in ("_id", "_etag", "_created", "_updated", "state")}}


def _report(task_id: ObjectId, state: Any, data: Document) -> Document:
    task = existing(context(), task_id)
    worker = data.pop("worker", None)
    check_result(data.get("result"))
    if data.get("time_terminated") is not None and data.get("exit_status") is None and state not in _ENDS:
        raise Invalid({"update_execution_data": {"time_terminated": "only an end has it; send 'exit_status' too"}})
    token = data.pop("token", None)
    if token is None:
        raise Invalid({"update_execution_data": {"token": "the attempt's token is required"}})
    attempt = _attempt_of(task_id, token)
    execution = attempt["_id"]
    if worker is not None and worker != attempt.get("worker"):
        text = f"the attempt is worker {attempt.get('worker')}'s and stays so; another worker claims the task anew"
        raise Invalid({"update_execution_data": {"worker": text}})
    answer = report(context(), [_said(task, execution, state, data)])
    if answer.stale:
        raise StaleAttempt(f"execution {execution} is not the current attempt of task {task_id}; stop it")
    if task.get("worker") is not None and task.get("execution") == execution:
        context().storage.workers.renew(task["worker"], context().now())
    return _answer(task_id)


def _attempt_of(task_id: ObjectId, token: str) -> Document:
    for attempt in reversed(context().storage.executions.of_task(task_id)):
        if context().storage.meta.token_matches(attempt["_id"], token):
            return attempt
    raise StaleAttempt(f"this token is of no attempt of task {task_id}")


def _said(task: Document, execution: ObjectId, state: Any, data: Document) -> Report:
    exit_status = kept_exit_status(data)
    data.pop("exit_status", None)
    if state == "running" and exit_status is not None:
        text = "an attempt that runs has not ended; send 'state': 'terminated', or no state"
        raise Invalid({"update_execution_data": {"exit_status": text}})
    if state == "available":
        _refuse_others(data | {"exit_status": exit_status}, (), "an attempt that is given back has nothing to report")
        return Report(execution=execution, given_back=True)
    if state in _ENDS and exit_status is None:
        exit_status = "cancelled" if state == "cancelled" else None
        if exit_status is None:
            raise Invalid({"update_execution_data": {"exit_status": "report its end: 'success', 'failure (..)', .."}})
    if exit_status == "cancelled" and task["state"] == "running":
        text = f"task {task['_id']} is running and was not cancelled; report how it ended"
        raise IllegalTransition({"state": text})
    if state not in (None, "running", *_ENDS):
        raise IllegalTransition({"state": f"task {task['_id']} is {task['state']}; a worker cannot set it {state!r}"})
    return Report(execution=execution, fields=data, exit_status=exit_status)
