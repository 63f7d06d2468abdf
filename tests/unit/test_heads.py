"""What claims share of what they have read."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from banyan.queue.heads import Heads

Document = dict[str, Any]


class Reading:
    """Counts what is read of tasks that change at each look."""

    def __init__(self) -> None:
        self.count = 0
        self.generation = 0
        self.now = 0.0

    def read(self) -> Sequence[Document]:
        self.count += 1
        return [{"_id": self.count}]

    def get(self, heads: Heads) -> Sequence[Document]:
        return heads.get(lambda: self.generation, self.read)


def test_a_claim_that_is_alone_reads_anew_each_time() -> None:
    reading, heads = Reading(), Heads()
    with heads.claiming():
        assert [reading.get(heads), reading.get(heads)] == [[{"_id": 1}], [{"_id": 2}]]
    with heads.claiming():
        assert reading.get(heads) == [{"_id": 3}]


def test_claims_that_overlap_share_what_was_read_a_moment_ago() -> None:
    reading = Reading()
    heads = Heads(lambda: reading.now)
    with heads.claiming(), heads.claiming():
        assert reading.get(heads) == reading.get(heads) == [{"_id": 1}]
        reading.now = 1.0
        assert reading.get(heads) == [{"_id": 2}]
    with heads.claiming():
        assert reading.get(heads) == [{"_id": 3}]


def test_what_was_read_before_work_came_is_not_used() -> None:
    reading, heads = Reading(), Heads()
    with heads.claiming(), heads.claiming():
        assert reading.get(heads) == [{"_id": 1}]
        reading.generation += 1
        assert reading.get(heads) == [{"_id": 2}]


def test_work_that_comes_while_it_is_read_makes_it_worthless() -> None:
    reading, heads = Reading(), Heads()

    def read() -> Sequence[Document]:
        reading.generation += 1
        return reading.read()

    with heads.claiming(), heads.claiming():
        assert heads.get(lambda: reading.generation, read) == [{"_id": 1}]
        assert reading.get(heads) == [{"_id": 2}]


def test_nobody_waits_long_for_what_another_one_reads() -> None:
    reading, heads = Reading(), Heads()
    answered, asked = threading.Event(), threading.Event()

    def hang() -> Sequence[Document]:
        asked.set()
        answered.wait()
        return []

    hanging = threading.Thread(target=heads.get, args=(lambda: 0, hang))
    hanging.start()
    asked.wait()
    assert reading.get(heads) == [{"_id": 1}]
    answered.set()
    hanging.join()


def test_a_claim_gets_its_turn_also_when_those_before_it_hang() -> None:
    heads = Heads(longest_seconds=0.01)
    with ExitStack() as hanging:
        for _ in range(10):
            hanging.enter_context(heads.claiming())
        assert Reading().get(heads) == [{"_id": 1}]
