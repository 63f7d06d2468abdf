"""Submitting tasks and sweeps."""

from contextlib import suppress

from bson import ObjectId

from banyan.domain.continuations import Edge
from banyan.domain.matching import TaskClass
from banyan.errors import Invalid
from banyan.queue.context import Context
from banyan.queue.graph import Joining
from banyan.queue.parts import EDGE_BYTES, TASK_BYTES, submit_in_parts
from banyan.queue.submit import submit
from banyan.storage.tasks import encoded
from tests.faults.scenarios.scenario import Document, Scenario, empty, outcome
from tests.support.crashing import Server
from tests.support.queue import ALICE, SimulatedWorker, post, task

KEY = {"Idempotency-Key": "once"}
COMMAND = {"command": "true", "state": "available"}

_PART_BYTES = 2 * TASK_BYTES + EDGE_BYTES
"""A part has one small task and its edges."""


def _with_parents(context: Context) -> Document:
    """A parent that has ended well, one that waits, and an inactive task that may become a child."""
    ended, waiting = post(context, task(), task(hold=True))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    (child,) = post(context, task(state="inactive"))
    return {"ended": ended, "waiting": waiting, "child": child, "ids": [ObjectId() for _ in range(3)]}


def _submit_list(server: Server, state: Document) -> None:
    first, second, third = state["ids"]
    tasks = [
        {**COMMAND, "_id": first, "dependencies": [state["ended"]], "tags": ["new"]},
        {"_id": second, "state": "available", "dependencies": [state["ended"]], "tags": ["new"]},
        {**COMMAND, "_id": third, "dependencies": [first, second], "continuations": [state["child"]], "tags": ["new"]},
    ]
    server.call("POST", "/tasks", tasks, headers=KEY)


def _all_or_nothing(context: Context, state: Document) -> None:
    assert context.storage.tasks.count({"tags": "new"}) in (0, 3)


def _submit_parts(server: Server, state: Document) -> None:
    """Three parts, as if the tasks were large."""
    context = server.context
    now = context.now()
    new = [ObjectId() for _ in range(3)]
    edges = [Edge(parent=state["ended"], child=new[1]), Edge(parent=new[0], child=new[2])]
    edges += [Edge(parent=new[0], child=state["child"]), Edge(parent=new[2], child=state["child"])]
    common = {"owner": "alice", "_created": now, "_updated": now, "retry_count": 0, "abandoned_count": 0}
    tasks = [
        {**task(tags=["new"], state="inactive"), **common, "_id": id, "order": ObjectId(), "_etag": str(ObjectId())}
        for id in new
    ]
    for each, pending in zip(tasks, [0, 1, 1], strict=True):
        each |= {"attempt_count": 0, "pending_dependency_count": pending, "has_continuations": True}
        each["task_class"] = TaskClass.of(each).key
    tasks[0] |= {"state": "available", "class_key": tasks[0]["task_class"]}
    joining = Joining.of(edges, new)
    stored = [encoded(each) for each in tasks]
    submit_in_parts(context, ObjectId(), tasks, stored, joining, ALICE, lambda session: None, new, _PART_BYTES)


def _abandoned_parts(server: Server, state: Document) -> None:
    """An edge to a task that has begun: nothing is accepted, and what was put aside goes."""
    new = ObjectId()
    joining = Joining.of([Edge(parent=new, child=state["ended"])], [new])
    with suppress(Invalid):
        only = task() | {"_id": new, "pending_dependency_count": 0}
        submit_in_parts(server.context, ObjectId(), [only], [encoded(only)], joining, ALICE, lambda session: None)


def _submit_alone(server: Server, state: Document) -> None:
    submit(server.context, [task(tags=["new"])], ALICE)


SWEEP = {"name": "s", "command": ["echo", "{x}"], "grid": {"x": [1, 2, 3]}, "state": "available"}


def _make_sweep(server: Server, state: Document) -> None:
    server.call("POST", "/sweeps", SWEEP | {"barrier": {"command": "true"}}, headers=KEY)


def _sweep_is_whole(context: Context, state: Document) -> None:
    sweeps = list(context.storage.db["sweeps"].find())
    assert [context.storage.sweeps.count(sweep["_id"], {}) for sweep in sweeps] in ([], [3])
    if sweeps:
        assert outcome(context, sweeps[0]["barrier"]) == "success"


SCENARIOS = [
    Scenario(name="submit one task", prepare=empty, act=_submit_alone),
    Scenario(
        name="submit a list with edges", prepare=_with_parents, act=_submit_list, check=_all_or_nothing, repeats=True
    ),
    Scenario(name="submit in parts", prepare=_with_parents, act=_submit_parts, check=_all_or_nothing),
    Scenario(name="refuse what was put aside", prepare=_with_parents, act=_abandoned_parts),
    Scenario(name="make a sweep", prepare=empty, act=_make_sweep, check=_sweep_is_whole, repeats=True),
]
