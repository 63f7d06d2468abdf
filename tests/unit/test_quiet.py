"""What a server remembers of a quiet time, and when it looks again all the same."""

from collections.abc import Sequence
from typing import Any

import pytest
from bson import ObjectId

from banyan.queue.quiet import Quiet

Document = dict[str, Any]
WORKER = ObjectId()


class Reading:
    """What can be claimed, how often it was read, and a clock."""

    def __init__(self) -> None:
        self.heads: list[Document] = []
        self.count = 0
        self.generation = 0
        self.now = 0.0
        self.quiet = Quiet(lambda: self.now)

    def read(self) -> Sequence[Document]:
        self.count += 1
        return list(self.heads)

    def get(self, *, patient: bool = True) -> Sequence[Document]:
        return self.quiet.heads(lambda: self.generation, self.read, patient=patient)


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_that_nothing_is_there_is_read_once_for_claims_that_wait(reading: Reading) -> None:
    assert [list(reading.get()) for _ in range(3)] == [[], [], []]
    assert reading.count == 1


def test_a_wake_up_makes_it_read_again(reading: Reading) -> None:
    reading.get()
    reading.heads, reading.generation = [{"_id": 1}], 1
    assert reading.get() == [{"_id": 1}]


def test_work_of_which_nobody_has_told_is_seen_a_moment_later(reading: Reading) -> None:
    reading.get()
    reading.heads, reading.now = [{"_id": 1}], 1.0
    assert reading.get() == [{"_id": 1}]


def test_what_can_be_claimed_is_read_for_each_claim(reading: Reading) -> None:
    reading.heads = [{"_id": 1}]
    assert reading.get() == reading.get() == [{"_id": 1}]
    assert reading.count == 2


def test_who_does_not_wait_always_looks(reading: Reading) -> None:
    reading.get()
    reading.heads = [{"_id": 1}]
    assert reading.get(patient=False) == [{"_id": 1}]


def test_a_worker_that_held_nothing_holds_nothing_at_its_next_claim(reading: Reading) -> None:
    quiet = reading.quiet
    assert not quiet.holds_nothing(WORKER, "1", "2")
    quiet.note(WORKER, "1", holds_nothing=True)
    assert quiet.holds_nothing(WORKER, "1", "2")


@pytest.mark.parametrize(("before", "request_name"), [("other", "2"), (None, "2"), ("1", "1")])
def test_a_claim_between_or_one_that_is_repeated_may_have_been_granted_something(
    reading: Reading, before: str | None, request_name: str
) -> None:
    reading.quiet.note(WORKER, "1", holds_nothing=True)
    assert not reading.quiet.holds_nothing(WORKER, before, request_name)


def test_a_worker_that_was_granted_something_is_looked_up(reading: Reading) -> None:
    reading.quiet.note(WORKER, "1", holds_nothing=True)
    reading.quiet.note(WORKER, "2", holds_nothing=False)
    assert not reading.quiet.holds_nothing(WORKER, "1", "3")


def test_each_worker_is_looked_up_once_in_a_while(reading: Reading) -> None:
    reading.quiet.note(WORKER, "1", holds_nothing=True)
    reading.now = 60.0
    assert not reading.quiet.holds_nothing(WORKER, "1", "2")
