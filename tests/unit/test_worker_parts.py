"""The parts of the worker's core, each by itself."""

import signal
from collections.abc import Sequence
from typing import Any

import pytest

from banyan.domain.resources import Resources
from tests.support.worker import grant
from worker.allocation import Allocator
from worker.asking import (
    AHEAD_PAUSE_SECONDS,
    KNOWN_CLASSES,
    PAUSE_SECONDS,
    Experience,
    Offer,
    ahead_document,
    cost_of,
    excess,
    offer,
)
from worker.attempts import Attempt
from worker.events import Cause
from worker.fair_queue import FairQueue
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


def waiting(execution: str, **fields: Any) -> Attempt:
    return Attempt(grant=grant(execution, **fields), received=0.0)


def lanes_with(
    count: int, expected_seconds: float | None, capacity: float = 2, **amounts: Any
) -> tuple[Lanes, list[Attempt]]:
    """Lanes for tasks of this duration, of which so many have come."""
    lanes = Lanes(lambda task_class: expected_seconds)
    lanes.allocator.resize(cores(capacity, **amounts), ())
    for number in range(count):
        lanes.waiting.add(waiting(f"t{number}"))
    return lanes, lanes.fill(0.0)


def names(attempts: Sequence[Attempt]) -> list[str]:
    return [attempt.grant.execution for attempt in attempts]


@pytest.mark.parametrize("expected_seconds", [None, 1.0])
def test_tasks_that_may_be_long_have_a_lane_of_their_own(expected_seconds: float | None) -> None:
    lanes, placed = lanes_with(5, expected_seconds)
    assert names(placed) == ["t0", "t1"]
    assert lanes.backlog
    assert lanes.free == Resources()
    assert len(lanes.waiting) == 3


def test_very_short_tasks_share_lanes_evenly_up_to_a_limit() -> None:
    lanes, placed = lanes_with(1000, 0.0001)
    assert len(placed) == 2 * MAX_LANE
    assert _sizes(lanes) == {0: MAX_LANE, 1: MAX_LANE}
    assert _sizes(lanes_with(1000, 0.01)[0]) == {0: 5, 1: 5}


def _sizes(lanes: Lanes) -> dict[int, int]:
    return {number: len(lane.members) for number, lane in lanes._lanes.items()}


def test_a_lane_returns_its_resources_with_its_last_task() -> None:
    lanes, attempts = lanes_with(2, 0.001, capacity=1)
    assert lanes.leave(attempts[0], 10.0, 0.0) is None
    assert lanes.free.millicores == 0
    assert lanes.leave(attempts[1], 11.0, 0.0) == 10.0
    assert (lanes.free.millicores, lanes.idle, lanes.backlog) == (1000, True, False)


def test_a_new_lane_has_the_lowest_number_that_is_free() -> None:
    lanes, attempts = lanes_with(4, None, capacity=3)
    assert [attempt.lane for attempt in attempts] == [0, 1, 2]
    lanes.leave(attempts[1], 1.0, 0.0)
    assert [attempt.lane for attempt in lanes.fill(0.0)] == [1]


def test_short_tasks_of_many_classes_follow_each_other_in_one_lane_in_their_order() -> None:
    lanes = Lanes(lambda task_class: 0.001)
    lanes.allocator.resize(cores(1, memory_bytes=1 << 30), ())
    for number in range(20):
        queue, size = ("a", "30 MiB") if number % 2 else ("b", "1 MiB")
        memory = (30 << 20) - number if queue == "a" else (1 << 20) + number
        wanted = {"cores": 1, "memory": memory}
        lanes.waiting.add(waiting(f"{queue}{number}", queue=queue, requested_resources=wanted, **{"class": size}))
    placed = lanes.fill(0.0)
    assert "".join(name[0] for name in names(placed)) == "ab" * 10
    assert {attempt.lane for attempt in placed} == {0}
    granted = [attempt.allocation.resources.memory_bytes for attempt in placed if attempt.allocation]
    assert granted == [attempt.grant.memory_limit_bytes for attempt in placed]


@pytest.mark.parametrize(
    "wanted", [{"cores": 1, "memory": 101}, {"cores": 0.5}, {"cores": 1, "gpus": 1}, {"cores": 1, "custom": {"x": 1}}]
)
def test_a_task_that_wants_something_else_does_not_share_the_lane(wanted: dict[str, Any]) -> None:
    lanes = Lanes(lambda task_class: 0.001)
    lanes.allocator.resize(cores(1, memory_bytes=100), ())
    lanes.waiting.add(waiting("a", order="1"))
    lanes.waiting.add(waiting("b", order="2", requested_resources=wanted))
    lanes.waiting.add(waiting("c", order="3"))
    assert names(lanes.fill(0.0)) == ["a"]


def test_cores_are_offered_while_all_that_waits_wants_a_gpu_that_is_busy() -> None:
    lanes = Lanes(lambda task_class: 1.0)
    lanes.allocator.resize(cores(4, gpus=1), (0,))
    for number in range(3):
        lanes.waiting.add(
            waiting(f"g{number}", order=str(number), requested_resources={"cores": 1, "gpus": 1}, **{"class": "gpu"})
        )
    assert names(lanes.fill(0.0)) == ["g0"]
    assert lanes.free == cores(3)
    lanes.waiting.add(waiting("c", order="9"))
    assert names(lanes.fill(60.0)) == ["c"]


def test_nothing_is_offered_while_something_waits_for_cores() -> None:
    lanes = Lanes(lambda task_class: 1.0)
    lanes.allocator.resize(cores(4), ())
    lanes.waiting.add(waiting("a", order="1"))
    lanes.waiting.add(waiting("wide", order="2", requested_resources={"cores": 4}))
    assert names(lanes.fill(0.0)) == ["a"]
    lanes.fill(60.0)
    assert lanes.free == cores(0)


def test_a_model_does_not_share_the_lane_of_a_command() -> None:
    lanes = Lanes(lambda task_class: 0.001)
    lanes.allocator.resize(cores(1), ())
    lanes.waiting.add(waiting("a", order="1"))
    lanes.waiting.add(waiting("b", order="2", model="sum"))
    assert names(lanes.fill(0.0)) == ["a"]


def test_a_lane_with_much_memory_is_not_kept_by_tasks_that_want_little() -> None:
    """Else the others would not find room beside it."""
    lanes = Lanes(lambda task_class: 0.001)
    lanes.allocator.resize(cores(4, memory_bytes=8 << 30), ())
    lanes.waiting.add(waiting("large", order="1", requested_resources={"cores": 1, "memory": 7 << 30}))
    for number in range(8):
        wanted = {"cores": 1, "memory": 1 << 30}
        lanes.waiting.add(waiting(f"small{number}", order=f"2{number}", requested_resources=wanted))
    placed = lanes.fill(0.0)
    assert {attempt.lane for attempt in placed[1:]} == {1}


def test_what_shares_a_lane_comes_before_nothing_that_is_next() -> None:
    """A long task has its turn: no short one goes on before it on the only core."""
    lanes = Lanes(lambda task_class: 0.001 if task_class == "short" else None)
    lanes.allocator.resize(cores(1), ())
    for number, task_class in enumerate(["short", "short", "long", "short"]):
        lanes.waiting.add(waiting(f"t{number}", order=str(number), **{"class": task_class}))
    assert names(lanes.fill(0.0)) == ["t0", "t1"]


def test_soon_is_what_is_not_held_by_a_long_task() -> None:
    lanes = Lanes(lambda task_class: {"long": 10.0, "short": 0.2, "new": None}[task_class])
    lanes.allocator.resize(cores(4), ())
    for number, task_class in enumerate(["long", "short", "new"]):
        lanes.waiting.add(waiting(task_class, order=str(number), **{"class": task_class}))
    lanes.fill(100.0)
    assert lanes.soon == cores(3)
    assert lanes.next_long == 100.5
    assert not lanes.look_for_long_tasks(100.4)
    assert lanes.look_for_long_tasks(100.5)
    assert lanes.soon == cores(2)
    assert lanes.look_for_long_tasks(101.0)
    assert lanes.soon == cores(1)
    assert lanes.next_long is None


# Asking


def asked(
    experience: Experience, queued: int = 0, cost_seconds: float = 0.0, soon: Resources | None = None, **kwargs: Any
) -> Offer:
    queue = FairQueue()
    for number in range(queued):
        attempt = waiting(f"t{number}")
        attempt.cost_seconds = cost_seconds
        queue.add(attempt)
    values: dict[str, Any] = {"ahead_seconds": 2.0, "room": None, "here": 1000}
    free = cores(0) if queued else cores(2)
    return offer(free, soon or cores(2), queue, experience, **(values | kwargs))


def experienced(seconds: float, count: int = 1000) -> Experience:
    experience = Experience()
    experience.saw(grant("a"), 0.0)
    for _ in range(count):
        experience.learned("class", seconds, 0.0)
    return experience


def test_nothing_is_asked_ahead_when_nothing_is_known_or_no_core_is_free_soon() -> None:
    unknown = Experience()
    unknown.saw(grant("a"), 0.0)
    assert asked(unknown).most == 0
    assert asked(experienced(0.1), soon=cores(0)).most == 0
    assert asked(experienced(0.1), ahead_seconds=0.0).most == 0


def test_a_worker_that_has_little_asks_for_little_so_that_the_answer_comes_soon() -> None:
    assert [asked(experienced(0.001), here=here).most for here in (0, 30, 130, 5000)] == [128, 128, 260, 2000]


def test_few_runs_are_not_trusted_with_many_tasks() -> None:
    assert asked(experienced(0.001, count=2)).most == 16
    estimated = Experience()
    estimated.saw(grant("a", estimated_runtime=0.1), 0.0)
    assert asked(estimated).most == 4


def test_a_limited_number_of_tasks_is_not_exceeded() -> None:
    assert (asked(experienced(0.01), room=5).max_tasks, asked(experienced(0.01), room=5).most) == (5, 0)
    assert asked(experienced(0.01), room=5, queued=1).most == 5
    assert asked(experienced(0.01), room=300).most == 44


def test_enough_waits_when_half_of_the_seconds_do() -> None:
    assert not asked(experienced(0.01), queued=64, cost_seconds=1 / 64).full
    assert asked(experienced(0.01), queued=65, cost_seconds=1 / 64).full


def told(experience: Experience, queue: FairQueue, now: float = 0.0, *, full: bool = False) -> dict[str, Any]:
    """What a claim says of what may wait."""
    made = Offer(resources=cores(0), max_tasks=0, most=100, full=full, soon=cores(2))
    return ahead_document(made, queue, experience, Allocator(cores(2)).slots, 2.0, now)


def test_a_claim_tells_how_long_tasks_take_by_class() -> None:
    experience = experienced(0.01)
    experience.saw(grant("b", requested_resources={"cores": 2}, **{"class": "wide"}), 0.0)
    experience.learned("wide", 0.5, 0.0)
    experience.saw(grant("c", **{"class": "long"}), 0.0)
    experience.learned("long", 30.0, 0.0)
    experience.saw(grant("d", **{"class": "new"}), 0.0)
    ahead = told(experience, FairQueue())["ahead"]
    assert (ahead["seconds"], ahead["most"], ahead["resources"]) == (2.0, 100, {"cores": 2})
    assert ahead["classes"] == {"class": pytest.approx(0.005), "wide": 0.5, "long": 30.0}
    later = told(experience, FairQueue(), now=6.0)["ahead"]
    assert later["classes"] == {"long": 30.0}


def test_what_tasks_of_a_new_class_take_is_expected_from_the_others() -> None:
    assert told(experienced(0.01), FairQueue())["ahead"]["other"] == pytest.approx(0.005)
    assert "other" not in told(experienced(0.01, count=9), FairQueue())["ahead"]
    assert "other" not in told(experienced(2.5), FairQueue())["ahead"]
    assert experienced(0.01).expected_seconds("new") == pytest.approx(0.01)


def test_a_claim_tells_what_waits_and_in_which_order() -> None:
    queue = FairQueue()
    for name, priority, order in [("a", 5, "3"), ("a", 0, "1"), ("a", 0, "2"), ("b", 0, "4"), ("a", 0, "0")]:
        attempt = waiting(f"{name}{order}", queue=name, priority=priority, order=order, weight=4)
        attempt.cost_seconds = 0.25
        queue.add(attempt)
    best = queue.best()
    assert best is not None
    queue.start(best)
    body = told(experienced(0.5), queue)
    assert (body["turn"], body["turns"]) == (0.0, {"a": 0.25})
    assert body["waiting"] == {
        "a": {"turn": 0.25, "seconds": 0.25, "tasks": [[0, 3, "2"]]},
        "b": {"turn": 0.0, "seconds": 0.25, "tasks": [[0, 1, "4"]]},
    }


def test_many_priorities_are_told_in_parts() -> None:
    queue = FairQueue()
    for number in range(1000):
        queue.add(waiting(str(number), priority=number, order=str(number)))
    tasks = told(experienced(0.5), queue)["waiting"][""]["tasks"]
    assert (len(tasks), sum(count for _, count, _ in tasks)) == (100, 1000)
    assert tasks[0] == [990, 10, "990"]


def test_when_enough_waits_only_what_comes_before_it_is_welcome() -> None:
    queue = FairQueue()
    for number in range(3):
        attempt = waiting(str(number))
        attempt.cost_seconds = 0.5
        queue.add(attempt)
    assert told(experienced(0.5), queue, full=True)["ahead"]["seconds"] == pytest.approx(1.5)
    assert told(experienced(0.5), queue, full=True)["ahead"]["seconds"] < 1.5


def test_what_would_start_last_is_too_much() -> None:
    queue = FairQueue()
    for number in range(40):
        attempt = waiting(f"t{number}", priority=number % 2, order=f"{number:02d}")
        attempt.cost_seconds = 0.125
        queue.add(attempt)
    assert names(excess(queue, 2.0)) == [f"t{number}" for number in range(2, 40, 2)]
    assert excess(queue, 4.0) == []


def test_a_long_task_that_waits_does_not_count_for_all_cores() -> None:
    cost = cost_of(cores(8), experienced(30.0), Allocator(cores(8)).slots, 2.0)
    assert cost(waiting("long")) == cost(waiting("unknown", **{"class": "new"})) == 0.25


def test_experience_follows_change_slowly() -> None:
    experience = experienced(1.0)
    experience.learned("class", 2.0, 0.0)
    assert experience.mean_seconds("class") == pytest.approx(1.2)
    assert experience.overall_seconds == pytest.approx(1.05)


def test_the_classes_that_were_seen_last_are_remembered() -> None:
    experience = experienced(1.0)
    for number in range(KNOWN_CLASSES):
        experience.saw(grant("a", estimated_runtime=1.0, **{"class": str(number)}), 0.0)
    assert experience.mean_seconds("class") is None
    assert experience.mean_seconds("0") == 1.0


def test_a_better_offer_is_one_that_could_get_something_new() -> None:
    small = Offer(resources=cores(1), max_tasks=5)
    assert Offer(resources=cores(2), max_tasks=5).better_than(small)
    assert Offer(resources=cores(1), max_tasks=5, most=1, soon=cores(1)).better_than(small)
    assert not Offer(resources=cores(0.5), max_tasks=5).better_than(small)
    assert not Offer(resources=cores(2), max_tasks=0).better_than(small)


def test_a_claim_that_may_be_answered_is_not_replaced_in_haste_only_to_ask_for_more_ahead() -> None:
    parked = Offer(resources=cores(0), max_tasks=0)
    full = Offer(resources=cores(0), max_tasks=0, most=10, full=True, soon=cores(1))
    asking = Offer(resources=cores(0), max_tasks=0, most=10, soon=cores(1))
    narrower = Offer(resources=cores(0), max_tasks=0, most=10, soon=cores(0.5))
    free = Offer(resources=cores(1), max_tasks=256, most=100, soon=cores(1))
    assert asking.better_than(parked)
    assert asking.better_than(full)
    assert not full.better_than(asking)
    assert free.better_than(asking)
    assert asking.patience(parked) == asking.patience(full) == free.patience(asking) == PAUSE_SECONDS
    assert narrower.worse_than(asking)
    assert parked.worse_than(asking)
    assert not full.worse_than(asking)
    assert narrower.patience(asking) == AHEAD_PAUSE_SECONDS


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


def test_what_is_urgent_waits_for_no_company() -> None:
    outbox = Outbox()
    for number in range(MAX_REPORTS):
        outbox.add({"execution": str(number), "exit_status": "success"}, 10.0)
    outbox.add({"execution": "back", "given_back": True}, 10.0, urgent=True)
    outbox.batch(10.0)
    outbox.add({"execution": "later", "exit_status": "success"}, 10.0)
    outbox.answered([str(number) for number in range(MAX_REPORTS)], [], 10.0)
    assert outbox.due(busy=True) == 0.0
    assert [report["execution"] for report in outbox.batch(10.0)[0]] == ["back", "later"]
    outbox.answered(["back", "later"], [], 10.0)
    outbox.add({"execution": "last", "exit_status": "success"}, 10.0)
    assert outbox.due(busy=True) == 10.2


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
