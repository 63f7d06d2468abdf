"""The table of transitions, row by row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from banyan.domain.programs import TOO_LONG
from banyan.domain.task import DISK_FILLED, HOST_DIED, LIVE, State, Task
from banyan.domain.transitions import (
    MAX_LOSSES,
    Cancel,
    Change,
    Claim,
    Due,
    End,
    Event,
    GiveBack,
    Promote,
    Release,
    Retry,
    Revive,
    decide,
    retry_delay,
)
from banyan.errors import IllegalTransition, StaleAttempt

NOW = datetime(2024, 5, 1, tzinfo=UTC)
EXECUTION, WORKER = ObjectId(), ObjectId()
CAUSE = {"user": "alice"}
LACKING = "failure (no directory: /home/alice)"


def task(state: State = State.INACTIVE, **fields: Any) -> Task:
    return Task(id=ObjectId(), revision="1", state=state, **fields)


def running(state: State = State.RUNNING, **fields: Any) -> Task:
    return task(state, **{"execution": EXECUTION, "worker": WORKER, "attempt_count": 1, **fields})


def changed(task: Task, event: Event) -> Change:
    change = decide(task, event, NOW)
    assert change is not None
    return change


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (task(), Release(), State.AVAILABLE),
        (task(), Promote(), State.AVAILABLE),
        (task(is_group=True), Release(), State.TERMINATED),
        (task(is_group=True), Promote(), State.TERMINATED),
        (task(is_group=True, hold=True), Release(), State.AVAILABLE),
        (task(State.AVAILABLE, is_group=True), Due(), State.TERMINATED),
        (task(), Cancel(CAUSE), State.CANCELLED),
        (task(State.AVAILABLE), Cancel(CAUSE), State.CANCELLED),
        (task(State.AVAILABLE), Claim(EXECUTION, WORKER, "r"), State.RUNNING),
        (running(), GiveBack(EXECUTION), State.AVAILABLE),
        (running(), Cancel(CAUSE), State.PENDING_CANCELLATION),
        (running(), End(EXECUTION, "success"), State.TERMINATED),
        (running(), End(EXECUTION, "failure (exit code 3)"), State.TERMINATED),
        (running(max_retry_count=1), End(EXECUTION, "timed out"), State.AVAILABLE),
        (running(max_retry_count=1, retry_count=1), End(EXECUTION, "timed out"), State.TERMINATED),
        (running(), End(EXECUTION, "abandoned (worker unreachable)"), State.AVAILABLE),
        (running(), End(EXECUTION, "failure (worker: disk full)"), State.AVAILABLE),
        (running(), End(EXECUTION, HOST_DIED), State.AVAILABLE),
        (running(), End(EXECUTION, LACKING, elsewhere=True), State.AVAILABLE),
        (running(max_retry_count=9), End(EXECUTION, LACKING), State.TERMINATED),
        (running(State.PENDING_CANCELLATION), End(EXECUTION, LACKING, elsewhere=True), State.CANCELLED),
        (running(), End(EXECUTION, DISK_FILLED), State.AVAILABLE),
        (running(disk_fills=1), End(EXECUTION, "failure (disk filled)"), State.TERMINATED),
        (running(State.PENDING_CANCELLATION), End(EXECUTION, "success"), State.TERMINATED),
        (running(State.PENDING_CANCELLATION), End(EXECUTION, "failure (SIGTERM)"), State.CANCELLED),
        (running(State.PENDING_CANCELLATION, max_retry_count=9), End(EXECUTION, "timed out"), State.CANCELLED),
        (running(State.PENDING_CANCELLATION), GiveBack(EXECUTION), State.CANCELLED),
        (task(State.TERMINATED), Retry(), State.AVAILABLE),
        (task(State.TERMINATED), Retry(pending=True), State.INACTIVE),
        (task(State.CANCELLED), Retry(), State.AVAILABLE),
        (task(State.CANCELLED), Revive(), State.INACTIVE),
    ],
)
def test_each_row_of_the_table(before: Task, event: Event, after: State) -> None:
    assert changed(before, event).state == after


UNCHANGED, REFUSED, STALE = "unchanged", "refused", "stale"
INACTIVE, AVAILABLE, RUNNING, PENDING_CANCELLATION, TERMINATED, CANCELLED = State
EVENTS: list[Event] = [
    *(Release(), Promote(), Due(), Cancel(CAUSE), Claim(EXECUTION, WORKER, "r"), GiveBack(EXECUTION)),
    *(End(EXECUTION, "success"), Retry(), Revive()),
]
OUTCOMES = {
    INACTIVE: (AVAILABLE, AVAILABLE, REFUSED, CANCELLED, REFUSED, STALE, STALE, REFUSED, REFUSED),
    AVAILABLE: (UNCHANGED, REFUSED, AVAILABLE, CANCELLED, RUNNING, STALE, STALE, REFUSED, INACTIVE),
    RUNNING: (REFUSED, REFUSED, REFUSED, PENDING_CANCELLATION, REFUSED, AVAILABLE, TERMINATED, REFUSED, REFUSED),
    PENDING_CANCELLATION: (REFUSED, REFUSED, REFUSED, UNCHANGED, REFUSED, CANCELLED, TERMINATED, REFUSED, REFUSED),
    TERMINATED: (REFUSED, REFUSED, REFUSED, UNCHANGED, REFUSED, STALE, STALE, AVAILABLE, INACTIVE),
    CANCELLED: (REFUSED, REFUSED, REFUSED, UNCHANGED, REFUSED, STALE, STALE, AVAILABLE, INACTIVE),
}
"""The outcome of each event for a claimable task with a command, in each state; in the order of EVENTS."""


def outcome(before: Task, event: Event) -> str:
    try:
        change = decide(before, event, NOW)
    except IllegalTransition:
        return REFUSED
    except StaleAttempt:
        return STALE
    return UNCHANGED if change is None else change.state


@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state_has_its_one_outcome(state: State) -> None:
    before = running(state) if state in LIVE else task(state)
    assert tuple(outcome(before, event) for event in EVENTS) == OUTCOMES[state]
    assert {type(event) for event in EVENTS} == set(get_args(Event))


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (task(State.RUNNING), Release()),
        (task(State.TERMINATED), Release()),
        (task(), Claim(EXECUTION, WORKER, "r")),
        (task(State.AVAILABLE), Retry()),
        (task(), Release(pending=True)),
    ],
)
def test_what_may_not_be_asked_is_refused_with_the_state_and_what_is_allowed(before: Task, event: Event) -> None:
    with pytest.raises(IllegalTransition) as refusal:
        decide(before, event, NOW)
    assert "state" in refusal.value.issues
    assert str(before.id) in str(refusal.value)


@pytest.mark.parametrize("state", [State.AVAILABLE, State.TERMINATED, State.CANCELLED])
def test_a_report_for_a_task_that_nobody_holds_is_stale(state: State) -> None:
    with pytest.raises(StaleAttempt):
        decide(task(state), End(EXECUTION, "success"), NOW)


def test_a_report_of_another_attempt_is_stale() -> None:
    with pytest.raises(StaleAttempt):
        decide(running(), End(ObjectId(), "success"), NOW)


def test_a_lost_attempt_uses_up_no_retry_until_the_fifth_fails_the_task() -> None:
    lost = End(EXECUTION, "abandoned (worker unreachable)")
    for losses in range(MAX_LOSSES - 1):
        change = changed(running(abandoned_count=losses, max_retry_count=0), lost)
        assert (change.state, change.fields["abandoned_count"]) == (State.AVAILABLE, losses + 1)
        assert "retry_count" not in change.fields
    change = changed(running(abandoned_count=MAX_LOSSES - 1), lost)
    assert (change.state, change.fields["exit_status"]) == (State.TERMINATED, "abandoned (worker unreachable)")


def test_a_worker_whose_machine_failed_a_task_is_avoided_but_not_one_whose_model_host_died() -> None:
    first = ObjectId()
    machine = changed(running(avoid=(first,)), End(EXECUTION, "failure (worker: disk full)"))
    assert (machine.fields["avoid"], "host_deaths" in machine.fields) == ([first, WORKER], False)
    host = changed(running(avoid=(first,), host_deaths=1, abandoned_count=2), End(EXECUTION, HOST_DIED))
    assert (host.state, host.claimable, "avoid" in host.fields) == (State.AVAILABLE, True, False)
    assert (host.fields["host_deaths"], host.fields["abandoned_count"]) == (2, 3)
    assert "retry_count" not in host.fields


def test_a_task_that_filled_a_disk_goes_elsewhere_and_that_is_counted() -> None:
    change = changed(running(), End(EXECUTION, DISK_FILLED))
    assert (change.state, change.fields["disk_fills"], change.fields["avoid"]) == (State.AVAILABLE, 1, [WORKER])
    assert "retry_count" not in change.fields


def test_a_task_that_outlived_five_hosts_and_workers_is_failed() -> None:
    change = changed(running(abandoned_count=MAX_LOSSES - 1, host_deaths=3), End(EXECUTION, HOST_DIED))
    assert (change.state, change.fields["exit_status"]) == (State.TERMINATED, HOST_DIED)
    assert (change.fields["host_deaths"], change.fields["abandoned_count"]) == (4, MAX_LOSSES)


def test_a_task_that_can_never_start_uses_no_retries() -> None:
    change = changed(running(max_retry_count=3), End(EXECUTION, TOO_LONG))
    assert (change.state, change.ended, change.fields["exit_status"]) == (State.TERMINATED, True, TOO_LONG)
    assert "retry_count" not in change.fields


def test_a_retry_waits_its_delay_and_is_not_claimable_before() -> None:
    change = changed(running(max_retry_count=3, retry_count=1, retry_delay=10.0), End(EXECUTION, "timed out"))
    waits = change.fields["retry_at"] - NOW
    assert timedelta(seconds=15) <= waits <= timedelta(seconds=20)
    assert not change.claimable
    assert change.fields["retry_count"] == 2


def test_the_users_date_and_the_delay_of_a_retry_are_two_facts() -> None:
    later, past = NOW + timedelta(hours=1), NOW - timedelta(hours=1)
    failed = changed(running(max_retry_count=1, retry_delay=10.0, not_before=later), End(EXECUTION, "timed out"))
    assert "not_before" not in failed.fields
    each: list[dict[str, Any]] = [{"not_before": later}, {"retry_at": later}, {"not_before": past, "retry_at": later}]
    for dates in each:
        waits = task(State.AVAILABLE, **dates)
        assert (waits.earliest, waits.due(NOW), decide(waits, Due(), NOW)) == (later, False, None)
        assert changed(running(**dates), GiveBack(EXECUTION)).claimable is False
    again = changed(task(State.TERMINATED, not_before=later, retry_at=later + timedelta(hours=1)), Retry())
    assert ("not_before" in again.fields, again.fields["retry_at"], again.claimable) == (False, None, False)
    over = changed(task(State.TERMINATED, not_before=past, retry_at=later), Retry())
    assert (over.fields["retry_at"], over.claimable) == (None, True)


def test_a_given_back_attempt_counts_for_nothing() -> None:
    change = changed(running(attempt_count=4, retry_count=1), GiveBack(EXECUTION))
    assert (change.fields["attempt_count"], change.claimable, change.ended) == (3, True, False)
    assert "retry_count" not in change.fields


def test_a_worker_that_lacks_the_directory_is_avoided_and_nothing_else_is_counted() -> None:
    first = ObjectId()
    change = changed(running(avoid=(WORKER, first), retry_count=1), End(EXECUTION, LACKING, elsewhere=True))
    assert (change.fields["avoid"], change.claimable, change.ended) == ([first, WORKER], True, False)
    assert not change.fields.keys() & {"retry_count", "abandoned_count", "attempt_count", "time_available", "retry_at"}
    assert change.fields["worker"] is change.fields["execution"] is None


def test_an_attempt_that_is_given_back_after_a_cancellation_counts_for_nothing_either() -> None:
    before = running(State.PENDING_CANCELLATION, attempt_count=4, cancelled_by=CAUSE)
    change = changed(before, GiveBack(EXECUTION))
    assert (change.state, change.fields["attempt_count"], change.fields["execution"]) == (State.CANCELLED, 3, None)


def test_held_and_not_yet_due_tasks_become_available_but_not_claimable() -> None:
    later = NOW + timedelta(hours=1)
    assert changed(task(hold=True), Release()).claimable is False
    assert changed(task(not_before=later), Release()).claimable is False
    assert changed(task(not_before=NOW), Release()).claimable is True
    assert decide(task(hold=True), Promote(), NOW) is None
    assert decide(task(State.AVAILABLE, not_before=later), Due(), NOW) is None


def test_a_retry_by_hand_starts_all_counts_anew_but_the_attempts() -> None:
    ended = task(State.TERMINATED, retry_count=3, abandoned_count=2, host_deaths=1, attempt_count=6)
    fields = changed(ended, Retry()).fields
    assert (fields["retry_count"], fields["abandoned_count"], fields["host_deaths"]) == (0, 0, None)
    assert fields["exit_status"] is None
    assert "attempt_count" not in fields


@given(first=st.floats(0, 1e6), count=st.integers(0, 10**6), chance=st.floats(0, 1))
def test_retry_delays_double_up_to_a_day_with_a_quarter_of_jitter(first: float, count: int, chance: float) -> None:
    full = min(first * 2.0 ** min(count, 60), 86400.0)
    assert full * 0.75 <= retry_delay(first, count, chance) <= full


@given(
    state=st.sampled_from(State),
    event=st.sampled_from(
        [Release(), Promote(), Due(), Cancel(CAUSE), GiveBack(EXECUTION), End(EXECUTION, "x"), Retry(), Revive()]
    ),
    hold=st.booleans(),
    group=st.booleans(),
)
def test_a_change_is_marked_ended_exactly_when_its_state_is_an_end(
    state: State, event: Event, hold: bool, group: bool
) -> None:
    before = replace(running(state), hold=hold, is_group=group)
    try:
        change = decide(before, event, NOW)
    except (IllegalTransition, StaleAttempt):
        return
    if change is not None:
        assert change.ended == (change.state in (State.TERMINATED, State.CANCELLED))
        assert not change.claimable or (change.state == State.AVAILABLE and not hold)
