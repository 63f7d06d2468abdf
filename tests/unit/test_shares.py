"""Claims follow the weights of the queues, and an empty queue saves up nothing."""

from collections import Counter

from banyan.domain.shares import Shares


def taken(shares: Shares, queues: list[str], weights: dict[str, float], count: int) -> Counter[str]:
    turns: Counter[str] = Counter()
    for _ in range(count):
        queue = shares.next(queues)
        shares.took(queue, weights)
        turns[queue] += 1
    return turns


def test_claims_are_shared_by_weight() -> None:
    assert taken(Shares(), ["a", "b"], {"a": 3.0, "b": 1.0}, 400) == {"a": 300, "b": 100}


def test_a_queue_that_was_empty_does_not_catch_up() -> None:
    shares = Shares()
    taken(shares, ["a"], {"a": 1.0, "b": 1.0}, 1000)
    turns = taken(shares, ["a", "b"], {"a": 1.0, "b": 1.0}, 100)
    assert turns == {"a": 50, "b": 50}


def test_a_queue_that_could_not_be_served_for_a_while_gains_no_credit() -> None:
    """It was paused, full, or no worker that asked could take its tasks."""
    shares = Shares()
    weights = {"a": 1.0, "b": 1.0}
    taken(shares, ["a", "b"], weights, 10)
    taken(shares, ["a"], weights, 32)
    for count in (2, 8, 32):
        assert taken(shares, ["a", "b"], weights, count) == {"a": count / 2, "b": count / 2}
