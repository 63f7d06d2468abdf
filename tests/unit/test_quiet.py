"""Which workers a server knows to hold nothing, and when it looks again all the same."""

import pytest
from bson import ObjectId

from banyan.queue.quiet import Quiet

WORKER = ObjectId()


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.quiet = Quiet(lambda: self.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_worker_that_held_nothing_holds_nothing_at_its_next_claim(clock: Clock) -> None:
    quiet = clock.quiet
    assert not quiet.holds_nothing(WORKER, "1", "2")
    quiet.note(WORKER, "1", holds_nothing=True)
    assert quiet.holds_nothing(WORKER, "1", "2")


@pytest.mark.parametrize(("before", "request_name"), [("other", "2"), (None, "2"), ("1", "1")])
def test_a_claim_between_or_one_that_is_repeated_may_have_been_granted_something(
    clock: Clock, before: str | None, request_name: str
) -> None:
    clock.quiet.note(WORKER, "1", holds_nothing=True)
    assert not clock.quiet.holds_nothing(WORKER, before, request_name)


def test_a_worker_that_was_granted_something_is_looked_up(clock: Clock) -> None:
    clock.quiet.note(WORKER, "1", holds_nothing=True)
    clock.quiet.note(WORKER, "2", holds_nothing=False)
    assert not clock.quiet.holds_nothing(WORKER, "1", "3")


def test_each_worker_is_looked_up_once_in_a_while(clock: Clock) -> None:
    clock.quiet.note(WORKER, "1", holds_nothing=True)
    clock.now = 60.0
    assert not clock.quiet.holds_nothing(WORKER, "1", "2")
