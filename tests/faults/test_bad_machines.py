"""Machines that are broken in one way or the other: their tasks go elsewhere, and they get no more.

The worker runs in a mount namespace of its own, in which its disk is a small one and its shell can be taken away.
"""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from banyan.client import Client
from tests.support import processes
from tests.support.models import write_models
from tests.support.mounts import OWN_MOUNTS, within
from tests.support.processes import Program, ServerProgram
from tests.support.waiting import eventually

Document = dict[str, Any]

SMALL_DISK = 'mount -t tmpfs -o size=8m,mode=700 tmpfs "$0" && exec "$@"'
ALIVE = {"state": {"$nin": ["lost", "gone"]}}
FILL = "head -c 1G /dev/zero > {}/filled"


DIES_ONCE = """
    def die_once(mark):
        if not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": os.getpid()}
    return delayed(die_once)(spec.inputs["mark"])
"""


@dataclass
class Site:
    """Clients of a server's provider and its administrator, and a worker on a small disk of its own."""

    directory: Path
    provider: Client
    admin: Client
    worker: Program
    other: Callable[[], Program]
    """Starts a worker on a sound machine."""

    @property
    def workdir(self) -> Path:
        """The small disk."""
        return self.directory / "bad"

    def on_the_machine(self, script: str) -> None:
        """Run a script by a shell that sees the mounts of the worker."""
        assert self.worker.process is not None
        within(self.worker.process, script)

    def fail(self, count: int = 1, **task: Any) -> list[str]:
        """Submit tasks, one after the other; their ids once each has failed here by the machine's fault."""
        ids = []
        for _ in range(count):
            id = str(self.provider.submit({"command": "echo text > file", "state": "available", **task})["_id"])
            eventually(partial(self.statuses, id), seconds=60, show=self.worker.tail)
            eventually(partial(self.available, id), seconds=60, show=self.worker.tail)
            ids.append(id)
        return ids

    def statuses(self, task: str) -> list[str]:
        """How its attempts ended, those that have."""
        return [each["exit_status"] for each in self.provider.attempts(task) if "exit_status" in each]

    def available(self, task: str) -> bool:
        """Whether it waits for somebody to take it."""
        return bool(self.provider.task(task)["state"] == "available")

    def bad(self) -> Document:
        """What the server knows of the worker."""
        (worker,) = self.provider.workers({"name": "bad", **ALIVE})
        return worker

    def unharmed(self, ids: list[str]) -> None:
        """The tasks are as good as new, and one says why it waits."""
        for id in ids:
            task = self.provider.task(id)
            assert (task["state"], task["retry_count"], task["abandoned_count"]) == ("available", 0, 1)
        eventually(lambda: self.bad()["state"] == "quarantined", seconds=60, show=self.bad)
        assert self.provider.explain(ids[0])["reasons"][0]["reason"] == "quarantined"


@pytest.fixture(scope="module")
def server(mongo_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProgram]:
    """One server for all tests of the module."""
    directory = tmp_path_factory.mktemp("server")
    models = json.dumps([write_models(directory / "models", dies_once=DIES_ONCE)])
    with processes.serving(directory, mongo_uri, BANYAN_MODELS__PATH=models) as server:
        yield server


@pytest.fixture
def site(server: ServerProgram, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        models = {name: value for name, value in server.settings.items() if "MODELS" in name}

        def started(name: str, *before: str) -> Program:
            worker = processes.worker(tmp_path, name, server.url, server.token("worker"), cores=1, **models)
            worker.command[:0] = before
            worker.start()
            stack.callback(worker.stop)
            return worker

        provider, admin = (stack.enter_context(server.client(user)) for user in ("user", "admin"))
        (tmp_path / "bad").mkdir()
        worker = started("bad", *OWN_MOUNTS, "sh", "-c", SMALL_DISK, str(tmp_path / "bad"))
        site = Site(tmp_path, provider=provider, admin=admin, worker=worker, other=lambda: started("good"))
        eventually(lambda: provider.workers(ALIVE), seconds=60, show=worker.tail)
        yield site
        for task in provider.tasks({"state": "available"}, max_results=100).items:
            provider.cancel(task["_id"])


def test_a_full_disk_is_the_machines_fault_until_there_is_room_again(site: Site) -> None:
    site.on_the_machine(FILL.format(site.workdir))
    ids = site.fail(3)
    assert [site.statuses(id) for id in ids] == [["failure (worker: disk full)"]] * 3
    site.unharmed(ids)
    assert "the last one with: failure (worker: disk full)" in site.bad()["quarantine"]["reason"]
    site.on_the_machine(f"rm {site.workdir}/filled")
    site.admin.update_worker(site.bad()["_id"], {"state": "active"})
    assert {task["exit_status"] for task in site.provider.wait(ids, timeout=60)} == {"success"}
    assert site.bad()["state"] == "active"


def test_a_work_directory_that_cannot_be_written_sends_its_tasks_elsewhere(site: Site) -> None:
    site.on_the_machine(f"mount -t tmpfs -o ro tmpfs {site.workdir}")
    ids = site.fail(3)
    assert all(site.statuses(id)[0].startswith("failure (worker: no work directory: [Errno 30]") for id in ids)
    site.unharmed(ids)
    site.other()
    assert {task["exit_status"] for task in site.provider.wait(ids, timeout=60)} == {"success"}


def test_a_worker_outlives_its_work_directory(site: Site) -> None:
    site.on_the_machine(f"umount -l {site.workdir}")
    shutil.rmtree(site.workdir)
    ids = site.fail(3)
    assert all(site.statuses(id)[0].startswith("failure (worker: no work directory: [Errno 2]") for id in ids)
    site.unharmed(ids)


def test_a_directory_that_one_machine_lacks_sends_its_tasks_elsewhere_and_no_other_ones(site: Site) -> None:
    directory = site.directory / "shared" / "sweep"
    directory.mkdir(parents=True)
    (directory / "data").write_text("read")
    site.on_the_machine(f"mount -t tmpfs tmpfs {directory.parent}")
    command: Document = {"command": "cat data", "state": "available", "directory": str(directory)}
    lacking = f"failure (no directory: {directory})"
    (alone,) = site.provider.wait([site.provider.submit(command)["_id"]], timeout=60)
    assert (alone["exit_status"], alone.get("retry_count", 0)) == (lacking, 0)
    (attempt,) = site.provider.attempts(alone["_id"])
    assert attempt["stderr_tail"] == f"banyan: {attempt['error']}\n"
    assert "`--fresh`" in attempt["error"]
    busy = site.provider.submit({"command": "sleep 600", "state": "available"})["_id"]
    eventually(lambda: site.provider.task(busy).get("time_started"), seconds=60, show=site.worker.tail)
    site.other()
    eventually(lambda: len(site.provider.workers(ALIVE)) == 2, seconds=60, show=site.worker.tail)
    ids = [site.provider.submit(command)["_id"] for _ in range(5)]
    site.provider.cancel(busy)
    ended = site.provider.wait(ids, timeout=60)
    assert {task["exit_status"] for task in ended} == {"success"}
    assert {(task.get("retry_count", 0), task.get("abandoned_count", 0)) for task in ended} == {(0, 0)}
    assert site.bad()["state"] == "active"
    site.on_the_machine(f"umount {directory.parent}")


def test_a_missing_shell_is_the_machines_fault(site: Site) -> None:
    site.on_the_machine("mount --bind /dev/null /bin/sh")
    ids = site.fail(3)
    assert all(site.statuses(id)[0].startswith("failure (worker: no shell: ") for id in ids)
    site.unharmed(ids)
    site.on_the_machine("umount /bin/sh")
    site.admin.update_worker(site.bad()["_id"], {"state": "active"})
    assert {task["exit_status"] for task in site.provider.wait(ids, timeout=60)} == {"success"}


def test_the_only_worker_that_failed_a_task_is_avoided_for_it_and_a_new_life_is_not(site: Site) -> None:
    site.on_the_machine(FILL.format(site.workdir))
    (id,) = site.fail()
    site.on_the_machine(f"rm {site.workdir}/filled")
    (reason,) = site.provider.explain(id)["reasons"]
    assert reason["reason"] == "avoided"
    assert "the only worker that could run it has failed it by the machine's own fault (bad on " in reason["message"]
    other = site.provider.submit({"command": "exit 3", "state": "available"})["_id"]
    assert site.provider.wait([other], timeout=60)[0]["exit_status"] == "failure (exit code 3)"
    site.worker.send(signal.SIGTERM)
    eventually(lambda: not site.worker.alive, seconds=60, show=site.worker.tail)
    site.worker.start()
    assert site.provider.wait([id], timeout=60)[0]["exit_status"] == "success"


def test_the_only_worker_runs_a_task_that_it_failed_once_its_disk_has_room_again(site: Site) -> None:
    site.on_the_machine(FILL.format(site.workdir))
    (id,) = site.fail()
    site.on_the_machine(f"rm {site.workdir}/filled")
    (ended,) = site.provider.wait([id], timeout=90)
    assert ended["exit_status"] == "success"
    assert site.provider.task(id)["retry_count"] == 0
    assert len(site.statuses(id)) == 2


def test_a_dead_host_costs_no_retry_and_no_worker(site: Site) -> None:
    tasks = [
        {"model": "dies_once", "inputs": {"mark": str(site.directory / f"mark{n}")}, "state": "available"}
        for n in range(4)
    ]
    ids = [each["_id"] for each in site.provider.submit(tasks)]
    ended = site.provider.wait(ids, timeout=120)
    assert [task["exit_status"] for task in ended] == ["success"] * 4
    assert [site.statuses(id) for id in ids] == [["failure (worker: model host died)", "success"]] * 4
    assert {site.provider.task(id)["retry_count"] for id in ids} == {0}
    assert site.bad()["state"] == "active"


def test_exit_codes_count_against_the_task(site: Site) -> None:
    tasks = [{"command": f"exit {code}", "state": "available"} for code in (1, 2, 126, 127, 255)]
    ids = [each["_id"] for each in site.provider.submit(tasks)]
    codes = [task["exit_status"] for task in site.provider.wait(ids, timeout=60)]
    assert codes == [f"failure (exit code {code})" for code in (1, 2, 126, 127, 255)]
    assert site.bad()["state"] == "active"
