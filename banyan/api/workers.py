"""`/workers`: register, claim, report, drain, leave. Reading is Eve's."""

import select
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from socket import socket
from typing import Any

from bson import ObjectId
from flask import request

from banyan.api.bodies import read_bytes, read_object
from banyan.api.context import actor, context
from banyan.api.routes import ADMIN, WORKER, route
from banyan.api.schema.reports import REPORT, SAMPLE
from banyan.api.schema.workers import CLAIM, LEAVING, REGISTRATION
from banyan.api.validation import Checker, check_count, validated
from banyan.domain.exit_status import exact
from banyan.domain.line import Waiting
from banyan.domain.resources import Resources
from banyan.errors import BadRequest, Conflict, Invalid
from banyan.queue import register as registering
from banyan.queue.choose import Ahead
from banyan.queue.claim import Ask, claim
from banyan.queue.report import Report, records_of, report_together
from banyan.wire import MAX_RESULT_BYTES, dumps, parse_date

Document = dict[str, Any]

WORKS = (WORKER, ADMIN)
_STATE = ("state",)

_reports = Checker(REPORT)
_samples = Checker(SAMPLE)
_NOT_KEPT = frozenset({"execution", "token", "task", "given_back", "exit_status"})
_TIMES = ("time_started", "time_terminated")
_MOST_AHEAD = 128
"""The number of tasks that are granted ahead to a worker that names no limit."""
_RENEWALS = 40
"""The most renewals of a lease by reports within its time."""


@route(
    "POST",
    "/workers",
    roles=WORKS,
    summary="Register a worker",
    body=REGISTRATION,
    status=201,
    told=("name", "host", "pid", "version", "replaces"),
)
def add_worker(body: Document) -> Document:
    """Its id, its lease, and the way of its files to the server."""
    given = {name: value for name, value in body.items() if value is not None}
    given.setdefault("host", "unknown")
    return {"_status": "OK", **registering.register(context(), given, actor())}


@route(
    "POST",
    "/workers/<objectid:worker_id>/claim",
    roles=WORKS,
    summary="Claim tasks, and wait for some",
    body=CLAIM,
    repeatable=True,
    quiet=True,
)
def claim_tasks(worker_id: ObjectId, body: Document) -> Document:
    """New tasks, attempts to cancel, a request to drain, directories to remove."""
    ask = Ask(
        request=body["request"],
        free=Resources.from_document(body["resources"]),
        max_tasks=body["max_tasks"],
        held=frozenset(body.get("held") or ()),
        cancelling=frozenset(body.get("cancelling") or ()),
        unanswered=frozenset(body.get("unanswered") or ()),
        number=body.get("number"),
        draining=bool(body.get("draining")),
        wait_seconds=float(body.get("wait") or 0),
        ahead=_ahead(body),
        forgotten=body.get("forgotten") or (),
        listening=partial(_is_connected, request.environ.get("gunicorn.socket")),
    )
    news = claim(context(), worker_id, ask, actor())
    told = {"tasks": news.tasks, "cancel": news.cancel, "drain": news.drain, "forget": news.forget}
    return told | ({"take_back": news.take_back} if news.take_back else {})


def _ahead(body: Document) -> Ahead | None:
    """The work that may wait at the worker, and the tasks that wait there."""
    asked = body.get("ahead")
    if not asked:
        return None
    waiting = {
        queue: Waiting(turn=there["turn"], seconds=there["seconds"], tasks=[tuple(each) for each in there["tasks"]])
        for queue, there in (body.get("waiting") or {}).items()
    }
    return Ahead(
        seconds=asked["seconds"],
        most=asked.get("most", _MOST_AHEAD),
        classes=asked.get("classes") or {},
        other=asked.get("other"),
        soon=Resources.from_document(asked.get("resources") or body["resources"]),
        turn=body.get("turn", 0.0),
        turns=body.get("turns") or {},
        waiting=waiting,
    )


def _is_connected(connection: socket | None) -> bool:
    """Return whether the client has not closed its connection; True where this cannot be known."""
    if connection is None:
        return True
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return not poll.poll(0)


@route(
    "POST",
    "/workers/<objectid:worker_id>/report",
    roles=WORKS,
    summary="Report on attempts",
    repeatable=True,
    quiet=True,
)
def report_attempts(worker_id: ObjectId) -> Document:
    """The accepted and the stale reports, attempts to cancel, directories to remove."""
    worker = registering.owned_worker(context(), worker_id, actor())
    body = read_object()
    skew = _skew(body)
    said = [_said(each, skew) for each in _checked(_reports, body, "reports")]
    seen = _checked(_samples, body, "memory_usage")
    wrong = {each["execution"] for each in said if not _token_fits(each)}
    reports = [_report(each) for each in said if each["execution"] not in wrong]
    records = records_of(context(), {each["execution"] for each in (*said, *seen)})
    samples = _known(seen, skew, records)
    _hear_of(worker)
    answer = report_together(context(), reports, records)
    context().storage.memory.add(samples, context().now())
    return {
        "accepted": answer.accepted,
        "stale": [*answer.stale, *wrong],
        **_to_end(worker_id),
        "forget": context().storage.forget.tell(worker, context().now()),
    }


def _to_end(worker_id: ObjectId) -> Document:
    """The attempts that the worker must end, and those that it must give back if it has not begun them."""
    cancel, take_back = context().storage.tasks.to_end(worker_id)
    return {"cancel": cancel} | ({"take_back": take_back} if take_back else {})


def _hear_of(worker: Document) -> None:
    """Renew the worker's lease, unless it was renewed a moment ago."""
    now, lost_after = context().now(), context().settings.leases.lost_after
    if now - worker["last_seen"] >= timedelta(seconds=lost_after / _RENEWALS):
        context().storage.workers.renew(worker["_id"], now)


def _checked(checker: Checker, body: Document, name: str) -> list[Document]:
    items = body.get(name, [])
    if not isinstance(items, list):
        raise BadRequest(f"{name} must be a list")
    check_count(items, context().settings.limits.max_list_items)
    documents, faults = checker.new(items)
    if any(faults):
        raise Invalid({name: list(faults)})
    return documents


def _skew(body: Document) -> timedelta:
    """The offset of the worker's clock from ours: the time by which it is behind."""
    unknown = sorted(body.keys() - {"time", "reports", "memory_usage"})
    if unknown:
        raise Invalid(dict.fromkeys(unknown, "unknown field"))
    if body.get("time") is None:
        return timedelta(0)
    try:
        return context().now() - parse_date(body["time"])
    except ValueError as error:
        raise Invalid({"time": str(error)}) from error


def _said(given: Document, skew: timedelta) -> Document:
    for name in _TIMES:
        if given.get(name) is not None:
            given[name] = corrected(given[name], skew)
    return given


def corrected(time: datetime, skew: timedelta) -> datetime:
    """A worker's time by MongoDB's clock; small differences come from the network, and are left."""
    moved = time.astimezone(UTC) + skew if abs(skew) > timedelta(seconds=2) else time.astimezone(UTC)
    return moved.replace(microsecond=moved.microsecond // 1000 * 1000)


def _token_fits(given: Document) -> bool:
    return context().storage.meta.token_matches(given["execution"], given["token"])


def check_result(result: Any) -> None:
    """Raise `Invalid` for a result that is too large to be stored in the task."""
    most = 2 * MAX_RESULT_BYTES  # some room for the form in which it is written
    if result is not None and len(dumps(result)) > most:
        text = f"it has more than {most} bytes; leave it in a file of the work directory (result_file)"
        raise Invalid({"result": text})


def kept_exit_status(said: Document) -> str | None:
    """The exit status of an attempt as it is stored."""
    exit_status = said.get("exit_status")
    return None if exit_status is None else exact(exit_status, said.get("exit_code"), said.get("signal"))


def _report(given: Document) -> Report:
    fields = {name: value for name, value in given.items() if name not in _NOT_KEPT and value is not None}
    check_result(fields.get("result"))
    return Report(
        execution=given["execution"],
        fields=fields,
        exit_status=kept_exit_status(given),
        given_back=given["given_back"],
    )


def _known(samples: list[Document], skew: timedelta, known: Mapping[ObjectId, Document]) -> list[Document]:
    """The samples of attempts that exist, as they are to be stored; samples of deleted tasks are dropped."""
    return [
        {**sample, "time": corrected(sample["time"], skew), "owner": known[sample["execution"]]["owner"]}
        for sample in samples
        if sample["execution"] in known and known[sample["execution"]]["task"] == sample["task"]
    ]


@route(
    "PATCH", "/workers/<objectid:worker_id>", roles=(ADMIN,), summary="Drain a worker, or reactivate it", told=_STATE
)
def change_worker(worker_id: ObjectId) -> Document:
    """The changed worker."""
    body = read_object()
    unknown = sorted(body.keys() - {"state"})
    if unknown or not isinstance(body.get("state"), str):
        faults: dict[str, object] = dict.fromkeys(unknown, "cannot be changed")
        raise Invalid(faults or {"state": "send 'draining' or 'active'"})
    registering.change_state(context(), worker_id, body["state"])
    return {"_status": "OK", "_id": worker_id, "state": body["state"]}


@route("DELETE", "/workers/<objectid:worker_id>", roles=WORKS, summary="Remove a worker; its attempts are lost")
def remove_worker(worker_id: ObjectId) -> Document:
    """The worker's id is never used again.

    A body `{"finished": [execution ids]}` names attempts whose ends will still be reported.
    """
    body = validated(LEAVING, read_object() if read_bytes() else {})
    worker = registering.owned_worker(context(), worker_id, actor())
    if worker["state"] == "gone":
        raise Conflict(f"worker {worker_id} is gone already")
    registering.leave(context(), worker_id, body.get("finished") or ())
    return {"_status": "OK", "_id": worker_id, "state": "gone"}
