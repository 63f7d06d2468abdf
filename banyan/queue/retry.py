"""Retries of ended tasks: their life starts anew, and so does that of descendants, as the request states."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bson import ObjectId

from banyan.domain.task import State
from banyan.errors import BanyanError, Conflict, Invalid
from banyan.queue.apply import announce
from banyan.queue.begin_again import Retried, begin_again
from banyan.queue.context import Context
from banyan.queue.posting import POSTED, posting_faults
from banyan.queue.retry_options import RetryOptions
from banyan.queue.settle import promote_ready, settle
from banyan.storage.mongo import Session

BATCH = 1000
"""The number of tasks in one transaction."""
_ROUNDS = 20

DEFAULT = RetryOptions()


@dataclass(slots=True)
class Outcome:
    """The outcome, or with `dry_run` the expected outcome, for the tasks of a retry and their descendants."""

    again: dict[ObjectId, State] = field(default_factory=dict)
    """All tasks that begin again, with their new states."""
    kept: dict[ObjectId, str] = field(default_factory=dict)
    """Descendants that stay as they are, and the reasons."""
    refused: dict[ObjectId, BanyanError] = field(default_factory=dict)
    """The reasons why other tasks cannot run again."""
    roots: set[ObjectId] = field(default_factory=set)
    """The requested tasks that begin again."""

    @property
    def retried(self) -> int:
        """The number of requested tasks that begin again."""
        return len(self.roots)

    def add(self, retried: Retried) -> None:
        """Add the result of a transaction."""
        self.join(Outcome(retried.again, retried.kept, retried.refused))

    def join(self, other: "Outcome") -> None:
        """Add the outcome for other tasks."""
        self.again |= other.again
        self.kept = {id: why for id, why in (self.kept | other.kept).items() if id not in self.again}
        self.refused |= {id: why for id, why in other.refused.items() if id not in self.again}
        self.roots |= other.roots


class Undone(Exception):
    """Signals that the transaction must not be committed."""

    def __init__(self, retried: Retried) -> None:
        super().__init__()
        self.retried = retried


def retry(context: Context, task_id: ObjectId, options: RetryOptions = DEFAULT) -> Outcome:
    """Run an ended task again, in one transaction with the descendants that come back.

    Raises `IllegalTransition` if it has not ended, if the end of one of its own parents does not satisfy its edge, or
    if a descendant forbids it; `Invalid` for new values that are wrong.
    """
    outcome = retry_all(context, [task_id], replace(options, must_spare=True))
    if outcome.refused:
        raise outcome.refused[task_id]
    return outcome


def retry_all(context: Context, tasks: Sequence[ObjectId], options: RetryOptions = DEFAULT) -> Outcome:
    """Run ended tasks again where possible, a batch at a time; return the outcome with the reasons for the others."""
    outcome = Outcome()
    for start in range(0, len(tasks), BATCH):
        _retry_batch(context, tasks[start : start + BATCH], options, outcome)
    outcome.roots = outcome.again.keys() & set(tasks)
    return outcome


def _retry_batch(context: Context, tasks: Sequence[ObjectId], options: RetryOptions, outcome: Outcome) -> None:
    """Retry tasks in one transaction, or, if one of them makes it fail, each in one of its own."""
    left = [id for id in tasks if id not in outcome.again]
    if not left:
        return
    unsettled = [task.id for task in context.storage.tasks.load(left).values() if task.unsettled]
    settle(context, unsettled, thorough=True)
    try:
        retried = _begin(context, left, options)
    except Invalid as error:
        if len(left) == 1:
            outcome.refused[left[0]] = error
            return
        for task in left:
            _retry_batch(context, [task], options, outcome)
        return
    outcome.add(retried)


def _begin(context: Context, tasks: Sequence[ObjectId], options: RetryOptions) -> Retried:
    for _ in range(_ROUNDS):
        refused, asked = _ask_models(context, tasks, options)
        willing = [id for id in tasks if id not in refused]
        if not willing:
            return Retried(refused=refused)
        try:
            retried = _transact(context, willing, options, asked)
        except Conflict:
            continue
        if not options.dry_run:
            follow(context, retried)
        return Retried(retried.changes, retried.refused | refused, retried.kept)
    raise Conflict("the tasks or their descendants were changed by others again and again; try later")


def _transact(
    context: Context, tasks: Sequence[ObjectId], options: RetryOptions, asked: dict[ObjectId, str]
) -> Retried:
    def act(session: Session) -> Retried:
        retried = begin_again(context, tasks, options, session)
        if any(task.id in asked and task.revision != asked[task.id] for task, _ in retried.changes):
            raise Conflict("a task was changed meanwhile; try again")
        if options.dry_run or not retried.changes:
            raise Undone(retried)
        return retried

    try:
        return context.storage.transaction(act)
    except Undone as undone:
        return undone.retried


def _ask_models(
    context: Context, tasks: Sequence[ObjectId], options: RetryOptions
) -> tuple[dict[ObjectId, BanyanError], dict[ObjectId, str]]:
    """The faults that models find in the tasks as they would be, and the revisions that were checked.

    It runs before a transaction. Both are empty if the retry changes no field that models check.
    """
    if POSTED.isdisjoint(options.changes.fields):
        return {}, {}
    refused: dict[ObjectId, BanyanError] = {}
    documents = {}
    for id, document in context.storage.tasks.documents(tasks).items():
        refs = {n: ref for n, ref in (document.get("input_refs") or {}).items() if ref["task"] not in options.without}
        after = {**document, "input_refs": refs, **options.changes.fields}
        if faults := options.changes.check(after):
            refused[id] = Invalid(faults)
        else:
            documents[id] = after
    for id, faults in zip(documents, posting_faults(context, list(documents.values())), strict=True):
        if faults:
            refused[id] = Invalid(faults)
    return refused, {id: document["_etag"] for id, document in documents.items()}


def follow(context: Context, retried: Retried) -> None:
    """Run the work after the transaction: wake claims, settle groups that ended, promote ready tasks."""
    changes = retried.changes
    announce(context, changes)
    settle(context, [task.id for task, change in changes if change.ended and task.has_continuations])
    promote_ready(context, [task.id for task, change in changes if change.state == State.INACTIVE])
