"""The parts of the worker's core, each by itself."""

import signal
from typing import Any

import pytest

from banyan.domain.resources import Resources
from tests.support.worker import grant
from worker.allocation import Allocator
from worker.asking import AHEAD_PAUSE_SECONDS, PAUSE_SECONDS, Experience, Offer, offer
from worker.attempts import Attempt
from worker.events import Cause
from worker.lanes import MAX_LANE, Lanes
from worker.outbox import MAX_REPORTS, Outbox
from worker.outcome import exit_status


def cores(amount: float, **amounts: Any) -> Resources:
    return Resources(millicores=round(amount * 1000), **amounts)


# Allocation


def test_an_allocation_is_all_or_nothing() -> None:
    allocator = Allocator(cores(2, memory_bytes=100, gpus=1), (3,))
    assert allocator.take(cores(1, memory_bytes=101)) is None
    taken = allocator.take(cores(0.5, memory_bytes=100, gpus=1))
    assert taken is not None
    assert taken.gpu_indexes == (3,)
    assert taken.to_document() == {"cores": 0.5, "memory": 100, "gpus": 1, "gpu_indexes": [3]}
    assert allocator.take(cores(0.5, gpus=1)) is None
    allocator.give(taken)
    assert allocator.free == allocator.capacity


def test_no_gpu_is_given_twice_and_the_lowest_go_first() -> None:
    allocator = Allocator(cores(8, gpus=4), (0, 2, 5, 7))
    first, second = allocator.take(cores(1, gpus=2)), allocator.take(cores(1, gpus=1))
    assert first is not None
    assert second is not None
    assert (first.gpu_indexes, second.gpu_indexes) == ((0, 2), (5,))
    allocator.give(first)
    third = allocator.take(cores(1, gpus=3))
    assert third is not None
    assert third.gpu_indexes == (0, 2, 7)


def test_a_capacity_may_shrink_below_what_is_handed_out() -> None:
    allocator = Allocator(cores(4))
    taken = allocator.take(cores(3))
    assert taken is not None
    assert allocator.resize(cores(2), ())
    assert not allocator.resize(cores(2), ())
    assert allocator.free.millicores == -1000
    assert allocator.take(cores(1)) is None
    allocator.give(taken)
    assert allocator.free == cores(2)


def test_slots_count_how_many_fit_side_by_side() -> None:
    allocator = Allocator(cores(8, memory_bytes=100))
    assert allocator.slots(cores(1)) == 8
    assert allocator.slots(cores(1, memory_bytes=30)) == 3
    assert allocator.slots(cores(9)) == 0
    assert allocator.slots(cores(0)) == 1


# Lanes


def lanes_with(count: int, mean_seconds: float | None, capacity: float = 2) -> tuple[Lanes, list[str]]:
    lanes = Lanes(lambda task_class: mean_seconds)
    lanes.allocator.resize(cores(capacity), ())
    for number in range(count):
        lanes.wait(Attempt(grant=grant(f"t{number}"), received=0.0))
    return lanes, [attempt.grant.execution for attempt in lanes.fill()]


@pytest.mark.parametrize("mean_seconds", [None, 1.0])
def test_tasks_that_may_be_long_have_a_lane_of_their_own(mean_seconds: float | None) -> None:
    lanes, placed = lanes_with(5, mean_seconds)
    assert placed == ["t0", "t1"]
    assert lanes.backlog
    assert lanes.free == Resources()
    assert lanes.queued == {"class": 3}


def test_very_short_tasks_share_lanes_evenly_up_to_a_limit() -> None:
    lanes, placed = lanes_with(1000, 0.0001)
    assert len(placed) == 2 * MAX_LANE
    assert _sizes(lanes) == {0: MAX_LANE, 1: MAX_LANE}


def _sizes(lanes: Lanes) -> dict[int, int]:
    return {number: len(lane.members) for number, lane in lanes._lanes.items()}


def test_a_lane_returns_its_resources_with_its_last_task() -> None:
    lanes = Lanes(lambda task_class: 0.001)
    lanes.allocator.resize(cores(1), ())
    attempts = [Attempt(grant=grant(name), received=0.0) for name in ("a", "b")]
    for attempt in attempts:
        lanes.wait(attempt)
    lanes.fill()
    assert lanes.leave(attempts[0], 10.0) is None
    assert lanes.free.millicores == 0
    assert lanes.leave(attempts[1], 11.0) == 10.0
    assert (lanes.free.millicores, lanes.idle, lanes.backlog) == (1000, True, False)


def test_a_new_lane_has_the_lowest_number_that_is_free() -> None:
    lanes = Lanes(lambda task_class: None)
    lanes.allocator.resize(cores(3), ())
    attempts = [Attempt(grant=grant(name), received=0.0) for name in ("a", "b", "c", "d")]
    for attempt in attempts:
        lanes.wait(attempt)
    assert [attempt.lane for attempt in lanes.fill()] == [0, 1, 2]
    lanes.leave(attempts[1], 1.0)
    assert [attempt.lane for attempt in lanes.fill()] == [1]


# Asking


def asked(experience: Experience, now: float = 0.0, queued: dict[str, int] | None = None, **kwargs: Any) -> Offer:
    values: dict[str, Any] = {"ahead_seconds": 2.0, "room": None, "here": 1000}
    return offer(cores(2), queued or {}, experience, lambda wanted: 2, now=now, **(values | kwargs))


def experienced(seconds: float, count: int = 1000) -> Experience:
    experience = Experience()
    experience.saw(grant("a"), 0.0)
    for _ in range(count):
        experience.learned("class", seconds, 0.0)
    return experience


def test_nothing_is_asked_ahead_when_run_times_are_unknown_or_long() -> None:
    unknown = Experience()
    unknown.saw(grant("a"), 0.0)
    assert asked(unknown).ahead == {}
    assert asked(experienced(2.5)).ahead == {}


def test_about_two_seconds_of_work_are_asked_ahead() -> None:
    assert asked(experienced(0.5)).ahead == {"class": 8}
    assert asked(experienced(0.01)).ahead == {"class": 400}
    assert asked(experienced(0.000001)).ahead == {"class": 2000}
    assert asked(experienced(0.01), queued={"class": 150}).ahead == {"class": 250}
    assert asked(experienced(0.01), queued={"class": 250}).ahead == {}
    assert asked(experienced(0.01), now=6.0).ahead == {}


def test_a_worker_that_has_little_asks_for_little_so_that_the_answer_comes_soon() -> None:
    assert asked(experienced(0.001), here=0).ahead == {"class": 128}
    assert asked(experienced(0.001), here=30).ahead == {"class": 128}
    assert asked(experienced(0.001), here=130).ahead == {"class": 260}


def test_few_runs_are_not_trusted_with_many_tasks() -> None:
    assert asked(experienced(0.001, count=2)).ahead == {"class": 16}
    estimated = Experience()
    estimated.saw(grant("a", estimated_runtime=0.1), 0.0)
    assert asked(estimated).ahead == {"class": 4}


def test_a_limited_number_of_tasks_is_not_exceeded() -> None:
    assert asked(experienced(0.01), room=5).max_tasks == 5
    assert asked(experienced(0.01), room=5, queued={"other": 1}).max_tasks == 0
    assert asked(experienced(0.01), room=300).ahead == {"class": 44}


def test_experience_follows_change_slowly() -> None:
    experience = experienced(1.0)
    experience.learned("class", 2.0, 0.0)
    assert experience.mean_seconds("class") == pytest.approx(1.2)


def test_a_better_offer_is_one_that_could_get_something_new() -> None:
    small = Offer(resources=cores(1), max_tasks=5, ahead={})
    assert Offer(resources=cores(2), max_tasks=5, ahead={}).better_than(small)
    assert Offer(resources=cores(1), max_tasks=5, ahead={"a": 1}).better_than(small)
    assert not Offer(resources=cores(0.5), max_tasks=5, ahead={}).better_than(small)
    assert not Offer(resources=cores(2), max_tasks=0, ahead={}).better_than(small)


def test_a_claim_that_may_be_answered_is_not_replaced_in_haste_only_to_ask_for_more_ahead() -> None:
    parked = Offer(resources=cores(0), max_tasks=0, ahead={})
    asking = Offer(resources=cores(0), max_tasks=0, ahead={"a": 10})
    more = Offer(resources=cores(0), max_tasks=0, ahead={"a": 100})
    free = Offer(resources=cores(1), max_tasks=256, ahead={"a": 100})
    assert more.patience(parked) == free.patience(asking) == PAUSE_SECONDS
    assert more.patience(asking) == AHEAD_PAUSE_SECONDS


# Outbox


def test_a_batch_is_bounded_in_number_and_size() -> None:
    outbox = Outbox()
    for number in range(MAX_REPORTS + 1):
        outbox.add({"execution": str(number), "exit_status": "success"}, 0.0)
    assert outbox.due(busy=True) == 0.0
    assert len(outbox.batch(0.0)[0]) == MAX_REPORTS
    large = Outbox()
    for number in range(3):
        large.add({"execution": str(number), "exit_status": "success", "stdout_tail": "x" * (5 << 20)}, 0.0)
    assert len(large.batch(0.0)[0]) == 1


def test_an_answer_that_names_an_attempt_twice_settles_it_once() -> None:
    outbox = Outbox()
    outbox.add({"execution": "a", "exit_status": "success"}, 0.0)
    outbox.batch(0.0)
    assert outbox.answered(["a", "a"], ["a"], 1.0) == ["a"]
    assert outbox.due(busy=False) is None


def test_one_batch_is_under_way_at_a_time_and_a_busy_worker_waits_for_company() -> None:
    outbox = Outbox()
    assert outbox.due(busy=False) is None
    outbox.add({"execution": "a", "exit_status": "success"}, 10.0)
    assert outbox.due(busy=False) == 0.0
    assert outbox.due(busy=True) == 10.2
    outbox.batch(11.0)
    outbox.add({"execution": "b", "exit_status": "success"}, 11.0)
    assert outbox.due(busy=False) is None
    assert outbox.answered(["a"], [], 12.0) == ["a"]
    assert outbox.due(busy=False) == 0.0
    assert outbox.unacknowledged == ["b"]


def test_a_refused_batch_keeps_its_ends_alone() -> None:
    outbox = Outbox()
    outbox.add({"execution": "a", "time_started": "now"}, 0.0)
    outbox.add({"execution": "b", "exit_status": "success"}, 0.0)
    outbox.batch(0.0)
    outbox.returned()
    assert [report["execution"] for report in outbox.batch(0.0)[0]] == ["b"]


# Outcome


@pytest.mark.parametrize(
    ("wait_status", "cause", "said"),
    [
        (0, None, "success"),
        (3 << 8, None, "failure (exit code 3)"),
        (143 << 8, None, "failure (exit code 143)"),
        (signal.SIGSEGV, None, "failure (SIGSEGV)"),
        (signal.SIGSEGV | 0x80, None, "failure (SIGSEGV)"),
        (signal.SIGKILL, None, "failure (SIGKILL)"),
        (signal.SIGRTMIN + 3, None, "failure (SIGRT37)"),
        (signal.SIGTERM, Cause.CANCEL, "cancelled"),
        (0, Cause.CANCEL, "success"),
        (0, Cause.TIMEOUT, "timed out"),
        (signal.SIGKILL, Cause.TIMEOUT, "timed out"),
        (signal.SIGKILL, Cause.MEMORY, "out of memory"),
        (signal.SIGTERM, Cause.SERVER_LOST, "abandoned (server unreachable)"),
        (0, Cause.SERVER_LOST, "success"),
    ],
)
def test_an_exit_status_names_what_happened(wait_status: int, cause: Cause | None, said: str) -> None:
    assert exit_status(wait_status, cause, {}) == said


def test_the_kernel_may_have_enforced_the_memory_limit() -> None:
    assert exit_status(signal.SIGKILL, None, {"out_of_memory": True}) == "out of memory"
