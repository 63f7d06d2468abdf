"""What must be true of everything that happened, whatever broke: rules over tasks, edges and attempts as stored.

Pure. Each rule yields what contradicts it; `contradictions` asks them all. The rules are written from what is promised,
and share no code with what keeps the promises.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.support.happened import SKEW, Document, History

Rule = Callable[[History], Iterator[str]]

ENDED = ("terminated", "cancelled")
_HOLDS = ("worker", "claim_request", "class_key", "wake_at", "unsettled", "unpromoted")
_SAID_BY_WORKERS = ("exit_code", "signal", "result", "cpu_seconds", "peak_memory_bytes", "stdout_tail", "error")
MAX_LOSSES = 5


RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    """Register a rule under the name of its function."""
    RULES[check.__name__] = check
    return check


def contradictions(history: History) -> list[str]:
    """Everything that breaks a rule, each with the rule's name before it."""
    return [f"{name}: {text}" for name, check in RULES.items() for text in check(history)]


@rule
def every_task_ended(history: History) -> Iterator[str]:
    for task in history.tasks:
        if task["state"] not in ENDED:
            yield f"task {task['_id']} is {task['state']}"


@rule
def what_was_accepted_is_there_once(history: History) -> Iterator[str]:
    accepted, there = Counter(history.submitted), Counter(task["_id"] for task in history.tasks)
    for id in accepted.keys() | there.keys():
        if (accepted[id], there[id]) != (1, 1):
            yield f"task {id} was accepted {accepted[id]} times and is there {there[id]} times"


@rule
def what_was_told_stays(history: History) -> Iterator[str]:
    for id, told in history.told.items():
        task = history.by_id.get(id)
        if task is not None and id not in history.begun_anew and (task["state"], task.get("exit_status")) != told:
            yield f"task {id} was {told}, and is ({task['state']}, {task.get('exit_status')}) now"


@rule
def nothing_is_held(history: History) -> Iterator[str]:
    for task in history.tasks:
        kept = [name for name in _HOLDS if task.get(name) is not None]
        if kept:
            yield f"task {task['_id']} still has {', '.join(kept)}"
    for attempt in history.attempts:
        if attempt.get("time_terminated") is None or attempt.get("exit_status") is None:
            yield f"attempt {attempt['_id']} of task {attempt['task']} has not ended"


@rule
def attempts_are_numbered(history: History) -> Iterator[str]:
    for id, attempts in history.of_task.items():
        task = history.by_id.get(id)
        if task is None:
            yield f"there are attempts of task {id}, which is not there"
            continue
        numbers = [attempt["attempt"] for attempt in attempts]
        if numbers != list(range(1, task.get("attempt_count", 0) + 1)):
            yield f"task {id} counts {task.get('attempt_count', 0)} attempts and has {numbers}"
        times = [attempt["time_claimed"] for attempt in attempts]
        if times != sorted(times):
            yield f"the attempts of task {id} were not claimed in their order"


@rule
def exactly_one_attempt_counts(history: History) -> Iterator[str]:
    for task in history.tasks:
        id, life = task["_id"], history.life(task)
        good = [attempt for attempt in life if attempt.get("exit_status") == "success"]
        if task["state"] == "cancelled":
            if good or task.get("exit_status") != "cancelled":
                yield f"task {id} is cancelled ({task.get('exit_status')}), with {len(good)} successful attempts"
        elif _is_group(task):
            if history.of_task[id] or task.get("exit_status") != "success":
                yield f"group {id} has {len(history.of_task[id])} attempts, and ended {task.get('exit_status')}"
        elif task["state"] == "terminated":
            counting = history.counting(task)
            if counting is None or not life or counting is not life[-1]:
                yield f"the attempt {task.get('execution')} that counts for task {id} is not its last"
            elif counting.get("exit_status") != task.get("exit_status"):
                yield f"task {id} ended {task.get('exit_status')}, its attempt {counting.get('exit_status')}"
            elif len(good) != (task["exit_status"] == "success"):
                yield f"task {id} ended {task['exit_status']}, and {len(good)} of its attempts succeeded"


@rule
def results_are_those_of_the_attempt_that_counts(history: History) -> Iterator[str]:
    for task in history.tasks:
        counting = history.counting(task)
        for name in ("result", "cpu_seconds", "peak_memory_bytes"):
            said = None if counting is None else counting.get(name)
            if task["state"] == "terminated" and task.get(name) != said:
                yield f"task {task['_id']} has the {name} {task.get(name)!r}, its attempt {said!r}"
    for attempt in history.attempts:
        result = attempt.get("result")
        if isinstance(result, Mapping) and result.get("execution") not in (None, str(attempt["_id"])):
            yield f"attempt {attempt['_id']} has the result of {result['execution']}"


@rule
def ghosts_change_nothing(history: History) -> Iterator[str]:
    """An attempt that the server has given up stays as it was then, whatever its worker says later."""
    for attempt in history.attempts:
        said = [name for name in _SAID_BY_WORKERS if attempt.get(name) is not None]
        if attempt.get("lost") and (said or not _is_abandoned(attempt)):
            yield f"attempt {attempt['_id']} was lost, and is {attempt.get('exit_status')} with {', '.join(said)}"


@rule
def attempts_do_not_overlap(history: History) -> Iterator[str]:
    for attempts in history.of_task.values():
        for before, after in pairwise(attempts):
            if _is_abandoned(before) or before.get("time_terminated") is None:
                continue
            if before["time_terminated"] > after["time_claimed"] + SKEW:
                yield f"attempt {after['_id']} was claimed before {before['_id']} had ended"
            late, early = history.of_execution.get(str(before["_id"])), history.of_execution.get(str(after["_id"]))
            if late and early and late[-1].time > early[0].time:
                yield f"attempt {after['_id']} began before {before['_id']} had done its last"


@rule
def no_child_began_before_its_parents_allowed_it(history: History) -> Iterator[str]:
    for edge in history.edges:
        parent, child = history.by_id.get(edge["parent"]), history.by_id.get(edge["child"])
        if parent is None or child is None or (child["state"] == "cancelled" and parent["_id"] in history.begun_anew):
            continue
        begun = _is_group(child) and child["state"] == "terminated"
        life = history.life(child)
        if (begun or life) and not _satisfies(parent, edge["on"]):
            yield f"task {child['_id']} began, though its parent {parent['_id']} did not end for {edge['on']}"
        elif life and life[0]["time_claimed"] < parent["time_terminated"] - SKEW:
            yield f"task {child['_id']} was claimed before its parent {parent['_id']} had ended"
        elif life:
            yield from _early_effects(history, parent, life)


def _early_effects(history: History, parent: Document, life: Sequence[Document]) -> Iterator[str]:
    last = history.of_execution.get(str(parent.get("execution")), [])
    for attempt in life:
        first = history.of_execution.get(str(attempt["_id"]), [])
        if last and first and first[0].time < last[-1].time:
            yield f"attempt {attempt['_id']} did something before the parent {parent['_id']} had done its last"


@rule
def edges_tell_how_their_parents_ended(history: History) -> Iterator[str]:
    for edge in history.edges:
        parent, child = history.by_id.get(edge["parent"]), history.by_id.get(edge["child"])
        if parent is None or child is None:
            yield f"the edge {edge['_id']} has an end that is not there"
        elif not edge["settled"] or edge.get("satisfied") != _satisfies(parent, edge["on"]):
            yield f"the edge {parent['_id']} -> {child['_id']} is settled: {edge['settled']}, {edge.get('satisfied')}"
        elif not edge["satisfied"] and child["state"] != "cancelled":
            yield f"task {child['_id']} is {child['state']}, though its parent {parent['_id']} forbids it"
    blamed = {edge["child"]: set[Any]() for edge in history.edges}
    for edge in history.edges:
        if edge.get("satisfied") is False:
            blamed[edge["child"]].add(edge["parent"])
    for task in history.tasks:
        cause = (task.get("cancelled_by") or {}).get("task")
        if task["state"] == "cancelled" and cause is not None and cause not in blamed.get(task["_id"], ()):
            yield f"task {task['_id']} was cancelled for the sake of {cause}, which allows it"


@rule
def pending_counts_are_right(history: History) -> Iterator[str]:
    pending = Counter(edge["child"] for edge in history.edges if not edge["settled"])
    for task in history.tasks:
        if task.get("pending_dependency_count", 0) != pending[task["_id"]]:
            count = task["pending_dependency_count"]
            yield f"task {task['_id']} counts {count} pending dependencies and has {pending[task['_id']]}"


@rule
def retries_are_counted(history: History) -> Iterator[str]:
    for task in history.tasks:
        statuses = [str(attempt.get("exit_status")) for attempt in history.life(task)]
        lost = sum(_is_the_machines(status) for status in statuses)
        failed = sum(status != "success" and status != "cancelled" for status in statuses) - lost
        retries, losses = task.get("retry_count", 0), task.get("abandoned_count", 0)
        last = 1 if task["state"] == "terminated" and failed and statuses[-1] != "success" else 0
        last = 0 if statuses and _is_the_machines(statuses[-1]) else last
        # The end of an attempt that was to be cancelled anyway counts for nothing.
        spare = {0, 1} if task["state"] == "cancelled" else {0}
        if failed - last - retries not in spare or lost - losses not in spare:
            yield f"task {task['_id']} counts {retries} retries and {losses} losses; its attempts: {statuses}"
        if retries > task.get("max_retry_count", 0) or losses > MAX_LOSSES:
            yield f"task {task['_id']} had {retries} retries of {task.get('max_retry_count', 0)}, {losses} losses"
        elif last and retries < task.get("max_retry_count", 0):
            yield f"task {task['_id']} failed after {retries} of {task['max_retry_count']} retries"


@rule
def what_counts_was_done(history: History) -> Iterator[str]:
    if not history.effects:
        return
    for task in history.tasks:
        counting = history.counting(task)
        if counting is not None and task.get("exit_status") == "success":
            done = [effect.what for effect in history.of_execution.get(str(counting["_id"]), ())]
            if done != ["begin", "end"]:
                yield f"attempt {counting['_id']} counts for task {task['_id']}, and has done {done}"
    known = {str(attempt["_id"]) for attempt in history.attempts}
    for execution in history.of_execution:
        if execution not in known:
            yield f"an attempt {execution} has done something, and no history knows it"


@rule
def statistics_add_up(history: History) -> Iterator[str]:
    if not history.statistics:
        return
    states = Counter(task["state"] for task in history.tasks)
    exits = Counter(task["exit_status"] for task in history.tasks if task.get("exit_status"))
    for name, counted in (("states", states), ("exit_statuses", exits)):
        if dict(history.statistics[name]) != dict(counted):
            yield f"the statistics say {history.statistics[name]} {name}, there are {dict(counted)}"
    if history.statistics["total"] != len(history.tasks):
        yield f"the statistics count {history.statistics['total']} tasks of {len(history.tasks)}"


def _is_group(task: Document) -> bool:
    return task.get("command") is None and task.get("model") is None


def _is_abandoned(attempt: Document) -> bool:
    return str(attempt.get("exit_status")).startswith("abandoned (")


def _is_the_machines(exit_status: str) -> bool:
    return exit_status.startswith(("abandoned (", "failure (worker:"))


def _satisfies(parent: Document, on: str) -> bool:
    """Whether the end of the parent is what the edge waits for."""
    if parent["state"] == "cancelled":
        return on == "any"
    good = parent.get("exit_status") == "success"
    return on == "any" or (on == "success") == good
