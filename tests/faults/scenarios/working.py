"""What workers do: register, claim, report, send files, leave."""

from datetime import timedelta

from banyan.queue.cancel import cancel
from banyan.queue.context import Context
from banyan.queue.delete import delete
from banyan.queue.register import change_state
from tests.faults.scenarios.scenario import Document, Scenario, ask, empty, end, family, outcome, tell
from tests.support.crashing import Server
from tests.support.queue import SimulatedWorker, post, task

BROKEN = "failure (worker: disk full)"
LACKING = "failure (no directory: /home/alice)"


def _worker_and_tasks(context: Context) -> Document:
    ids = post(context, task(), task())
    return {"worker": SimulatedWorker(context).id, "ids": ids}


def _limited(context: Context) -> Document:
    queues = context.storage.queues
    queues.change(queues.all()["default"]["_id"], {"max_running": 1}, context.now())
    return _worker_and_tasks(context)


def _never_told(context: Context) -> Document:
    """A worker whose claim was answered, and which did not hear of it; one of its attempts has started all the same."""
    post(context, task(), task())
    worker = SimulatedWorker(context)
    first, second = (grant["execution"] for grant in worker.claim(2, request="lost").tasks)
    context.storage.executions.update({second: {"time_started": context.now()}}, context.now())
    return {"worker": worker.id, "first": first}


def _unrecorded(context: Context) -> Document:
    """A claim in which the server died before it recorded the attempt."""
    state = _never_told(context)
    context.storage.db["executions"].delete_many({"_id": state["first"]})
    return state


def _wide(context: Context) -> Document:
    """A task that waits for a whole worker which is half busy."""
    post(context, task())
    worker = SimulatedWorker(context, resources={"cores": 2})
    worker.claim(1)
    post(context, task(requested_resources={"cores": 2}))
    return {"worker": worker.id, "held": list(worker.held)}


def _ask_wide(server: Server, state: Document) -> None:
    ask(server, state["worker"], resources={"cores": 1}, held=state["held"])


def _claim_by_hand(server: Server, state: Document) -> None:
    body = {"state": "running", "update_execution_data": {"worker": state["worker"]}}
    server.call("PATCH", f"/tasks/{state['ids'][0]}", body, role="worker")


def _progress(server: Server, state: Document) -> None:
    now = server.context.now().isoformat()
    sample = {"execution": state["execution"], "task": state["parent"], "time": now, "resident_memory_bytes": 1}
    said = {"execution": state["execution"], "time_started": now, "progress": {"fraction": 0.5}}
    tell(server, state, said, samples=(sample,))


def _by_hand(server: Server, state: Document) -> None:
    token = server.context.storage.meta.attempt_token(state["execution"])
    body = {"state": "terminated", "update_execution_data": {"token": token, "exit_status": "success"}}
    server.call("PATCH", f"/tasks/{state['parent']}", body, role="worker")


def _settled_well(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("parent", "good", "bad", "group")]
    assert found == ["success", "success", "cancelled", "success"]


def _settled_badly(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("parent", "good", "bad", "group")]
    assert found in (
        ["failure (exit code 1)", "cancelled", "success", "success"],
        ["success", "success", "cancelled", "success"],  # the crash came before the report was taken in
    )


def _retried(context: Context, state: Document) -> None:
    _settled_well(context, state)
    task = context.storage.tasks.documents([state["parent"]])[state["parent"]]
    counted = [a for a in context.storage.executions.of_task(state["parent"]) if "exit code" in a["exit_status"]]
    assert task["retry_count"] == len(counted)


def _very_large(context: Context) -> Document:
    """A family whose group is shown to wait for so many that they are not counted each time."""
    state = family(context)
    context.storage.db["tasks"].update_one({"_id": state["group"]}, {"$set": {"pending_dependency_count": 5000}})
    return state


def _silent_for_a_while(context: Context) -> Document:
    """A worker whose lease a report renews."""
    state = family(context)
    before = context.now() - timedelta(seconds=context.settings.leases.lost_after / 2)
    context.storage.db["workers"].update_one({"_id": state["worker"]}, {"$set": {"last_seen": before}})
    return state


def _being_cancelled(context: Context) -> Document:
    state = family(context)
    cancel(context, [state["parent"]], {"user": "alice"})
    return state


def _failing(context: Context) -> Document:
    """A worker that is one failure short of its quarantine."""
    state = family(context)
    context.storage.workers.failed(state["worker"], ["one", "two"])
    return state


def _not_avoided_for_nothing(context: Context, state: Document) -> None:
    """The task that the machine failed was lost once, and went elsewhere."""
    _settled_well(context, state)
    assert context.storage.tasks.documents([state["parent"]])[state["parent"]]["abandoned_count"] == 1


def _in_a_directory(context: Context) -> Document:
    return family(context, directory="/home/alice")


def _two_workers(context: Context) -> Document:
    """A task that runs in a directory, and another worker that may have it."""
    state = _in_a_directory(context)
    SimulatedWorker(context)
    return state


def _lacked_and_elsewhere(context: Context, state: Document) -> None:
    """The other worker ran the task, and nothing was counted."""
    _settled_well(context, state)
    task = context.storage.tasks.documents([state["parent"]])[state["parent"]]
    assert (task["retry_count"], task.get("abandoned_count", 0)) == (0, 0)


def _lacked_and_ended(context: Context, state: Document) -> None:
    found = [outcome(context, state[name]) for name in ("parent", "good", "bad", "group")]
    assert found in ([LACKING, "cancelled", "success", "success"], ["success", "success", "cancelled", "success"])


def _running(context: Context) -> Document:
    state = family(context)
    (other,) = post(context, task())
    return state | {"other": other}


def _register(server: Server, state: Document) -> None:
    body = {"name": "new", "resources": {"cores": 1}, "replaces": state["worker"], "finished": []}
    server.call("POST", "/workers", body, role="worker")


def _draining(context: Context) -> Document:
    state = _worker_and_tasks(context)
    change_state(context, state["worker"], "draining")
    return state


def _deleted_work(context: Context) -> Document:
    """A worker that is to forget the directory of a task that was deleted."""
    (id,) = post(context, task())
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end()
    delete(context, [id])
    return {"worker": worker.id}


def _put(server: Server, state: Document, name: str, offset: int, data: bytes) -> None:
    token = server.context.storage.meta.attempt_token(state["execution"])
    path = f"/execution_history/{state['execution']}/files/{name}?offset={offset}"
    headers = {"Banyan-Attempt-Token": token, "Content-Type": "application/octet-stream"}
    server.call("PUT", path, role="worker", data=data, headers=headers)


def _uploads(server: Server, state: Document) -> None:
    """A new file, more of it in the same piece, and the file begun anew."""
    _put(server, state, "log", 0, b"one")
    _put(server, state, "log", 3, b"two")
    _put(server, state, "log", 0, b"anew")


def _memory(server: Server, state: Document) -> None:
    sample = {"task": state["parent"], "time": server.context.now().isoformat(), "resident_memory_bytes": 1}
    server.call("POST", "/memory_usage", [sample], role="worker")


SCENARIOS = [
    Scenario(name="claim", prepare=_worker_and_tasks, act=lambda server, state: ask(server, state["worker"])),
    Scenario(name="claim in a limited queue", prepare=_limited, act=lambda server, state: ask(server, state["worker"])),
    Scenario(
        name="claim after an answer was lost",
        prepare=_never_told,
        act=lambda server, state: ask(server, state["worker"]),
    ),
    Scenario(
        name="repeat a claim that was not recorded",
        prepare=_unrecorded,
        act=lambda server, state: ask(server, state["worker"], request="lost"),
    ),
    Scenario(name="keep a worker free for a wide task", prepare=_wide, act=_ask_wide, seconds=40),
    Scenario(name="claim by hand", prepare=_worker_and_tasks, act=_claim_by_hand),
    Scenario(
        name="leave by itself",
        prepare=_worker_and_tasks,
        act=lambda server, state: ask(server, state["worker"], draining=True),
    ),
    Scenario(name="hear of draining", prepare=_draining, act=lambda server, state: ask(server, state["worker"])),
    Scenario(
        name="hear of what to forget", prepare=_deleted_work, act=lambda server, state: ask(server, state["worker"])
    ),
    Scenario(
        name="hear of what to forget in an answer to a report",
        prepare=_deleted_work,
        act=tell,
    ),
    Scenario(
        name="tell progress and memory", prepare=_silent_for_a_while, act=_progress, check=_settled_well, repeats=True
    ),
    Scenario(
        name="end well",
        prepare=_failing,
        act=lambda server, state: end(server, state, "success", result=1),
        check=_settled_well,
        repeats=True,
    ),
    Scenario(
        name="end well before a child of very many",
        prepare=_very_large,
        act=lambda server, state: end(server, state, "success"),
        check=_settled_well,
        repeats=True,
    ),
    Scenario(
        name="end badly",
        prepare=family,
        act=lambda server, state: end(server, state, "failure (exit code 1)"),
        check=_settled_badly,
        repeats=True,
    ),
    Scenario(
        name="end badly with a retry left",
        prepare=lambda context: family(context, max_retry_count=1, retry_delay=5.0),
        act=lambda server, state: end(server, state, "failure (exit code 1)"),
        check=_retried,
        repeats=True,
    ),
    Scenario(
        name="end while being cancelled",
        prepare=_being_cancelled,
        act=lambda server, state: end(server, state, "cancelled"),
        repeats=True,
    ),
    Scenario(
        name="fail by the machine's fault",
        prepare=_failing,
        act=lambda server, state: end(server, state, BROKEN),
        check=_not_avoided_for_nothing,
        repeats=True,
    ),
    Scenario(
        name="lack a directory that another worker may have",
        prepare=_two_workers,
        act=lambda server, state: end(server, state, LACKING),
        check=_lacked_and_elsewhere,
        repeats=True,
    ),
    Scenario(
        name="lack a directory that no other worker has",
        prepare=_in_a_directory,
        act=lambda server, state: end(server, state, LACKING),
        check=_lacked_and_ended,
        repeats=True,
    ),
    Scenario(name="end by hand", prepare=family, act=_by_hand, check=_settled_well),
    Scenario(
        name="give back",
        prepare=family,
        act=lambda server, state: tell(server, state, {"execution": state["execution"], "given_back": True}),
        check=_settled_well,
        repeats=True,
    ),
    Scenario(name="replace an earlier life", prepare=_running, act=_register, check=_settled_well),
    Scenario(
        name="leave with work",
        prepare=_running,
        act=lambda server, state: server.call("DELETE", f"/workers/{state['worker']}", role="worker"),
        check=_settled_well,
    ),
    Scenario(name="send files", prepare=family, act=_uploads),
    Scenario(name="send memory", prepare=family, act=_memory),
    Scenario(name="start", prepare=empty, act=lambda server, state: None),
]
