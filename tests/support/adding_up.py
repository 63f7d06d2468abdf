"""Whether a queue adds up: what must hold of everything stored once nothing is under way any more."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import satisfied
from banyan.domain.task import ENDED, LIVE, State
from banyan.queue.context import Context
from banyan.storage.tasks import view
from banyan.storage.workers import ALIVE

Document = dict[str, Any]

_PASSING = ("submissions", "submission_parts", "doomed_files", "doomed_samples")
"""Collections that are empty when nothing is under way."""


def faults(context: Context) -> list[str]:
    """Everything that does not add up, in words."""
    every: list[Callable[[_Queue], Iterator[str]]] = [_holding, _attempts, _edges, _waiting, _marks, _files]
    queue = _Queue(context)
    return [fault for check in every for fault in check(queue)]


class _Queue:
    """All documents."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.db = context.storage.db
        self.tasks = self._all("tasks")
        self.edges = list(self._all("continuations").values())
        self.workers = self._all("workers")
        self.attempts: dict[ObjectId, list[Document]] = defaultdict(list)
        for attempt in self.db["executions"].find().sort("attempt"):
            self.attempts[attempt["task"]].append(attempt)

    def _all(self, name: str) -> dict[ObjectId, Document]:
        return {document["_id"]: document for document in self.db[name].find()}


def _holding(queue: _Queue) -> Iterator[str]:
    for id, task in queue.tasks.items():
        open_ones = [each["_id"] for each in queue.attempts[id] if each.get("time_terminated") is None]
        expected = [task["execution"]] if task["state"] in LIVE else []
        if open_ones != expected:
            yield f"task {id} is {task['state']} with open attempts {open_ones} instead of {expected}"
        holder = task.get("worker")
        if (holder is not None) != (task["state"] in LIVE):
            yield f"task {id} is {task['state']} and held by {holder}"
        if holder is not None and queue.workers.get(holder, {}).get("state") not in ALIVE:
            yield f"task {id} is held by worker {holder}, which is not there any more"


def _attempts(queue: _Queue) -> Iterator[str]:
    for id in queue.attempts.keys() - queue.tasks.keys():
        yield f"there are attempts of task {id}, which is not there"
    for id, task in queue.tasks.items():
        numbers = [each["attempt"] for each in queue.attempts[id]]
        left = task.get("history_until", 0)
        if numbers != list(range(left + 1, left + len(numbers) + 1)) or task["attempt_count"] != left + len(numbers):
            yield f"task {id} counts {task['attempt_count']} attempts and has {numbers}; up to {left} they have left"
        runs = task.get("command") or task.get("model")
        if task["state"] == State.TERMINATED and runs and task["attempt_count"] > left:
            counting = [each for each in queue.attempts[id] if each["_id"] == task.get("execution")]
            if [each.get("exit_status") for each in counting] != [task["exit_status"]]:
                yield f"task {id} ended {task['exit_status']}, its attempts: {queue.attempts[id]}"


def _edges(queue: _Queue) -> Iterator[str]:
    for edge in queue.edges:
        child, parent = queue.tasks.get(edge["child"]), queue.tasks.get(edge["parent"])
        if child is None:
            yield f"edge {edge} leads nowhere"
        if parent is None:
            if not edge["settled"]:
                yield f"edge {edge} waits for a parent that is not there"
            continue
        outcome = satisfied(edge["on"], view(parent))
        outdated = edge.get("outdated") and edge["settled"] and child is not None and child["state"] != State.INACTIVE
        if (edge["settled"], edge.get("satisfied")) != (outcome is not None, outcome) and not outdated:
            yield f"edge {edge} is not what its parent says: {outcome}"
        if child is not None and child["state"] in LIVE and not edge.get("satisfied"):
            yield f"task {child['_id']} began before {edge}"


def _waiting(queue: _Queue) -> Iterator[str]:
    of_child: dict[ObjectId, list[Document]] = defaultdict(list)
    for edge in queue.edges:
        of_child[edge["child"]].append(edge)
    for id, task in queue.tasks.items():
        edges = of_child[id]
        pending = sum(not edge["settled"] for edge in edges)
        if task["state"] not in ENDED and task.get("pending_dependency_count", 0) != pending:
            yield f"task {id} says that it waits for {task.get('pending_dependency_count')}, which are {pending}"
        if task["state"] == State.INACTIVE and edges and not pending and not task.get("hold"):
            yield f"task {id} waits for nothing"
        if task["state"] == State.INACTIVE and any(edge.get("satisfied") is False for edge in edges):
            yield f"task {id} waits although a parent has failed it"
        if task["state"] == State.AVAILABLE and not task.get("hold") and not {"class_key", "wake_at"} & task.keys():
            yield f"task {id} is available and nobody can claim it"


def _marks(queue: _Queue) -> Iterator[str]:
    for name, mark in (("tasks", "unsettled"), ("tasks", "unpromoted"), ("sweeps", "retrying"), ("sweeps", "doing")):
        for document in queue.db[name].find({mark: {"$exists": True}}):
            yield f"{name} {document['_id']} is still marked {mark}"
    for name in _PASSING:
        if left := list(queue.db[name].find()):
            yield f"{name} still has {left}"


def _files(queue: _Queue) -> Iterator[str]:
    attempts = {each["_id"] for each in queue.db["executions"].find()}
    heads = {head["_id"]: head for head in queue.db["files"].find()}
    pieces = {piece["_id"]: piece for piece in queue.db["file_segments.files"].find()}
    lengths: Counter[ObjectId] = Counter()
    for chunk in queue.db["file_segments.chunks"].find():
        lengths[chunk["files_id"]] += len(chunk["data"])
    for head in heads.values():
        if head["execution"] not in attempts:
            yield f"file {head} is of no attempt"
        elif (length := _readable(queue, head)) != head["size"]:
            yield f"file {head} has {length} bytes"
    for id, piece in pieces.items():
        owner = heads.get(piece["metadata"]["file"])
        if owner is None or owner["generation"] != piece["metadata"]["generation"]:
            yield f"piece {piece} is of no file"
        if lengths[id] != piece["length"]:
            yield f"piece {piece} has {lengths[id]} bytes"
    for id in lengths.keys() - pieces.keys():
        yield f"there are bytes of piece {id}, which is not there"
    for sample in queue.db["memory_usage"].find({"task": {"$nin": list(queue.tasks)}}):
        yield f"sample {sample} is of no task"


def _readable(queue: _Queue, head: Document) -> int:
    """How many bytes of a file can be read."""
    store = queue.context.storage.files
    stored = store.find(head["execution"], head["path"])
    return 0 if stored is None else sum(map(len, store.read(stored, 0, stored.size)))
