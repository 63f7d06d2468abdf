"""Models on Dask's other schedulers: processes, a cluster of the host's own, a cluster elsewhere."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer
from tests.support.probe import MODELS, asked, cancelling, ends, run
from tests.support.waiting import eventually

SCHEDULERS = ["synchronous", "processes", "distributed"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_graph_is_computed_and_its_host_stays_warm(tmp_path: Path, scheduler: str) -> None:
    models = {"scheduler": scheduler}
    told = ends(
        tmp_path, asked("echo", {"c.x": 1}), asked("echo", y=2), asked("raise", error="ValueError"),
                asked("echo", z=3), cores=1, models=models)  # fmt: skip
    assert [each.get("result") for each in told] == [{"c.x": 1}, {"y": 2}, None, {"z": 3}]
    assert told[2]["exit_status"] == "failure (ValueError)"
    assert "ValueError: no such value" in told[2]["error"]
    assert len({each["pid"] for each in told}) == 1


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_cancellation_reaches_the_computation(tmp_path: Path, scheduler: str) -> None:
    (end,) = run(tmp_path, cancelling(asked("wait for cancel")), models={"scheduler": scheduler})
    assert end["exit_status"] == "cancelled"
    assert (tmp_path / "t1/1/work/said").read_text() == "noticed"


@pytest.mark.parametrize("scheduler", ["processes", "distributed"])
def test_processes_of_a_graph_die_with_a_host_that_is_killed(tmp_path: Path, scheduler: str) -> None:
    mark = f"mark-{tmp_path.name}-{scheduler}"
    server = cancelling(asked("ignore cancel", mark=mark, fields={"max_shutdown_time": 0.3}), asked("echo", x=1))
    first, second = run(tmp_path, server, cores=1, models={"scheduler": scheduler})
    assert (first["exit_status"], second["exit_status"]) == ("cancelled", "success")
    found = subprocess.run(["pgrep", "-f", mark], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_a_pool_that_has_lost_a_process_is_replaced_with_its_host(tmp_path: Path) -> None:
    died, after = ends(
        tmp_path, asked("kill host", signal=9), asked("echo", x=1), cores=1, models={"scheduler": "processes"}
    )
    assert died["exit_status"] == "failure (worker: model host died)"
    assert (after["exit_status"], after["result"]) == ("success", {"x": 1})
    (third,) = ends(
        tmp_path / "third", asked("kill host", signal=9, fields={"host_deaths": 2}), models={"scheduler": "processes"}
    )
    assert third["exit_status"] == "failure (BrokenProcessPool)"


@pytest.mark.parametrize("scheduler", ["processes", "distributed"])
def test_what_a_graphs_processes_use_is_the_tasks(tmp_path: Path, scheduler: str) -> None:
    (end,) = ends(tmp_path, asked("allocate", bytes=200 * 2**20, seconds=0.3), models={"scheduler": scheduler})
    assert end["exit_status"] == "success"
    assert end["peak_memory_bytes"] > 200 * 2**20


def test_tasks_may_be_submitted_at_run_time_on_a_cluster(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("runtime tasks", count=4), models={"scheduler": "distributed"})
    assert end["exit_status"] == "success", end
    assert end["result"]["squares"] == [0, 1, 4, 9]
    assert end["result"]["called_back"] == 1  # its cluster's worker is in the host's process


def test_a_cluster_that_is_not_there_is_the_machines_fault(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
    models = {"scheduler": "distributed", "cluster": address}
    models["dask"] = {"distributed": {"comm": {"timeouts": {"connect": "1s"}}}}  # type: ignore[assignment]
    (end,) = ends(tmp_path, asked("echo"), models=models)
    assert end["exit_status"].startswith(f"failure (worker: model host: no Dask cluster at {address}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with one worker that cannot map the memory of flags, as on another machine."""
    file = tmp_path / "scheduler.json"
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    worker = [sys.executable, "-c", _ELSEWHERE, "--scheduler-file", str(file), "--no-nanny", "--no-dashboard"]
    options = {"cwd": tmp_path, "env": {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{MODELS}:{_COMPAT}:{_SOURCE}"}}
    started = [
        subprocess.Popen([*scheduler, "--host", "127.0.0.1", "--scheduler-file", str(file)], **options),  # type: ignore[call-overload]
        subprocess.Popen([*worker, "--host", "127.0.0.1"], **options),  # type: ignore[call-overload]
    ]
    try:
        eventually(file.exists, seconds=60)
        yield file.read_text().partition('"address": "')[2].partition('"')[0]
    finally:
        for process in started:
            process.kill()
            process.wait()


_SOURCE = Path(__file__).parents[2]
_COMPAT = _SOURCE / "banyan" / "models" / "compat"
_ELSEWHERE = """
import os
from distributed.cli.dask_worker import main

opened = os.open

def on_another_machine(path, *rest, **more):
    if str(path).startswith("/proc/") and "/fd/" in str(path):
        raise FileNotFoundError(path)
    return opened(path, *rest, **more)

os.open = on_another_machine
main()
"""


def test_a_cancellation_reaches_a_cluster_elsewhere_by_message(tmp_path: Path, cluster: str) -> None:
    server = cancelling(asked("wait for cancel"), asked("runtime tasks", count=3))
    root = tmp_path / "root"
    first, second = run(root, server, cores=1, models={"scheduler": "distributed", "cluster": cluster})
    assert first["exit_status"] == "cancelled", first
    assert (root / "t1/1/work/said").read_text() == "noticed"
    assert second["result"]["squares"] == [0, 1, 4], second


def test_a_cluster_elsewhere_outlives_subtasks_that_exit_and_calls_back_once(tmp_path: Path, cluster: str) -> None:
    acts = [asked("raise", error="SystemExit"), asked("raise", error="KeyboardInterrupt")]
    acts += [asked("runtime tasks", count=1) for _ in range(2)]
    models = {"scheduler": "distributed", "cluster": cluster, "host_max_tasks": 1}
    told = ends(tmp_path / "root", *acts, cores=1, models=models)
    assert [each["exit_status"] for each in told[:2]] == ["failure (SystemExit)", "failure (KeyboardInterrupt)"]
    assert [each["result"]["called_back"] for each in told[2:]] == [1, 1]  # though four hosts have asked for it
    assert len({each["pid"] for each in told}) == 4


@pytest.mark.parametrize("scheduler", ["threads", "distributed"])
def test_what_is_left_of_a_failed_computation_is_waited_for(tmp_path: Path, scheduler: str) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "parts.py").write_text(_PARTS)
    wanted = {"requested_resources": {"cores": 2}}
    server = FakeServer([{"model": "parts", **wanted}])
    (end,) = run(tmp_path / "root", server, models={"path": [str(directory)], "scheduler": scheduler})
    assert end["exit_status"] == "failure (ValueError)"
    assert (tmp_path / "root/t1/1/work/finished").read_text() == "told to stop: True"


_PARTS = """
import time
from pathlib import Path

from dask import delayed


def task(spec, cancel):
    return delayed(list)([delayed(fail)(spec), delayed(go_on)(spec, cancel)])


def fail(spec):
    while not Path(spec.workdir, "begun").exists():
        time.sleep(0.01)
    raise ValueError("one part failed")


def go_on(spec, cancel):
    Path(spec.workdir, "begun").touch()
    time.sleep(0.5)
    Path(spec.workdir, "finished").write_text(f"told to stop: {cancel.get()}")
"""


ESCAPING = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "BaseException", "Own", "Unsendable", "CancelledError"]


@pytest.mark.parametrize("scheduler", ["threads", "processes", "synchronous", "distributed"])
def test_a_subtask_that_raises_what_is_no_exception_fails_the_task_at_once(tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "leaving.py").write_text(_LEAVING)
    models = {"path": [str(tmp_path / "models")], "scheduler": scheduler}
    tasks = [{"model": "leaving", "inputs": {"raise": name}} for name in ESCAPING]
    told = ends(tmp_path / "root", *tasks, {"model": "leaving", "inputs": {}}, cores=1, models=models)
    assert [each["exit_status"] for each in told] == [*(f"failure ({name})" for name in ESCAPING), "success"]
    for each, name in zip(told, ESCAPING, strict=False):
        assert f"{name}: out" in each["error"]
        assert "in leave" in each["error"] or scheduler == "processes"
    assert len({each["pid"] for each in told}) == 1


_LEAVING = """
import asyncio
import builtins
import threading

from dask import delayed


class Own(BaseException):
    pass


class Unsendable(BaseException):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


KINDS = {"Own": Own, "Unsendable": Unsendable, "CancelledError": asyncio.CancelledError}


def task(spec, cancel):
    kind = spec.inputs.get("raise")
    return delayed(dict)(value=delayed(len)([delayed(leave)(kind), delayed(int)(1)]))


def leave(kind):
    if kind is not None:
        raise (KINDS.get(kind) or getattr(builtins, kind))("out")
"""


@pytest.mark.parametrize(
    ("how", "exit_statuses"),
    [
        ("close the worker", ["failure (RuntimeError)"]),
        ("leave its loop", ["failure (RuntimeError)", "failure (worker: model host died)"]),  # Dask may exit first
    ],
)
def test_a_host_whose_own_cluster_has_stopped_is_replaced(tmp_path: Path, how: str, exit_statuses: list[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stopping.py").write_text(_STOPPING)
    models = {"path": [str(tmp_path / "models")], "scheduler": "distributed"}
    stopped, after = ends(
        tmp_path / "root",
        {"model": "stopping", "inputs": {"how": how}},
        {"model": "stopping", "inputs": {}},
        cores=1,
        models=models,
    )
    assert stopped["exit_status"] in exit_statuses, stopped
    if "RuntimeError" in stopped["exit_status"]:
        assert "the Dask cluster within the model's process has stopped" in stopped["error"]
    assert (after["exit_status"], after["pid"] != stopped["pid"]) == ("success", True)


_STOPPING = """
import time

from dask import delayed
from distributed import get_worker


def task(spec, cancel):
    how = spec.inputs.get("how")
    if how == "leave its loop":
        return delayed(dict)(value=delayed(leave)())
    return delayed(dict)(value=delayed(stop)(how))


def stop(how):
    worker = get_worker()
    if how == "close the worker":
        worker.loop.add_callback(worker.close, executor_wait=False)
        time.sleep(2)


async def leave():
    raise SystemExit("from the cluster's own loop")
"""
