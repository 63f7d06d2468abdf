"""Disks that are slow, or do not answer at all: what one task leaves on them holds up nobody else."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from banyan import wire
from banyan.client import Client
from tests.support import processes
from tests.support.processes import Program, ServerProgram
from tests.support.slow_disk import SlowDisk, slow_disk
from tests.support.waiting import eventually

Document = dict[str, Any]

LOST_AFTER = 4.0
LEASES = {"BANYAN_LEASES__LOST_AFTER": f"{LOST_AFTER}", "BANYAN_LEASES__HEARTBEAT": "1"}
FILES = "for n in $(seq 200); do echo > file-$BANYAN_TASK_ID-$n; done"

FILES_ARE_SLOW = pytest.mark.parametrize("site", [("file-", "true")], indirect=True, ids=["files"])
FILES_ARE_SENT = pytest.mark.parametrize("site", [("file-", "false")], indirect=True, ids=["sent"])
ALL_IS_SLOW = pytest.mark.parametrize("site", [("", "true")], indirect=True, ids=["all"])


@dataclass
class Site:
    """A server, and a worker of two cores whose disk is slow with one task: `slow` is its id."""

    client: Client
    disk: SlowDisk
    worker: Program
    directory: Path
    slow: str

    def submit(self, command: str, **fields: Any) -> str:
        """Submit a command that takes a core."""
        return str(self.client.submit({"command": command, "state": "available", **fields})["_id"])

    def neighbour(self) -> str:
        """Submit a task that runs until `end_of`; its id once it runs."""
        task = self.submit(f"until test -e {self.directory}/end; do sleep 0.1; done")
        eventually(lambda: self.client.task(task)["state"] == "running", seconds=60, show=self.worker.tail)
        return task

    def is_unharmed(self, neighbour: str) -> None:
        """Let it end: it did so well, in its first attempt."""
        (self.directory / "end").touch()
        self.succeeds(neighbour)
        assert [each["attempt"] for each in self.client.attempts(neighbour)] == [1]

    def succeeds(self, task: str) -> None:
        """Wait for its end."""
        (ended,) = self.client.wait([task], timeout=60)
        assert ended["exit_status"] == "success", self.worker.tail()

    def outlive_a_lease(self) -> None:
        """Have tasks run one after the other, each to its end, for longer than a worker may be silent."""
        for _ in range(3):
            self.succeeds(self.submit(f"sleep {LOST_AFTER / 2}"))

    def files(self) -> list[Path]:
        """The files of the slow task that are still there, wherever."""
        return list((self.directory / "worker").rglob(f"file-{self.slow}-*"))


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """One server for all tests of the module."""
    directory = tmp_path_factory.mktemp("server")
    with processes.serving(directory, mongo_uri, **LEASES) as server:
        yield server


@pytest.fixture
def site(server: ServerProgram, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The parameter names what is slow, the files of the slow task or all that has its id in its path.

    It also says if the server may share the worker's disk.
    """
    slow, (name, shared) = uuid.uuid4().hex[:24], request.param
    disk = slow_disk(tmp_path, f"{name}{slow}")
    worker = processes.worker(tmp_path, "worker", server.url, server.token("worker"))
    worker.settings = {"BANYAN_MODELS__PATH": "[]", "BANYAN_FILES__SHARED": shared, **disk.variables}
    with ExitStack() as stack:
        client = stack.enter_context(server.client("user"))
        worker.start()
        stack.callback(worker.stop)
        yield Site(client, disk, worker, tmp_path, slow)


@FILES_ARE_SLOW
def test_what_cannot_be_read_holds_up_the_end_of_its_own_task_alone(site: Site) -> None:
    neighbour = site.neighbour()
    site.submit(f"{FILES}; until test -e {site.directory}/go; do sleep 0.1; done", _id=site.slow)
    eventually(lambda: len(site.files()) == 200, seconds=60, show=site.worker.tail)
    site.disk.stop()
    (site.directory / "go").touch()
    site.outlive_a_lease()
    assert site.client.task(site.slow)["state"] == "running"
    site.disk.go_on()
    site.succeeds(site.slow)
    assert [each["files_bytes"] for each in site.client.attempts(site.slow)] == [200]
    site.is_unharmed(neighbour)


@FILES_ARE_SLOW
def test_what_cannot_be_removed_now_holds_up_nobody(site: Site) -> None:
    site.submit(FILES, _id=site.slow)
    site.succeeds(site.slow)
    site.disk.stop()
    site.client.delete(site.slow)
    site.outlive_a_lease()
    assert len(site.files()) == 200
    site.disk.go_on()
    eventually(lambda: not site.files(), seconds=60, show=site.worker.tail)


@FILES_ARE_SENT
def test_what_cannot_be_sent_now_holds_up_its_own_task_alone(site: Site) -> None:
    site.submit(f"{FILES}; until test -e {site.directory}/end; do sleep 0.1; done", _id=site.slow)
    eventually(lambda: len(site.files()) == 200, seconds=60, show=site.worker.tail)
    site.disk.stop()
    site.outlive_a_lease()
    site.disk.go_on()
    site.is_unharmed(site.slow)
    assert len(site.client.files(site.slow)) == 200


@ALL_IS_SLOW
def test_a_directory_that_cannot_be_made_now_ends_nothing_that_runs(site: Site) -> None:
    neighbour = site.neighbour()
    site.disk.stop()
    site.submit("cat", _id=site.slow, stdin="text")
    (worker,) = site.client.workers({"name": "worker", "state": "active"})
    eventually(lambda: seen(site.client, worker) > 2 * LOST_AFTER, seconds=60, show=site.worker.tail)
    site.client.cancel(site.slow)
    (ended,) = site.client.wait([site.slow], timeout=60)
    assert ended["exit_status"] == "cancelled"
    site.disk.go_on()
    site.is_unharmed(neighbour)


def seen(client: Client, worker: Document) -> float:
    """For how many seconds the worker has shown signs of life since it was asked for."""
    (now,) = client.workers({"_id": worker["_id"]})
    return (wire.parse_date(now["last_seen"]) - wire.parse_date(worker["last_seen"])).total_seconds()
