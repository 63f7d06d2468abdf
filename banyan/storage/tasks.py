"""The collection `tasks`: reading tasks, and the one guarded write that changes their state."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import bson
from bson import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING, UpdateOne
from pymongo.client_session import ClientSession
from pymongo.database import Database

from banyan.domain.matching import CLASS_FIELDS
from banyan.domain.task import FOR_EDIT, LIVE, State, Task
from banyan.domain.transitions import Change
from banyan.storage.by_ids import by_ids
from banyan.storage.in_bulk import Write, change_each
from banyan.storage.references import plain

Document = dict[str, Any]
Session = ClientSession | None

_MANY = 10_000
"""A limit for many small documents that are read in one round trip."""

_VIEW = (
    "_id _etag state owner queue command model hold not_before retry_at retry_count max_retry_count retry_delay "
    "abandoned_count host_deaths disk_fills attempt_count execution worker exit_status cancelled_by has_continuations "
    "unsettled task_class avoid pending_dependency_count leaving priority recalled"
).split()

_CANDIDATE = (
    "_id _etag state owner queue model hold not_before attempt_count task_class class_key avoid priority order timeout "
    "time_available requested_resources requires directory"
).split()
"""The fields that a claim reads to choose tasks: none in which a task may carry megabytes."""

_SIZE: Document = {"bytes": {"$bsonSize": "$$ROOT"}}
"""The size of the whole task."""

MERGED_KEYS = 200
"""The most classes that one query reads: MongoDB merges so many in order without sorting (a limit of its planner)."""

_CLAIM_INDEX = [("class_key", ASCENDING), ("priority", DESCENDING), ("order", ASCENDING)]
HELD_INDEX = [("worker", 1), ("state", 1), ("recalled", 1), ("execution", 1), ("claim_request", 1)]
"""The index contains all that a claim reads of the many tasks that a worker may hold."""


class Holding(NamedTuple):
    """A task that a worker holds: its state, the claim that received it, and whether the queue recalls it."""

    state: str
    claim_request: str | None
    recalled: bool


def view(document: Mapping[str, Any]) -> Task:
    """The fields of a stored task that decisions rest on."""
    get = document.get
    return Task(
        id=document["_id"],
        revision=document["_etag"],
        state=State(document["state"]),
        owner=get("owner", ""),
        queue=get("queue", ""),
        is_group=get("command") is None and get("model") is None,
        hold=bool(get("hold")),
        not_before=get("not_before"),
        retry_at=get("retry_at"),
        retry_count=get("retry_count", 0),
        max_retry_count=get("max_retry_count", 0),
        retry_delay=get("retry_delay", 0.0),
        abandoned_count=get("abandoned_count", 0),
        host_deaths=get("host_deaths", 0),
        disk_fills=get("disk_fills", 0),
        attempt_count=get("attempt_count", 0),
        execution=get("execution"),
        worker=get("worker"),
        exit_status=get("exit_status"),
        cancelled_by=get("cancelled_by"),
        has_continuations=bool(get("has_continuations")),
        unsettled=bool(get("unsettled")),
        pending=get("pending_dependency_count", 0),
        leaving=bool(get("leaving")),
        task_class=get("task_class", ""),
        avoid=tuple(get("avoid", ())),
        priority=get("priority", 0),
        recalled=get("recalled"),
    )


def encoded(document: Mapping[str, Any]) -> bytes:
    """A document as MongoDB stores it."""
    return bson.encode(document)


def new_revision() -> str:
    """A revision that no document has had."""
    return str(ObjectId())


class TaskStore:
    """Tasks by id, by class and by worker; every change of state goes through `commit`."""

    def __init__(self, db: Database[Document]) -> None:
        self._tasks = db["tasks"]

    def prepare(self) -> None:
        """Create the indexes for claims, rescue and monitoring."""
        create = self._tasks.create_index
        create(_CLAIM_INDEX, name="claim", partialFilterExpression={"class_key": {"$exists": True}})
        create(HELD_INDEX, name="held", partialFilterExpression={"worker": {"$exists": True}})
        create("wake_at", name="wake", partialFilterExpression={"wake_at": {"$exists": True}})
        create("avoid_until", name="avoid_until", partialFilterExpression={"avoid_until": {"$exists": True}})
        create("unsettled", name="unsettled", partialFilterExpression={"unsettled": True})
        create("unpromoted", name="unpromoted", partialFilterExpression={"unpromoted": True})
        create("leaving", name="leaving", partialFilterExpression={"leaving": True})
        create([("state", 1), ("queue", 1), ("exit_status", 1)], name="monitor")
        create("queue", name="queue")
        create([("owner", 1), ("_id", -1)], name="owner")
        create("name", name="name", partialFilterExpression={"name": {"$exists": True}})
        create("tags", name="tags", partialFilterExpression={"tags": {"$exists": True}})

    def insert(self, tasks: Sequence[bytes], session: Session = None) -> None:
        """Store new tasks (`encoded`); raises the driver's duplicate key error when an `_id` is taken."""
        if tasks:
            self._tasks.insert_many([RawBSONDocument(each) for each in tasks], session=session)

    def load(self, ids: Iterable[ObjectId], session: Session = None) -> dict[ObjectId, Task]:
        """The tasks with these ids, by id; missing ones are left out."""
        return {document["_id"]: view(document) for document in by_ids(self._tasks, ids, _VIEW, session)}

    def document(self, task: ObjectId, session: Session = None) -> Document | None:
        """The whole stored document."""
        found = self._tasks.find_one({"_id": task}, session=session)
        return None if found is None else plain([found])[0]

    def documents(
        self, ids: Iterable[ObjectId], fields: Iterable[str] | None = None, session: Session = None
    ) -> dict[ObjectId, Document]:
        """Stored documents by id, whole or only some fields of them."""
        return {d["_id"]: d for d in plain(by_ids(self._tasks, ids, fields, session))}

    def current(
        self, executions: Mapping[ObjectId, ObjectId], fields: Iterable[str], session: Session = None
    ) -> dict[ObjectId, Document]:
        """The given fields of those tasks (id to attempt) whose current attempt is the given one, by the attempt."""
        found = plain(by_ids(self._tasks, executions, ["execution", *fields], session))
        return {each["execution"]: each for each in found if each.get("execution") == executions[each["_id"]]}

    def input_refs(self, ids: Iterable[ObjectId], session: Session = None) -> dict[ObjectId, Document]:
        """The inputs that tasks take from results of others, as `{name: {"task": id}}`, for tasks with any."""
        wanted = {"_id": {"$in": list(ids)}, "input_refs": {"$exists": True}}
        found = plain(self._tasks.find(wanted, {"input_refs": 1}, session=session))
        return {d["_id"]: d["input_refs"] for d in found if d["input_refs"]}

    def commit(self, changes: Sequence[tuple[Task, Change]], now: datetime, session: Session = None) -> set[ObjectId]:
        """Write each change if its task is still as it was read; return the ids of the tasks that were written.

        A task that is missing from the return value was changed by another process first: read it again and decide
        anew.
        """
        if not changes:
            return set()
        revision = new_revision()
        writes = [_write(task, change, revision, now) for task, change in changes]
        ids = {task.id for task, _ in changes}
        if change_each(self._tasks, writes, session) == len(writes):
            return ids
        written = self._tasks.find({"_id": {"$in": list(ids)}, "_etag": revision}, {"_id": 1}, session=session)
        return {document["_id"] for document in written}

    def edit(self, task: Task, fields: Mapping[str, Any], now: datetime, session: Session = None) -> str | None:
        """Set fields other than the state (None clears one); return the new revision, or None if the task changed."""
        revision = new_revision()
        update = _set_and_unset({**fields, "_etag": revision, "_updated": now})
        return revision if self._tasks.update_one(_guard(task), update, session=session).matched_count else None

    def touch(self, tasks: Iterable[ObjectId], session: Session) -> None:
        """Change the revision of tasks whose edges were changed, so that no decision rests on the earlier edges."""
        self._tasks.update_many({"_id": {"$in": list(tasks)}}, {"$set": {"_etag": new_revision()}}, session=session)

    def blame(self, parents: Mapping[ObjectId, ObjectId], session: Session) -> None:
        """Record in cancelled tasks (id to parent) the parent that caused the cancellation."""
        writes = [
            UpdateOne(
                {"_id": id, "state": State.CANCELLED},
                {"$set": {"cancelled_by": {"task": parent}, "_etag": new_revision()}},
            )
            for id, parent in parents.items()
        ]
        if writes:
            self._tasks.bulk_write(writes, ordered=False, session=session)

    def mark_parents(self, parents: Iterable[ObjectId], session: Session) -> None:
        """Mark each parent as having continuations, and ended ones as having edges that must be settled.

        It is a real write even if nothing is new, so that it conflicts with the write that ends a parent.
        """
        ids = list(parents)
        self._tasks.update_many(
            {"_id": {"$in": ids}},
            {"$set": {"has_continuations": True, "_etag": new_revision()}},
            session=session,
        )
        self._tasks.update_many(
            {"_id": {"$in": ids}, "state": {"$in": [State.TERMINATED, State.CANCELLED]}},
            {"$set": {"unsettled": True}},
            session=session,
        )

    def unsettled(self, limit: int) -> list[ObjectId]:
        """Ended tasks whose continuations are not all settled."""
        return [d["_id"] for d in self._tasks.find({"unsettled": True}, {"_id": 1}).limit(limit)]

    def clear_unsettled(self, tasks: Mapping[ObjectId, str]) -> None:
        """Remove the mark, unless a retry or a new edge changed the task (id to revision) meanwhile."""
        self._unmark("unsettled", tasks)

    def mark_unpromoted(self, tasks: Iterable[ObjectId], session: Session) -> None:
        """Mark inactive tasks that may have become ready."""
        where = {"_id": {"$in": list(tasks)}, "state": State.INACTIVE}
        self._tasks.update_many(where, {"$set": {"unpromoted": True, "_etag": new_revision()}}, session=session)

    def unpromoted(self, limit: int) -> list[ObjectId]:
        """Inactive tasks that must still be checked for readiness."""
        return [d["_id"] for d in self._tasks.find({"unpromoted": True}, {"_id": 1}).limit(limit)]

    def clear_unpromoted(self, tasks: Mapping[ObjectId, str]) -> None:
        """Remove the mark, unless the task (id to revision) was changed meanwhile."""
        self._unmark("unpromoted", tasks)

    def _unmark(self, mark: str, tasks: Mapping[ObjectId, str]) -> None:
        writes = [UpdateOne({"_id": id, "_etag": revision}, {"$unset": {mark: 1}}) for id, revision in tasks.items()]
        if writes:
            self._tasks.bulk_write(writes, ordered=False)

    def show_pending(self, counts: Sequence[tuple[Task, int]], *, exact: bool) -> bool:
        """Write the numbers of pending dependencies, counted after the task was read; return whether all were written.

        A number only ever falls, because the latest count has seen the most edges settled; an `exact` count may also
        raise it, if the number is still as it was read. Tasks that were changed otherwise meanwhile must be counted
        again.
        """
        name = "pending_dependency_count"
        writes = [
            UpdateOne({**_guard(task), name: task.pending}, {"$set": {name: count}})
            if exact
            else UpdateOne(_guard(task), {"$min": {name: count}})
            for task, count in counts
        ]
        return not writes or self._tasks.bulk_write(writes, ordered=False).matched_count == len(writes)

    def discount(self, settled_by_child: Mapping[ObjectId, int]) -> None:
        """Lower the displayed number of pending dependencies."""
        self._tasks.bulk_write(
            [
                UpdateOne({"_id": child}, {"$inc": {"pending_dependency_count": -count}})
                for child, count in settled_by_child.items()
            ],
            ordered=False,
        )

    def set_pending(self, counts: Mapping[ObjectId, int], session: Session = None) -> None:
        """Write the exact number of pending dependencies of each task."""
        if counts:
            self._tasks.bulk_write(
                [UpdateOne({"_id": t}, {"$set": {"pending_dependency_count": n}}) for t, n in counts.items()],
                ordered=False,
                session=session,
            )

    def correct_pending(self, counts: Mapping[ObjectId, tuple[int, int]]) -> None:
        """Replace the number of pending dependencies of each task where it still equals the first of the two."""
        if counts:
            name = "pending_dependency_count"
            self._tasks.bulk_write(
                [UpdateOne({"_id": task, name: told}, {"$set": {name: n}}) for task, (told, n) in counts.items()],
                ordered=False,
            )

    def class_heads(self, keys: Sequence[str] | None = None, session: Session = None) -> list[Document]:
        """The best claimable task of every class, or of the classes with these keys, as a candidate, not `plain` yet.

        The cost is one index step for each class, not for each task.
        """
        wanted: Document = {"$gt": ""} if keys is None else {"$in": list(keys)}
        first: Document = {name: f"${name}" for name in _CANDIDATE} | _SIZE
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"class_key": wanted}},
            {"$sort": dict(_CLAIM_INDEX)},
            {"$group": {"_id": "$class_key", "head": {"$first": first}}},
        ]
        return [d["head"] for d in self._tasks.aggregate(pipeline, hint="claim", session=session)]

    def claimable(self, keys: Sequence[str], limit: int, fit: Mapping[str, Any] | None = None) -> list[Document]:
        """The best claimable tasks of these classes (`MERGED_KEYS` at most) as candidates, not `plain` yet.

        With `fit` (a filter) only matching tasks are returned.
        """
        where: Document = {"class_key": keys[0] if len(keys) == 1 else {"$in": list(keys)}, **(fit or {})}
        fields: Document = dict.fromkeys(_CANDIDATE, 1) | _SIZE
        found = self._tasks.find(where, fields).sort(_CLAIM_INDEX[1:]).hint("claim")
        return found.batch_size(limit).limit(limit).to_list()

    def held_by(self, worker: ObjectId, session: Session = None) -> list[Document]:
        """The running tasks that a worker holds, each with the time and the request of its claim."""
        fields = dict.fromkeys([*_VIEW, "claim_request", "time_claimed"], 1)
        return list(self._tasks.find({"worker": worker}, fields, session=session).hint("held"))

    def holdings(self, worker: ObjectId) -> dict[ObjectId, Holding]:
        """The attempts that a worker holds, by id, read from the index alone."""
        fields = {"_id": 0, "execution": 1, "state": 1, "claim_request": 1, "recalled": 1}
        found = self._tasks.find({"worker": worker}, fields).hint("held").batch_size(_MANY).to_list()
        return {d["execution"]: Holding(d["state"], d.get("claim_request"), bool(d.get("recalled"))) for d in found}

    def to_end(self, worker: ObjectId) -> tuple[list[ObjectId], list[ObjectId]]:
        """The attempts that a worker must end, and the attempts that it must give back if it has not begun them."""
        recalled = {"worker": worker, "state": State.RUNNING, "recalled": {"$gt": ""}}
        where = {"$or": [{"worker": worker, "state": State.PENDING_CANCELLATION}, recalled]}
        found = self._tasks.find(where, {"_id": 0, "execution": 1, "state": 1}).hint("held").to_list()
        cancel = [d["execution"] for d in found if d["state"] == State.PENDING_CANCELLATION]
        return cancel, [d["execution"] for d in found if d["state"] == State.RUNNING]

    def unbegun(self, worker: ObjectId) -> list[Document]:
        """The tasks that a worker has not reported as begun, as candidates; recalled tasks are left out."""
        where = {"worker": worker, "state": State.RUNNING, "recalled": None, "time_started": None}
        return self._tasks.find(where, dict.fromkeys(_CANDIDATE, 1)).hint("held").batch_size(_MANY).to_list()

    def recall(self, where: Mapping[str, Any], purpose: str) -> dict[ObjectId, list[ObjectId]]:
        """Recall the matching tasks that no worker has reported as begun; return their ids, by worker."""
        unbegun = {**where, "state": State.RUNNING, "worker": {"$exists": True}, "time_started": None}
        by_worker: dict[ObjectId, list[ObjectId]] = {}
        for task in self._tasks.find(unbegun, {"worker": 1}):
            by_worker.setdefault(task["worker"], []).append(task["_id"])
        for worker, tasks in by_worker.items():
            same = {"_id": {"$in": tasks}, "worker": worker, "state": State.RUNNING, "time_started": None}
            if purpose != FOR_EDIT:
                same["recalled"] = None  # a recall for an edit takes precedence
            self._tasks.update_many(same, {"$set": {"recalled": purpose}})
        return by_worker

    def still_recalled(self, tasks: Iterable[ObjectId]) -> list[ObjectId]:
        """The recalled tasks among the given ones whose workers have not responded."""
        where = {
            "_id": {"$in": list(tasks)},
            "state": State.RUNNING,
            "recalled": {"$exists": True},
            "time_started": None,
        }
        return [d["_id"] for d in self._tasks.find(where, {"_id": 1})]

    def end_recall(self, tasks: Iterable[ObjectId]) -> None:
        """Cancel the recall of tasks."""
        self._tasks.update_many({"_id": {"$in": list(tasks)}}, {"$unset": {"recalled": 1}})

    def of_attempts(self, worker: ObjectId, executions: Iterable[ObjectId]) -> dict[ObjectId, ObjectId]:
        """The tasks of a worker's attempts, by attempt; attempts that the worker no longer holds are left out."""
        where = {"worker": worker, "state": {"$in": sorted(LIVE)}, "execution": {"$in": list(executions)}}
        return {d["execution"]: d["_id"] for d in self._tasks.find(where, {"execution": 1}).hint("held")}

    def holders(self) -> list[ObjectId]:
        """Every worker that holds a task."""
        pipeline: list[Mapping[str, Any]] = [
            {"$match": {"worker": {"$gt": ObjectId(bytes(12))}}},
            {"$sort": dict(HELD_INDEX)},
            {"$group": {"_id": "$worker"}},
        ]
        return [d["_id"] for d in self._tasks.aggregate(pipeline, hint="held")]

    def waking(self, now: datetime, limit: int) -> list[Task]:
        """Available tasks whose dates have passed and that are not claimable yet."""
        found = self._tasks.find({"wake_at": {"$lte": now}}, dict.fromkeys(_VIEW, 1)).sort("wake_at").limit(limit)
        return [view(document) for document in found]

    def running_in(self, queue: str, session: Session = None) -> int:
        """The number of tasks of a queue that workers hold now."""
        states = {"$in": sorted(LIVE)}
        return self._tasks.count_documents({"queue": queue, "state": states}, session=session)

    def count(self, where: Mapping[str, Any]) -> int:
        """The number of tasks that match an already checked filter."""
        return self._tasks.count_documents(where)

    def report_progress(
        self, execution_by_task: Mapping[ObjectId, ObjectId], fields: Mapping[ObjectId, Document]
    ) -> None:
        """Copy the reports of current attempts (start, progress) to their live tasks."""
        revision = new_revision()
        self._tasks.bulk_write(
            [
                UpdateOne(
                    {"_id": task, "execution": execution, "state": {"$in": sorted(LIVE)}},
                    {"$set": {**fields[task], "_etag": revision}, "$unset": {"recalled": 1}},
                )
                for task, execution in execution_by_task.items()
            ],
            ordered=False,
        )

    def stop_avoiding(self, worker: ObjectId) -> None:
        """Give a worker that is expected to work again access to the claimable tasks that it failed."""
        self._tasks.update_many(
            {"class_key": {"$gt": ""}, "avoid": worker},
            {"$pull": {"avoid": worker}, "$set": {"_etag": new_revision()}},
        )

    def avoiding(self, before: datetime, limit: int) -> list[Document]:
        """Claimable tasks whose pause after a worker's failure ended before `before`, with the fields for matching."""
        where = {"avoid_until": {"$lte": before}, "class_key": {"$exists": True}}
        found = self._tasks.find(where, dict.fromkeys([*_VIEW, *CLASS_FIELDS, "timeout", "directory"], 1)).hint(
            "avoid_until"
        )
        return plain(found.sort("avoid_until").limit(limit))

    def keep_avoiding(self, tasks: Iterable[ObjectId], before: datetime, until: datetime) -> None:
        """Check these tasks again at `until`, because another worker could take them."""
        where = {"_id": {"$in": list(tasks)}, "avoid_until": {"$lte": before}}
        self._tasks.update_many(where, {"$set": {"avoid_until": until}})

    def reserve(self, task: ObjectId, worker: ObjectId, until: datetime, now: datetime) -> bool:
        """Reserve a wide task for `worker`, which keeps itself free for it; False if another worker has it reserved."""
        free = [{"reserved_by": worker}, {"reserved_until": {"$lt": now}}, {"reserved_until": {"$exists": False}}]
        result = self._tasks.update_one(
            {"_id": task, "class_key": {"$exists": True}, "$or": free},
            {"$set": {"reserved_by": worker, "reserved_until": until}},
        )
        return result.matched_count == 1

    def begin_leaving(self, id: ObjectId, ended_until: datetime | None = None) -> bool:
        """Mark the task for deletion; return False if it has not ended or is not settled.

        Every server may then complete the deletion.
        """
        change = {"$set": {"leaving": True, "_etag": new_revision()}}
        return self._tasks.update_one({"_id": id, **_over(ended_until)}, change).matched_count == 1

    def leaving(self, limit: int) -> list[ObjectId]:
        """Tasks that are marked for deletion, including those whose deletion was interrupted."""
        return [d["_id"] for d in self._tasks.find({"leaving": True}, {"_id": 1}).limit(limit)]

    def delete(
        self, ids: Sequence[ObjectId], session: Session = None, ended_until: datetime | None = None
    ) -> list[ObjectId]:
        """Delete the tasks that have ended (by `ended_until`, if given) and are settled; return the deleted ids."""
        where = {"_id": {"$in": list(ids)}, **_over(ended_until)}
        going = [d["_id"] for d in self._tasks.find(where, {"_id": 1}, session=session)]
        self._tasks.delete_many({**where, "_id": {"$in": going}}, session=session)
        return going


def _over(ended_until: datetime | None) -> Document:
    """The filter for tasks that may be deleted."""
    over: Document = {"state": {"$in": [State.TERMINATED, State.CANCELLED]}, "unsettled": {"$exists": False}}
    return over if ended_until is None else over | {"_updated": {"$lte": ended_until}}


def _guard(task: Task) -> Document:
    return {"_id": task.id, "_etag": task.revision}  # every change of state also changes the revision


def first_fields(task: Task, change: Change) -> Document:
    """The fields that a change adds to a task before it is stored for the first time."""
    return {name: value for name, value in _changed_fields(task, change).items() if value is not None}


def _write(task: Task, change: Change, revision: str, now: datetime) -> Write:
    changed = _changed_fields(task, change)
    fields = {name: value for name, value in changed.items() if value is not None}
    fields |= {"_etag": revision, "_updated": now}
    cleared = tuple(name for name, value in changed.items() if value is None)
    return Write(id=task.id, guard=("_etag", task.revision), fields=fields, cleared=cleared)


def _changed_fields(task: Task, change: Change) -> Document:
    fields: Document = {**change.fields, "state": change.state}
    fields["class_key"] = task.task_class if change.claimable else None
    waits = change.state == State.AVAILABLE and not change.claimable and not task.hold
    fields["wake_at"] = (change.wake_at or _earliest(task, change)) if waits else None
    if change.ended and task.has_continuations:
        fields["unsettled"] = True
    if change.state != State.INACTIVE:
        fields["unpromoted"] = None
    return fields


def _earliest(task: Task, change: Change) -> datetime | None:
    dates = {name: change.fields.get(name, getattr(task, name)) for name in ("not_before", "retry_at")}
    return replace(task, **dates).earliest


def _set_and_unset(fields: Mapping[str, Any]) -> Document:
    update: Document = {"$set": {name: value for name, value in fields.items() if value is not None}}
    cleared = {name: 1 for name, value in fields.items() if value is None}
    if cleared:
        update["$unset"] = cleared
    return update
