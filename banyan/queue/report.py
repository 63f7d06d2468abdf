"""Reports of workers on their attempts: started, progress, given back, ended."""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from bson import ObjectId

from banyan.domain.task import Task
from banyan.domain.transitions import Change, End, GiveBack
from banyan.errors import StaleAttempt
from banyan.queue.apply import apply
from banyan.queue.avoided import paused
from banyan.queue.context import Context
from banyan.queue.directories import note_lacking
from banyan.queue.pool import rank
from banyan.queue.quarantine import judge
from banyan.queue.settle import settle

Document = dict[str, Any]

_ANNOUNCED = 20
"""The most classes for which a claim is woken when a queue with a limit has room again: the best ones."""
_SHOWN_IN_TASK = (
    *("result", "result_file", "peak_memory_bytes", "peak_memory_source", "cpu_seconds", "progress", "time_started"),
)
_OF_THE_END = frozenset({"time_terminated", "exit_status"})
"""Fields that only the end of an attempt may write: they mark it as ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a worker on one attempt; `fields` are those of the attempt's record."""

    execution: ObjectId
    fields: Document = field(default_factory=dict)
    exit_status: str | None = None
    given_back: bool = False
    lost: bool = False
    """True for a report by the server: the lease ended, or the worker left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The attempts whose reports count, and those whose reports came too late."""

    accepted: list[ObjectId]
    stale: list[ObjectId]

    def of(self, executions: Collection[ObjectId]) -> "Answer":
        """The part that is about these attempts."""
        return Answer(*([id for id in ids if id in executions] for ids in (self.accepted, self.stale)))


def report(context: Context, reports: Sequence[Report], records: Mapping[ObjectId, Document] | None = None) -> Answer:
    """Process reports whose attempt tokens were checked; a repetition changes nothing.

    The record of the attempt decides: its first end counts. The task follows from it, and its continuations from the
    task, so that an interrupted report is completed by its repetition or by rescue. `records` are those of the
    attempts, if they were read just now (`records_of`).
    """
    if records is None:
        records = records_of(context, {each.execution for each in reports})
    known = [each for each in reports if each.execution in records]
    stale = [each.execution for each in reports if each.execution not in records]
    back = [each for each in known if each.given_back]
    live = [each for each in known if not each.given_back and each.exit_status is None]
    ends = {each.execution: each for each in known if not each.given_back and each.exit_status is not None}
    stale += _give_back(context, back, records)
    stale += _update(context, live, records)
    stale += _end(context, ends, records)
    refused = set(stale)
    accepted = [each.execution for each in known if each.execution not in refused]
    return Answer(list(dict.fromkeys(accepted)), list(dict.fromkeys(stale)))


@dataclass(frozen=True, slots=True)
class _Request:
    """The reports of one worker, and the records of their attempts."""

    reports: Sequence[Report]
    records: Mapping[ObjectId, Document]

    @property
    def executions(self) -> set[ObjectId]:
        return {each.execution for each in self.reports}


def report_together(context: Context, reports: Sequence[Report], records: Mapping[ObjectId, Document]) -> Answer:
    """Process reports as `report` does; concurrent calls are written together."""
    answer: Answer = context.reports(partial(_report_all, context), _Request(reports, records))
    return answer


def _report_all(context: Context, requests: Sequence[_Request]) -> list[Answer]:
    executions = [execution for request in requests for execution in request.executions]
    if len(set(executions)) < len(executions):  # two reports may contradict each other about one attempt
        return [report(context, request.reports, request.records) for request in requests]
    context.storage.reach.require()
    answer = report(
        context,
        [each for request in requests for each in request.reports],
        {id: record for request in requests for id, record in request.records.items()},
    )
    return [answer.of(request.executions) for request in requests]


def records_of(context: Context, executions: Collection[ObjectId]) -> dict[ObjectId, Document]:
    """The records of the attempts; missing ones are read twice, because a new primary may show them late."""
    records = context.storage.executions.load(executions)
    missing = [id for id in executions if id not in records]
    if missing:
        context.storage.meta.catch_up()
        records |= context.storage.executions.load(missing)
    return records


def _end(context: Context, ends: Mapping[ObjectId, Report], records: Mapping[ObjectId, Document]) -> list[ObjectId]:
    if not ends:
        return []
    now = context.now()
    fresh = {id: each for id, each in ends.items() if records[id].get("time_terminated") is None}
    written = context.storage.executions.end({id: _ending(each, now) for id, each in fresh.items()}, now)
    raced = context.storage.executions.load(set(fresh) - written)
    ended = {**records, **raced}
    for id in written:
        ended[id] = {**records[id], **_ending(fresh[id], now)}
    counted = {id for id, each in ends.items() if id in written or same_end(ended[id], each)}
    follow(context, {id: ended[id] for id in counted})
    judge(context, [ended[id] for id, each in ends.items() if id in counted and not each.lost])
    return [id for id in ends if id not in counted]


def same_end(record: Document, said: Report) -> bool:
    """Return whether an attempt that has ended did so by this very report, which is repeated."""
    return bool(record.get("exit_status") == said.exit_status) and not (record.get("lost") and not said.lost)


def _ending(said: Report, now: datetime) -> Document:
    ending = {"time_terminated": now, **said.fields, "exit_status": said.exit_status}
    return ending | {"lost": True} if said.lost else ending


def follow(context: Context, ended: Mapping[ObjectId, Document]) -> None:
    """Update tasks whose attempts (records by id) have ended; tasks that were updated already stay as they are."""
    elsewhere = note_lacking(context, ended)
    tasks = context.storage.tasks.load({record["task"] for record in ended.values()})

    def event_of(task: Task) -> End | None:
        if task.execution is None or task.worker is None or task.execution not in ended:
            return None
        return End(task.execution, ended[task.execution]["exit_status"], elsewhere=task.execution in elsewhere)

    def dressed(task: Task, change: Change) -> Change:
        if "avoid" in change.fields:
            return paused(context, change)
        return shown(change, ended[task.execution]) if task.execution is not None else change

    applied = apply(context, tasks, event_of, dressed)
    settle(context, applied.parents_to_settle())
    _announce_room(context, {task.queue for task, _ in applied.changed.values()})


def _announce_room(context: Context, queues: set[str]) -> None:
    """Wake a claim for each class of queues that limit their running tasks and may have room now."""
    limited = {name for name, queue in context.storage.queues.all().items() if queue.get("max_running") is not None}
    if limited & queues:
        heads = context.heads.current(context.storage.tasks.class_heads).values()
        best = heapq.nsmallest(_ANNOUNCED, (head for head in heads if head["queue"] in limited & queues), key=rank)
        context.hub.work(
            {head["class_key"]: 1 for head in best}, {head["class_key"]: head["priority"] for head in best}
        )


def shown(change: Change, record: Document) -> Change:
    """Add to the end of a task the fields of its last attempt that readers see."""
    if not change.ended:
        return change
    fields = {name: record[name] for name in _SHOWN_IN_TASK if record.get(name) is not None}
    fields["time_terminated"] = record["time_terminated"]
    return replace(change, fields={**change.fields, **fields})


def _give_back(context: Context, reports: Sequence[Report], records: Mapping[ObjectId, Document]) -> list[ObjectId]:
    tasks = {each.execution: records[each.execution]["task"] for each in reports}
    return [] if not tasks else give_back(context, tasks)


def give_back(context: Context, task_by_execution: Mapping[ObjectId, ObjectId]) -> list[ObjectId]:
    """Undo attempts that never started; return the ids of attempts that had ended or were no longer current."""
    executions = context.storage.executions
    executions.withdraw(task_by_execution)
    ended = set(executions.load(task_by_execution))
    by_task = {task: execution for execution, task in task_by_execution.items() if execution not in ended}
    applied = apply(context, context.storage.tasks.load(by_task), lambda task: GiveBack(by_task[task.id]))
    settle(context, applied.parents_to_settle())
    refused = {id for id, error in applied.refused.items() if isinstance(error, StaleAttempt)}
    return [execution for execution, task in task_by_execution.items() if execution in ended or task in refused]


def _update(context: Context, reports: Sequence[Report], records: Mapping[ObjectId, Document]) -> list[ObjectId]:
    """Store the reports of live attempts; return the ids of attempts that have ended."""
    now = context.now()
    live = [each for each in reports if records[each.execution].get("time_terminated") is None]
    stale = [each.execution for each in reports if records[each.execution].get("time_terminated") is not None]
    merged: dict[ObjectId, Document] = {}
    for each in live:
        fields = {name: value for name, value in each.fields.items() if name not in _OF_THE_END}
        merged.setdefault(each.execution, {}).update(fields)
    context.storage.executions.update(merged, now)
    shown_fields: dict[ObjectId, Document] = {
        records[id]["task"]: {name: fields[name] for name in ("time_started", "progress") if name in fields}
        for id, fields in merged.items()
    }
    shown_fields = {task: fields for task, fields in shown_fields.items() if fields}
    if shown_fields:
        execution_by_task = {records[id]["task"]: id for id in merged if records[id]["task"] in shown_fields}
        context.storage.tasks.report_progress(execution_by_task, shown_fields)
    return stale


def lose(context: Context, executions: Iterable[ObjectId], exit_status: str) -> Answer:
    """End attempts whose worker is lost or has left."""
    return report(context, [Report(execution=id, exit_status=exit_status, lost=True) for id in executions])
