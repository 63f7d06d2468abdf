"""Tasks that fill the disk of their worker, on real small disks: they are stopped, and their neighbours live.

Each worker runs in a mount namespace of its own, in which its work directory is a file system of a few MiB.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from banyan.client import Client
from tests.support import processes
from tests.support.mounts import OWN_MOUNTS, within
from tests.support.processes import Program, ServerProgram
from tests.support.waiting import eventually

Document = dict[str, Any]

SMALL_DISK = 'mount -t tmpfs -o mode=700,size=64m,nr_inodes=2000 tmpfs "$0" && exec "$@"'
ALIVE = {"state": {"$nin": ["lost", "gone"]}}
FILLED = "failure (worker: disk filled by this task)"
FILL = "head -c 1G /dev/zero > filled; sleep 600"
MAP = """
import mmap
with open("file", "w+b") as file:
    file.truncate(80 << 20)
    memory = mmap.mmap(file.fileno(), 0)
for place in range(0, 80 << 20, 4096):
    memory[place] = 1
"""
NEIGHBOUR = "while ! test -e {done}; do echo alive >> lines; sleep 0.1; done"


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """One server for all tests of the module; a worker that failed a task tries it again soon."""
    directory = tmp_path_factory.mktemp("server")
    with processes.serving(directory, mongo_uri, BANYAN_QUARANTINE__AVOID_SECONDS="2") as server:
        yield server


class Site:
    """A provider, and workers on small disks, all of them stopped at the end."""

    def __init__(self, server: ServerProgram, directory: Path, stack: ExitStack) -> None:
        self.client: Client = stack.enter_context(server.client("user"))
        self.directory = directory
        self._server = server
        self._stack = stack

    def worker(self, name: str, **settings: str) -> Program:
        """A worker that has registered."""
        (self.directory / name).mkdir()
        program = processes.worker(
            self.directory, name, self._server.url, self._server.token("worker"), cores=5, **settings
        )
        program.command[:0] = [*OWN_MOUNTS, "sh", "-c", SMALL_DISK, str(self.directory / name)]
        program.start()
        self._stack.callback(program.stop)
        eventually(lambda: self.client.workers({"name": name, **ALIVE}), seconds=60, show=program.tail)
        return program

    def submit(self, command: str, **fields: Any) -> str:
        """The id of a task."""
        return str(self.client.submit({"command": command, "state": "available", **fields})["_id"])

    def ends(self, task: str) -> list[str]:
        """The exit statuses of the task's ended attempts."""
        return [each["exit_status"] for each in self.client.attempts(task) if "exit_status" in each]

    def runs(self, task: str) -> bool:
        """True once the task has started."""
        return bool(self.client.task(task).get("time_started"))

    def state_of(self, name: str) -> str:
        """The state of a worker."""
        return str(self.client.workers({"name": name, **ALIVE})[0]["state"])


def in_the_worker(worker: Program, script: str) -> str:
    """The output of a shell that sees the mounts of the worker."""
    assert worker.process is not None
    return within(worker.process, script).stdout


def free_bytes(worker: Program, directory: Path) -> int:
    """The room on the disk that the worker sees."""
    blocks, size = map(int, in_the_worker(worker, f"stat -f -c '%a %S' {directory}").split())
    return blocks * size


@pytest.fixture
def site(server: ServerProgram, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(server, tmp_path, stack)
        yield site
        for task in site.client.tasks({"state": {"$in": ["available", "running"]}}, max_results=100).items:
            site.client.cancel(task["_id"])


def test_who_fills_the_disk_is_stopped_and_the_neighbours_live(site: Site) -> None:
    workers = {name: site.worker(name) for name in ("first", "second")}
    neighbours = [site.submit(NEIGHBOUR.format(done=site.directory / "done")) for _ in range(4)]
    for each in neighbours:
        eventually(partial(site.runs, each), seconds=60)
    culprit = site.submit(FILL, max_retry_count=0)
    (ended,) = site.client.wait([culprit], timeout=90)
    assert ended["exit_status"] == "failure (disk filled)"
    assert site.ends(culprit) == [FILLED, "failure (disk filled)"]
    first, second = sorted(site.client.attempts(culprit), key=lambda each: int(each["attempt"]))
    assert first["worker"] != second["worker"]
    assert first["error"].startswith("the task took ")
    assert "must stay free" in first["error"]
    assert second["error"].startswith(
        "it filled the disk of its worker again, which counts as its own failure: the task"
    )
    for name, worker in workers.items():
        eventually(lambda: free_bytes(worker, site.directory / name) > 50 << 20, show=worker.tail)  # noqa: B023
        assert site.state_of(name) == "active"
    assert site.client.task(culprit)["retry_count"] == 0
    (site.directory / "done").touch()
    site.client.wait(neighbours, timeout=60)
    assert [site.ends(each) for each in neighbours] == [["success"]] * 4


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("head -c 1G /dev/zero > filled", id="a program that ends by itself"),
        pytest.param("cat /dev/zero; sleep 600", id="standard output"),
        pytest.param("exec 3> file; rm file; head -c 1G /dev/zero >&3; sleep 600", id="a removed file"),
        pytest.param("fallocate -l 62M file; sleep 600", id="room without contents"),
        pytest.param('head -c 1G /dev/zero > "$BANYAN_WORKDIR/../../beside"', id="a file beside the attempts"),
        pytest.param(f"{sys.executable} -c '{MAP}'", id="a mapped file"),
        pytest.param("seq 3000 | xargs mkdir; sleep 600", id="directories"),
        pytest.param("seq 3000 | xargs touch", id="empty files"),
        pytest.param('cd "$BANYAN_WORKDIR/../../.."; head -c 1G /dev/zero > elsewhere; sleep 600', id="another place"),
    ],
)
def test_all_ways_to_fill_a_disk_are_found(site: Site, command: str) -> None:
    first = site.worker("first")
    neighbour = site.submit(NEIGHBOUR.format(done=site.directory / "done"))
    eventually(partial(site.runs, neighbour), show=first.tail)
    culprit = site.submit(command)
    eventually(lambda: FILLED in site.ends(culprit), seconds=60, show=first.tail)
    (site.directory / "done").touch()
    assert site.client.wait([neighbour], timeout=60)[0]["exit_status"] == "success"
    assert site.ends(neighbour) == ["success"]


def test_a_directory_of_the_users_own_on_the_same_disk_counts_too(site: Site) -> None:
    first = site.worker("first")
    culprit = site.submit("head -c 1G /dev/zero > filled", directory=str(site.directory / "first"))
    eventually(lambda: FILLED in site.ends(culprit), seconds=60, show=first.tail)


def test_nobody_is_stopped_for_what_others_have_put_on_the_disk(site: Site) -> None:
    first = site.worker("first")
    disk = site.directory / "first"
    neighbour = site.submit(NEIGHBOUR.format(done=site.directory / "done"))
    eventually(partial(site.runs, neighbour), show=first.tail)
    in_the_worker(first, f"head -c 62M /dev/zero > {disk}/filled")
    small = site.submit("head -c 100K /dev/zero > small; sleep 2")
    assert site.client.wait([small], timeout=60)[0]["exit_status"] == "success"
    in_the_worker(first, f"head -c 1G /dev/zero > {disk}/filled")
    victim = site.submit("echo text > file")
    eventually(lambda: "failure (worker: disk full)" in site.ends(victim), seconds=60, show=first.tail)
    in_the_worker(first, f"rm {disk}/filled")
    (site.directory / "done").touch()
    ended = site.client.wait([neighbour, victim], timeout=60)
    assert [each["exit_status"] for each in ended] == ["success", "success"]
    assert site.ends(neighbour) == ["success"]


@pytest.mark.parametrize("fill", ["head -c 70M /dev/zero > $0/filled", "touch $0/{1..2000}"])
def test_a_worker_without_room_says_why_it_does_not_start(tmp_path: Path, fill: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "token").write_text("token")
    worker = [sys.executable, "-m", "banyan", "worker", "--url", "http://127.0.0.1:1", "--workdir", str(place)]
    command = [
        *OWN_MOUNTS,
        "sh",
        "-c",
        SMALL_DISK,
        str(place),
        "bash",
        "-c",
        f'{fill} 2> /dev/null; exec "$@"',
        str(place),
    ]
    done = subprocess.run(
        [*command, *worker, "--token-file", str(tmp_path / "token")],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"banyan: the disk of the work directory {place} is full: make room there, or choose another directory with "
        "--workdir"
    )


def test_scratch_space_is_enforced(site: Site) -> None:
    first = site.worker("first", BANYAN_SCRATCH="40 MiB")
    asked = {"requested_resources": {"cores": 0.5, "scratch": "4 MiB"}}
    over = [
        site.submit(command, **asked)
        for command in (
            "head -c 8M /dev/zero > file; sleep 600",
            "head -c 8M /dev/zero > file",
            "head -c 8M /dev/zero; sleep 600",
            "exec 3> file; rm file; head -c 8M /dev/zero >&3; sleep 600",
        )
    ]
    within = [
        site.submit(command, **asked)
        for command in ("head -c 4M /dev/zero > file; ln file other; sleep 2", "truncate -s 20M file; sleep 2")
    ]
    ended = site.client.wait([*over, *within], timeout=90)
    assert [each["exit_status"] for each in ended] == ["failure (scratch exceeded)"] * 4 + ["success"] * 2
    for task in over:
        (attempt,) = site.client.attempts(task)
        assert attempt["error"].startswith("the task used 8.00 MiB of scratch space and had asked for 4.00 MiB: let it")
    assert site.state_of("first") == "active"
    eventually(lambda: free_bytes(first, site.directory / "first") > 50 << 20, show=first.tail)


def test_several_that_go_on_filling_the_disk_are_stopped_one_after_the_other(site: Site) -> None:
    first = site.worker("first")
    neighbour = site.submit(NEIGHBOUR.format(done=site.directory / "done"))
    eventually(partial(site.runs, neighbour), show=first.tail)
    culprits = [site.submit("while :; do cat /dev/zero >> filled; sleep 0.1; done") for _ in range(3)]
    for each in culprits:
        eventually(lambda: FILLED in site.ends(each), seconds=60, show=first.tail)  # noqa: B023
    (site.directory / "done").touch()
    assert site.client.wait([neighbour], timeout=60)[0]["exit_status"] == "success"
    assert site.ends(neighbour) == ["success"]


def test_what_an_earlier_attempt_has_left_is_not_held_against_a_task(site: Site) -> None:
    first = site.worker("first")
    again = "test -e large || { head -c 40M /dev/zero > large; exit 1; }; " + NEIGHBOUR.format(
        done=site.directory / "done"
    )
    keeper = site.submit(again, workdir="task", max_retry_count=1)
    eventually(lambda: site.ends(keeper) == ["failure (exit code 1)"], seconds=60, show=first.tail)
    eventually(partial(site.runs, keeper), show=first.tail)
    culprit = site.submit(FILL)
    eventually(lambda: FILLED in site.ends(culprit), seconds=60, show=first.tail)
    (site.directory / "done").touch()
    assert site.client.wait([keeper], timeout=60)[0]["exit_status"] == "success"
    assert site.ends(keeper) == ["failure (exit code 1)", "success"]
