"""Models that are ended early or do what they should not, in real host processes: host and next task are sound."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from banyan.domain.programs import TOO_LONG
from tests.support.fake_server import FakeServer
from tests.support.probe import MODELS, Document, asked, cancelling, ends, run
from tests.support.waiting import eventually, processes_with

# Ending early


def test_a_cancelled_model_sees_its_flag_and_ends_cancelled(tmp_path: Path) -> None:
    first, second = run(tmp_path, cancelling(asked("wait for cancel"), asked("describe")), cores=1)
    assert (first["exit_status"], second["exit_status"]) == ("cancelled", "success")
    assert (tmp_path / "t1/1/work/said").read_text() == "noticed"
    assert second["result"]["pid"] == first["pid"]


def test_subtasks_of_a_cancelled_task_stop_before_its_end_is_told(tmp_path: Path) -> None:
    (end,) = run(tmp_path, cancelling(asked("fan out", fields={"requested_resources": {"cores": 2}})))
    assert end["exit_status"] == "cancelled"
    written = {path.name for path in (tmp_path / "t1/1/work").iterdir()} - {"waiting"}
    assert written <= {"0", "1", "2"}
    assert len(written) >= 2


def test_a_model_with_variables_that_the_kernel_does_not_take_is_not_the_machines_fault(tmp_path: Path) -> None:
    first, second = ends(tmp_path, asked("describe", fields={"env": {"A": "x" * 140_000}}), asked("describe"), cores=1)
    assert (first["exit_status"], first["exit_code"]) == (TOO_LONG, 126)
    assert second["exit_status"] == "success"


def test_threads_that_a_failed_task_left_are_told_to_stop(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("stray thread"))
    assert end["exit_status"] == "failure (ValueError)"
    assert (tmp_path / "t1/1/work/said").read_text() == "thread stopped"


def test_subtasks_of_a_nested_computation_are_over_when_a_failure_is_told(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("fail beside nested", fields={"requested_resources": {"cores": 2}}))
    assert end["exit_status"] == "failure (ValueError)"
    assert (tmp_path / "t1/1/work/nested").read_text() == "over"


# What models write


def test_outputs_that_a_models_programs_open_again_are_appended_to_and_are_the_tasks_own(tmp_path: Path) -> None:
    first, second = ends(tmp_path, *(asked("write again", text=text) for text in ("one", "two")), cores=1)
    assert first["pid"] == second["pid"]
    for end, text in ((first, "one"), (second, "two")):
        said = f"{text} 1\n{text} 2\n{text} 3\n"
        assert (end["stdout_tail"], end["stderr_tail"]) == (said, said)


# Models that misbehave: the next task finds a sound host


@pytest.mark.parametrize(
    ("do", "exit_status"),
    [
        ("close stdout", "success"),
        ("close descriptor", "success"),
        ("set an alarm", "success"),
        ("change signals", "success"),
        ("fork and return", "success"),
        ("use a fork server", "success"),
        ("write everywhere", "failure (worker: model host died)"),
    ],
)
def test_the_next_task_does_not_suffer(tmp_path: Path, do: str, exit_status: str) -> None:
    tasks = [asked(do), asked(do), {"command": "sleep 1.2"}, asked("describe")]
    first, again, _, after = ends(tmp_path, *tasks, cores=1)
    assert (first["exit_status"], again["exit_status"]) == (exit_status, exit_status), (first, again)
    assert (after["exit_status"], after["stdout_tail"]) == ("success", "to stdout\n"), after
    if do == "fork and return":
        assert first["result"]["pid"] == first["pid"]


def test_processes_of_multiprocessing_end_when_they_are_told(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("end processes", fields={"timeout": 30}))
    assert end["result"] == {"exit_code": -int(signal.SIGTERM)}


def test_processes_that_the_callback_started_stay(tmp_path: Path) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "caller.py").write_text(_CALLER)
    models = {"path": [str(directory)]}
    told = ends(tmp_path / "root", {"model": "caller"}, {"model": "caller"}, cores=1, models=models)
    assert [each["result"] for each in told] == [{"alive": True}, {"alive": True}]


_CALLER = """
import subprocess

from dask import delayed


def worker_callback():
    global process
    process = subprocess.Popen(["sleep", "600"])


def task(spec, cancel):
    return delayed(lambda: {"alive": process.poll() is None})()
"""


@pytest.mark.parametrize("ask", ["get_worker()", "get_client()", "worker_client().__enter__()"])
def test_a_model_that_asks_for_a_dask_worker_without_a_cluster_is_told_where_there_is_one(
    tmp_path: Path, ask: str
) -> None:
    text = (
        f"from dask import delayed\nfrom distributed import *\n\n\ndef f():\n    {ask}\n\n\ndef task(spec, cancel):\n"
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "asking.py").write_text(text + "    return delayed(f)()\n")
    (end,) = ends(tmp_path / "root", {"model": "asking"}, models={"path": [str(tmp_path / "models")]})
    assert end["exit_status"] == "failure (ValueError)"
    assert end["error"].startswith(
        "get_worker, get_client and worker_client work with models.scheduler = 'distributed'"
    )


def test_a_helper_beside_a_model_may_have_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "worker.py").write_text("ANSWER = 42\n")
    text = "from dask import delayed\nfrom worker import ANSWER\n\n\ndef task(spec, cancel):\n"
    (directory / "helped.py").write_text(text + "    return delayed(dict)(answer=ANSWER)\n")
    (end,) = ends(tmp_path / "root", {"model": "helped"}, models={"path": [str(directory)]})
    assert end["result"] == {"answer": 42}


def test_memory_that_an_earlier_task_left_is_not_counted_against_a_later_one(tmp_path: Path) -> None:
    limit = {"requested_resources": {"cores": 1, "memory": 200 * 2**20}}
    kept, after = ends(
        tmp_path, asked("keep memory", bytes=300 * 2**20), asked("echo after a while", fields=limit), cores=1
    )
    assert (kept["exit_status"], after["exit_status"]) == ("success", "success")


def test_a_host_that_dies_idle_takes_no_task_with_it(tmp_path: Path) -> None:
    told = ends(tmp_path, asked("die later"), {"command": "sleep 1"}, asked("describe"), cores=1)
    assert [each["exit_status"] for each in told] == ["success"] * 3


def test_a_model_that_is_cleaning_up_is_let_finish(tmp_path: Path) -> None:
    (end,) = run(tmp_path, cancelling(asked("clean up slowly", seconds=1.0)))
    assert end["exit_status"] == "cancelled"
    assert (tmp_path / "t1/1/work/said").read_text() == "cleaned"


def test_the_programs_of_a_cancelled_model_have_the_rest_of_its_grace(tmp_path: Path, mark: str) -> None:
    task = asked("leave savers", mark=mark, fail=False)
    (end,) = run(tmp_path, cancelling(task))
    assert end["exit_status"] == "cancelled"
    work = tmp_path / "t1/1/work"
    assert {path.name for path in work.glob("*.saved")} == {"near.saved", "far.saved"}
    assert (work / "heard").read_text() == "x\nx\n"


def test_the_programs_of_a_model_that_was_not_asked_to_stop_are_killed_at_once(tmp_path: Path, mark: str) -> None:
    (end,) = ends(tmp_path, asked("leave savers", mark=mark, fail=True))
    assert end["exit_status"] == "failure (CancelledError)"
    assert not (tmp_path / "t1/1/work/heard").exists()
    assert processes_with(mark) == []


def test_a_model_that_ignores_its_cancellation_is_killed_with_all_that_it_started(tmp_path: Path, mark: str) -> None:
    server = cancelling(asked("ignore cancel", mark=mark, fields={"max_shutdown_time": 0.3}), asked("describe"))
    first, second = run(tmp_path, server, cores=1)
    assert (first["exit_status"], first["signal"]) == ("cancelled", "SIGKILL")
    assert second["exit_status"] == "success"
    assert second["result"]["pid"] != first["pid"]
    assert not processes_with(mark)


def test_a_cancellation_before_the_host_is_ready_starts_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "slow.py").write_text(
        f"import pathlib, time\n\npathlib.Path({str(tmp_path / 'loading')!r}).touch()\ntime.sleep(600)\n\n\n"
        "def task(spec, cancel): ...\n"
    )
    server = FakeServer([{"model": "slow"}, {"command": "sleep 0.7"}])
    server.on_report = lambda report: server.cancel.append("e1") if report["execution"] == "e2" else None
    first, second = run(tmp_path / "root", server, models={"path": [str(directory)]})
    assert (first["exit_status"], second["exit_status"]) == ("cancelled", "success")
    assert first["error"] == "cancelled before it started"


def test_a_model_out_of_time_is_asked_first(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("wait for cancel", fields={"timeout": 0.3}))
    assert end["exit_status"] == "timed out"
    assert (tmp_path / "t1/1/work/said").read_text() == "noticed"


def test_a_model_out_of_memory_is_killed(tmp_path: Path) -> None:
    wanted = {"requested_resources": {"cores": 1, "memory": 150 * 2**20}}
    (end,) = ends(tmp_path, asked("allocate", bytes=300 * 2**20, seconds=60, fields=wanted))
    assert end["exit_status"] == "out of memory"
    assert end["peak_memory_bytes"] > 150 * 2**20


# What is told meanwhile


def test_memory_and_cpu_are_the_tasks_own_and_not_the_hosts(tmp_path: Path) -> None:
    large, small = ends(tmp_path, asked("allocate", bytes=200 * 2**20, seconds=0), asked("describe"), cores=1)
    assert large["pid"] == small["pid"]
    assert large["peak_memory_bytes"] > 200 * 2**20
    assert small["peak_memory_bytes"] < 150 * 2**20


def test_files_and_streams_of_a_running_model_reach_a_server_without_our_disk(tmp_path: Path) -> None:
    server = FakeServer([asked("wait for cancel")], uploads=True)
    seen: list[bytes] = []

    def cancel_when_sent(report: Document) -> None:
        said = server.files.get(("e1", "said"))
        if said is not None and not server.cancel:
            seen.append(said)
            server.cancel.append("e1")

    server.on_report = cancel_when_sent
    put = server.put_file

    def watched(execution: str, path: str, offset: int, data: bytes, token: str, /) -> int:
        size = put(execution, path, offset, data, token)
        cancel_when_sent({})
        server.tell_cancellations()
        return size

    server.put_file = watched  # type: ignore[method-assign]
    (end,) = run(tmp_path, server, files={"upload_interval": 0.1})
    assert end["exit_status"] == "cancelled"
    assert seen == [b"waiting"]


def test_hosts_die_with_their_worker(tmp_path: Path, mark: str) -> None:
    server = FakeServer([asked("ignore cancel", mark=mark)])
    waiting = tmp_path / "t1/1/work/said"

    def look(report: Document) -> None:
        eventually(waiting.exists)
        started = processes_with(mark)
        assert started
        os.kill(_supervisor_of(started[0][0]), signal.SIGKILL)

    server.on_report = lambda report: look(report) if "pid" in report and "exit_status" not in report else None
    (end,) = run(tmp_path, server)
    assert end["exit_status"] == "failure (worker: its supervisor died)"
    eventually(lambda: not processes_with(mark))


def test_what_a_model_wrote_is_kept_when_the_worker_is_killed(tmp_path: Path, mark: str) -> None:
    (tmp_path / "tasks").write_text(json.dumps(asked("ignore cancel", mark=mark)))
    command = [sys.executable, "-m", "banyan", "worker", "--tasks", str(tmp_path / "tasks"), "--models", MODELS]
    with subprocess.Popen([*command, "--workdir", str(tmp_path / "root")], stderr=subprocess.DEVNULL) as worker:
        eventually((tmp_path / "root/000001/1/work/said").exists, seconds=60)
        worker.kill()
    eventually(lambda: not processes_with(mark))
    eventually(lambda: (tmp_path / "root/000001/1/stdout").read_text() == "last words\n")


def _supervisor_of(pid: int) -> int:
    """The parent of the host that is an ancestor of this process."""
    while pid > 1:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if b"model_host" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return parent
        pid = parent
    raise AssertionError("no host above")
