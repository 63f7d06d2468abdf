"""What has ended leaves after its time, and workers say that they have removed it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bson import ObjectId

from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.rescue import rescue
from banyan.queue.retention import remove_empty_sweeps, retain, walk
from tests.faults.scenarios.scenario import Document, Scenario, ask
from tests.faults.scenarios.steering import QUOTA
from tests.support.crashing import Server
from tests.support.queue import SimulatedWorker, after, post, task

DAY = timedelta(days=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
KINDS = ("tasks", "history", "files", "memory_usage")


def _old(context: Context) -> Document:
    """Two tasks that have run and left something, one of them a parent that is needed, and an empty sweep."""
    db = context.storage.db
    db["meta"].update_one({"_id": "retention"}, {"$unset": dict.fromkeys([*KINDS, "sweeps"], 1)})
    db["meta"].update_one({"_id": "retention"}, {"$set": {"turn": LONG_AGO}})
    old, parent = post(context, task(), task())
    (child,) = post(context, task(dependencies=after(parent), hold=True))
    worker = SimulatedWorker(context)
    for grant in worker.claim().tasks:
        execution = grant["execution"]
        context.storage.files.append(execution, "stdout", 0, b"said", QUOTA, context.now())
        sample = {"task": grant["_id"], "execution": execution, "time": context.now(), "resident_memory_bytes": 1}
        context.storage.memory.add([sample], context.now())
    worker.end()
    for kind in KINDS:  # a task that was postponed, and that someone has deleted since
        context.storage.retention.postpone(kind, [ObjectId()], LONG_AGO)
    db["sweeps"].insert_one({"_id": ObjectId.from_datetime(LONG_AGO), "_created": LONG_AGO, "count": 1})
    return {"old": old, "parent": parent, "child": child}


def _walk(*kinds: str) -> Callable[[Server, Document], None]:
    def act(server: Server, state: Document) -> None:
        for kind in kinds:
            walk(server.context, kind, server.context.now() + 2 * DAY, DAY)

    return act


def _left(tasks: int, attempts: int, files: int, samples: int) -> Callable[[Context, Document], None]:
    def check(context: Context, state: Document) -> None:
        db = context.storage.db
        there = [db[name].count_documents({}) for name in ("tasks", "executions", "files", "memory_usage")]
        assert there == [tasks, attempts, files, samples]
        assert db["file_segments.chunks"].count_documents({}) == files
        assert context.storage.tasks.load([state["parent"], state["child"]]).keys() == {state["parent"], state["child"]}
        noted = db["forget"].distinct("task")
        assert noted == ([state["old"]] if files == 1 else [])

    return check


def _leave_sweeps(server: Server, state: Document) -> None:
    remove_empty_sweeps(server.context, server.context.now())


def _no_sweeps(context: Context, state: Document) -> None:
    assert context.storage.db["sweeps"].count_documents({}) == 0


def _month_later(server: Server, state: Document) -> None:
    retain(server.context)


def _deleted(context: Context) -> Document:
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    delete(context, [id])
    (told,) = worker.claim().forget
    return {"worker": worker.id, "forgotten": [told]}


def _forgotten(context: Context, state: Document) -> None:
    assert context.storage.db["forget"].count_documents({}) == 0


def _same_id(context: Context) -> Document:
    """A worker would be told of a task that is there again."""
    state = _deleted(context)
    (id,) = (ObjectId(name) for name in state["forgotten"])
    context.storage.db["forget"].update_many({}, {"$set": {"told": LONG_AGO}})
    post(context, task(_id=id, hold=True))
    return state


def _hub(context: Context) -> Document:
    """A task between two parents and two children, all of which have ended."""
    parents = post(context, task(), task())
    (hub,) = post(context, task(dependencies=after(*parents)))
    children = post(context, *[task(dependencies=after(hub)) for _ in range(2)])
    SimulatedWorker(context).run_all()
    return {"hub": hub, "others": [*parents, *children]}


def _delete_hub(server: Server, state: Document) -> None:
    delete(server.context, [state["hub"]], many=1)


def _half_deleted(context: Context) -> Document:
    state = _hub(context)
    assert context.storage.tasks.begin_leaving(state["hub"])
    context.storage.edges.delete_to([state["hub"]])
    return state


def _rescue(server: Server, state: Document) -> None:
    rescue(server.context)


def _hub_gone(context: Context, state: Document) -> None:
    assert context.storage.tasks.load([state["hub"], *state["others"]]).keys() == set(state["others"])
    edges = list(context.storage.db["continuations"].find())
    assert [edge["parent"] for edge in edges] == [state["hub"]] * 2, "its children know how it ended"


SCENARIOS = [
    Scenario(name="delete a hub", prepare=_hub, act=_delete_hub, check=_hub_gone, repeats=True),
    Scenario(name="finish the deletion of a hub", prepare=_half_deleted, act=_rescue, check=_hub_gone),
    Scenario(name="samples leave", prepare=_old, act=_walk("memory_usage"), check=_left(3, 2, 2, 0), repeats=True),
    Scenario(name="files leave", prepare=_old, act=_walk("files"), check=_left(3, 2, 1, 2), repeats=True),
    Scenario(name="histories leave", prepare=_old, act=_walk("history"), check=_left(3, 1, 1, 2), repeats=True),
    Scenario(name="tasks leave", prepare=_old, act=_walk("tasks"), check=_left(2, 1, 1, 1), repeats=True),
    Scenario(name="sweeps leave", prepare=_old, act=_leave_sweeps, check=_no_sweeps, repeats=True),
    Scenario(name="a month later", prepare=_old, act=_month_later, seconds=31 * DAY.total_seconds()),
    Scenario(
        name="have forgotten",
        prepare=_deleted,
        act=lambda server, state: ask(server, state["worker"], forgotten=state["forgotten"]),
        check=_forgotten,
        repeats=True,
    ),
    Scenario(
        name="not forget what is there again",
        prepare=_same_id,
        act=lambda server, state: ask(server, state["worker"]),
        check=_forgotten,
        repeats=True,
    ),
]
