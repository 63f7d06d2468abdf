"""Calls that come at the same time are answered in one round."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from banyan.queue.together import Together

LONG_SECONDS = 60.0


class Act:
    """Answers each number by its double, once the test lets the round go; `rounds` are those that came."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.came = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.rounds.append(list(asked))
        self.came.release()
        assert self.go.acquire(timeout=LONG_SECONDS)
        if -1 in asked:
            raise ValueError("a bad number")
        return [2 * number for number in asked]


def wait_for_calls(together: Together[int, int], count: int) -> None:
    """Until so many wait for the next round."""
    changed = threading.Event()
    while len(together._waiting) < count:
        changed.wait(0.001)


@pytest.fixture
def act() -> Act:
    return Act()


def start(pool: ThreadPoolExecutor, together: Together[int, int], act: Act, *numbers: int) -> list[Future[int]]:
    """Call with each number; all but the first wait for the round after."""
    calls = []
    for count, number in enumerate(numbers):
        calls.append(pool.submit(together, act, number))
        if count == 0:
            assert act.came.acquire(timeout=LONG_SECONDS)
        else:
            wait_for_calls(together, count)
    return calls


def test_who_comes_alone_is_answered_alone(act: Act) -> None:
    together: Together[int, int] = Together()
    act.go.release(2)
    assert [together(act, 1), together(act, 2)] == [2, 4]
    assert act.rounds == [[1], [2]]


def test_who_comes_while_a_round_runs_is_in_the_next_one_with_all_others(act: Act) -> None:
    together: Together[int, int] = Together(LONG_SECONDS)
    with ThreadPoolExecutor(4) as pool:
        calls = start(pool, together, act, 1, 2, 3, 4)
        act.go.release(2)
        assert [call.result(LONG_SECONDS) for call in calls] == [2, 4, 6, 8]
    assert act.rounds == [[1], [2, 3, 4]]
    act.go.release()
    assert together(act, 5) == 10


def test_an_error_is_raised_to_all_of_its_round_and_to_nobody_else(act: Act) -> None:
    together: Together[int, int] = Together(LONG_SECONDS)
    with ThreadPoolExecutor(3) as pool:
        first, *others = start(pool, together, act, 1, -1, 3)
        act.go.release(2)
        assert first.result(LONG_SECONDS) == 2
        for call in others:
            with pytest.raises(ValueError, match="a bad number"):
                call.result(LONG_SECONDS)
    act.go.release()
    assert together(act, 4) == 8


def test_where_calls_are_independent_only_the_one_that_is_wrong_hears_of_it(act: Act) -> None:
    together: Together[int, int] = Together(LONG_SECONDS, apart=True)
    with ThreadPoolExecutor(4) as pool:
        first, wrong, *others = start(pool, together, act, 1, -1, 3, 4)
        act.go.release(5)
        assert [call.result(LONG_SECONDS) for call in (first, *others)] == [2, 6, 8]
        with pytest.raises(ValueError, match="a bad number"):
            wrong.result(LONG_SECONDS)
    assert act.rounds == [[1], [-1, 3, 4], [-1], [3], [4]]


def test_who_has_waited_long_for_the_round_before_goes_alone(act: Act) -> None:
    together: Together[int, int] = Together(patience_seconds=0.01)
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(together, act, 1)
        assert act.came.acquire(timeout=LONG_SECONDS)
        impatient = pool.submit(together, act, 2)
        assert act.came.acquire(timeout=LONG_SECONDS)
        assert act.rounds == [[1], [2]]
        act.go.release(2)
        assert [hanging.result(LONG_SECONDS), impatient.result(LONG_SECONDS)] == [2, 4]


def test_many_callers_each_hear_their_own_answer() -> None:
    together: Together[int, int] = Together()

    def act(asked: Sequence[int]) -> list[int]:
        return [2 * number for number in asked]

    with ThreadPoolExecutor(16) as pool:
        numbers = list(range(2000))
        assert list(pool.map(lambda number: together(act, number), numbers)) == [2 * number for number in numbers]


def test_a_change_can_wait_for_the_round_that_may_not_know_of_it(act: Act) -> None:
    together: Together[int, int] = Together(LONG_SECONDS)
    together.wait_for_round()
    with ThreadPoolExecutor() as pool:
        first, _ = start(pool, together, act, 1, 2)
        change = pool.submit(together.wait_for_round)
        with pytest.raises(TimeoutError):
            change.result(timeout=0.2)
        act.go.release()
        change.result(timeout=LONG_SECONDS)
        assert first.result(timeout=LONG_SECONDS) == 2
        act.go.release()
    together.wait_for_round()


def test_a_change_does_not_wait_for_ever(act: Act) -> None:
    together: Together[int, int] = Together(0.05)
    with ThreadPoolExecutor() as pool:
        start(pool, together, act, 1)
        together.wait_for_round()
        act.go.release()
