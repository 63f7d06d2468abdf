"""Tasks in real control groups: the kernel measures all of a task, and nothing that is in its group outlives it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_server import FakeServer, work
from tests.support.waiting import eventually, processes_with

MEMORY = Path("/sys/fs/cgroup/memory")


def _groups() -> Path | None:
    """The directory of the memory group that we are in, if groups can be made there."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for place in (MEMORY / path.lstrip("/"), MEMORY) if "memory" in controllers.split(",") else ():
            if os.access(place, os.W_OK) and (place / "cgroup.procs").exists():
                return place
    return None


pytestmark = pytest.mark.skipif(_groups() is None, reason="needs a memory control group of version 1 that is ours")


@pytest.fixture
def group() -> Iterator[Path]:
    parent = _groups() or MEMORY
    path = parent / f"banyan-test-{os.getpid()}"
    path.mkdir()
    yield path
    eventually(lambda: _removed(path))


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def ends(root: Path, group: Path, *tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """Run these tasks, which all take too short to be sampled; the reports of their ends."""
    server = FakeServer(tasks)
    assert work(root, server, tasks={"cgroup": str(group)}, usage={"interval": 60}, cores=2) == 0
    assert list(group.glob("banyan-*")) == []
    return [server.ends[task["execution"]] for task in server.tasks]


def test_the_peak_of_a_tree_that_was_never_sampled_is_that_of_all_of_it(tmp_path: Path, group: Path) -> None:
    part = f"{sys.executable} -c \"import os, time; x = b'x' * 100_000_000; open(str(os.getpid()) + '.full', 'w')"
    part += "\nwhile len([n for n in os.listdir() if n.endswith('.full')]) < 4: time.sleep(0.01)\""
    (end,) = ends(tmp_path, group, {"command": " & ".join([part] * 4) + "; wait"})
    assert end["exit_status"] == "success"
    assert end["peak_memory_source"] == "control group"
    assert 400_000_000 < end["peak_memory_bytes"] < 600_000_000


def test_a_process_that_hides_all_that_it_can_is_killed_with_its_task(tmp_path: Path, group: Path, mark: str) -> None:
    hides = f"ulimit -x unlimited || exit 9; env -i setsid -f sh -c ': {mark}; sleep 60; true'; sleep 0.5"
    older = {"command": "while ! test -e ../../../over; do sleep 0.05; done"}
    server = FakeServer([older, {"command": ["bash", "-c", hides]}])
    left: list[Any] = []

    def on_report(report: dict[str, Any]) -> None:
        if report["execution"] == "e2" and "exit_status" in report:
            left.extend(processes_with(mark))
            (tmp_path / "over").touch()

    server.on_report = on_report
    work(tmp_path, server, tasks={"cgroup": str(group)}, cores=2)
    assert server.ends["e2"]["exit_status"] == "success"
    assert server.ends["e1"]["exit_status"] == "success"
    assert left == []


def test_a_limit_is_the_kernels_to_enforce(tmp_path: Path, group: Path) -> None:
    limited = {"requested_resources": {"cores": 1, "memory": 60_000_000}}
    fill = f"{sys.executable} -c \"x = b'x' * 200_000_000\""
    killed, lives = ends(tmp_path, group, {"command": f"{fill}; true"} | limited, {"command": "true"} | limited)
    assert killed["exit_status"] == "out of memory"
    assert lives["exit_status"] == "success"


def test_groups_that_a_task_makes_in_its_own_go_with_it(tmp_path: Path, group: Path, mark: str) -> None:
    inside = "own=$(dirname $0); mkdir $own/deeper; sleep 60 & echo $! > $own/deeper/cgroup.procs; : " + mark
    command = ["sh", "-c", f"set -- {group}/banyan-worker-*/e1; sh -c '{inside}' $1/x; sleep 0.1"]
    (end,) = ends(tmp_path, group, {"command": command})
    assert (end["exit_status"], end["stderr_tail"]) == ("success", "")
    assert processes_with(mark) == []


def test_a_worker_can_use_the_group_in_which_it_is_started(tmp_path: Path) -> None:
    server = FakeServer([{"command": "cat /proc/self/cgroup"}])
    assert work(tmp_path, server, tasks={"cgroup": "own"}) == 0
    (mine,) = [line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line]
    (its,) = [line for line in server.ends["e1"]["stdout_tail"].splitlines() if ":memory:" in line]
    assert its.startswith(f"{mine.rstrip('/')}/banyan-worker-")
    assert its.endswith("/e1")
