"""What the queue adds to tasks of a second."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from bench import ours
from bench.question import OURS, Answer, Question, Size, Target
from bench.turns import Contestant, Run, Watch, in_turns, once

_TASKS_A_CORE = {Size.QUICK: 15, Size.FULL: 60}
_PAUSE = 0.05
_ROUNDS = {Size.QUICK: 2, Size.FULL: 3}


def measure(size: Size) -> Answer:
    """How much longer than the tasks alone tasks of a second take on all cores, in percent."""
    count = _TASKS_A_CORE[size] * _cores()
    turns = in_turns([Contestant(name=OURS, open=_ours, count=count, rounds=_ROUNDS[size], warm_up=2)])
    return Answer(unit="%", series=turns.series, details=turns.details)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextmanager
def _ours() -> Iterator[Run]:
    with ours.up() as banyan:

        def run(count: int, watch: Watch) -> float:
            tag = uuid.uuid4().hex
            with watch:
                ids = ours.submit(banyan.client, [{"command": "sleep 1", "tags": [tag], "state": "available"}] * count)
                ours.wait_until_ended(banyan.client, {"tags": tag}, count, most_pause=_PAUSE)
            ours.ended_well(banyan.client, {"tags": tag}, ids, ())
            return 100 * (watch.seconds / (count / _cores()) - 1)

        yield run


QUESTION = Question(
    name="one-second",
    text="tasks of one second (`sleep 1`) on all cores, from submitting to all ended: time above the ideal",
    conditions=f"{ours.CONDITIONS}. 60 tasks for each core (quick: 15), posted as one list",
    targets=(Target(text="at most 3% over ideal", at_most=3),),
    measure=measure,
    again=once(_ours, 10 * _cores(), warm_up=2),
)
