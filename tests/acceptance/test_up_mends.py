"""`banyan up` mends itself: a part that dies is started again, and when that does not help it says so and ends."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from banyan.client import Client
from tests.support.up import Up, alive, eventually, started

DAEMON = "setsid sleep 600 & echo $$ $! > {file}.new; mv {file}.new {file}; wait"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """A `banyan up` that the test may break."""
    with started(tmp_path / "own", "--cores", "2") as up:
        yield up


def said(tmp_path: Path) -> str:
    return (tmp_path / "own" / "up.log").read_text()


def process_of(up: Up, part: str) -> psutil.Process | None:
    """The process that is this part now: `banyan up` has one child for each that leads a session."""
    for each in psutil.Process(up.process.pid).children():
        try:
            words = each.cmdline() if os.getsid(each.pid) == each.pid else []
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
        if part in words or any(word.endswith(part) for word in words[:1]):
            return each
    return None


def killed(up: Up, part: str, number: int = signal.SIGKILL) -> int:
    """Kill the part that runs now; its process id."""
    process = eventually(lambda: process_of(up, part), lambda found: found is not None)
    assert process is not None
    process.send_signal(number)
    eventually(lambda: alive([process.pid]), lambda left: left == [])
    return process.pid


def tasks_of_two(up: Up, tmp_path: Path) -> tuple[str, list[int]]:
    """A running task that has left its session with a child; its id and processes."""
    file = tmp_path / "pids"
    task = up.run("submit", "--", "sh", "-c", DAEMON.format(file=file)).stdout.strip()
    text = eventually(lambda: file.read_text() if file.exists() else "", bool)
    return task, [int(word) for word in text.split()]


@pytest.mark.parametrize("part", ["mongod", "server", "worker"])
def test_a_part_that_is_killed_is_started_again_and_tasks_go_on(own: Up, tmp_path: Path, part: str) -> None:
    before = own.run("submit", "--wait", "--", "echo", "kept").stdout.strip()
    pid = killed(own, part)
    assert own.run("submit", "--wait", "--", "true").returncode == 0
    assert own.run("logs", before).stdout == "kept\n"
    again = process_of(own, part)
    assert again is not None
    assert again.pid != pid
    assert own.process.poll() is None
    assert said(tmp_path) == f"banyan up: the {part} ended (signal SIGKILL) and is started again\n"
    everything = [each.pid for each in psutil.Process(own.process.pid).children(recursive=True)]
    assert own.stop() == 0
    assert alive([pid, *own.pids, *everything]) == []
    assert own.rest_of_output() == ""


def test_what_the_killed_worker_ran_runs_again_in_the_next_one_at_once(own: Up, tmp_path: Path) -> None:
    file = tmp_path / "second"
    script = f"if test -e {file}; then echo again; else touch {file}; sleep 600; fi"
    task = own.run("submit", "--", "sh", "-c", script).stdout.strip()
    eventually(file.exists, bool)
    killed(own, "worker")
    assert own.run("wait", task).returncode == 0
    with Client(own.url, own.ready["provider_token"]) as client:
        ends = [attempt["exit_status"] for attempt in client.attempts(task)]
        states = [worker["state"] for worker in client.workers()]
        assert client.task(task)["retry_count"] == 0
    assert ends == ["abandoned (worker unreachable)", "success"]
    assert sorted(states) == ["active", "gone"]


def test_all_parts_killed_at_once_come_back(own: Up, tmp_path: Path) -> None:
    for pid in [own.ready["pids"]["mongod"], *own.ready["pids"]["server"], own.ready["pids"]["worker"]]:
        os.kill(pid, signal.SIGKILL)
    assert own.run("submit", "--wait", "--", "true").returncode == 0
    assert said(tmp_path).count("\n") == 3
    assert own.stop() == 0


def test_no_task_outlives_a_worker_that_is_killed_with_its_supervisors(own: Up, tmp_path: Path) -> None:
    task, pids = tasks_of_two(own, tmp_path)
    worker = psutil.Process(own.ready["pids"]["worker"])
    supervisors = worker.children()
    worker.suspend()  # it shall not mend what is done to its supervisors
    for each in [*supervisors, worker]:
        each.kill()
    eventually(lambda: alive(pids), lambda left: left == [])
    with Client(own.url, own.ready["provider_token"]) as client:
        eventually(lambda: client.task(task)["abandoned_count"], lambda count: count == 1)
        client.cancel(task)
    assert own.run("submit", "--wait", "--", "true").returncode == 0
    assert own.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_part_is_being_started_again_ends_all_of_it(own: Up, tmp_path: Path, number: int) -> None:
    family = psutil.Process(own.process.pid).children(recursive=True)
    killed(own, "server")
    eventually(lambda: said(tmp_path), lambda text: "started again" in text)
    family += psutil.Process(own.process.pid).children(recursive=True)
    assert own.stop(number) == 0
    assert alive([each.pid for each in family]) == []
    assert not list((own.home / ".local/state/banyan/up").iterdir())


@pytest.mark.parametrize("part", ["mongod", "server", "worker"])
def test_five_deaths_of_a_part_within_a_minute_end_it_and_are_told(own: Up, tmp_path: Path, part: str) -> None:
    family = psutil.Process(own.process.pid).children(recursive=True)
    for _ in range(5):
        killed(own, part)
    assert own.process.wait(timeout=30) == 3
    lines = said(tmp_path).splitlines()
    assert lines[:4] == [f"banyan up: the {part} ended (signal SIGKILL) and is started again"] * 4
    assert f"banyan: the {part} ended 5 times within 60 s, the last time by signal SIGKILL; " in lines[4]
    assert alive([each.pid for each in family]) == []
    assert own.rest_of_output() == ""


def test_a_part_that_dies_at_each_start_says_why_and_ends_it(own: Up, tmp_path: Path) -> None:
    data = tmp_path / "own" / "data"
    (data / "work").rename(data / "away")
    (data / "work").write_text("not a directory")
    killed(own, "worker")
    assert own.process.wait(timeout=60) == 3
    lines = said(tmp_path).splitlines()
    assert "exit code 2: banyan: cannot make the work directory" in lines[1]
    assert "the worker ended 5 times within 60 s" in lines[4]


def test_a_data_directory_that_is_gone_ends_it_in_order(own: Up, tmp_path: Path) -> None:
    family = psutil.Process(own.process.pid).children(recursive=True)
    (tmp_path / "own" / "data").rename(tmp_path / "own" / "away")
    (tmp_path / "own" / "data").write_text("not a directory")
    killed(own, "worker")
    assert own.process.wait(timeout=60) == 3
    assert "it could not be started" in said(tmp_path)
    assert "Traceback" not in said(tmp_path)
    eventually(lambda: alive([each.pid for each in family]), lambda left: left == [])


def test_a_part_that_only_stands_still_is_left_alone(own: Up, tmp_path: Path) -> None:
    server = psutil.Process(own.ready["pids"]["server"][0])
    for each in [server, *server.children()]:
        each.suspend()
    waiting = subprocess.Popen([sys.executable, "-m", "banyan", "list"], env=own.environment, stdout=subprocess.DEVNULL)
    eventually(lambda: psutil.Process(waiting.pid).net_connections(), bool)
    for each in [server, *server.children()]:
        each.resume()
    assert waiting.wait(timeout=60) == 0
    assert (said(tmp_path), process_of(own, "server")) == ("", server)


def test_a_worker_that_leaves_by_its_settings_is_followed_by_another_and_that_is_no_death(tmp_path: Path) -> None:
    with started(tmp_path / "own", "--cores", "1", env={"BANYAN_TASKS__MAX_TASKS": "1"}) as up:
        for _ in range(6):
            assert up.run("submit", "--wait", "--", "true").returncode == 0
        assert "the worker has left (exit code 0); another one is started" in said(tmp_path)
        assert up.stop() == 0


def test_it_is_not_stopped_by_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh"]
    with started(tmp_path / "own", "--cores", "1", before=command) as up:
        killed(up, "worker")
        assert up.run("submit", "--wait", "--", "true").returncode == 0
        pointer = up.home / f".local/state/banyan/up/{up.process.pid}.json"
        assert stat.S_IMODE(pointer.stat().st_mode) == 0o600
        assert up.stop() == 0
