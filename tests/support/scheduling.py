"""Which process of a run with pytest-xdist gets which test."""

from xdist.scheduler import LoadScopeScheduling

TOGETHER = frozenset(
    {
        "tests/acceptance/test_order.py",
        "tests/acceptance/test_pages.py",
        "tests/faults/test_bad_machines.py",
        "tests/faults/test_fail_points.py",
        "tests/faults/test_primary.py",
        "tests/faults/test_slow_disks.py",
        "tests/integration/test_api_matrix.py",
        "tests/integration/test_server_hostile.py",
    }
)
"""Files whose tests share what takes long to make, or to find out."""


class Scheduling(LoadScopeScheduling):
    """Gives a test to whoever is free next; the tests of a file in `TOGETHER` go to one process, and first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in TOGETHER else nodeid
