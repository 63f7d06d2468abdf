"""Every use case that writes, as a scenario: what is there before, and the one act in which the server may die."""

from tests.faults.scenarios import beginning_again, leaving, mending, steering, submitting, working
from tests.faults.scenarios.scenario import Scenario

SCENARIOS: list[Scenario] = [
    *submitting.SCENARIOS,
    *working.SCENARIOS,
    *steering.SCENARIOS,
    *beginning_again.SCENARIOS,
    *mending.SCENARIOS,
    *leaving.SCENARIOS,
]
