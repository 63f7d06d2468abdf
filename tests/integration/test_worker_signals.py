"""Signals to a worker, and those that it was started with, of which its tasks inherit none."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import eventually

RUNS = "echo > {0}/runs; until test -e {0}/go; do sleep 0.05; done"
SHOWN = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
HARMLESS = [
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO),
    *(signal.SIGRTMIN, signal.SIGRTMIN + 6),
]

KEPT_BY_THE_C_LIBRARY = 0b11 << 31
"""Its signals 32 and 33, which it ignores itself in programs that it starts."""


@dataclass
class Worker:
    """A worker with a file of tasks, of which the first runs until it may go on."""

    process: "subprocess.Popen[str]"
    directory: Path

    def log(self) -> str:
        """Its log so far."""
        return (self.directory / "log").read_text()

    def has_said(self, text: str) -> bool:
        """Tell if this is in its log."""
        return text in self.log()

    def ends_well(self) -> list[dict[str, Any]]:
        """Let the first task go on; how its tasks ended."""
        (self.directory / "go").touch()
        ends, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log()
        return [json.loads(line) for line in ends.splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker of two cores; `before` runs in its process before its program does."""
    with ExitStack() as stack:

        def started(*commands: Any, before: Callable[[], None] | None = None, **settings: str) -> Worker:
            tasks = tmp_path / "tasks.jsonl"
            lines = [RUNS.format(tmp_path), *commands]
            tasks.write_text("\n".join(json.dumps({"command": command}) for command in lines))
            command = [sys.executable, "-m", "banyan", "worker", "--tasks", str(tasks), "--cores", "2"]
            log = stack.enter_context(open(tmp_path / "log", "w"))
            process = subprocess.Popen(
                command,
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=before,  # noqa: PLW1509 - it calls the kernel alone
                start_new_session=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            eventually((tmp_path / "runs").exists, seconds=60, show=(tmp_path / "log").read_text)
            return Worker(process, tmp_path)

        yield started


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGPWR])
def test_what_means_the_end_drains(start: Callable[..., Worker], number: signal.Signals) -> None:
    worker = start()
    worker.process.send_signal(number)
    eventually(lambda: f"leaving, because it got {number.name}" in worker.log(), show=worker.log)
    if number in (signal.SIGHUP, signal.SIGXCPU):  # which come more than once by themselves
        worker.process.send_signal(number)
    else:
        (worker.directory / "go").touch()
    assert [end["exit_status"] for end in worker.ends_well()] == ["success"]


def test_a_second_request_after_a_lost_terminal_is_the_first_one_of_a_person(start: Callable[..., Worker]) -> None:
    worker = start()
    for number in (signal.SIGHUP, signal.SIGTERM):
        worker.process.send_signal(number)
    eventually(lambda: "leaving, because" in worker.log(), show=worker.log)
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(timeout=60) == 1
    assert "stopping: running tasks are asked to end" in worker.log()


def test_what_means_nothing_is_ignored_with_a_line_by_the_worker_and_its_supervisors(
    start: Callable[..., Worker],
) -> None:
    worker = start()
    family = [each.pid for each in psutil.Process(worker.process.pid).children()]
    assert len(family) == 2
    for number in HARMLESS:
        for pid in (worker.process.pid, *family):
            os.kill(pid, number)
    for name in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGRTMIN", "SIGRTMIN+6"):
        said = f"{name} means nothing here, and is ignored"
        eventually(partial(worker.has_said, said), show=worker.log)
    assert [end["exit_status"] for end in worker.ends_well()] == ["success"]


def ignore(number: signal.Signals) -> None:
    """As `nohup` does."""
    signal.signal(number, signal.SIG_IGN)


def ignore_and_block_everything() -> None:
    """As a careless parent would."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_tasks_inherit_no_ignored_and_no_blocked_signals(start: Callable[..., Worker]) -> None:
    worker = start(SHOWN, before=ignore_and_block_everything)
    worker.process.send_signal(signal.SIGTERM)
    eventually(partial(worker.has_said, "it got SIGTERM"), show=worker.log)
    (worker.directory / "go").touch()
    ends, _ = worker.process.communicate(timeout=60)
    (shown,) = [end["stdout_tail"] for line in ends.splitlines() if "Sig" in (end := json.loads(line))["stdout_tail"]]
    assert [int(mask, 16) & ~KEPT_BY_THE_C_LIBRARY for mask in shown.split()[1::2]] == [0, 0]


def test_a_worker_that_was_started_to_outlive_its_terminal_does(start: Callable[..., Worker]) -> None:
    worker = start(before=lambda: ignore(signal.SIGHUP))
    worker.process.send_signal(signal.SIGHUP)
    worker.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "SIGUSR1" in worker.log(), show=worker.log)
    assert "SIGHUP" not in worker.log()
    assert [end["exit_status"] for end in worker.ends_well()] == ["success"]
