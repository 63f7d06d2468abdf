"""The posting check: models are asked about tasks before these are taken, so that a bad one is refused at once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from banyan.models.checker import Question
from banyan.models.finding import Source
from banyan.queue.context import Context
from banyan.spelling import listed, suggestion

Document = dict[str, Any]
Faults = list[dict[str, object]]

POSTED = frozenset({"model", "inputs", "workdir"})
"""The fields that a model is asked about."""


def posting_faults(context: Context, tasks: Sequence[Document], only: Collection[int] | None = None) -> Faults:
    """What models say against tasks that are to be stored, with their inputs complete; empty for nothing.

    With `only` these items alone are shown to their models. Tasks that take results of parents are not shown to them,
    for their inputs are not known yet. The setting `posting.check` says whether anyone is asked at all.
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
        source = known.get(name)
        if source is not None and source.fault is None:
            asked = [i for i in indexes if not tasks[i].get("input_refs") and (only is None or i in only)]
            said = context.models.check(source, [_question(tasks[i]) for i in asked])
            told = {index: text for index, text in zip(asked, said, strict=True) if text is not None}
        else:
            told = dict.fromkeys(indexes, _unknown(name, known)) if context.settings.posting.check == "required" else {}
        for index, text in told.items():
            faults[index]["model"] = text
    return faults


def _question(task: Document) -> Question:
    return Question(inputs=task.get("inputs") or {}, jobid=str(task["_id"]), workdir=task.get("workdir") != "none")


def _unknown(name: str, known: Mapping[str, Source]) -> str:
    if name in known:
        return f"model {name!r} cannot be used on the server: {known[name].fault}"
    there = [each for each, source in known.items() if source.fault is None]
    near = suggestion(name, there) or ";"
    return f"the server has no model {name!r} to check this task with (posting.check){near} it has: {listed(there)}"
