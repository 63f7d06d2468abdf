"""A queue over the real MongoDB, and workers that claim and report without running anything."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import uuid4

from bson import ObjectId

from banyan.config import ServerSettings
from banyan.domain.resources import Resources
from banyan.domain.roles import Role
from banyan.queue.actor import Actor
from banyan.queue.claim import Ask, News, claim
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.queue.register import register
from banyan.queue.report import Answer, Report, report
from banyan.queue.submit import submit
from banyan.storage.mongo import Storage

Document = dict[str, Any]

ALICE = Actor(name="alice", role=Role.PROVIDER)
WORKERS = Actor(name="worker", role=Role.WORKER)

_names = count()


def context_of(storage: Storage, **settings: Any) -> Context:
    """A context whose hub exchanges no signals; `settings` nest like the server's."""
    return Context(storage=storage, hub=Hub(storage), settings=ServerSettings(**settings))


def task(**fields: Any) -> Document:
    """A validated task with the defaults of the schema."""
    defaults: Document = {"command": "true", "queue": "default", "priority": 0, "state": "available", "hold": False}
    defaults |= {"max_retry_count": 0, "retry_delay": 0.0, "requested_resources": {"cores": 1}}
    return {name: value for name, value in (defaults | fields).items() if value is not None}


def post(context: Context, *tasks: Document, actor: Actor = ALICE) -> list[ObjectId]:
    """Submit tasks; their ids."""
    return [answer["_id"] for answer in submit(context, tasks, actor)]


def after(*parents: ObjectId, on: str = "success") -> list[Document]:
    """Dependencies on these parents."""
    return [{"task": parent, "on": on} for parent in parents]


class Interrupting(Hub):
    """Wakes nobody: whenever tasks can be claimed it lets `act` happen, which may raise."""

    def __init__(self, context: Context, act: Callable[[], object]) -> None:
        super().__init__(context.storage)
        self._act = act

    def work(self, counts: Mapping[str, int], priorities: Mapping[str, float] | None = None) -> None:
        self._act()


@dataclass
class SimulatedWorker:
    """Claims and reports as a worker does, in the test's own time."""

    context: Context
    resources: Mapping[str, Any] = field(default_factory=lambda: {"cores": 1000})
    labels: Mapping[str, str] = field(default_factory=dict)
    queues: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ("shell",)
    id: ObjectId = field(init=False)
    held: dict[ObjectId, Document] = field(default_factory=dict)

    def __post_init__(self) -> None:
        document: Document = {
            "name": f"worker-{next(_names)}",
            "host": "test",
            "pid": 1,
            "resources": dict(self.resources),
            "labels": dict(self.labels),
            "capabilities": list(self.capabilities),
            "queues": list(self.queues),
        }
        self.id = register(self.context, document, WORKERS)["_id"]

    def ask(self, max_tasks: int = 1000, **more: Any) -> Ask:
        """A new question that waits for nothing."""
        known: Document = {"request": str(uuid4()), "free": Resources.from_document(self.resources)}
        return Ask(**(known | {"max_tasks": max_tasks, "held": frozenset(self.held)} | more))

    def claim(self, max_tasks: int = 1000, **more: Any) -> News:
        """Claim and hold what is granted."""
        news = claim(self.context, self.id, self.ask(max_tasks, **more))
        self.held |= {grant["execution"]: grant for grant in news.tasks}
        return news

    def end(self, exit_status: str = "success", executions: Iterable[ObjectId] | None = None, **fields: Any) -> Answer:
        """Report the end of some of the attempts, or of all that are held."""
        ending = list(self.held if executions is None else executions)
        answer = report(self.context, [Report(execution=id, exit_status=exit_status, fields=fields) for id in ending])
        for id in ending:
            self.held.pop(id, None)
        return answer

    def run_all(self, rounds: int = 10_000) -> int:
        """Claim and succeed until nothing is left; how many tasks that were."""
        done = 0
        for _ in range(rounds):
            if not self.claim().tasks:
                return done
            done += len(self.held)
            self.end()
        raise AssertionError(f"still running after {rounds} rounds and {done} tasks")


def states(context: Context, ids: Iterable[ObjectId]) -> list[str]:
    """The states of tasks, in the order of their ids as given."""
    wanted = list(ids)
    found = context.storage.tasks.load(wanted)
    return [str(found[id].state) for id in wanted]


def ids_of(context: Context, where: dict[str, Any]) -> list[ObjectId]:
    """The ids of the tasks that match."""
    return [document["_id"] for document in context.storage.db["tasks"].find(where, {"_id": 1}).sort("_id")]
