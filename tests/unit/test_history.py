"""The checker of histories: a good one contradicts no rule, and each forged one exactly its own."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.happened import Effect, History
from tests.support.history import RULES, contradictions

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Document = dict[str, Any]


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def task(id: str, execution: str | None, **fields: Any) -> Document:
    known: Document = {"_id": id, "state": "terminated", "exit_status": "success", "command": "true"}
    known |= {"execution": execution, "attempt_count": 1, "retry_count": 0, "max_retry_count": 2}
    known |= {"abandoned_count": 0, "pending_dependency_count": 0, "time_terminated": at(9)}
    return known | fields


def attempt(id: str, task: str, number: int, begun: float, ended: float, **fields: Any) -> Document:
    known: Document = {"_id": id, "task": task, "attempt": number, "exit_status": "success"}
    return known | {"time_claimed": at(begun), "time_terminated": at(ended)} | fields


def edge(parent: str, child: str, on: str = "success", satisfied: bool = True) -> Document:
    known = {"_id": f"{parent}-{child}", "parent": parent, "child": child}
    return known | {"on": on, "settled": True, "satisfied": satisfied}


FAILED = "failure (exit code 3)"
LOST = "abandoned (worker unreachable)"


def good() -> History:
    """A parent that failed, got lost (its ghost goes on) and succeeded; a child; one whose parent failed; a group."""
    tasks = [
        task("parent", "p3", attempt_count=3, retry_count=1, abandoned_count=1, result={"execution": "p3"}),
        task("child", "c1", time_terminated=at(12)),
        task("failing", "f1", exit_status=FAILED, max_retry_count=0),
        task(
            "orphan",
            None,
            state="cancelled",
            exit_status="cancelled",
            attempt_count=0,
            cancelled_by={"task": "failing"},
        ),
        task("group", None, command=None, attempt_count=0, time_terminated=at(10)),
        task("stopped", "s1", state="cancelled", exit_status="cancelled", cancelled_by={"user": "alice"}),
    ]
    attempts = [
        attempt("p1", "parent", 1, 0, 1, exit_status=FAILED, exit_code=3),
        attempt("p2", "parent", 2, 2, 5, exit_status=LOST, lost=True),
        attempt("p3", "parent", 3, 6, 9, result={"execution": "p3"}),
        attempt("c1", "child", 1, 10, 12),
        attempt("f1", "failing", 1, 0, 1, exit_status=FAILED),
        attempt("s1", "stopped", 1, 0, 1, exit_status=FAILED),
    ]
    effects = [("p1", "begin", 0.5), ("p2", "begin", 2.5), ("p3", "begin", 6.5), ("p2", "end", 7.0), ("p3", "end", 8.5)]
    effects += [("c1", "begin", 10.5), ("c1", "end", 11.5), ("f1", "begin", 0.5), ("s1", "begin", 0.5)]
    return History(
        tasks=tasks,
        edges=[
            edge("parent", "child"),
            edge("failing", "orphan", satisfied=False),
            edge("parent", "group"),
            edge("failing", "child", on="failure"),
        ],
        attempts=attempts,
        submitted=[each["_id"] for each in tasks],
        effects=[Effect(execution=execution, what=what, time=time) for execution, what, time in effects],
        told={"parent": ("terminated", "success")},
        statistics={
            "total": 6,
            "states": {"terminated": 4, "cancelled": 2},
            "exit_statuses": {"success": 3, FAILED: 1, "cancelled": 2},
        },
    )


def changed(history: History, kind: str, id: str, **fields: Any) -> History:
    """The history with some fields of one document changed; None takes a field away."""
    documents = [{**each, **fields} if each["_id"] == id else each for each in getattr(history, kind)]
    documents = [{name: value for name, value in each.items() if value is not None} for each in documents]
    forged: Any = {kind: documents}
    return replace(history, **forged)


def in_task(id: str, **fields: Any) -> Callable[[History], History]:
    return lambda history: changed(history, "tasks", id, **fields)


def in_attempt(id: str, **fields: Any) -> Callable[[History], History]:
    return lambda history: changed(history, "attempts", id, **fields)


def in_edge(id: str, **fields: Any) -> Callable[[History], History]:
    return lambda history: changed(history, "edges", id, **fields)


def with_effect(execution: str, what: str, time: float) -> Callable[[History], History]:
    """Done at another time, or besides."""

    def forge(history: History) -> History:
        effect = Effect(execution=execution, what=what, time=time)
        kept = [each for each in history.effects if (each.execution, each.what) != (execution, what)]
        return replace(history, effects=[*kept, effect])

    return forge


def without_effect(execution: str, what: str) -> Callable[[History], History]:
    return lambda history: replace(
        history, effects=[each for each in history.effects if (each.execution, each.what) != (execution, what)]
    )


def with_attempt(**fields: Any) -> Callable[[History], History]:
    def forge(history: History) -> History:
        more = attempt("p4", "parent", 4, 10, 11, **fields)
        return in_task("parent", attempt_count=4)(replace(history, attempts=[*history.attempts, more]))

    return forge


IDS = [each["_id"] for each in good().tasks]
RUNNING = task("late", None, state="running", exit_status=None, attempt_count=0)

FORGERIES: list[tuple[str, Callable[[History], History]]] = [
    ("every_task_ended", lambda history: replace(history, tasks=[*history.tasks, RUNNING], submitted=[*IDS, "late"])),
    ("what_was_accepted_is_there_once", lambda history: replace(history, submitted=[*IDS, "lost"])),
    ("what_was_accepted_is_there_once", lambda history: replace(history, submitted=IDS[1:])),
    ("what_was_told_stays", lambda history: replace(history, told={"child": ("terminated", FAILED)})),
    ("nothing_is_held", in_task("child", worker="w")),
    ("nothing_is_held", in_task("parent", unsettled=True)),
    ("nothing_is_held", in_attempt("s1", time_terminated=None)),
    ("attempts_are_numbered", in_attempt("p3", attempt=5)),
    ("attempts_are_numbered", in_task("child", attempt_count=2)),
    ("attempts_are_numbered", in_attempt("p1", time_claimed=at(5.5), time_terminated=at(1))),
    ("exactly_one_attempt_counts", in_task("child", execution="c0")),
    ("exactly_one_attempt_counts", in_attempt("s1", exit_status="success")),
    ("exactly_one_attempt_counts", in_task("failing", exit_status="failure (exit code 4)")),
    ("results_are_those_of_the_attempt_that_counts", in_task("parent", result={"execution": "p2"})),
    ("results_are_those_of_the_attempt_that_counts", in_attempt("p1", result={"execution": "p2"})),
    ("ghosts_change_nothing", in_attempt("p2", exit_code=0)),
    ("attempts_do_not_overlap", in_attempt("p1", time_terminated=at(4))),
    ("attempts_do_not_overlap", with_effect("p1", "end", 3.0)),
    ("no_child_began_before_its_parents_allowed_it", in_attempt("c1", time_claimed=at(7))),
    ("no_child_began_before_its_parents_allowed_it", with_effect("c1", "begin", 8.0)),
    ("edges_tell_how_their_parents_ended", in_edge("failing-orphan", satisfied=True)),
    ("edges_tell_how_their_parents_ended", in_task("orphan", cancelled_by={"task": "parent"})),
    ("pending_counts_are_right", in_task("child", pending_dependency_count=-1)),
    ("retries_are_counted", in_task("parent", retry_count=2)),
    ("retries_are_counted", in_task("parent", abandoned_count=0)),
    ("retries_are_counted", in_task("failing", max_retry_count=1)),
    ("what_counts_was_done", without_effect("c1", "end")),
    ("what_counts_was_done", with_effect("nobody", "begin", 1.0)),
    ("statistics_add_up", lambda history: replace(history, statistics={**history.statistics, "total": 5})),
]


def test_a_good_history_contradicts_nothing() -> None:
    assert contradictions(good()) == []


@pytest.mark.parametrize(("rule", "forge"), FORGERIES, ids=[rule for rule, _ in FORGERIES])
def test_a_forged_history_is_found_out(rule: str, forge: Callable[[History], History]) -> None:
    found = contradictions(forge(good()))
    assert rule in {text.partition(":")[0] for text in found}


def test_every_rule_has_a_forgery() -> None:
    assert {rule for rule, _ in FORGERIES} == RULES.keys()


def test_two_successes_of_one_task_are_found_out() -> None:
    found = contradictions(with_attempt()(good()))
    assert "exactly_one_attempt_counts" in {text.partition(":")[0] for text in found}


def test_what_forbids_a_child_is_found_out_where_it_ran() -> None:
    forged = in_task("orphan", state="terminated", exit_status="success", command=None, cancelled_by=None)(good())
    found = {text.partition(":")[0] for text in contradictions(forged)}
    assert found >= {"no_child_began_before_its_parents_allowed_it", "edges_tell_how_their_parents_ended"}


def test_a_life_begins_with_a_retry_by_hand() -> None:
    """Its earlier attempts count no more, and what was told of it before may change."""
    retried = replace(good(), retried={"parent": at(5.5)}, told={"parent": ("terminated", FAILED)})
    assert contradictions(in_task("parent", retry_count=0, abandoned_count=0)(retried)) == []
