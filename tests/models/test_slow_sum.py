"""`slow_sum`: a model whose program ends when the task is cancelled."""

import os
import secrets
import signal
import subprocess
import sys
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.models.running import SCHEDULERS, Cancel, load, post, run
from tests.support.waiting import eventually, processes_with


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("with_workdir", [True, False])
def test_the_sum_comes_after_the_program(scheduler: str, with_workdir: bool, tmp_path: Path) -> None:
    workdir = tmp_path if with_workdir else None
    result = run("slow_sum", {"x": 1, "y": 2, "seconds": 0.25}, workdir=workdir, scheduler=scheduler)
    assert result == {"sum": 3}
    assert type(result["sum"]) is int
    assert [file.name for file in tmp_path.iterdir()] == ["progress.txt"] * with_workdir


def test_the_progress_stays_in_a_file(tmp_path: Path) -> None:
    run("slow_sum", {"x": 0.5, "y": 2, "seconds": 0.25}, workdir=tmp_path)
    steps = ["0.00 s of 0.25 s", "0.08 s of 0.25 s", "0.17 s of 0.25 s", "2.5"]
    assert (tmp_path / "progress.txt").read_text().splitlines() == steps


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": 1, "y": 2}, "input 'seconds' is missing: give a finite number"),
        ({"x": 1, "y": 2, "seconds": 0}, "input 'seconds' is 0: give a number greater than 0"),
        ({"x": 1, "y": 2, "seconds": "5 s"}, "input 'seconds' is '5 s': give a finite number"),
        ({"x": [1], "y": 2, "seconds": 5}, r"input 'x' is \[1\]: give a finite number"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(inputs: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        post("slow_sum", inputs)


class Running:
    """A task that would take an hour, in a thread of its own; its program is known by a number of its own."""

    def __init__(self, threads: ThreadPoolExecutor, workdir: Path, scheduler: str) -> None:
        self.cancel = Cancel()
        self._number = secrets.randbits(60)
        inputs = {"x": self._number, "y": 2, "seconds": 3600}
        self.result: Future[Any] = threads.submit(
            run, "slow_sum", inputs, workdir=workdir, cancel=self.cancel, scheduler=scheduler
        )

    def programs(self) -> list[int]:
        return [pid for pid, command in processes_with(str(self._number)) if " -c " in command]


@pytest.fixture
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    with ThreadPoolExecutor(1) as threads:
        task = Running(threads, tmp_path, getattr(request, "param", "threads"))
        try:
            progress = tmp_path / "progress.txt"
            eventually(lambda: progress.exists() and "s of 3600.00 s" in progress.read_text())
            yield task
        finally:
            task.cancel.set(True)


@pytest.mark.parametrize("running", SCHEDULERS, indirect=True)
def test_cancelling_ends_the_program_in_the_middle(running: Running) -> None:
    assert len(running.programs()) == 1
    assert not running.result.done()
    running.cancel.set(True)
    with pytest.raises(CancelledError, match="the task was cancelled"):
        running.result.result(timeout=60)
    assert running.programs() == []


def test_a_program_that_is_killed_fails_the_task(running: Running) -> None:
    os.kill(running.programs()[0], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the program ended with exit code -9"):
        running.result.result(timeout=60)


def test_a_task_that_is_cancelled_before_it_starts_ends_at_once(tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        run("slow_sum", {"x": 1, "y": 2, "seconds": 3600}, cancel=Cancel(true_after=0), workdir=tmp_path)


def deaf_program() -> subprocess.Popen[bytes]:
    """A program that ignores SIGTERM, and has said so."""
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(3600)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"\n"
    return process


def test_a_program_that_ignores_sigterm_is_killed() -> None:
    process = deaf_program()
    with pytest.raises(CancelledError):
        load("programs").wait(process, Cancel(true_after=1), grace_seconds=0.1)
    assert process.returncode == -signal.SIGKILL


def test_the_program_is_ended_also_when_the_flag_cannot_be_read() -> None:
    class Broken(Cancel):
        def get(self, timeout: float | str | None = None) -> bool:
            raise OSError("the scheduler is gone")

    process = deaf_program()
    with pytest.raises(OSError, match="the scheduler is gone"):
        load("programs").wait(process, Broken(), grace_seconds=0.1)
    assert process.returncode == -signal.SIGKILL
