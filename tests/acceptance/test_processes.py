"""What `banyan up` does when something is in its way, or when a part of it dies."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.up import Up, alive, eventually, started

STUBBORN = "trap '' TERM; sleep 600 & echo $$ > {file}; wait; sleep 600"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Up]:
    """A `banyan up` that the test may break."""
    with started(tmp_path / "own", "--cores", "2") as up:
        yield up


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A `banyan up` that is not expected to start."""
    command = [sys.executable, "-m", "banyan", "up", "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def stubborn_task(up: Up, file: Path) -> list[int]:
    """Start a task that ignores SIGTERM and has a child; the pids of both."""
    submitted = up.run("submit", "--", "sh", "-c", STUBBORN.format(file=file))
    assert (submitted.returncode, submitted.stderr) == (0, "")
    pid = int(eventually(lambda: file.read_text().strip() if file.exists() else "", bool))
    return [pid, *(child.pid for child in psutil.Process(pid).children())]


def test_a_taken_port_is_explained_and_nothing_stays(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = refused("--port", str(port), "--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose another" in done.stderr
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(each.info["cmdline"] or ())
    ]


def test_faulty_settings_are_all_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[server]\nprt = 1\nthreads = 0\n")
    done = refused("--config", str(tmp_path / "mine.toml"), "--data", str(tmp_path / "data"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "server.prt: there is no such setting; did you mean server.port?" in done.stderr
    assert "server.threads: should be greater than or equal to 4" in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_directory_in_use_is_refused_and_its_user_named(own: Up, tmp_path: Path) -> None:
    done = refused("--port", "0", "--data", str(tmp_path / "own" / "data"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is in use by process {own.process.pid} (" in done.stderr
    assert own.run("list").returncode == 0


def test_stubborn_tasks_neither_delay_its_end_nor_outlive_it(own: Up, tmp_path: Path) -> None:
    pids = stubborn_task(own, tmp_path / "pid")
    begun = time.monotonic()
    assert own.stop() == 0
    assert time.monotonic() - begun < 10
    assert len(pids) == 2
    assert alive([*own.pids, *pids]) == []


def test_tasks_end_when_it_is_killed_and_their_queue_goes_on_afterwards(own: Up, tmp_path: Path) -> None:
    done = own.run("submit", "--wait", "--", "echo", "kept")
    assert done.returncode == 0
    pids = stubborn_task(own, tmp_path / "pid")
    family = [each.pid for each in psutil.Process(own.process.pid).children(recursive=True)]
    own.stop(signal.SIGKILL)
    eventually(lambda: alive([*pids, *family]), lambda left: left == [])
    (tmp_path / "again").mkdir()
    (tmp_path / "own" / "data").rename(tmp_path / "again" / "data")
    with started(tmp_path / "again", "--cores", "2") as up:
        assert up.run("logs", done.stdout.strip()).stdout == "kept\n"
        assert up.run("submit", "--wait", "--", "true").returncode == 0


def test_a_mongodb_of_the_users_is_used_and_no_other_started(
    tmp_path: Path, mongo_uri: str, database_name: str
) -> None:
    settings = {"BANYAN_MONGO__URI": mongo_uri, "BANYAN_MONGO__DATABASE": database_name}
    with started(tmp_path / "own", "--cores", "2", env=settings) as up:
        assert (up.ready["mongo_uri"], up.ready["pids"]["mongod"]) == (mongo_uri, None)
        assert up.run("submit", "--wait", "--", "true").returncode == 0
        assert not (tmp_path / "own" / "data" / "mongo").exists()
