"""Claims: a worker requests tasks, and waits here until there are tasks, or news of the tasks that it holds."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer
from banyan.domain.resources import Resources
from banyan.domain.roles import Role
from banyan.domain.task import WORKER_UNREACHABLE, State
from banyan.errors import Conflict
from banyan.queue.actor import Actor
from banyan.queue.choose import Ahead, Wanted
from banyan.queue.context import Context
from banyan.queue.grant import GRANTED, attempt, grant
from banyan.queue.hub import Waiter
from banyan.queue.inputs import Resolved, resolve
from banyan.queue.recall import take_over
from banyan.queue.register import owned_worker
from banyan.queue.report import give_back, lose
from banyan.storage.tasks import Holding
from banyan.storage.workers import ACTIVE, ALIVE, DRAINING, QUARANTINED

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One claim: `request` identifies it, so that a repetition gets the same response.

    `unanswered` are earlier claims whose responses may still be on their way.
    """

    request: str
    free: Resources
    max_tasks: int
    held: frozenset[ObjectId] = frozenset()
    cancelling: frozenset[ObjectId] = frozenset()
    unanswered: frozenset[str] = frozenset()
    draining: bool = False
    """True if the worker drains by itself: it finishes its tasks and takes no new ones."""
    number: int | None = None
    """The sequence number of the worker's claims, so that a delayed claim is not mistaken for the newest."""
    wait_seconds: float = 0.0
    ahead: Ahead | None = None
    """The work that may wait at the worker as well."""
    forgotten: Sequence[str] = ()
    """Directories that the worker has removed on request."""
    listening: Callable[[], bool] = lambda: True
    """Returns whether the client still waits for the response: a worker that was killed is granted nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """The response: new tasks, attempts to cancel, attempts to give back if they have not begun, and more."""

    tasks: Sequence[Document] = ()
    cancel: Sequence[ObjectId] = ()
    take_back: Sequence[ObjectId] = ()
    drain: bool = False
    forget: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.cancel or self.take_back or self.drain or self.forget)


def claim(context: Context, worker_id: ObjectId, ask: Ask, actor: Actor | None = None) -> News:
    """Renew the worker's lease, take back attempts that it does not know, and grant it tasks or wait for some.

    Raises `Conflict` if the worker is lost or gone: it must stop all that it holds and register anew; `NotFound` if it
    is unknown, and `Forbidden` if the worker is not the `actor`'s.
    """
    waiter = Waiter(worker_id)
    context.hub.enter(waiter)
    try:
        return _claim(context, ask, waiter, actor)
    finally:
        context.hub.leave(waiter)


def _claim(context: Context, ask: Ask, waiter: Waiter, actor: Actor | None) -> News:
    """Handle the claim after it has entered the hub, where a newer claim of the worker finds and wakes it."""
    worker_id = waiter.worker
    worker = _enter(context, worker_id, ask, actor)
    if worker is None:
        return News()
    context.storage.forget.done(worker, ask.forgotten)
    # An older claim may wait here, or at another server if the worker has not received its response.
    context.hub.worker(worker_id, but=waiter, everywhere=bool(ask.unanswered))
    idle = context.quiet.holds_nothing(worker_id, worker.get("claim_request"), ask.request)
    held = {} if idle else context.storage.tasks.holdings(worker_id)
    replayed, on_their_way = _sort_out(context, worker, ask, held)
    if replayed:
        return News(tasks=replayed)
    if on_their_way:
        ask = _without(context, ask, on_their_way)
    news = _wait(context, worker, ask, waiter, _news(context, worker, ask, held))
    context.quiet.note(worker_id, ask.request, holds_nothing=not held and not news.tasks)
    return news


def _wait(context: Context, worker: Document, ask: Ask, waiter: Waiter, news: News) -> News:
    """Respond when there is news or a task, when the time is up, or (with nothing) when a newer claim has arrived."""
    deadline = time.monotonic() + min(ask.wait_seconds, context.settings.leases.heartbeat)
    while True:
        waiter.accepts, waiter.lines_up = _could_take(context, worker, ask)
        if not ask.listening():
            context.hub.leave(waiter)
            return News()
        granted = _granted(context, worker, ask)
        left = deadline - time.monotonic()
        if granted or news or left <= 0 or context.hub.closed:
            if granted:
                waiter.looking = None
            context.hub.decline(waiter)
            return replace(news, tasks=granted)
        asked = _look_elsewhere(context, worker, ask, waiter)
        called = waiter.wait(min(left, _ANSWERED_SECONDS) if asked else left)
        if called is None and asked:
            continue
        if called is None:
            return News()  # an event has woken it, or else is found by the next claim, which comes at once
        current = context.storage.workers.load(worker["_id"])
        if current is None or current.get("claim_request") != ask.request or current["state"] not in ALIVE:
            context.hub.leave(waiter)
            return News()
        worker = current
        if called:
            news = _news(context, worker, ask, context.storage.tasks.holdings(worker["_id"]))


_ANSWERED_SECONDS = 0.5
"""The time within which other workers respond to a recall."""


def _look_elsewhere(context: Context, worker: Document, ask: Ask, waiter: Waiter) -> bool:
    """Pass on the wake-up of this claim when it can take no task, and recall tasks that wait at other workers.

    Returns whether a worker received a recall.
    """
    woken = waiter.looking is not None
    context.hub.decline(waiter)
    if worker["state"] != ACTIVE or ask.max_tasks == 0 or not (woken or context.quiet.may_wait_elsewhere()):
        return False
    return take_over(context, worker, ask.free, ask.max_tasks)


def _could_take(
    context: Context, worker: Document, ask: Ask
) -> tuple[Callable[[str], bool], Callable[[str, float], bool]]:
    """Predicates on class keys: could this claim start such a task, and could one of this priority wait at the worker?

    A class that is not known yet is accepted.
    """
    offer, ahead = Offer.of(worker), ask.ahead
    active = worker["state"] == ACTIVE

    def could_start(key: str) -> bool:
        if not active or ask.max_tasks == 0:
            return False
        known = context.classes.known(key)
        return known is None or (offer.accepts(known) and known.least.fits(ask.free))

    def could_wait(key: str, priority: float) -> bool:
        if not active or ahead is None:
            return False
        known = context.classes.known(key)
        if known is None:
            return True
        place = ahead.line(context.weights).place(known.queue, priority, _LAST)
        return place.seconds < ahead.seconds and offer.accepts(known) and known.least.fits(ahead.soon)

    return could_start, could_wait


_LAST = "~"
"""A sort key after all tasks of the same priority."""


def _enter(context: Context, worker_id: ObjectId, ask: Ask, actor: Actor | None) -> Document | None:
    """Renew the lease and become the newest claim; return the worker as it was before, None if a later claim came."""
    now = context.now()
    fields: Document = {"claim_request": ask.request, "free": ask.free.to_document(), "held_count": len(ask.held)}
    fields["waiting_seconds"] = ask.ahead.waiting_seconds if ask.ahead else 0.0
    if ask.draining:
        fields["drain_told"] = ask.request
    owner = None if actor is None or actor.role == Role.ADMIN else actor.name
    worker = context.storage.workers.renew(worker_id, now, fields, ask.number, owner)
    if worker is None and actor is not None:
        owned_worker(context, worker_id, actor)  # it raises the error, unless the cause is the state or the number
    if worker is not None and ask.draining and worker["state"] == ACTIVE:
        context.storage.workers.move(worker_id, DRAINING, now)
        worker = context.storage.workers.renew(worker_id, now, fields, ask.number)
    if worker is None and context.storage.workers.renew(worker_id, now) is None:
        raise Conflict(f"worker {worker_id} is lost, gone or unknown; stop what it holds and register anew")
    return worker


def _sort_out(
    context: Context, worker: Document, ask: Ask, held: Mapping[ObjectId, Holding]
) -> tuple[list[Document], list[ObjectId]]:
    """Take back grants of earlier responses that the worker can no longer receive.

    Returns the grants that this request received before, and the tasks whose grants are on their way.
    """
    unheard = {execution: holding for execution, holding in held.items() if execution not in ask.held}
    if not unheard:
        return [], []
    tasks = context.storage.tasks.of_attempts(worker["_id"], unheard)
    on_their_way: list[ObjectId] = []
    unknown: dict[ObjectId, ObjectId] = {}
    granted: list[ObjectId] = []
    for execution, task in tasks.items():
        request = unheard[execution].claim_request
        if request == ask.request:
            granted.append(task)
        elif request in ask.unanswered:
            on_their_way.append(task)
        else:
            unknown[execution] = task
    if unknown:
        started = give_back(context, unknown)
        lose(context, started, WORKER_UNREACHABLE)
    return replay(context, worker, granted) if granted else [], on_their_way


def _without(context: Context, ask: Ask, tasks: Sequence[ObjectId]) -> Ask:
    """The claim with fewer free resources: those of tasks whose grants are on their way are subtracted."""
    free = ask.free
    for task in context.storage.tasks.documents(tasks, ["requested_resources"]).values():
        free = free.minus(Resources.from_document(task.get("requested_resources") or {}))
    return replace(ask, free=free)


def replay(context: Context, worker: Document, granted: Sequence[ObjectId]) -> list[Document]:
    """The grants of a request whose response was lost; their attempts are recorded if that was interrupted."""
    running = [d for d in context.storage.tasks.documents(granted).values() if d["state"] == State.RUNNING]
    recorded = context.storage.executions.load(document["execution"] for document in running)
    missing = [attempt(document, worker) for document in running if document["execution"] not in recorded]
    context.storage.executions.begin(missing)
    return grants_of(context, running)


def _news(context: Context, worker: Document, ask: Ask, held: Mapping[ObjectId, Holding]) -> News:
    """The news for the worker besides tasks."""
    cancel = [
        execution
        for execution, holding in held.items()
        if holding.state == State.PENDING_CANCELLATION and execution not in ask.cancelling
    ]
    take_back = [execution for execution, holding in held.items() if holding.recalled and execution in ask.held]
    stopped = worker["state"] in (DRAINING, QUARANTINED) and not ask.draining  # otherwise it knows already
    drain = stopped and _tell_drain(context, worker, ask)
    forget = context.storage.forget.tell(worker, context.now())
    return News(cancel=cancel, take_back=take_back, drain=drain, forget=forget)


def _granted(context: Context, worker: Document, ask: Ask) -> list[Document]:
    if worker["state"] != ACTIVE or (ask.max_tasks <= 0 and ask.ahead is None):
        return []
    wanted = Wanted(
        worker=worker,
        offer=Offer.of(worker),
        free=ask.free,
        max_tasks=ask.max_tasks,
        ahead=ask.ahead,
        request=ask.request,
        timeout_seconds=_seconds_left(worker, context.now()),
        patient=ask.wait_seconds > 0,
    )
    return grants_of(context, grant(context, wanted))


def _tell_drain(context: Context, worker: Document, ask: Ask) -> bool:
    """Return whether the response must report the drain: it is reported once, and again if the request is repeated."""
    if worker.get("drain_told") is not None:
        return bool(worker["drain_told"] == ask.request)
    context.storage.workers.renew(worker["_id"], context.now(), {"drain_told": ask.request})
    return True


def _seconds_left(worker: Document, now: datetime) -> float | None:
    until = worker.get("available_until")
    return None if until is None else float((until - now).total_seconds())


_SENT = tuple(
    name for name in GRANTED if name not in ("state", "attempt_count", "task_class", "input_refs", "time_claimed")
)
"""The fields of a task that are sent to the worker unchanged."""


def grants_of(context: Context, documents: Sequence[Document]) -> list[Document]:
    """The grants that are sent to the worker, with the attempts' tokens.

    `inputs` include the results of parents; where a result is missing, `input_error` names it.
    """
    inputs = resolve(context, documents)
    return [_grant_of(context, document, inputs.get(document["_id"])) for document in documents]


def _grant_of(context: Context, document: Document, inputs: Resolved | None) -> Document:
    granted = {name: document[name] for name in _SENT if document.get(name) is not None}
    if not document["priority"]:
        del granted["priority"]
    if inputs is not None:
        granted |= {"inputs": inputs.inputs} if inputs.error is None else {"input_error": inputs.error}
    granted["attempt"] = document["attempt_count"]
    granted["class"] = document["task_class"]
    if document.get("weight", 1.0) != 1.0:
        granted["weight"] = document["weight"]
    granted["token"] = context.storage.meta.attempt_token(document["execution"])
    return granted
