"""The workers that could take a task, those that could take it now, and the reasons of the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId

from banyan.domain.matching import Offer, TaskClass, capability_of
from banyan.domain.resources import Resources
from banyan.queue.avoided import lacking_directories, lacks
from banyan.queue.context import Context
from banyan.queue.reasons import amount, joined, lacking, last_heard, reason, worker_name
from banyan.spelling import suggestion
from banyan.storage.workers import ACTIVE, ALIVE, DRAINING, QUARANTINED
from banyan.wire import format_date

Document = dict[str, Any]

SILENT_AFTER = 1.25
"""The number of heartbeats after which a worker without a sign of life is named as silent."""

CANNOT = frozenset({"no_worker", "no_fit", "draining", "quarantined"})
"""Reasons with the meaning: no living worker will take it as it is."""

_LEAST_SLACK = 1.0
_REQUESTED = ("cores", "memory", "gpus", "scratch", "gpu_memory", "gpu_compute_capability")


@dataclass(frozen=True, slots=True)
class Workers:
    """The living workers at one moment."""

    active: Sequence[Document]
    closed: Sequence[Document]
    """The workers that are draining or quarantined."""
    now: datetime
    heartbeat: float
    offers: Mapping[ObjectId, Offer]
    free: Mapping[ObjectId, Resources]

    @classmethod
    def of(cls, context: Context) -> "Workers":
        """The workers as they are now."""
        alive = context.storage.workers.in_states(ALIVE)
        active = [worker for worker in alive if worker["state"] == ACTIVE]
        closed = [worker for worker in alive if worker["state"] != ACTIVE]
        offers = {worker["_id"]: Offer.of(worker) for worker in active}
        free = {worker["_id"]: free_of(worker) for worker in active}
        return cls(active, closed, context.now(), context.settings.leases.heartbeat, offers, free)

    def silent(self, worker: Mapping[str, Any]) -> bool:
        """Return whether a worker's last sign of life is older than it may be."""
        after = max(self.heartbeat * SILENT_AFTER, self.heartbeat + _LEAST_SLACK)
        return bool(self.now - worker["last_seen"] > timedelta(seconds=after))

    def lacking(self, task: Mapping[str, Any]) -> dict[ObjectId, dict[str, Any]]:
        """The needs of a task that each active worker cannot meet, by its id; empty if it could take the task."""
        task_class = TaskClass.of(task)
        return {
            worker["_id"]: lacks(worker, task, task_class, self.now, self.offers[worker["_id"]])
            for worker in self.active
        }


def free_of(worker: Mapping[str, Any]) -> Resources:
    """The free resources of a worker at its last sign of life."""
    return Resources.from_document(worker.get("free") or worker["resources"])


def unfit(context: Context, workers: Workers, task: Mapping[str, Any], it: str = "it") -> Iterable[Document]:
    """The reasons why no living worker takes such a task at all; none if one could. `it` is the word for the task."""
    if not workers.active:
        yield from _closed(workers, task, it)
        yield _nobody(context)
        return
    lacking_by_id = workers.lacking(task)
    if all(lacking_by_id.values()):
        yield from _closed(workers, task, it)
        yield _closest(workers, task, lacking_by_id, it)


def _nobody(context: Context) -> Document:
    lost = context.storage.workers.latest_lost()
    last = "".join(f" ({worker_name(each)}, which is {each['state']}, {last_heard(each)})" for each in lost)
    what = "start one with 'banyan worker'"
    return reason("no_worker", f"no worker is active{last}; {what}", help=what)


def _closed(workers: Workers, task: Mapping[str, Any], it: str) -> Iterable[Document]:
    """A worker that could run it, but gets no new tasks."""
    task_class = TaskClass.of(task)
    for state in (DRAINING, QUARANTINED):
        for worker in workers.closed:
            if worker["state"] == state and Offer.of(worker).accepts(task_class):
                text = f"worker {worker_name(worker)} could run {it}, but is {state}"
                text += _quarantine(worker) if state == QUARANTINED else ""
                yield reason(state, text, worker=worker["_id"])
                return


def _quarantine(worker: Mapping[str, Any]) -> str:
    """The reason for a worker's quarantine, and the ways out of it."""
    told = worker.get("quarantine") or {}
    why = f": {told['reason']}" if told else ""
    until = f"; it may try again after {format_date(told['until'])}, or" if told.get("until") else "; it works again"
    return f"{why}{until} when an administrator sets the state of worker {worker['_id']} to active"


def _closest(
    workers: Workers, task: Mapping[str, Any], lacking_by_id: Mapping[ObjectId, Document], it: str
) -> Document:
    closest = min(workers.active, key=lambda worker: (len(lacking_by_id[worker["_id"]]), str(worker["name"])))
    missing = lacking_by_id[closest["_id"]]
    text = f"no active worker can run {it}; {worker_name(closest)} comes closest but lacks {lacking(missing)}"
    details = {name: {"wanted": want, "there": has} for name, (want, has) in missing.items()}
    what, change = _remedy(workers, task, missing, it)
    return reason("no_fit", f"{text}; {what}", help=what, closest=closest["_id"], missing=details, change=change)


def _remedy(
    workers: Workers, task: Mapping[str, Any], missing: Mapping[str, tuple[Any, Any]], it: str
) -> tuple[str, Document]:
    """The changes that would let a worker that lacks this take the task: a sentence, and fields with new values."""
    asks: list[str] = []
    starts: list[str] = []
    change: Document = {}
    for name, (want, has) in missing.items():
        if name in _REQUESTED or name.startswith("custom."):
            asks.append(f"request at most {amount(name, has)}{_unit(name)}")
            _set(change.setdefault("requested_resources", {}), name, has)
            starts.append(f"with {amount(name, want)}{_unit(name)}")
        elif name == "queue":
            asks.append(f"move {it} to the queue {has}")
            starts.append(f"that serves queue {want!r}")
        elif name == "capability":
            starts.append(_capable(workers, task))
        elif name == "timeout":
            asks.append(f"give {it} a timeout below {has}")
            starts.append("that stays longer")
        else:
            asks.append(f"do not require {name}")
            starts.append(f"with {name}={want}")
    start = f"start a worker {' and '.join(starts)}"
    return (f"{' and '.join(asks)}, or {start}" if asks else start), change


def _unit(name: str) -> str:
    if name in ("cores", "gpus"):
        return f" {name}"
    return f" of {name.removeprefix('custom.').replace('_', ' ')}"


def _set(requested: Document, name: str, value: Any) -> None:
    if name.startswith("custom."):
        requested.setdefault("custom", {})[name.removeprefix("custom.")] = value
    else:
        requested[name] = value


def _capable(workers: Workers, task: Mapping[str, Any]) -> str:
    if task.get("model") is None:
        return f"that has the capability {capability_of(task)}"
    names = {
        name for worker in workers.active for name in worker.get("capabilities") or () if name.startswith("model:")
    }
    near = suggestion(str(task["model"]), [name.removeprefix("model:") for name in names])
    return f"that has the model {task['model']!r} (--models DIR){near}"


def takers(workers: Workers, task: Mapping[str, Any]) -> tuple[list[Document], list[Document], list[Document]]:
    """Active workers that could take a task and are not avoided for it: all, those not silent, those with room now."""
    lacking_by_id = workers.lacking(task)
    avoided = set(task.get("avoid") or ())
    able = [each for each in workers.active if not lacking_by_id[each["_id"]] and each["_id"] not in avoided]
    able = [each for each in able if not _lacks_directory(workers, each, task)] or able
    heard = [each for each in able if not workers.silent(each)]
    wanted = TaskClass.of(task).resources
    return able, heard, [each for each in heard if wanted.fits(workers.free[each["_id"]])]


def _lacks_directory(workers: Workers, worker: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    return task.get("directory") in lacking_directories(worker, workers.now)


def without_directory(workers: Workers, task: Mapping[str, Any]) -> Iterable[Document]:
    """The workers that fit and are known to lack the task's directory."""
    lacking_by_id = workers.lacking(task)
    able = [worker for worker in workers.active if not lacking_by_id[worker["_id"]]]
    without = [worker for worker in able if _lacks_directory(workers, worker, task)]
    if not without:
        return
    names = joined([worker_name(each) for each in without])
    text = f"{_plural('worker', without)} {names} {'lacks' if len(without) == 1 else 'lack'} its directory"
    text += f" {task['directory']}"
    if left := len(able) - len(without):
        text += f"; it goes to {'the other one' if left == 1 else f'one of the {left} others'} that fit"
        text += "s" if left == 1 else ""
    else:
        text += "; if it is still not there, the task fails"
    yield reason("no_directory", text, directory=task["directory"], workers=[each["_id"] for each in without])


def _plural(noun: str, things: Sequence[object]) -> str:
    return noun if len(things) == 1 else f"{noun}s"


def avoided(context: Context, workers: Workers, task: Mapping[str, Any]) -> Document:
    """The reason `avoided`: all workers that could run it have failed it; each failure, and the next try."""
    lacking_by_id = workers.lacking(task)
    able = [worker for worker in workers.active if not lacking_by_id[worker["_id"]]]
    attempts = {attempt["worker"]: attempt for attempt in context.storage.executions.of_task(task["_id"])}
    said = [
        f"{worker_name(worker)}: {attempts[worker['_id']].get('exit_status')}"
        for worker in able
        if worker["_id"] in attempts
    ]
    which = "the only worker that could run it has" if len(able) == 1 else "all workers that could run it have"
    until = task.get("avoid_until")
    again = f"tried there again after {format_date(until)}" if until and until > workers.now else "tried again soon"
    fault = "failed it by the machine's own fault"
    fault += " or lacked its directory" if any(_lacks_directory(workers, each, task) for each in able) else ""
    failed = f"{which} {fault} ({'; '.join(said)})"
    text = f"{failed}; it is {again}; to have it run elsewhere, start another worker"
    return reason("avoided", text, workers=[worker["_id"] for worker in able], again=until)


def silent(workers: Workers, able: Sequence[Document], lost_after: float) -> Document:
    """The reason `silent`: no worker that could take it sends signs of life."""
    last = max(able, key=lambda worker: worker["last_seen"])
    lost = format_date(last["last_seen"] + timedelta(seconds=lost_after))
    if len(able) == 1:
        text = f"the only worker that fits, {worker_name(last)}, {last_heard(last)}"
    else:
        names = joined([worker_name(each) for each in able])
        text = f"none of the {len(able)} workers that fit ({names}) has sent a sign of life since "
        text += format_date(last["last_seen"])
    text += f"; one that stays silent is lost at {lost}; look after it, or start another worker"
    return reason("silent", text, workers=[worker["_id"] for worker in able], last_seen=last["last_seen"])
