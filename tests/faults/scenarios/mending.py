"""What servers do by themselves: the server that mends may die, too."""

import hashlib
import json
from datetime import timedelta

from bson import ObjectId

from banyan.domain.continuations import Edge
from banyan.domain.matching import TaskClass
from banyan.queue.agreement import Agreement
from banyan.queue.audit import Audit
from banyan.queue.context import Context
from banyan.queue.parts import part_of
from banyan.queue.rescue import rescue
from banyan.storage.parts import Part
from banyan.storage.tasks import encoded
from tests.faults.scenarios.scenario import Document, Scenario, empty, family, outcome
from tests.faults.scenarios.steering import QUOTA, failed_sweep, sweep_of_three
from tests.faults.scenarios.submitting import COMMAND, KEY
from tests.support.crashing import LEASES, Server
from tests.support.queue import SimulatedWorker, after, ids_of, post, task

LOST = LEASES.lost_after + 10
"""Longer than a lease."""


def _rescue(server: Server, state: Document) -> None:
    rescue(server.context)


def _watched(context: Context, state: Document, seconds: float = LOST) -> Document:
    """The servers have been watching all the time until just before the clock is `seconds` ahead."""
    then = context.now() + timedelta(seconds=seconds - 1)
    leases = {"since": context.now() - timedelta(days=1), "watched": then}
    context.storage.db["meta"].update_one({"_id": "leases"}, {"$set": leases}, upsert=True)
    return state


def _silent(context: Context) -> Document:
    return _watched(context, family(context))


def _silent_and_unrecorded(context: Context) -> Document:
    state = family(context)
    context.storage.db["executions"].delete_many({"_id": state["execution"]})
    return _watched(context, state)


def _lost_and_found(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("parent", "good", "bad", "group")]
    assert found == ["success", "success", "cancelled", "success"]
    assert context.storage.tasks.documents([state["parent"]])[state["parent"]]["retry_count"] == 0


def _interrupted_report(context: Context) -> Document:
    """The attempt has ended, its task does not know it yet."""
    state = family(context)
    ending = {"exit_status": "success", "time_terminated": context.now()}
    context.storage.executions.end({state["execution"]: ending}, context.now())
    return state


def _due(context: Context) -> Document:
    """A group and a command whose time comes."""
    soon = context.now() + timedelta(seconds=5)
    group, command = post(context, task(command=None, not_before=soon), task(not_before=soon))
    (child,) = post(context, task(dependencies=after(group)))
    return {"group": group, "command": command, "child": child}


def _remains_of_parts(context: Context) -> Document:
    """Parts that were put aside and never accepted."""
    context.storage.parts.put_aside(ObjectId.from_datetime(context.now()), 0, Part())
    return {}


def _accepted_parts(context: Context) -> Document:
    """A submission that was accepted, of which nothing is made."""
    unit, id = ObjectId(), ObjectId()
    new = task(tags=["new"]) | {"_id": id, "owner": "alice", "order": ObjectId(), "_etag": "1", "attempt_count": 0}
    key = TaskClass.of(new).key
    new |= {"pending_dependency_count": 0, "class_key": key, "task_class": key}
    for number, each in enumerate([new, {**new, "_id": ObjectId()}]):
        context.storage.parts.put_aside(unit, number, part_of([each], [encoded(each)]))
    context.storage.parts.accept(unit, 2, [], context.now())
    return {}


def _retry_was_interrupted(context: Context) -> Document:
    state = failed_sweep(context)
    sweep = context.storage.sweeps.load(state["sweep"]) or {}
    context.storage.sweeps.begin_retry(state["sweep"], context.now())
    context.storage.edges.insert([Edge(parent=state["sweep"], child=sweep["barrier"], on="any")])
    return state


def _cancelling_was_interrupted(context: Context) -> Document:
    state = sweep_of_three(context)
    context.storage.sweeps.begin_work(state["sweep"], {"act": "cancel", "cause": {"user": "alice"}}, context.now())
    return state


def _cancelled(context: Context, state: Document) -> None:
    assert {outcome(context, id) for id in ids_of(context, {})} == {"cancelled"}


def _deleting_was_interrupted(context: Context) -> Document:
    state = failed_sweep(context)
    context.storage.sweeps.begin_work(state["sweep"], {"act": "delete"}, context.now())
    return state


def _deleted(context: Context, state: Document) -> None:
    assert context.storage.tasks.count({}) == 0


def _deletion_was_undone(context: Context) -> Document:
    """A sweep that was being deleted, and of which a task runs again."""
    state = sweep_of_three(context)
    context.storage.sweeps.begin_work(state["sweep"], {"act": "delete"}, context.now())
    return state


def _quarantine_is_over(context: Context) -> Document:
    worker = SimulatedWorker(context)
    (id,) = post(context, task())
    context.storage.db["tasks"].update_one({"_id": id}, {"$set": {"avoid": [worker.id]}})
    context.storage.workers.quarantine(worker.id, "test", context.now(), context.now())
    return {"id": id}


def _pauses_are_over(context: Context) -> Document:
    """Tasks that only one worker could take, which has failed them; one that another could take; one in a new life."""
    alone, other = SimulatedWorker(context, capabilities=("model:m",)), SimulatedWorker(context)
    only, shared, fresh = post(context, task(command=None, model="m"), task(), task())
    for id, avoid in ((only, [other.id, alone.id]), (shared, [alone.id]), (fresh, None)):
        fields = {"avoid_until": context.now()} | ({"avoid": avoid} if avoid else {})
        context.storage.db["tasks"].update_one({"_id": id}, {"$set": fields})
    return {"only": only, "other": other.id}


def _tried_again(context: Context, state: Document) -> None:
    assert context.storage.tasks.documents([state["only"]])[state["only"]]["avoid"] == [state["other"]]


def _mess(context: Context) -> Document:
    """What no mark tells of: counts, edges, attempts and files that are wrong."""
    state = family(context)
    db = context.storage.db
    (waiting,) = post(context, task(dependencies=after(state["parent"])))
    db["tasks"].update_one({"_id": waiting}, {"$inc": {"pending_dependency_count": 3}})
    orphan, other, forgotten = post(context, *[task(state="inactive")] * 3)
    context.storage.edges.insert(
        [Edge(parent=ObjectId(), child=orphan), Edge(parent=ObjectId(), child=other, on="any")]
    )
    worker = SimulatedWorker(context)
    (ended,) = post(context, task())
    worker.claim(1)
    worker.end()
    context.storage.edges.insert([Edge(parent=ended, child=forgotten)])
    stray = {"_id": ObjectId(), "task": ended, "attempt": 7, "worker": worker.id, "time_claimed": context.now()}
    db["executions"].insert_many([stray, {**stray, "_id": ObjectId(), "task": ObjectId()}])
    _leave_files(context, state["execution"])
    return state | {"orphan": orphan, "other": other, "forgotten": forgotten}


def _leave_files(context: Context, execution: ObjectId) -> None:
    now, files, db = context.now(), context.storage.files, context.storage.db
    files.append(execution, "files/good", 0, b"good", QUOTA, now)
    files.append(ObjectId(), "files/of no attempt", 0, b"bad", QUOTA, now)
    files.append(execution, "files/piece of nothing", 0, b"bad", QUOTA, now)
    db["files"].delete_one({"path": "files/piece of nothing"})
    files.append(execution, "files/bytes of nothing", 0, b"bad", QUOTA, now)
    lost = db["files"].find_one_and_delete({"path": "files/bytes of nothing"}) or {}
    db["file_segments.files"].delete_many({"metadata.file": lost["_id"]})


def _audit(server: Server, state: Document) -> None:
    audit = Audit(server.context)
    audit.look()
    audit.look()


def _mended(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("orphan", "other", "forgotten")]
    assert found == ["cancelled", "success", "success"]


def _abandoned_request(context: Context) -> Document:
    """A request with a key, in which a server died before it did anything."""
    id = hashlib.sha256(b"alice\0/tasks\0once").hexdigest()
    digest = hashlib.sha256(b"\0" + json.dumps(COMMAND).encode()).hexdigest()
    context.storage.idempotency.begin(id, digest, context.now(), 3600)
    return {}


def _take_over(server: Server, state: Document) -> None:
    server.call("POST", "/tasks", COMMAND, headers=KEY)


def _done_once(context: Context, state: Document) -> None:
    assert context.storage.tasks.count({}) == 1


def _agreed(context: Context, state: Document) -> None:
    assert context.storage.meta.settings() is not None
    assert Agreement(context.storage, context.settings).join() == context.settings


SCENARIOS = [
    Scenario(
        name="agree on settings",
        prepare=empty,
        act=lambda server, state: Agreement(server.context.storage, server.context.settings).join(),
        check=_agreed,
        repeats=True,
    ),
    Scenario(name="lose a worker", prepare=_silent, act=_rescue, check=_lost_and_found, seconds=LOST),
    Scenario(
        name="lose a worker whose claim was interrupted",
        prepare=_silent_and_unrecorded,
        act=_rescue,
        check=_lost_and_found,
        seconds=LOST,
    ),
    Scenario(name="watch for the first time", prepare=empty, act=_rescue),
    Scenario(name="complete a report", prepare=_interrupted_report, act=_rescue, check=_lost_and_found, seconds=LOST),
    Scenario(name="wake", prepare=_due, act=_rescue, seconds=6),
    Scenario(name="drop parts that were never accepted", prepare=_remains_of_parts, act=_rescue, seconds=7300),
    Scenario(name="complete a submission", prepare=_accepted_parts, act=_rescue, seconds=LOST),
    Scenario(name="release the barrier of a retry", prepare=_retry_was_interrupted, act=_rescue, seconds=2 * LOST),
    Scenario(
        name="complete the cancelling of a sweep",
        prepare=_cancelling_was_interrupted,
        act=_rescue,
        check=_cancelled,
        seconds=2 * LOST,
    ),
    Scenario(
        name="complete the deletion of a sweep",
        prepare=_deleting_was_interrupted,
        act=_rescue,
        check=_deleted,
        seconds=2 * LOST,
    ),
    Scenario(name="give up the deletion of a sweep", prepare=_deletion_was_undone, act=_rescue, seconds=2 * LOST),
    Scenario(name="end a quarantine", prepare=_quarantine_is_over, act=_rescue, seconds=1),
    Scenario(name="try a worker again", prepare=_pauses_are_over, act=_rescue, check=_tried_again, seconds=2),
    Scenario(name="audit", prepare=_mess, act=_audit, check=_mended, seconds=3700),
    Scenario(
        name="take over a request",
        prepare=_abandoned_request,
        act=_take_over,
        check=_done_once,
        seconds=61,
        repeats=True,
    ),
]
