"""Changes of tasks: their fields while that is allowed, their state as the table allows, their continuations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.matching import TaskClass
from banyan.domain.task import FOR_EDIT, State, Task
from banyan.domain.transitions import Change, Due, Release, decide
from banyan.errors import Conflict, IllegalTransition, Invalid, NotFound, PreconditionFailed
from banyan.queue.actor import Actor
from banyan.queue.apply import announce
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.graph import add_edges, remove_edges
from banyan.queue.posting import POSTED, posting_faults
from banyan.queue.recall import WAIT_SECONDS, take_back
from banyan.queue.settle import promote_ready, settle
from banyan.queue.submit import check_size, unknown_queue
from banyan.storage.mongo import Session
from banyan.storage.tasks import view

Document = dict[str, Any]

ALWAYS = frozenset({"tags", "metadata"})
"""Fields that may change at any time; all others only until the task begins."""
_CLASS_FIELDS = frozenset({"queue", "requested_resources", "requires", "command", "model"})
_ROUNDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The content of a PATCH; `fields` are validated ones other than `state` and the continuations."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None
    continuations: Sequence[ObjectId] | None = None
    add: Sequence[ObjectId] = ()
    remove: Sequence[ObjectId] = ()
    check: Callable[[Mapping[str, Any]], Mapping[str, object]] = field(default=lambda document: {})
    """Returns the faults of the whole task as it would be."""

    @property
    def edits_edges(self) -> bool:
        """Return whether continuations change."""
        return self.continuations is not None or bool(self.add) or bool(self.remove)

    @property
    def needs_unbegun(self) -> bool:
        """Return whether it changes a field that must not change once the task has begun."""
        return not ALWAYS.issuperset(self.fields)

    @property
    def only_cancels(self) -> bool:
        """Return whether it requests a cancellation and nothing else."""
        return self.state == State.CANCELLED and not self.fields and not self.edits_edges


def update(
    context: Context,
    task_id: ObjectId,
    wanted: Update,
    actor: Actor,
    revision: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Document:
    """Make all of the changes to a task, or none; return the task as it is then.

    A task that its worker has not begun is recalled first, for which the worker has `wait_seconds`; with 0 the update
    is refused (`Conflict`).

    Raises `NotFound`, `Forbidden`, `PreconditionFailed` when it is not at `revision`, `Invalid` for values and
    `IllegalTransition` for changes that its state does not allow, `Conflict` when others changed it again and again.
    """
    owned(context, task_id, actor)
    if not wanted.only_cancels:
        if wanted.needs_unbegun:
            revision = _taken_back(context, task_id, revision, wait_seconds)
        _change(context, task_id, wanted, actor, revision)
    elif revision is not None:
        _matching(context, task_id, revision, None)
    if wanted.state == State.CANCELLED:
        cancel(context, [task_id], {"user": actor.name})
    return existing(context, task_id)


def take_back_for_edit(context: Context, tasks: Sequence[ObjectId]) -> None:
    """Recall the tasks that their workers have not begun, so that `update` need not wait for each."""
    if tasks:
        take_back(context, {"_id": {"$in": list(tasks)}}, FOR_EDIT)


_OF_CLAIMS = frozenset(
    "_etag _updated state worker claim_request recalled execution time_claimed time_started time_available "
    "attempt_count class_key wake_at progress reserved_by reserved_until".split()
)
"""The fields of a task that change when a worker claims it and gives it back."""


def _taken_back(context: Context, task_id: ObjectId, revision: str | None, seconds: float) -> str | None:
    """The revision to continue from, after a worker that held the task without beginning it has given it back.

    Raises `Conflict` when the worker does not respond, and `PreconditionFailed` when the task was changed meanwhile
    although the caller named a `revision`.
    """
    document = _matching(context, task_id, revision, None)
    if document["state"] != State.RUNNING or document.get("time_started") is not None:
        return revision
    if not seconds or take_back(context, {"_id": task_id}, FOR_EDIT, seconds):
        text = f"task {task_id} is with worker {document['worker']}, which has not given it back"
        raise Conflict(f"{text}; nothing was changed, try again")
    after = existing(context, task_id)
    if revision is None or after["state"] != State.AVAILABLE:
        return revision
    if any(document.get(name) != after.get(name) for name in (document.keys() | after.keys()) - _OF_CLAIMS):
        raise PreconditionFailed(f"task {task_id} was changed meanwhile; read it again")
    return str(after["_etag"])


def existing(context: Context, task_id: ObjectId, session: Session | None = None) -> Document:
    """The stored task; raises `NotFound`."""
    document = context.storage.tasks.document(task_id, session)
    if document is None:
        raise NotFound(f"there is no task {task_id}")
    return document


def owned(context: Context, task_id: ObjectId, actor: Actor, revision: str | None = None) -> Document:
    """The stored task, if the actor may change it; raises `NotFound`, `Forbidden`, `PreconditionFailed`."""
    document = existing(context, task_id)
    actor.must_own(document["owner"], f"task {task_id}")
    return _matching(context, task_id, revision, None)


def _matching(context: Context, task_id: ObjectId, revision: str | None, session: Session | None) -> Document:
    document = existing(context, task_id, session)
    if revision is not None and document["_etag"] != revision:
        raise PreconditionFailed(f"task {task_id} is at revision {document['_etag']} now; read it again")
    return document


def _change(context: Context, task_id: ObjectId, wanted: Update, actor: Actor, revision: str | None) -> None:
    for _ in range(_ROUNDS):
        asked = _ask_model(context, task_id, wanted, revision)
        write = partial(_write, context, task_id, wanted, actor, revision, asked)
        done = context.storage.transaction(write) if wanted.edits_edges else write(None)
        if done is not None:
            task, change, orphaned = done
            announce(context, [(task, change)])
            if change.ended and task.has_continuations:
                settle(context, [task_id])
            promote_ready(context, [*orphaned, task_id] if change.state == State.INACTIVE else orphaned)
            return
    raise Conflict(f"task {task_id} was changed by others again and again; try later")


def _ask_model(context: Context, task_id: ObjectId, wanted: Update, revision: str | None) -> str | None:
    """Run the posting check on the task as it would be, before any transaction; return the revision that was checked.

    None if no field changes that models check. Raises `Invalid` with the model's faults.
    """
    if POSTED.isdisjoint(wanted.fields):
        return None
    document = _matching(context, task_id, revision, None)
    _refuse_fields(document, wanted)
    after = {**document, **wanted.fields}
    if faults := wanted.check(after) or posting_faults(context, [after])[0]:
        raise Invalid(faults)
    return str(document["_etag"])


def _write(
    context: Context,
    task_id: ObjectId,
    wanted: Update,
    actor: Actor,
    revision: str | None,
    asked: str | None,
    session: Session | None,
) -> tuple[Task, Change, list[ObjectId]] | None:
    """One try: the task as decided on, its change, children that lost an edge; None if another change was first."""
    document = _matching(context, task_id, revision, session)
    if asked is not None and document["_etag"] != asked:
        return None
    _refuse_fields(document, wanted)
    orphaned: list[ObjectId] = []
    if session is not None:
        orphaned = _edit_edges(context, task_id, wanted, actor, session)
        document = existing(context, task_id, session)
    fields = with_class(context, document, wanted)
    if fields.get("hold") is False and document["state"] == State.INACTIVE:
        fields["unpromoted"] = True
    task = view({name: value for name, value in {**document, **fields}.items() if value is not None})
    change = _decide(context, task, wanted, session)
    if not wanted.edits_edges and not fields and change == Change(state=task.state, claimable=change.claimable):
        return task, change, []
    change = replace(change, fields={**fields, **change.fields})
    written = context.storage.tasks.commit([(task, change)], context.now(), session)
    if not written and session is not None:
        raise Conflict(f"task {task_id} was changed meanwhile; try again")
    return (task, change, orphaned) if written else None


def _refuse_fields(document: Document, wanted: Update) -> None:
    state, id = State(document["state"]), document["_id"]
    faults: dict[str, object] = {}
    if state == State.RUNNING and document.get("time_started") is None and wanted.needs_unbegun:
        raise Conflict(f"task {id} was claimed by a worker meanwhile; nothing was changed, try again")
    if state not in (State.INACTIVE, State.AVAILABLE):
        now = "runs already" if state == State.RUNNING else f"is {state}"
        text = f"task {id} {now}; this changes only until a task begins"
        faults |= dict.fromkeys(wanted.fields.keys() - ALWAYS, text)
    if wanted.edits_edges and state != State.INACTIVE:
        faults["continuations"] = f"task {id} is {state}; continuations change only while it is inactive"
    if faults:
        raise IllegalTransition(faults)


def _edit_edges(context: Context, task_id: ObjectId, wanted: Update, actor: Actor, session: Session) -> list[ObjectId]:
    add, remove = list(wanted.add), list(wanted.remove)
    if wanted.continuations is not None:
        now = context.storage.edges.children([task_id], session)
        owners = context.storage.tasks.load(now - set(wanted.continuations), session)
        add += [child for child in wanted.continuations if child not in now]
        remove += [id for id, child in owners.items() if actor.steers(child.owner)]
    orphaned = remove_edges(context, [(task_id, child) for child in remove], actor, session) if remove else []
    if add:
        add_edges(context, [(task_id, child) for child in add], actor, session)
    return orphaned


def with_class(context: Context, document: Document, wanted: Update) -> Document:
    """The fields to set, with a new class where it changes; checks the rules for the whole task."""
    fields = dict(wanted.fields)
    after = {**document, **fields}
    if "queue" in fields:
        known = context.storage.queues.names()
        if fields["queue"] not in known:
            raise Invalid({"queue": unknown_queue(fields["queue"], known)})
    if faults := wanted.check(after):
        raise Invalid(faults)
    check_size(after)
    if _CLASS_FIELDS & fields.keys():
        is_group = after.get("command") is None and after.get("model") is None
        fields["task_class"] = None if is_group else TaskClass.of(after).key
    if "directory" in fields and document.get("avoid"):  # a worker may be there for the former directory alone
        fields |= {"avoid": None, "avoid_until": None}
    return fields


def _decide(context: Context, task: Task, wanted: Update, session: Session | None) -> Change:
    now = context.now()
    change = None
    if wanted.state == State.AVAILABLE:
        pending = bool(context.storage.edges.waiting([task.id], session))
        change = decide(task, Release(pending), now)
    elif wanted.state == State.INACTIVE and task.state != State.INACTIVE:
        raise IllegalTransition({"state": f"task {task.id} is {task.state} and cannot become inactive again"})
    elif wanted.state in _WORKERS_OWN:
        raise IllegalTransition({"state": _not_by_itself(task, str(wanted.state))})
    elif task.state == State.AVAILABLE and wanted.fields.get("hold") is False:
        change = decide(task, Due(), now)
    if change is not None:
        return change
    claimable = task.state == State.AVAILABLE and not task.hold and task.due(now) and not task.is_group
    return Change(state=task.state, claimable=claimable)


_WORKERS_OWN = {
    State.RUNNING: "it is claimed with update_execution_data {'worker': id}",
    State.TERMINATED: "its worker reports it with update_execution_data {'token': .., 'exit_status': ..}",
    State.PENDING_CANCELLATION: "set 'cancelled', and it is that until its worker has stopped it",
}
"""States that a provider cannot set, and the right way for each."""


def _not_by_itself(task: Task, state: str) -> str:
    return f"task {task.id} is {task.state} and cannot be set {state}: {_WORKERS_OWN[State(state)]}"


def edit_continuations(
    context: Context, edits: Sequence[tuple[Sequence[ObjectId], Sequence[ObjectId]]], actor: Actor, add: bool
) -> None:
    """Add or remove continuations of many tasks at once, (targets, values) each: all of it or nothing."""
    pairs = [(target, value) for targets, values in edits for target in targets for value in values]

    def write(session: Session) -> list[ObjectId]:
        if add:
            add_edges(context, pairs, actor, session)
            return []
        return remove_edges(context, pairs, actor, session)

    promote_ready(context, context.storage.transaction(write))
