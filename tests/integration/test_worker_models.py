"""Models on a worker, in real host processes, against a stand-in for the server: what they get and what they give."""

import json
import math
import signal
from pathlib import Path

import pytest

from tests.support.fake_server import FakeServer
from tests.support.probe import Document, asked, ends, run
from tests.support.waiting import processes_with

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


def test_a_model_runs_in_the_directory_of_its_task_and_says_when_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    there, gone, relative = ends(
        tmp_path,
        *(asked("describe", fields={"directory": name}) for name in (f"{tmp_path}/there", "/no/such/place", "no/such")),
    )
    assert there["exit_status"] == "success"
    assert gone["exit_status"] == "failure (no directory: /no/such/place)"
    assert "`--fresh`" in gone["error"]
    assert relative["exit_status"] == "failure (FileNotFoundError)"


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
        "status": 200,
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
