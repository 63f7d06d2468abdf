"""What the hot paths cost where it can be counted: commands sent to MongoDB, what these look at, bytes of a claim.

No times: those are measured by `bench/`. Whoever makes a path cheaper lowers its numbers here; who raises one says why.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import pytest
from bson import ObjectId
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from banyan.config import Leases, Models, ServerSettings
from banyan.domain.matching import Offer
from banyan.models.checker import Checker
from banyan.queue.audit import Audit
from banyan.queue.choose import Wanted
from banyan.queue.context import Context
from banyan.queue.grant import grant_all
from banyan.queue.hub import Hub
from banyan.queue.quiet import Quiet
from banyan.queue.settle import settle
from banyan.storage import reading
from banyan.storage.mongo import Storage
from banyan.storage.reading import Reader
from tests.integration.conftest import Api

Document = dict[str, Any]

FEW, MANY = 2, 100
"""A path sends the same commands for both, where the table does not say otherwise."""

CLASSES = 5
SPARE_KEYS = 2
"""A command may look at so many more index keys for each class, id or value that it asks for than it has use for."""

_ASKED = "findAndModify workers, find tasks, aggregate tasks"
_TOLD = "find workers, find executions, update executions"
_ENDED = f"{_TOLD}, find tasks, update tasks"
_ANSWERED = "find queues, find workers, find tasks"
_SETTLED = (
    "find tasks, find continuations, find tasks, update continuations, find tasks, aggregate continuations, "
    "aggregate continuations, update tasks, find continuations, update tasks"
)
SENT: dict[str, str] = {
    "post one task": "find queues, insert tasks",
    "post a list": "find queues, insert tasks, commitTransaction",
    "claim, with nothing there": _ASKED,
    "claim, and wait in vain": "findAndModify workers, find workers",
    "claim, and wait in vain once more": "findAndModify workers",
    "claim one task": f"{_ASKED}, find queues, update tasks, insert executions, find tasks",
    "claim several tasks": f"{_ASKED}, find queues, find tasks, update tasks, insert executions, find tasks",
    "many claims of one task at once": (
        "aggregate tasks, find queues, find tasks, update tasks, insert executions, find tasks, aggregate tasks"
    ),
    "explain the queue": (
        "find workers, aggregate tasks, aggregate tasks, aggregate tasks, find queues, find tasks, find tasks, "
        "aggregate tasks, aggregate tasks, find queues, find workers"
    ),
    "explain a task that waits": (
        "find tasks, find tasks, find workers, find continuations, aggregate continuations, "
        "aggregate continuations, find queues, "
        "aggregate tasks, aggregate tasks, aggregate tasks, aggregate tasks, aggregate tasks"
    ),
    "report starts": f"{_TOLD}, update tasks, find tasks",
    "report ends": f"{_ENDED}, {_ANSWERED}",
    "report the end of a parent": f"{_ENDED}, {_SETTLED}, {_ANSWERED}",
    "report the ends of the parents of a barrier": f"{_ENDED}, {_SETTLED}, {_ANSWERED}",
}
"""The commands of each path, in order."""

BYTES_OF_A_CLAIM, BYTES_OF_A_TASK = 60, 335
"""What an answer to a claim may have at most, and for each task with a short command besides."""

STEP, GRAPH = 2_500, 3_000
"""What a command may look at while graphs are settled, and how many edges meet in one task then."""


class Commands(CommandListener):
    """Notes what is sent, but for what comes now and then: the clock, connections, tokens, whom `forget` concerns."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        place = event.command.get("collection" if event.command_name == "getMore" else event.command_name)
        name = f"{event.command_name} {place}" if isinstance(place, str) else event.command_name
        if name not in ("hello", "find users", "distinct forget") and not name.startswith("sasl"):
            self.sent.append(name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """It was sent all the same."""

    def failed(self, event: CommandFailedEvent) -> None:
        """It was sent all the same."""


@pytest.fixture
def settings() -> ServerSettings:
    """No lease has to be renewed by a report while a test runs."""
    return ServerSettings(models=Models(path=()), leases=Leases(heartbeat=1000, lost_after=4000))


@pytest.fixture
def commands() -> Commands:
    """What is sent to MongoDB."""
    return Commands()


@pytest.fixture
def context(mongo_uri: str, database_name: str, settings: ServerSettings, commands: Commands) -> Iterator[Context]:
    """One whose commands are noted, whose hub says nothing to other servers, and that forgets nothing with time."""
    storage = Storage.connect(mongo_uri, database_name, [commands])
    hub, models = Hub(storage), Checker(settings.models, settings.posting.check_seconds)
    yield Context(storage=storage, hub=hub, settings=settings, models=models, quiet=Quiet(lambda: 0.0))
    hub.close()
    models.close()
    storage.close()


class Node:
    """A worker's calls, each answered with what came back as JSON, and its size in bytes."""

    RESOURCES: ClassVar[Document] = {"cores": 1000, "memory": 1 << 40}

    def __init__(self, api: Api) -> None:
        self._api = api
        self._requests = count()
        body = {"name": "node", "resources": self.RESOURCES, "capabilities": ["shell"]}
        self.id = ObjectId(self._call("/workers", body)["_id"])
        self._url = f"/workers/{self.id}"
        self.bytes = 0

    def _call(self, path: str, body: Document) -> Document:
        response = self._api.post(path, body)
        assert response.status_code in (200, 201), response.text
        self.bytes = len(response.data)
        answer: Document = response.get_json()
        return answer

    def claim(self, max_tasks: int, wait: float = 0.0) -> list[Document]:
        body = {"request": str(next(self._requests)), "resources": self.RESOURCES, "max_tasks": max_tasks, "held": []}
        granted: list[Document] = self._call(f"{self._url}/claim", body | {"wait": wait})["tasks"]
        return granted

    def report(self, grants: Sequence[Document], **said: Any) -> None:
        reports = [{"execution": grant["execution"], "token": grant["token"], **said} for grant in grants]
        answer = self._call(f"{self._url}/report", {"reports": reports})
        assert len(answer["accepted"]) == len(grants)

    def end(self, grants: Sequence[Document]) -> None:
        self.report(grants, exit_status="success", exit_code=0)


@pytest.fixture
def node(worker: Api, provider: Api) -> Node:
    """A worker that has run a task, so that nothing is new to the server any more."""
    node = Node(worker)
    post(provider, [{}])
    node.end(node.claim(1))
    return node


def post(provider: Api, tasks: Sequence[Document]) -> list[str]:
    """Post tasks as one list; their ids."""
    response = provider.post("/tasks", [{"command": "true", "state": "available", **task} for task in tasks])
    assert response.status_code == 201, response.text
    return [item["_id"] for item in response.get_json()["_items"]]


@dataclass(frozen=True)
class Sent:
    """What is sent while the block runs."""

    commands: Commands

    @contextmanager
    def as_the_table_says(self, path: str) -> Iterator[None]:
        self.commands.sent.clear()
        yield
        assert self.commands.sent == SENT[path].split(", "), f"{path}: {', '.join(self.commands.sent)}"


@pytest.fixture
def sent(commands: Commands) -> Sent:
    """The commands of a path."""
    return Sent(commands)


def test_a_post_sends_as_much_for_a_long_list_as_for_a_short_one(sent: Sent, provider: Api, node: Node) -> None:
    with sent.as_the_table_says("post one task"):
        assert provider.post("/tasks", {"command": "true", "state": "available"}).status_code == 201
    for number in (FEW, MANY):
        with sent.as_the_table_says("post a list"):
            post(provider, [{}] * number)


def test_a_claim_sends_as_much_for_many_tasks_as_for_few(sent: Sent, provider: Api, node: Node) -> None:
    for number in (1, FEW, MANY):
        post(provider, [{}] * number)
        with sent.as_the_table_says("claim one task" if number == 1 else "claim several tasks"):
            granted = node.claim(number)
        assert len(granted) == number
        node.end(granted)
    with sent.as_the_table_says("claim, with nothing there"):
        assert node.claim(1) == []
    for path in ("claim, and wait in vain", "claim, and wait in vain once more"):
        with sent.as_the_table_says(path):
            assert node.claim(1, wait=0.01) == []


def test_claims_that_come_together_send_as_much_as_one_and_read_all_classes_together(
    context: Context, sent: Sent, provider: Api, node: Node
) -> None:
    post(provider, [{"requested_resources": {"cores": 1 + n % CLASSES}} for n in range(2 * CLASSES)])
    worker = context.storage.workers.load(node.id)
    assert worker is not None
    offer = Offer.of(worker)
    claims = [
        Wanted(worker=worker, offer=offer, free=offer.total, max_tasks=1, request=str(number))
        for number in range(2 * CLASSES + 1)
    ]
    with sent.as_the_table_says("many claims of one task at once"):
        granted = grant_all(context, claims)
    assert [len(each) for each in granted] == [1] * 2 * CLASSES + [0]
    assert len({task["_id"] for each in granted for task in each}) == 2 * CLASSES


def test_a_report_sends_as_much_for_many_attempts_as_for_few(sent: Sent, provider: Api, node: Node) -> None:
    for number in (1, FEW, MANY):
        post(provider, [{}] * number)
        granted = node.claim(number)
        with sent.as_the_table_says("report starts"):
            node.report(granted, time_started="Tue, 02 Apr 2024 10:00:00 GMT", pid=1)
        with sent.as_the_table_says("report ends"):
            node.end(granted)


def test_explaining_sends_and_looks_at_as_much_for_many_tasks_as_for_few(
    context: Context, sent: Sent, provider: Api, node: Node
) -> None:
    looked_at, total = [], 0
    for number in (FEW, MANY):
        total += CLASSES * number
        ids = post(provider, [{"requested_resources": {"cores": 1 + n % CLASSES}} for n in range(CLASSES * number)])
        with sent.as_the_table_says("explain the queue"):
            assert provider.get("/explain").get_json()["reasons"][0]["count"] == total
        with sent.as_the_table_says("explain a task that waits"):
            assert provider.get(f"/tasks/{ids[-1]}/explain").get_json()["reasons"][0]["reason"] == "waiting"
        with profiled(context.storage, filter={"ns": f"{context.storage.db.name}.tasks"}) as seen:
            assert provider.get("/explain").status_code == 200
        looked_at.append(sum(each.get("docsExamined", 0) for each in seen))  # of all rounds so far
    assert looked_at == [CLASSES, 2 * CLASSES], "the best task of each class; the rest is counted from indexes"


def test_settling_sends_as_much_for_many_edges_as_for_few(sent: Sent, provider: Api, node: Node) -> None:
    for number in (FEW, MANY):
        (parent,) = post(provider, [{}])
        post(provider, [{"dependencies": [parent]}] * number)
        (granted,) = node.claim(1)
        with sent.as_the_table_says("report the end of a parent"):
            node.end([granted])
        node.end(node.claim(number))
        parents = post(provider, [{}] * number)
        post(provider, [{"dependencies": parents}])
        granted_parents = node.claim(number)
        with sent.as_the_table_says("report the ends of the parents of a barrier"):
            node.end(granted_parents)
        node.end(node.claim(1))


@pytest.mark.parametrize("end", [{"exit_status": "success"}, {"exit_status": "failure (exit code 1)"}])
def test_no_step_of_settling_grows_with_the_graph(context: Context, provider: Api, node: Node, end: Document) -> None:
    """Of a parent with many children and a barrier with many parents, with rescue and audit looking on."""
    parents = [post(provider, [{}] * GRAPH), post(provider, [{"priority": 1}])]
    post(provider, [{"dependencies": parents[0]}, *[{"dependencies": parents[1]}] * GRAPH])
    audit = Audit(context)
    with profiled(context.storage, filter={"keysExamined": {"$gt": STEP}}) as seen:
        while granted := node.claim(1_000):
            node.report(granted, **end)
            audit.look()
        for ids in parents:
            settle(context, map(ObjectId, ids), thorough=True)
    assert seen == []
    assert context.storage.tasks.count({"state": "inactive"}) == 0


def test_no_command_of_a_hot_path_looks_at_more_than_it_needs(context: Context, provider: Api, node: Node) -> None:
    """Among many tasks that wait, and many that have ended."""
    post(provider, [{}] * MANY)
    node.end(node.claim(MANY))
    classes = [{"requested_resources": {"cores": cores + 1}} for cores in range(CLASSES)]
    post(provider, [needs for needs in classes for _ in range(MANY)])
    with profiled(context.storage) as seen:
        node.claim(0)
        granted = node.claim(1)
        node.report(granted, time_started="Tue, 02 Apr 2024 10:00:00 GMT")
        node.end(granted)
        granted = node.claim(10)
        node.end(granted)
    assert seen
    wasteful = {shown: needless for shown, needless in map(_needless, seen) if needless > SPARE_KEYS * CLASSES}
    assert wasteful == {}


def test_the_counts_of_all_tasks_are_read_from_an_index_alone(context: Context, provider: Api, node: Node) -> None:
    post(provider, [{}] * MANY)
    node.end(node.claim(FEW))
    with profiled(context.storage, filter={"ns": f"{context.storage.db.name}.tasks"}) as seen:
        assert provider.get("/statistics").get_json()["total"] == 1 + MANY
        assert provider.get("/metrics").status_code == 200
    counts = "IXSCAN { state: 1, queue: 1, exit_status: 1 }", 0
    ends = "IXSCAN { _updated: 1, _id: 1 }", 1 + FEW
    looked_at = [(each["planSummary"], each["docsExamined"]) for each in seen]
    held = "IXSCAN { worker: 1, state: 1, recalled: 1, execution: 1, claim_request: 1 }", 0  # none is
    assert looked_at == [held, counts, ("COUNT_SCAN { _id: 1 }", 0), ends, ends, counts, held]


def _needless(command: Document) -> tuple[str, int]:
    """How many index keys or documents a command looked at beyond what it returned or changed."""
    looked_at = max(command.get("keysExamined", 0), command.get("docsExamined", 0))
    used = max(command.get(name, 0) for name in ("nreturned", "nMatched", "ndeleted", "ninserted"))
    return _shown(command), looked_at - used


def _shown(command: Document) -> str:
    return f"{command['op']} {command['ns'].partition('.')[2]} {command.get('planSummary', '')} {command['command']}"


@contextmanager
def profiled(storage: Storage, **only: Any) -> Iterator[list[Document]]:
    """What MongoDB did in the block, in the list at its end; with `filter` only what matches that."""
    seen: list[Document] = []
    storage.db.command("profile", 1 if only else 2, **only)
    yield seen
    storage.db.command("profile", 0)
    seen += storage.db["system.profile"].find({"op": {"$in": ["query", "command", "update", "remove", "getmore"]}})


def test_the_answer_to_a_claim_is_small(provider: Api, node: Node) -> None:
    sizes = []
    for number in (0, 1, 1 + MANY):
        post(provider, [{}] * number or [{"state": "inactive"}])
        granted = node.claim(1 + MANY)
        assert len(granted) == number
        sizes.append(node.bytes)
        node.end(granted)
    nothing, one, many = sizes
    each = (many - one) / MANY
    assert nothing <= BYTES_OF_A_CLAIM
    assert max(one - nothing, each) <= BYTES_OF_A_TASK


def test_all_of_very_many_documents_are_not_counted_one_by_one(
    context: Context, commands: Commands, provider: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = post(provider, [{}] * 5)
    reader = Reader(context.storage.db, 10.0)
    for most, counted in ((5, "aggregate tasks"), (4, "count tasks")):
        monkeypatch.setattr(reading, "_COUNTED", most)
        commands.sent.clear()
        assert reader.count("tasks", {}) == len(ids)
        assert commands.sent[-1] == counted
        assert reader.count("tasks", {"state": "running"}) == 0
        assert commands.sent[-1] == "aggregate tasks"
