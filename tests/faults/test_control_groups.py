"""Control groups of the kernel: what a killed worker leaves in the one that it was given is removed by the next."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import eventually, processes_with


def writable_group() -> Path | None:
    """Our memory group, if we may make others in it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        group = Path("/sys/fs/cgroup", *(["memory"] if "memory" in controllers else []), path.strip("/"))
        if controllers in ("", "memory") and (group / "memory.max").exists() + (group / "tasks").exists():
            return group if os.access(group, os.W_OK) else None
    return None


OURS = writable_group()


@pytest.fixture
def group() -> Iterator[Path]:
    """A group of the kernel's that is given to the workers of a test."""
    if OURS is None:
        pytest.skip("this machine gives us no control group for memory")
    group = OURS / f"test-{uuid.uuid4().hex}"
    group.mkdir()
    yield group
    group.rmdir()


def start(directory: Path, group: Path, mark: str, command: str) -> "subprocess.Popen[bytes]":
    """A worker with one task that asks for memory."""
    tasks = directory / "tasks"
    task = {"command": command, "env": {"MARK": mark}, "requested_resources": {"memory": 50_000_000}}
    tasks.write_text(json.dumps(task))
    environment = os.environ | {"BANYAN_TASKS__CGROUP": str(group)}
    command_line = [sys.executable, "-m", "banyan", "worker", "--tasks", str(tasks), "--cores", "1"]
    return subprocess.Popen(command_line, env=environment, stdout=subprocess.DEVNULL)


def test_the_next_worker_removes_the_groups_of_one_that_was_killed(tmp_path: Path, group: Path) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    killed = start(tmp_path, group, mark, "exec sleep 600")
    eventually(lambda: [pid for pid, line in processes_with(mark) if line.startswith("sleep")], seconds=60)
    procs = [each.read_text().split() for each in group.glob("banyan-worker-*/*/cgroup.procs")]
    assert len(procs) == 1
    assert procs[0]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(group.glob("banyan-worker-*"))) == 1
    assert start(tmp_path, group, mark, "true").wait(timeout=60) == 0
    assert not list(group.glob("banyan-worker-*"))
    eventually(lambda: not processes_with(mark))
