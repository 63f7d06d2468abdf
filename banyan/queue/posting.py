"""The posting check: models check tasks before these are stored, so that a bad one is refused at once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from banyan.models.checker import Question
from banyan.models.finding import Source
from banyan.queue.context import Context
from banyan.spelling import listed, suggestion

Document = dict[str, Any]
Faults = list[dict[str, object]]

POSTED = frozenset({"model", "inputs", "workdir"})
"""The fields that a model checks."""


def posting_faults(context: Context, tasks: Sequence[Document], only: Collection[int] | None = None) -> Faults:
    """The faults that models find in new tasks with complete inputs; empty for a task without faults.

    With `only` these items alone are checked by their models. Tasks that take results of parents are not checked by
    them, because their inputs are not known yet. The setting `posting.check` can switch the check off.
    """
    faults: Faults = [{} for _ in tasks]
    by_model: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        if task.get("model") is not None:
            by_model.setdefault(task["model"], []).append(index)
    if not by_model or context.settings.posting.check == "off":
        return faults
    known = context.models.sources()
    for name, indexes in by_model.items():
        looked_at = [i for i in indexes if only is None or i in only]
        source = known.get(name)
        if source is not None and source.fault is None:
            asked = [i for i in looked_at if not tasks[i].get("input_refs")]
            said = context.models.check(source, [_question(tasks[i]) for i in asked])
        else:
            asked, said = looked_at, [_unusable(context, name, known)] * len(looked_at)
        for index, text in zip(asked, said, strict=True):
            if text is not None:
                faults[index]["model"] = text
    return faults


def _unusable(context: Context, name: str, known: Mapping[str, Source]) -> str | None:
    """The reason to refuse tasks of a model that the server cannot use; None if workers may have it alone."""
    source = known.get(name)
    if source is None:
        return _unknown(name, known) if context.settings.posting.check == "required" else None
    if source.helper and context.settings.posting.check != "required" and _has_worker(context, name):
        return None
    return f"model {name!r} cannot be used on the server: {source.fault}"


def _has_worker(context: Context, name: str) -> bool:
    workers = context.storage.workers.in_states()
    return any(f"model:{name}" in (worker.get("capabilities") or ()) for worker in workers)


def _question(task: Document) -> Question:
    return Question(inputs=task.get("inputs") or {}, jobid=str(task["_id"]), workdir=task.get("workdir") != "none")


def _unknown(name: str, known: Mapping[str, Source]) -> str:
    there = [each for each, source in known.items() if source.fault is None]
    near = suggestion(name, there) or ";"
    return f"the server has no model {name!r} to check this task with (posting.check){near} it has: {listed(there)}"
