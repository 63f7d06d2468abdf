"""What users and administrators do with what is there."""

from contextlib import suppress

from bson import ObjectId

from banyan.domain.roles import Role
from banyan.errors import Invalid
from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.register import change_state
from banyan.storage.files import Quota
from tests.faults.scenarios.scenario import Document, Scenario, empty, family, outcome
from tests.faults.scenarios.submitting import KEY, SWEEP
from tests.support.crashing import Server
from tests.support.queue import SimulatedWorker, after, ids_of, post, task

QUOTA = Quota(max_file_bytes=100, max_attempt_bytes=100, max_files=10)


def _waiting(context: Context) -> Document:
    """A held parent, its child, and one that could become its child."""
    (parent,) = post(context, task(state="inactive"))
    (child,) = post(context, task(dependencies=after(parent)))
    (other,) = post(context, task(state="inactive"))
    return {"parent": parent, "child": child, "other": other}


def _held_child(context: Context) -> Document:
    """A child whose parent has ended, and which was held until now."""
    (parent,) = post(context, task())
    (child,) = post(context, task(dependencies=after(parent), hold=True))
    (after_group,) = post(context, task(dependencies=after(child)))
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    return {"child": child, "after": after_group}


def _group(context: Context) -> Document:
    (group,) = post(context, task(command=None, state="inactive"))
    (child,) = post(context, task(dependencies=after(group)))
    return {"group": group, "child": child}


def _failed(context: Context) -> Document:
    """A failed parent, whose child and grandchild were cancelled for it; another child has another one to blame too."""
    parent, other = post(context, task(), task())
    (child,) = post(context, task(dependencies=after(parent)))
    (grandchild,) = post(context, task(dependencies=after(child)))
    post(context, task(dependencies=after(parent, other)))
    worker = SimulatedWorker(context)
    for grant in sorted(worker.claim().tasks, key=lambda grant: bool(grant["_id"] == other)):
        worker.end("failure (exit code 1)", [grant["execution"]])
    return {"parent": parent, "child": child, "grandchild": grandchild}


def _retried_or_not(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("parent", "child", "grandchild")]
    assert found in (["success"] * 3, ["failure (exit code 1)", "cancelled", "cancelled"])


def _ended_with_files(context: Context) -> Document:
    """A parent that has ended with files and samples; its child waits, held."""
    state = family(context)
    context.storage.files.append(state["execution"], "files/a", 0, b"data", QUOTA, context.now())
    sample = {"task": state["parent"], "owner": "alice", "time": context.now(), "resident_memory_bytes": 1}
    context.storage.memory.add([sample], context.now())
    cancel(context, [state["parent"]], {"user": "alice"})
    worker = SimulatedWorker(context)
    worker.held = {state["execution"]: {}}
    worker.end()
    worker.run_all()
    return state


def _gone_or_there(context: Context, state: Document) -> None:
    assert outcome(context, state["parent"]) in ("missing", "success")


def sweep_of_three(context: Context) -> Document:
    sweep = {**SWEEP, "barrier": {"command": "true"}}
    return {"sweep": _posted(context, sweep)}


def _posted(context: Context, sweep: Document) -> ObjectId:
    from banyan.domain.sweeps import grid_points
    from banyan.queue.sweep import Plan, make
    from tests.support.queue import ALICE

    plan = Plan(
        kept={"name": "s", "grid": sweep["grid"]},
        shared=task(),
        template=sweep["command"],
        inputs={},
        points=list(grid_points(sweep["grid"])),
        names=["x"],
        barrier=task(),
    )
    id: ObjectId = make(context, plan, ALICE)["_id"]
    return id


def failed_sweep(context: Context) -> Document:
    state = sweep_of_three(context)
    worker = SimulatedWorker(context)
    worker.claim(3)
    first, *others = worker.held
    worker.end("failure (exit code 1)", [first])
    worker.end("success", others)
    worker.run_all()
    return state


def _barrier_is_ready(context: Context) -> Document:
    """All points have ended, one of them badly, and nobody has begun the barrier."""
    state = sweep_of_three(context)
    worker = SimulatedWorker(context)
    worker.claim(3)
    first, *others = worker.held
    worker.end("failure (exit code 1)", [first])
    worker.end("success", others)
    return state


def _sweep_goes_on(context: Context) -> Document:
    """One point has failed, the others are running, the barrier waits."""
    state = sweep_of_three(context)
    worker = SimulatedWorker(context)
    worker.claim(3)
    worker.end("failure (exit code 1)", list(worker.held)[:1])
    return state


def _whole_sweep(context: Context, state: Document) -> None:
    """Its points have all ended, and its barrier after them; or it is gone with all of them."""
    sweep = context.storage.sweeps.load(state["sweep"])
    if sweep is None:
        assert context.storage.tasks.count({}) == 0
        return
    points = ids_of(context, {"sweep": state["sweep"], "index": {"$gte": 0}})
    barrier = context.storage.tasks.documents([sweep["barrier"]])[sweep["barrier"]]
    assert len(points) == 3
    ends = [task["time_terminated"] for task in context.storage.tasks.documents(points).values()]
    if barrier["exit_status"] == "success":
        assert barrier["time_claimed"] >= max(ends)


def _cancelled_or_run(context: Context, state: Document) -> None:
    """Nothing or all of it was cancelled."""
    statuses = {outcome(context, id) for id in ids_of(context, {})}
    assert len(statuses) == 1, statuses


def _quarantined(context: Context) -> Document:
    state = family(context)
    context.storage.workers.quarantine(state["worker"], "test", context.now(), None)
    (avoiding,) = post(context, task())
    context.storage.db["tasks"].update_one({"_id": avoiding}, {"$set": {"avoid": [state["worker"]]}})
    return state


def _refused_request(server: Server, state: Document) -> None:
    """A request that fails is forgotten, so that it can be sent again with its key."""
    with suppress(AssertionError):
        server.call("POST", "/tasks", {"nonsense": 1}, headers=KEY)


def _two_admins(context: Context) -> Document:
    context.storage.users.add("second", Role.ADMIN, context.now())
    return {}


def _users(server: Server, state: Document) -> None:
    server.call("POST", "/users", {"name": "new", "role": "provider"}, role="admin")
    server.call("POST", "/users/new/rotate", role="admin")
    server.call("DELETE", "/users/second", role="admin")
    with suppress(Invalid):
        server.context.storage.users.remove("root", server.context.now())  # the last admin stays
    server.context.storage.users.make_sure("new", Role.PROVIDER, "token", server.context.now())


def _an_admin_is_left(context: Context, state: Document) -> None:
    assert "root" in {user.name for user in context.storage.users.list() if user.role == Role.ADMIN}


def _queues(server: Server, state: Document) -> None:
    name = f"q{ObjectId()}"
    server.call("POST", "/queues", {"name": name}, role="admin", headers=KEY)
    server.call("PATCH", f"/queues/{name}", {"paused": True}, role="admin")
    server.call("PUT", "/models/m/defaults", {"x": 1}, role="admin")


def _limit(server: Server, state: Document) -> None:
    """The worker is asked for the task that it has not begun, and does not answer."""
    server.call("PATCH", "/queues/default", {"max_running": 1000}, role="admin")


SCENARIOS = [
    Scenario(
        name="release",
        prepare=_waiting,
        act=lambda server, state: server.call("PATCH", f"/tasks/{state['parent']}", {"state": "available"}),
    ),
    Scenario(
        name="release a group",
        prepare=_group,
        act=lambda server, state: server.call("PATCH", f"/tasks/{state['group']}", {"state": "available"}),
    ),
    Scenario(
        name="let go of a held child",
        prepare=_held_child,
        act=lambda server, state: server.call("PATCH", f"/tasks/{state['child']}", {"hold": False}),
    ),
    Scenario(
        name="replace continuations",
        prepare=_waiting,
        act=lambda server, state: server.call(
            "PATCH", f"/tasks/{state['parent']}", {"continuations": [state["other"]]}
        ),
    ),
    Scenario(
        name="add continuations",
        prepare=_waiting,
        act=lambda server, state: server.call(
            "POST", "/tasks/add_continuations", [{"targets": [state["child"]], "values": [state["other"]]}]
        ),
    ),
    Scenario(
        name="remove continuations",
        prepare=_waiting,
        act=lambda server, state: server.call(
            "POST", "/tasks/remove_continuations", [{"targets": [state["parent"]], "values": [state["child"]]}]
        ),
    ),
    Scenario(
        name="cancel what waits",
        prepare=_waiting,
        act=lambda server, state: server.call("POST", f"/tasks/{state['parent']}/cancel"),
    ),
    Scenario(
        name="cancel what runs",
        prepare=family,
        act=lambda server, state: server.call("POST", f"/tasks/{state['parent']}/cancel"),
    ),
    Scenario(
        name="retry",
        prepare=_failed,
        act=lambda server, state: server.call("POST", f"/tasks/{state['parent']}/retry"),
        check=_retried_or_not,
    ),
    Scenario(
        name="delete",
        prepare=_ended_with_files,
        act=lambda server, state: server.call("DELETE", f"/tasks/{state['parent']}"),
        check=_gone_or_there,
    ),
    Scenario(
        name="cancel a sweep",
        prepare=sweep_of_three,
        act=lambda server, state: server.call("POST", f"/sweeps/{state['sweep']}/cancel"),
        check=_cancelled_or_run,
    ),
    Scenario(
        name="retry a sweep",
        prepare=failed_sweep,
        act=lambda server, state: server.call("POST", f"/sweeps/{state['sweep']}/retry"),
        check=_whole_sweep,
    ),
    Scenario(
        name="retry a sweep that goes on",
        prepare=_sweep_goes_on,
        act=lambda server, state: server.call("POST", f"/sweeps/{state['sweep']}/retry"),
        check=_whole_sweep,
    ),
    Scenario(
        name="retry a sweep whose barrier is ready",
        prepare=_barrier_is_ready,
        act=lambda server, state: server.call("POST", f"/sweeps/{state['sweep']}/retry"),
        check=_whole_sweep,
    ),
    Scenario(
        name="delete a sweep",
        prepare=failed_sweep,
        act=lambda server, state: server.call("DELETE", f"/sweeps/{state['sweep']}"),
        check=_whole_sweep,
    ),
    Scenario(
        name="release from quarantine",
        prepare=_quarantined,
        act=lambda server, state: change_state(server.context, state["worker"], "active"),
    ),
    Scenario(name="refuse a request that has a key", prepare=empty, act=_refused_request),
    Scenario(name="manage users", prepare=_two_admins, act=_users, check=_an_admin_is_left),
    Scenario(name="manage queues and models", prepare=empty, act=_queues),
    Scenario(name="limit a queue of which something waits at a worker", prepare=family, act=_limit),
]
