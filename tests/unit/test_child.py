"""Child processes: asked, asked again, killed; alone or with their family."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psutil
import pytest

from banyan import child
from tests.support.up import alive, eventually

Start = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


@pytest.fixture
def start(log: Path) -> Iterator[Start]:
    """Run a shell script as a child until it says `ready`; whatever is left of it is killed at the end."""
    processes = []

    def run(script: str) -> subprocess.Popen[bytes]:
        process = child.spawn(["sh", "-c", script], log=log)
        processes.append(process)
        eventually(lambda: log.read_text() if log.exists() else "", lambda said: "ready" in said)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            child.stop(process, seconds=0.0, family=True)


def test_a_child_leads_a_session_and_writes_a_private_log(start: Start, log: Path) -> None:
    process = start("echo ready; echo to stderr >&2; exec sleep 60")
    eventually(log.read_text, lambda said: said == "ready\nto stderr\n")
    assert log.stat().st_mode & 0o777 == 0o600
    assert child.stop(process, seconds=10.0) == -signal.SIGTERM


def test_a_child_that_ended_before_is_only_reaped(start: Start) -> None:
    process = start("echo ready; exit 3")
    assert child.stop(process, seconds=10.0) == 3


def test_a_child_that_finishes_first_is_asked_a_second_time(start: Start) -> None:
    process = start("trap 'trap \"exit 7\" TERM' TERM; echo ready; while :; do sleep 0.05; done")
    assert child.stop(process, seconds=20.0, ask_again_after=[0.5]) == 7


def test_a_child_that_does_not_listen_is_killed(start: Start) -> None:
    process = start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    assert child.stop(process, seconds=0.3) == -signal.SIGKILL


def test_its_family_is_killed_with_it_when_asked(start: Start) -> None:
    process = start("trap '' TERM; sleep 60 & echo ready; wait; wait")
    (grandchild,) = psutil.Process(process.pid).children()
    assert child.stop(process, seconds=0.3, family=True) == -signal.SIGKILL
    eventually(lambda: alive([grandchild.pid]), lambda left: left == [])


def test_a_child_whose_start_a_signal_interrupts_is_not_left(log: Path) -> None:
    class Stopped(BaseException):
        """A signal asked us to stop."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    def be_interrupted() -> None:
        child.spawn(["sh", "-c", "echo $$; kill -TERM $PPID; exec sleep 60"], log=log)
        while True:  # a pause would go on for ever where the signal came just before it
            time.sleep(0.01)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        for _ in range(20):  # each time the signal comes a little earlier or later
            with pytest.raises(Stopped), child.none_left():
                be_interrupted()
    finally:
        signal.signal(signal.SIGTERM, before)
    pids = [int(line) for line in log.read_text().split()]
    assert len(pids) == 20
    assert alive(pids) == []
