"""Models on a worker, in real host processes, against a stand-in for the server."""

import json
import math
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_server import FakeServer, work
from tests.support.waiting import eventually, processes_with

MODELS = str(Path(__file__).parents[1] / "support" / "probe_models")

Document = dict[str, Any]


@pytest.fixture
def mark() -> str:
    """A text by which a test finds the processes that it has started."""
    return f"mark-{uuid.uuid4().hex}"


def asked(do: str, given: Document | None = None, *, fields: Document | None = None, **inputs: Any) -> Document:
    """A task of the model `probe`; `given` are inputs whose names are no identifiers."""
    return {"model": "probe", "inputs": {"do": do, **(given or {}), **inputs}} | (fields or {})


def run(root: Path, server: FakeServer, **settings: Any) -> list[Document]:
    """Run all of the server's tasks; the reports of their ends, in the order of the tasks."""
    root.mkdir(exist_ok=True)
    models = {"path": [MODELS], **settings.pop("models", {})}
    assert work(root, server, models=models, **settings) == 0
    return [server.ends[task["execution"]] for task in server.tasks]


def ends(root: Path, *tasks: Document, **settings: Any) -> list[Document]:
    """The same for these tasks."""
    return run(root, FakeServer(tasks), **settings)


def cancelling(*tasks: Document) -> FakeServer:
    """A server that cancels its first task as soon as it hears that it runs."""
    server = FakeServer(tasks)
    server.on_report = lambda report: server.cancel.append("e1") if "pid" in report and not server.cancel else None
    return server


# What a model gets


def test_a_task_gets_its_inputs_its_place_and_its_variables(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("describe", fields={"env": {"MY_OWN": "1"}, "requested_resources": {"cores": 2}}))
    assert end["exit_status"] == "success"
    told = end["result"]
    assert told["workdir"] == told["cwd"] == str(tmp_path / "t1/1/work")
    assert (told["jobid"], told["threads"], told["num_workers"]) == ("t1", "2", 2)
    assert told["variables"] == {
        "BANYAN_TASK_ID": "t1",
        "BANYAN_EXECUTION_ID": "e1",
        "BANYAN_WORKDIR": str(tmp_path / "t1/1/work"),
        "BANYAN_PROGRESS": str(tmp_path / "t1/1/progress.json"),
        "BANYAN_RESULT": str(tmp_path / "t1/1/result.json"),
        "MY_OWN": "1",
    }
    assert (end["stdout_tail"], end["stderr_tail"]) == ("to stdout\n", "to stderr\n")


def test_a_task_without_a_work_directory_is_told_none(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("describe", fields={"workdir": "none"}))
    assert end["result"]["workdir"] is None


def test_names_come_back_exactly(tmp_path: Path) -> None:
    names = {"c.x": 1, "CITYOPT.simulation_start": 2.5, "$ref": "text", "": None, "\N{DECIDUOUS TREE}": [True]}
    (end,) = ends(tmp_path, asked("echo", names))
    assert end["result"] == names


def test_configuration_is_there_before_the_model_and_the_callback_ran_once(tmp_path: Path) -> None:
    models = {"dask": {"simsvc": {"model": {"data": "/d", "since": 3}}}}
    first, second = ends(tmp_path, asked("describe"), asked("describe"), models=models, cores=1)
    assert first["result"]["config"] == {"data": "/d", "since": 3}
    assert [each["result"]["called_back"] for each in (first, second)] == [1, 1]


# Hosts


def test_one_host_runs_a_slots_tasks_one_after_another(tmp_path: Path) -> None:
    told = ends(tmp_path, *[asked("describe") for _ in range(5)], cores=1)
    assert len({each["result"]["pid"] for each in told}) == 1
    assert told[1]["result"]["variables"]["BANYAN_EXECUTION_ID"] == "e2"


def test_a_host_is_replaced_after_its_number_of_tasks(tmp_path: Path) -> None:
    told = ends(tmp_path, *[asked("describe") for _ in range(4)], cores=1, models={"host_max_tasks": 2})
    pids = [each["result"]["pid"] for each in told]
    assert (pids[0], pids[2]) == (pids[1], pids[3])
    assert pids[0] != pids[2]


def test_tasks_with_other_cores_or_variables_get_other_hosts(tmp_path: Path) -> None:
    told = ends(
        tmp_path,
        asked("describe"),
        asked("describe", fields={"env": {"MY_OWN": "1"}}),
        asked("describe", fields={"requested_resources": {"cores": 2}}),
    )
    assert len({each["result"]["pid"] for each in told}) == 3


def test_a_changed_model_is_loaded_anew(tmp_path: Path) -> None:
    model = tmp_path / "models" / "changing.py"
    model.parent.mkdir()
    text = "from dask import delayed\n\n\ndef task(spec, cancel):\n    return delayed(dict)(version=VERSION)\n"
    model.write_text(f"VERSION = 1\n{text}")
    server = FakeServer([{"model": "changing"}, {"command": "sleep 1.2"}, {"model": "changing"}])

    def change(report: Document) -> None:
        model.write_text(f"VERSION = 22\n{text}")

    server.on_report = change
    first, _, second = run(tmp_path / "root", server, cores=1, models={"path": [str(model.parent)]})
    assert (first["result"], second["result"]) == ({"version": 1}, {"version": 22})


def test_a_worker_that_runs_no_model_starts_no_host(tmp_path: Path, mark: str) -> None:
    server = FakeServer([{"command": f": {mark}; exit 0"}])
    before = {pid for pid, command in processes_with("model_host") if str(tmp_path) in command}
    run(tmp_path, server)
    assert {pid for pid, command in processes_with("model_host") if str(tmp_path) in command} == before == set()
    assert server.registrations[0]["capabilities"] == ["shell", "model:probe"]
    assert [each["name"] for each in server.registrations[0]["models"]] == ["probe"]


def test_idle_hosts_leave_after_a_while(tmp_path: Path, mark: str) -> None:
    server = FakeServer([asked("describe", fields={"env": {"MY_MARK": mark}}), {"command": "sleep 2"}])
    gone: list[bool] = []

    def look(report: Document) -> None:
        if report["execution"] == "e2" and "exit_status" in report:
            gone.append(not processes_with(mark))

    server.on_report = look
    run(tmp_path, server, cores=1, models={"host_idle_seconds": 0.2})
    assert gone == [True]


def test_what_a_task_leaves_running_is_killed_and_its_host_lives_on(tmp_path: Path, mark: str) -> None:
    left, after = ends(tmp_path, asked("leave processes", mark=mark), asked("describe"), cores=1)
    assert left["exit_status"] == after["exit_status"] == "success"
    assert left["result"]["pid"] == after["result"]["pid"]
    assert not processes_with(mark)


def test_a_host_does_not_die_of_sigterm(tmp_path: Path) -> None:
    first, second = ends(tmp_path, asked("term host"), asked("term host"), cores=1)
    assert first["result"] == second["result"]


def test_a_host_that_is_killed_takes_its_own_task_alone(tmp_path: Path) -> None:
    killed, other, after = ends(
        tmp_path, asked("kill host", signal=int(signal.SIGKILL)), asked("describe"), asked("describe")
    )
    assert (killed["exit_status"], killed["signal"]) == ("failure (worker: model host died)", "SIGKILL")
    assert [other["exit_status"], after["exit_status"]] == ["success", "success"]


@pytest.mark.parametrize(
    ("number", "exit_status"), [(signal.SIGSEGV, "failure (SIGSEGV)"), (0, "failure (exit code 7)")]
)
def test_a_model_that_kills_every_host_is_to_blame_itself(tmp_path: Path, number: int, exit_status: str) -> None:
    second, third = ends(
        tmp_path,
        asked("kill host", signal=int(number), fields={"host_deaths": 1}),
        asked("kill host", signal=int(number), fields={"host_deaths": 2}),
    )
    assert second["exit_status"] == "failure (worker: model host died)"
    assert third["exit_status"] == exit_status


# Results and errors


def test_numbers_and_arrays_become_json(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("give", value="numpy"))
    result = end["result"]
    assert math.isnan(result.pop("nan"))
    assert result == {
        "scalar": 1.5,
        "flag": True,
        "array": [[1, 2], [3, 4]],
        "floats": [math.inf, -math.inf],
        "long": [0.5, [2.0]],
        "colour": {"red": "red"},
        "inner": {"c.x": 7, "$ref": [1, None], "": "empty", "\N{DECIDUOUS TREE}": True},
    }


def test_a_large_result_goes_to_a_file_of_the_task(tmp_path: Path) -> None:
    large, nowhere = ends(
        tmp_path, asked("give", value="large"), asked("give", value="large", fields={"workdir": "none"})
    )
    assert (large["exit_status"], large["result_file"]) == ("success", "result.json")
    assert json.loads((tmp_path / "t1/1/work/result.json").read_text()) == {"text": "x" * 100_000}
    assert nowhere["exit_status"] == "failure (BadResult)"
    assert "without a work directory" in nowhere["error"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("list", "a mapping of names to values, such as a dict, not list"),
        ("number keys", "result: the name 1 is of type int; names of results are texts"),
        ("object", "result['value']: a value of type object cannot be kept"),
        ("huge", "an integer of 65 bits is too large; 64 are kept"),
        ("very huge", "an integer of 16610 bits is too large"),
        ("nul", "contains a NUL"),
    ],
)
def test_a_result_that_cannot_be_kept_is_explained(tmp_path: Path, value: str, said: str) -> None:
    (end,) = ends(tmp_path, asked("give", value=value))
    assert end["exit_status"] == "failure (BadResult)"
    assert said in end["error"]
    assert "Traceback" not in end["error"]


@pytest.mark.parametrize("error", ["ValueError", "TimeoutError", "CancelledError", "SystemExit"])
def test_an_exception_is_a_failure_with_the_models_own_traceback(tmp_path: Path, error: str) -> None:
    (end,) = ends(tmp_path, asked("raise", error=error))
    assert end["exit_status"] == f"failure ({error})"
    assert "probe.py" in end["error"]
    assert "/dask/" not in end["error"]
    assert ("counts as a failure" in end["error"]) == (error in ("TimeoutError", "CancelledError"))


def test_a_task_function_that_raises_or_returns_no_graph_is_explained(tmp_path: Path) -> None:
    raised, no_graph = ends(tmp_path, asked("raise in task"), asked("return no graph"))
    assert raised["exit_status"] == "failure (ValueError)"
    assert raised["error"].endswith("ValueError: the inputs do not fit")
    assert no_graph["exit_status"] == "failure (BadTask)"
    assert no_graph["error"] == "model 'probe': task must return a Dask delayed computation, not dict"


def test_inputs_that_are_missing_from_a_parents_result_fail_the_task(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("echo", fields={"input_error": "task 5f has no result 'x'"}))
    assert (end["exit_status"], end["error"]) == ("failure (KeyError)", "task 5f has no result 'x'")


def test_a_model_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "broken.py").write_text("import no_such_package\n\n\ndef task(spec, cancel): ...\n")
    (directory / "quits.py").write_text("import os\n\nos._exit(3)\n\n\ndef task(spec, cancel): ...\n")
    broken, quits, missing = ends(
        tmp_path / "root",
        {"model": "broken"},
        {"model": "quits"},
        {"model": "nothing"},
        models={"path": [str(directory)]},
    )
    assert broken["exit_status"] == "failure (ModuleNotFoundError)"
    assert "No module named 'no_such_package'" in broken["error"]
    assert quits["exit_status"].startswith("failure (worker: model host: it ended with exit code 3 before it was ready")
    assert missing["exit_status"] == "failure (worker: this worker has no model 'nothing')"


def test_a_model_that_takes_too_long_to_load_is_given_up(tmp_path: Path) -> None:
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "slow.py").write_text("import time\n\ntime.sleep(600)\n\n\ndef task(spec, cancel): ...\n")
    models = {"path": [str(directory)], "host_start_seconds": 0.5}
    slow = [{"model": "slow"}] * 4
    *told, after = ends(tmp_path / "root", *slow, {"command": "echo after"}, models=models)
    assert {each["exit_status"] for each in told} == {"failure (worker: model host: it was not ready after 0.5 s)"}
    assert after["stdout_tail"] == "after\n"


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


def test_threads_that_a_failed_task_left_are_told_to_stop(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("stray thread"))
    assert end["exit_status"] == "failure (ValueError)"
    assert (tmp_path / "t1/1/work/said").read_text() == "thread stopped"


def test_subtasks_of_a_nested_computation_are_over_when_a_failure_is_told(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, asked("fail beside nested", fields={"requested_resources": {"cores": 2}}))
    assert end["exit_status"] == "failure (ValueError)"
    assert (tmp_path / "t1/1/work/nested").read_text() == "over"


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


def _supervisor_of(pid: int) -> int:
    """The parent of the host that is an ancestor of this process."""
    while pid > 1:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if b"model_host" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return parent
        pid = parent
    raise AssertionError("no host above")
