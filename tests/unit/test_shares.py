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


def test_a_queue_that_ran_empty_and_fills_again_starts_level() -> None:
    shares = Shares()
    weights = {"a": 1.0, "b": 1.0}
    taken(shares, ["a", "b"], weights, 10)
    shares.rest(["a"])
    taken(shares, ["a"], weights, 100)
    assert taken(shares, ["a", "b"], weights, 10) == {"a": 5, "b": 5}
