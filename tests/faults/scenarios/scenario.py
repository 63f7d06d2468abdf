"""What a scenario is, and what most of them begin with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from banyan.queue.context import Context
from tests.support.crashing import Server
from tests.support.queue import SimulatedWorker, after, post, task

Document = dict[str, Any]


def _nothing(context: Context, state: Document) -> None:
    """Nothing more to check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`prepare` makes what is there before and answers with what `act` and `check` need; `act` is done by the server.

    `seconds` is how far ahead the server's clock is. With `repeats` the client, which got no answer, asks once more
    when the server is back. `check` raises AssertionError if what came of it is not all right.
    """

    name: str
    prepare: Callable[[Context], Document]
    act: Callable[[Server, Document], object]
    check: Callable[[Context, Document], None] = _nothing
    seconds: float = 0.0
    repeats: bool = False


def empty(context: Context) -> Document:
    """Nothing."""
    return {}


def family(context: Context, **fields: Any) -> Document:
    """A parent that a worker runs, a child for its success, one for its failure, and a group after both."""
    (parent,) = post(context, task(**fields))
    good, bad = post(context, task(dependencies=after(parent)), task(dependencies=after(parent, on="failure")))
    both = [*after(good, on="any"), *after(bad, on="any")]
    (group,) = post(context, task(command=None, dependencies=both))
    worker = SimulatedWorker(context)
    worker.claim(1)
    (execution,) = worker.held
    return {"parent": parent, "good": good, "bad": bad, "group": group, "worker": worker.id, "execution": execution}


def end(server: Server, state: Document, exit_status: str, **fields: Any) -> None:
    """Report the end of the attempt `execution` of `worker`."""
    said = {"execution": state["execution"], "exit_status": exit_status, **fields}
    tell(server, state, said)


def tell(server: Server, state: Document, *said: Document, samples: tuple[Document, ...] = ()) -> None:
    """Report these things of attempts of `worker`."""
    token = server.context.storage.meta.attempt_token
    reports = [{"token": token(each["execution"]), **each} for each in said]
    body = {"reports": reports, "memory_usage": list(samples)}
    server.call("POST", f"/workers/{state['worker']}/report", body, role="worker")


def ask(server: Server, worker: ObjectId, **more: Any) -> None:
    """Claim as that worker, without waiting."""
    body = {"request": "again", "resources": {"cores": 1000}, "max_tasks": 10, "held": [], "wait": 0, **more}
    server.call("POST", f"/workers/{worker}/claim", body, role="worker")


def outcome(context: Context, id: ObjectId) -> str:
    """How a task stands: its exit status, else its state."""
    found = context.storage.tasks.documents([id], ["state", "exit_status"]).get(id, {})
    return str(found.get("exit_status") or found.get("state") or "missing")
