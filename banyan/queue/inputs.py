"""Inputs of model tasks: given inputs override defaults, and results of parents override both."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bson import ObjectId

from banyan.domain.continuations import ON_SUCCESS, Edge
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.files import work_file
from banyan.wire import loads

Document = dict[str, Any]

_PARENT = ("state", "result", "result_file", "execution")


class NoResult(Exception):
    """A parent has no result that could be an input; the text names what is missing."""


def add_defaults(context: Context, tasks: Sequence[Document]) -> None:
    """Add the default inputs of their models to the inputs of new tasks, where these have none of that name."""
    names = {task["model"] for task in tasks if task.get("model") is not None}
    kept = context.storage.models.load(names) if names else {}
    for task in tasks:
        defaults = kept.get(task.get("model", ""), {}).get("defaults")
        if defaults:
            taken = (task.get("input_refs") or {}).keys()
            below = {name: value for name, value in defaults.items() if name not in taken}
            task["inputs"] = {**below, **(task.get("inputs") or {})}


def implied_edges(tasks: Sequence[Document], given: Iterable[Edge], actor: Actor) -> list[Edge]:
    """The edges from parents whose results new tasks take, unless the edge is `given` already."""
    there = {(edge.parent, edge.child) for edge in given}
    pairs = [(ref["task"], task["_id"]) for task in tasks for ref in (task.get("input_refs") or {}).values()]
    return [Edge(parent=p, child=c, owner=actor.name) for p, c in dict.fromkeys(pairs) if (p, c) not in there]


def fault_of_refs(task: Document, conditions: Mapping[tuple[ObjectId, ObjectId], str]) -> str | None:
    """The fault of the `input_refs` of a new task, by the condition of each edge (parent, child)."""
    for name, ref in (task.get("input_refs") or {}).items():
        on = conditions.get((ref["task"], task["_id"]), ON_SUCCESS)
        if on != ON_SUCCESS:
            return f"{name!r} takes a result of task {ref['task']}, on which it depends by {on!r}; it must be 'success'"
    return None


@dataclass(frozen=True, slots=True)
class Resolved:
    """The inputs of an attempt, or the reason why they are missing."""

    inputs: Document
    error: str | None = None


def resolve(context: Context, tasks: Iterable[Document]) -> dict[ObjectId, Resolved]:
    """The inputs of the tasks that take results of parents, by the task's id."""
    taking = [task for task in tasks if task.get("input_refs")]
    if not taking:
        return {}
    parents = _Parents(context, {ref["task"] for task in taking for ref in task["input_refs"].values()})
    return {task["_id"]: _resolved(task, parents) for task in taking}


def _resolved(task: Document, parents: "_Parents") -> Resolved:
    inputs = dict(task.get("inputs") or {})
    for name, ref in task["input_refs"].items():
        try:
            inputs[name] = parents.result(ref["task"], ref.get("result"))
        except NoResult as error:
            return Resolved(inputs, f"input {name!r}: {error}")
    return Resolved(inputs)


class _Parents:
    """Results of tasks, each read once."""

    def __init__(self, context: Context, ids: set[ObjectId]) -> None:
        self._context = context
        self._parents = context.storage.tasks.documents(ids, _PARENT)
        filed = [each["execution"] for each in self._parents.values() if each.get("result_file") is not None]
        self._attempts = context.storage.executions.load(filed) if filed else {}
        self._read: dict[ObjectId, Any] = {}

    def result(self, id: ObjectId, key: str | None) -> Any:
        """The whole result of a task, or its value under `key`; raises `NoResult`."""
        if id not in self._read:
            self._read[id] = self._whole(id)
        whole = self._read[id]
        if key is None:
            return whole
        if not isinstance(whole, dict) or key not in whole:
            there = ", ".join(map(repr, list(whole)[:20])) if isinstance(whole, dict) else "no names"
            raise NoResult(f"the result of task {id} has no {key!r}; it has {there or 'no names'}")
        return whole[key]

    def _whole(self, id: ObjectId) -> Any:
        parent = self._parents.get(id)
        if parent is None:
            raise NoResult(f"task {id} was deleted, and its result with it")
        if parent.get("result") is not None:
            return parent["result"]
        if parent.get("result_file") is None:
            raise NoResult(f"task {id} is {parent['state']} and has no result")
        return self._from_file(id, parent)

    def _from_file(self, id: ObjectId, parent: Document) -> Any:
        path, attempt = parent["result_file"], self._attempts.get(parent["execution"])
        blob = None if attempt is None else work_file(self._context, attempt, path)
        if blob is None:
            raise NoResult(f"the result of task {id} is in its file {path!r}, which the server does not have")
        limit = self._context.settings.limits.max_body_bytes
        try:
            if blob.size > limit:
                text = f"its file {path!r}, and {blob.size} bytes are more than limits.max_body_bytes"
                raise NoResult(f"the result of task {id} is in {text}")
            return loads(b"".join(blob.read(0, blob.size)))
        except (ValueError, RecursionError) as error:
            raise NoResult(f"the result of task {id} in its file {path!r} is not JSON: {error}") from error
        finally:
            blob.close()
