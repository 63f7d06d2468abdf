"""Everything breaks, again and again, while tasks run; afterwards the history must contradict no promise.

`BANYAN_CHAOS_SEED` repeats the plan of a run, `BANYAN_CHAOS_RUNS` makes so many full runs with seeds in a row.
"""

import os
import random
import time
from pathlib import Path

import pytest

from tests.support.chaos import Chaos
from tests.support.chaos_plan import FULL, SHORT, plan
from tests.support.chaos_world import means, world
from tests.support.history import contradictions
from tests.support.waiting import eventually

RUNS = int(os.environ.get("BANYAN_CHAOS_RUNS", "0"))
QUIET_SECONDS = 90.0


def seed_of(run: int) -> int:
    first = os.environ.get("BANYAN_CHAOS_SEED")
    return int(first) + run if first else random.SystemRandom().randrange(1_000_000)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("run", range(max(1, RUNS)))
def test_whatever_breaks_the_history_keeps_every_promise(run: int, tmp_path: Path) -> None:
    seed, size = seed_of(run), FULL if RUNS else SHORT
    tools = means(tmp_path)
    wanted = plan(seed, size, tools)
    print(
        f"\nchaos with seed {seed}: BANYAN_CHAOS_SEED={seed}{' BANYAN_CHAOS_RUNS=1' if RUNS else ''} repeats the plan"
    )
    print("\n".join(map(str, wanted.faults)))
    with world(tmp_path, tools) as made, Chaos(made, wanted) as chaos:
        begun = time.monotonic()
        chaos.run()
        eventually(chaos.ended, seconds=QUIET_SECONDS + size.seconds, show=chaos.show)
        ended = time.monotonic() - begun
        eventually(lambda: not contradictions(chaos.history()), seconds=QUIET_SECONDS, show=chaos.show)
        print(f"{chaos.summary()}; {ended:.0f} s until all had ended, {time.monotonic() - begun:.0f} s in all")
