"""The order in which tasks start that wait on a worker, beside a slow model that says what it should be."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.worker import grant
from worker.attempts import Attempt
from worker.fair_queue import FairQueue


def attempt(execution: str, **fields: Any) -> Attempt:
    return Attempt(grant=grant(execution, **fields), received=0.0)


def waiting(queue: FairQueue, *attempts: Attempt) -> None:
    for each in attempts:
        queue.add(each)


def started(queue: FairQueue, most: int, unfit: Iterable[str] = ()) -> list[Attempt]:
    """Start so many in one round, passing over the classes that do not fit."""
    found: list[Attempt] = []
    while len(found) < most and (best := queue.best()) is not None:
        if best.grant.task_class in unfit:
            queue.pass_over(best)
        else:
            queue.start(best)
            found.append(best)
    queue.end_round()
    return found


def names(attempts: Iterable[Attempt]) -> list[str]:
    return [each.grant.execution for each in attempts]


def queues(attempts: Iterable[Attempt]) -> Counter[str]:
    return Counter(each.grant.queue for each in attempts)


def of(queue: str, count: int, **fields: Any) -> list[Attempt]:
    return [attempt(f"{queue}{number}", queue=queue, **fields) for number in range(count)]


def test_starts_are_shared_by_weight() -> None:
    queue = FairQueue()
    waiting(queue, *of("a", 100, weight=3), *of("b", 100, weight=1))
    assert queues(started(queue, 80)) == {"a": 60, "b": 20}


def test_a_queue_that_comes_later_gains_no_credit() -> None:
    queue = FairQueue()
    waiting(queue, *of("a", 100))
    started(queue, 50)
    waiting(queue, *of("b", 100))
    assert queues(started(queue, 20)) == {"a": 10, "b": 10}


def test_a_queue_that_was_not_served_for_a_while_gains_no_credit() -> None:
    """Nothing of it fitted."""
    queue = FairQueue()
    waiting(queue, *of("a", 100), *of("b", 100, **{"class": "wide"}))
    assert queues(started(queue, 50, ["wide"])) == {"a": 50}
    assert queues(started(queue, 20)) == {"a": 10, "b": 10}


def test_priority_comes_before_age_and_over_all_classes_of_a_queue() -> None:
    queue = FairQueue()
    waiting(queue, attempt("old", order="1"), attempt("young", order="2"))
    waiting(queue, attempt("urgent", order="3", priority=5, **{"class": "other"}), attempt("later", priority=-1))
    assert names(queue.in_order()) == names(started(queue, 9)) == ["urgent", "old", "young", "later"]


def test_equal_tasks_start_in_the_order_in_which_they_came() -> None:
    queue = FairQueue()
    waiting(queue, attempt("b"), attempt("a"), attempt("c"))
    assert names(started(queue, 9)) == ["b", "a", "c"]


def test_what_was_passed_over_is_next_again_in_the_next_round() -> None:
    queue = FairQueue()
    waiting(queue, attempt("wide", order="1", **{"class": "wide"}), attempt("a", order="2"), attempt("b", order="3"))
    assert names(started(queue, 1, ["wide"])) == ["a"]
    assert names(started(queue, 9)) == ["wide", "b"]


def test_what_was_removed_does_not_start() -> None:
    queue = FairQueue()
    attempts = [attempt(str(number), order=f"{number:04d}") for number in range(1000)]
    waiting(queue, *attempts)
    for each in attempts[10:]:
        queue.remove(each)
    assert len(queue) == 10
    assert names(started(queue, 99)) == [str(number) for number in range(10)]


def test_the_expected_work_is_that_of_what_waits() -> None:
    queue = FairQueue()
    attempts = [attempt(str(number), order=str(number)) for number in range(4)]
    waiting(queue, *attempts)
    queue.price(lambda each: 0.25)
    assert queue.seconds == 1.0
    queue.remove(attempts[3])
    started(queue, 1)
    assert queue.seconds == 0.5
    started(queue, 9)
    assert queue.seconds == 0.0


class Model:
    """The same rules, looked up in a list."""

    def __init__(self) -> None:
        self.turn = 0.0
        self.passed: dict[str, float] = {}
        self.waiting: list[Attempt] = []

    def tag(self, name: str) -> float:
        return max(self.turn, self.passed.get(name, 0.0))

    def start(self, unfit: Sequence[str]) -> str | None:
        fit = [each for each in self.waiting if each.grant.task_class not in unfit]
        if not fit:
            return None
        name = min({each.grant.queue for each in fit}, key=lambda name: (self.tag(name), name))
        of_queue = [each for each in fit if each.grant.queue == name]
        first = min(of_queue, key=lambda each: (-each.grant.priority, each.grant.order))
        self.waiting.remove(first)
        self.turn = self.tag(name)
        self.passed[name] = self.turn + 1 / first.grant.weight
        return first.grant.execution


ADD = st.tuples(
    st.just("add"),
    st.sampled_from("abc"),
    st.sampled_from(["x", "y", "z"]),
    st.sampled_from([0.0, 1.0, 5.0]),
    st.integers(0, 99),
)
START = st.tuples(st.just("start"), st.integers(1, 5), st.lists(st.sampled_from(["x", "y", "z"]), max_size=2))
REMOVE = st.tuples(st.just("remove"), st.integers(0, 99))
WEIGHTS = {"a": 3.0, "b": 1.0, "c": 0.5}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(ADD, ADD, START, REMOVE), max_size=60))
def test_it_does_what_the_rules_say(steps: list[tuple[Any, ...]]) -> None:
    queue, model = FairQueue(), Model()
    for number, (what, *details) in enumerate(steps):
        if what == "add":
            name, task_class, priority, age = details
            one = attempt(
                f"{number}",
                queue=name,
                priority=priority,
                order=f"{age:02d}-{number:03d}",
                weight=WEIGHTS[name],
                **{"class": task_class},
            )
            queue.add(one)
            model.waiting.append(one)
        elif what == "start":
            most, unfit = details
            expected = [model.start(unfit) for _ in range(most)]
            assert names(started(queue, most, unfit)) == [each for each in expected if each is not None]
        elif model.waiting:
            gone = model.waiting.pop(details[0] % len(model.waiting))
            queue.remove(gone)
        assert (len(queue), queue.turn) == (len(model.waiting), model.turn)
    in_order = names(queue.in_order())
    assert in_order == [model.start(()) for _ in range(len(queue))]
    assert names(started(queue, 999)) == in_order


@pytest.mark.parametrize("classes", [1, 2000])
def test_it_forgets_nothing_of_many(classes: int) -> None:
    queue = FairQueue()
    attempts = [
        attempt(str(number), order=f"{number * 7919 % 2000:05d}", **{"class": str(number % classes)})
        for number in range(2000)
    ]
    waiting(queue, *attempts)
    expected = sorted(attempts, key=lambda each: each.grant.order)
    assert names(started(queue, 2000)) == names(expected)
    assert len(queue) == 0
