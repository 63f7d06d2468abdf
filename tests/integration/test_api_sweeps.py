"""`/sweeps` over HTTP: posting, reading, results, and what each user may do."""

import csv
import io
import json
import math
from typing import Any

import pytest
from bson import ObjectId

from banyan.config import Auth, Limits, Models, ServerSettings
from banyan.queue.context import Context
from banyan.queue.report import Report, report
from tests.integration.conftest import Api
from tests.support.queue import SimulatedWorker

GRID = {"name": "s", "command": "run {x} {y}", "grid": {"x": [1, "a b"], "y": [0.5, True]}}


def posted(api: Api, **sweep: Any) -> Any:
    """The answer to a sweep whose names are sent in the order in which they are given."""
    answer = api.post("/sweeps", data=json.dumps(sweep), content_type="application/json")
    assert answer.status_code == 201, answer.get_data(as_text=True)
    return answer.get_json()


def issues(api: Api, **sweep: Any) -> Any:
    answer = api.post("/sweeps", sweep)
    assert answer.status_code == 422, answer.get_data(as_text=True)
    assert api.get("/tasks").get_json()["_meta"]["total"] == 0
    assert api.get("/sweeps").get_json()["_meta"]["total"] == 0
    return answer.get_json()["_issues"]


def tasks_of(api: Api, sweep: str) -> list[Any]:
    where = json.dumps({"sweep": sweep})
    found: list[Any] = api.get(f"/tasks?where={where}&sort=index&max_results=1000").get_json()["_items"]
    return found


def progress(api: Api, sweep: str) -> Any:
    return api.get(f"/sweeps/{sweep}").get_json()["progress"]


def table(api: Api, sweep: str) -> list[list[str]]:
    answer = api.get(f"/sweeps/{sweep}/results?format=csv")
    assert (answer.status_code, answer.mimetype) == (200, "text/csv")
    return list(csv.reader(io.StringIO(answer.get_data(as_text=True), newline="")))


# Making


def test_a_grid_makes_a_task_for_each_combination(provider: Api) -> None:
    answer = posted(provider, **GRID, priority=3, tags=["t"], requested_resources={"memory": "1 GiB"})
    assert (answer["count"], "barrier" in answer, "seed" in answer) == (4, False, False)
    tasks = tasks_of(provider, answer["_id"])
    assert [task["index"] for task in tasks] == [0, 1, 2, 3]
    assert [task["name"] for task in tasks] == ["s[0]", "s[1]", "s[2]", "s[3]"]
    assert [task["command"] for task in tasks] == ["run 1 0.5", "run 1 true", "run 'a b' 0.5", "run 'a b' true"]
    assert [task["inputs"] for task in tasks] == [
        *({"x": 1, "y": 0.5}, {"x": 1, "y": True}, {"x": "a b", "y": 0.5}, {"x": "a b", "y": True}),
    ]
    for task in tasks:
        assert (task["state"], task["priority"], task["tags"], task["owner"]) == ("available", 3, ["t"], "alice")
        assert task["requested_resources"] == {"cores": 1, "memory": 2**30}
    found = provider.get('/tasks?where={"inputs.x":1,"inputs.y":true}').get_json()["_items"]
    assert [task["name"] for task in found] == ["s[1]"]


def test_odd_names_and_values_come_back_exactly(provider: Api) -> None:
    points = [
        {"c.x": 1, "": "empty", "$ref": None, "😀": [math.inf, {"a.b": -0.0}]},
        {"CITYOPT.simulation_start": 2**63 - 1, "a}b": "{c.x}", "{": "'"},
    ]
    sweep = posted(provider, command=["run", "{index}"], points=points)["_id"]
    assert [task["inputs"] for task in tasks_of(provider, sweep)] == points
    names = [*points[0], *points[1]]
    assert provider.get(f"/sweeps/{sweep}").get_json()["input_names"] == names
    rows = table(provider, sweep)
    assert rows[0][4:] == names
    assert rows[1][4:] == ["1", "empty", "", '[Infinity,{"a.b":-0.0}]', "", "", ""]


def test_common_inputs_lie_below_those_of_the_points(provider: Api) -> None:
    sweep = posted(provider, command="run {x} {n}", inputs={"n": 1, "x": 0}, points=[{"x": 5}, {"n": 2}])["_id"]
    tasks = tasks_of(provider, sweep)
    assert [task["inputs"] for task in tasks] == [{"n": 1, "x": 5}, {"n": 2, "x": 0}]
    assert [task["command"] for task in tasks] == ["run 5 1", "run 0 2"]
    assert "name" not in tasks[0]


def test_a_model_gets_the_points_as_inputs_and_its_name(provider: Api) -> None:
    sweep = posted(provider, model="m", inputs={"a": 1}, grid={"b": [2, 3]})["_id"]
    tasks = tasks_of(provider, sweep)
    assert [(task["model"], task["inputs"], task["name"]) for task in tasks] == [
        *(("m", {"a": 1, "b": 2}, "m[0]"), ("m", {"a": 1, "b": 3}, "m[1]")),
    ]
    assert "command" not in tasks[0]


@pytest.mark.parametrize("method", ["latin_hypercube", "sobol"])
def test_samples_can_be_repeated_with_the_seed_that_was_chosen(provider: Api, method: str) -> None:
    ranges = {"x": [0, 1], "k": {"low": 1, "high": 1000, "scale": "log"}}
    first = posted(provider, command="run {x} {k}", samples={"method": method, "count": 6, "inputs": ranges})
    document = provider.get(f"/sweeps/{first['_id']}").get_json()
    assert document["samples"] == {"method": method, "count": 6, "inputs": ranges, "seed": first["seed"]}
    again = posted(provider, command="run {x} {k}", samples=document["samples"])
    inputs = [[task["inputs"] for task in tasks_of(provider, each["_id"])] for each in (first, again)]
    assert inputs[0] == inputs[1]
    assert all(0 <= point["x"] <= 1 <= point["k"] <= 1000 for point in inputs[0])


def test_tasks_may_begin_inactive_held_or_after_others(provider: Api, context: Context) -> None:
    parent = provider.post("/tasks", {"command": "true", "state": "available"}).get_json()["_id"]
    child = provider.post("/tasks", {"command": "true"}).get_json()["_id"]
    for fields in ({"state": "inactive"}, {"dependencies": [parent], "continuations": [child]}):
        sweep = posted(provider, command="true {x}", grid={"x": [1, 2]}, **fields)["_id"]
        assert progress(provider, sweep)["states"] == {"inactive": 2}
    held = posted(provider, command="true {x}", grid={"x": [1, 2]}, hold=True)["_id"]
    assert {task["hold"] for task in tasks_of(provider, held)} == {True}
    assert SimulatedWorker(context).run_all() == 4, "the parent, its two children, and theirs"


def test_a_sweep_is_made_once_for_each_key(provider: Api) -> None:
    first, again = (provider.post("/sweeps", GRID, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.get_json() == again.get_json()
    assert provider.get("/tasks").get_json()["_meta"]["total"] == 4


def test_a_barrier_waits_for_all_points_however_they_end(provider: Api, context: Context) -> None:
    answer = posted(provider, **GRID, priority=7, barrier={"command": "collect", "env": {"A": "b"}})
    barrier = provider.get(f"/tasks/{answer['barrier']}").get_json()
    assert (barrier["name"], barrier["state"], barrier["priority"]) == ("s[barrier]", "inactive", 7)
    assert (barrier["pending_dependency_count"], "sweep" in barrier) == (4, False)
    assert barrier["env"] == {"A": "b", "BANYAN_SWEEP_ID": answer["_id"]}
    assert provider.get(f"/sweeps/{answer['_id']}").get_json()["barrier"] == answer["barrier"]
    worker = SimulatedWorker(context)
    worker.claim()
    worker.end("failure (exit code 1)", executions=list(worker.held)[:1])
    assert progress(provider, answer["_id"])["barrier"] == "inactive"
    worker.end()
    assert progress(provider, answer["_id"])["barrier"] == "available"


def test_a_barrier_without_a_command_only_marks_the_end(provider: Api, context: Context) -> None:
    answer = posted(provider, command="true {x}", grid={"x": [1, 2]}, barrier={})
    SimulatedWorker(context).run_all()
    barrier = provider.get(f"/tasks/{answer['barrier']}").get_json()
    assert (barrier["name"], barrier["exit_status"]) == ("barrier", "success")


# Refusing


@pytest.mark.parametrize(
    ("sweep", "field", "reason"),
    [
        ({"grid": {"x": [1]}}, "command", "either a 'command' or a 'model'"),
        ({"command": "a", "model": "b", "grid": {"x": [1]}}, "command", "either a 'command' or a 'model'"),
        ({"command": "a"}, "grid", "there is none of them"),
        ({"command": "a {x}", "grid": {"x": [1]}, "points": [{}]}, "grid", "not 'grid' and 'points'"),
        ({"command": "a", "grid": {}}, "grid", "must name at least one input"),
        ({"command": "a {x}", "grid": {"x": []}}, "grid", "'x' must be a list of at least one value"),
        ({"command": "a {x}", "grid": {"x": 1}}, "grid", "'x' must be a list"),
        ({"command": "a", "grid": {"a\0": [1]}}, "grid", "NUL"),
        ({"command": "a", "points": []}, "points", "at least one point"),
        ({"command": "a", "points": [{}, 1]}, "points", "point 1 must be an object"),
        ({"command": "a", "points": [{"x": 2**64}]}, "points", "64 bits"),
        ({"command": "{x} ", "points": [{"x": " "}], "directory": ""}, "directory", "must have at least"),
        (
            {"command": "echo {y} {x}", "grid": {"x": [1]}},
            "command",
            "{y} is no input of this sweep; there are: index, x",
        ),
        ({"command": ["echo", "{lamda}"], "grid": {"lambda": [1]}}, "command", "did you mean {lambda}?"),
        ({"command": "f '{y}'", "points": [{}]}, "command", "left alone with blanks inside: { y }"),
        ({"command": "{x}.{indx}.txt", "grid": {"x": [1]}}, "command", "did you mean {index}?"),
        ({"command": "a", "grid": {"x": [1]}}, "grid", "the command never uses {x}"),
        ({"command": "a {x}", "grid": {"x": [1], "y": [1]}, "stdin": "{y}"}, "grid", "in 'stdin' nothing is replaced"),
        ({"command": "{x}", "grid": {"x": [1]}, "inputs": {"n": 1}}, "inputs", "the command never uses {n}"),
        (
            {"command": "{index}", "samples": {"method": "sobol", "count": 1, "inputs": {"x": [0, 1]}}},
            "samples",
            "the command never uses {x}",
        ),
        ({"command": "a {x}", "grid": {"x": [1]}, "state": "running"}, "state", "must be one of inactive, available"),
        ({"command": "a {x}", "grid": {"x": [1]}, "index": 1}, "index", "unknown field"),
        ({"command": "a {x}", "grid": {"x": [1]}, "priority": "high"}, "priority", "whole number"),
        ({"command": "a {x}", "grid": {"x": [1, 2]}, "queue": "none"}, "queue", "there is no queue 'none'"),
        ({"command": "a {x}", "grid": {"x": [1]}, "dependencies": ["5" * 24]}, "dependencies", "there is no task"),
        (
            {"command": "a", "samples": {"method": "sobol", "count": 0, "inputs": {"x": [0, 1]}}},
            "samples",
            "at least 1",
        ),
        ({"command": "a", "samples": {"method": "sobol", "count": 1, "inputs": {"x": [1, 0]}}}, "samples", "less than"),
        ({"command": "a", "samples": {"method": "grid", "count": 1, "inputs": {"x": [0, 1]}}}, "samples", "one of"),
        ({"command": "a {x}", "grid": {"x": [1]}, "barrier": {"comand": "b"}}, "barrier", "did you mean 'command'"),
        ({"command": "a {x}", "grid": {"x": [1]}, "barrier": {"inputs": {}}}, "barrier", "inputs need a 'model'"),
        ({"command": "a {x}", "grid": {"x": [1]}, "barrier": {"queue": "none"}}, "barrier", "there is no queue"),
        ({"model": "m", "grid": {"x": [1]}, "input_refs": {"x": {"task": "5" * 24}}}, "input_refs", "give it once"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_made(
    provider: Api, sweep: dict[str, Any], field: str, reason: str
) -> None:
    found = issues(provider, **sweep)
    assert list(found) == [field]
    assert reason in json.dumps(found, ensure_ascii=False)


def test_braces_that_are_the_programs_own_are_left_alone(provider: Api) -> None:
    words = ["awk", "{ print $1 }", "{ y }", "${HOME}", "{{y}}", "{}", "{1,2}", '{"a": 1}', "a{2}", "{x}"]
    sweep = posted(provider, command=words, points=[{"x": 1, "column": 2}])["_id"]
    assert tasks_of(provider, sweep)[0]["command"] == [*words[:-1], "1"]
    sweep = posted(provider, command=["echo", "{braces}"], inputs={"braces": "{y}"}, points=[{}])["_id"]
    assert tasks_of(provider, sweep)[0]["command"] == ["echo", "{y}"]


def test_points_with_too_many_parents_together_are_refused(provider: Api) -> None:
    parents = [str(ObjectId()) for _ in range(501)]
    answer = provider.post("/sweeps", {"command": "a {x}", "grid": {"x": [1] * 1000}, "dependencies": parents})
    assert answer.status_code == 413
    assert "put one group between" in answer.get_json()["_error"]["message"]


def test_points_whose_commands_no_kernel_takes_are_named(provider: Api) -> None:
    long, wide = {"x": "y" * 131_072}, {"x": "ü" * 65_536}
    found = issues(provider, command=["echo", "{x}"], points=[{"x": "a"}, long, wide, {"x": "y" * 131_071}])
    assert set(found["points"]) == {"1", "2"}
    assert "word 1 has 131072 bytes" in found["points"]["1"]["command"]
    env = {f"A{n}": "x" * 130_000 for n in range(15)}
    found = issues(provider, command=["echo", "{x}"], env=env, points=[{"x": "a"}, {"x": "y" * 100_000}])
    assert set(found["points"]) == {"1"}
    assert "command and environment have" in found["points"]["1"]["command"]
    posted(provider, command="echo {x}", points=[{"x": "a"}, long, wide])


def test_points_that_do_not_fit_the_template_are_named(provider: Api) -> None:
    found = issues(
        provider, command=["{prog}", "{x}"], points=[{"prog": "a", "x": 1}, {"prog": "a"}, {"prog": "", "x": 1}]
    )
    assert set(found["points"]) == {"1", "2"}
    assert "uses {x}" in found["points"]["1"]["command"]
    assert "must not be empty" in found["points"]["2"]["command"]
    found = issues(provider, command="{x}", points=[{"x": 1}] + [{}] * 50)
    assert len(found["points"]) == 11
    assert found["points"]["more"] == "40 other points have faults, too"


class TestLimits:
    """With limits that are quickly reached."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        limits = Limits(max_sweep_points=10, max_submission_bytes=20_000)
        return ServerSettings(limits=limits, models=Models(path=()))

    @pytest.mark.parametrize(
        ("sweep", "reason"),
        [
            ({"command": "a {x} {y}", "grid": {"x": [1] * 4, "y": [1] * 4}}, "16 points, at most 10"),
            ({"command": "a", "points": [{}] * 11}, "11 points, at most 10"),
            (
                {"command": "a", "samples": {"method": "sobol", "count": 11, "inputs": {"x": [0, 1]}}},
                "11 points, at most 10",
            ),
            ({"command": "a" * 3000 + "{x}", "grid": {"x": [1] * 10}}, "the commands are longer than 20000 bytes"),
            ({"model": "a", "inputs": {"y": "x" * 3000}, "grid": {"x": [1] * 10}}, "all together may have 20000"),
            ({"command": "a", "grid": {"x" * 3000: [1] * 10}}, "the inputs of 10 points have 30070 bytes"),
        ],
    )
    def test_what_is_too_much_is_refused_before_it_is_made(
        self, provider: Api, sweep: dict[str, Any], reason: str
    ) -> None:
        answer = provider.post("/sweeps", sweep)
        assert answer.status_code == 413
        assert reason in answer.get_json()["_error"]["message"]
        assert provider.get("/tasks").get_json()["_meta"]["total"] == 0
        assert posted(provider, command="a {x}", grid={"x": [1] * 10})["count"] == 10


# Reading


def test_sweeps_are_read_as_every_resource(provider: Api) -> None:
    first = posted(provider, **GRID)["_id"]
    second = posted(provider, model="m", points=[{"x": 1}], state="inactive", tags=["b"])["_id"]
    listed = provider.get("/sweeps?sort=-_id").get_json()
    assert [sweep["_id"] for sweep in listed["_items"]] == [second, first]
    assert not any({"progress", "points", "state"} & sweep.keys() for sweep in listed["_items"])
    found = provider.get('/sweeps?where={"model":"m","tags":"b"}&projection={"count":1,"progress":1}').get_json()
    assert [(sweep["count"], sweep["progress"]["states"]) for sweep in found["_items"]] == [(1, {"inactive": 1})]
    one = provider.get(f"/sweeps/{first}").get_json()
    assert (one["command"], one["grid"], one["count"], one["owner"]) == (GRID["command"], GRID["grid"], 4, "alice")
    assert "progress" not in provider.get(f'/sweeps/{first}?projection={{"progress":0}}').get_json()
    refused = provider.get('/sweeps?where={"progress.fraction":1}')
    assert refused.status_code == 400
    assert "filter /tasks by 'sweep'" in refused.get_data(as_text=True)
    assert provider.get(f"/sweeps/{ObjectId()}").status_code == 404


def test_a_task_shows_its_sweep_and_a_sweep_its_barrier(provider: Api) -> None:
    answer = posted(provider, **GRID, barrier={})
    sweep = provider.get(f'/sweeps/{answer["_id"]}?embedded={{"barrier":1}}').get_json()
    assert sweep["barrier"]["name"] == "s[barrier]"
    (task,) = provider.get('/tasks?where={"name":"s[2]"}&embedded={"sweep":1}').get_json()["_items"]
    assert (task["sweep"]["_id"], task["sweep"]["count"]) == (answer["_id"], 4)


def test_progress_counts_states_and_ends(provider: Api, context: Context) -> None:
    sweep = posted(provider, command="true {x}", grid={"x": list(range(8))})["_id"]
    ends = {"succeeded": 0, "failed": 0, "cancelled": 0, "deleted": 0}
    none = {"assigned": 0}
    assert progress(provider, sweep) == ends | none | {"count": 8, "states": {"available": 8}, "fraction": 0.0}
    worker = SimulatedWorker(context)
    worker.claim(5)
    started = list(worker.held)
    worker.end(executions=started[:2])
    worker.end("timed out", executions=started[2:3])
    tasks = tasks_of(provider, sweep)
    provider.post(f"/tasks/{tasks[7]['_id']}/cancel")
    states = {"available": 2, "running": 2, "terminated": 3, "cancelled": 1}
    ends = {"succeeded": 2, "failed": 1, "cancelled": 1, "deleted": 0}
    held = {"assigned": 2}
    assert progress(provider, sweep) == ends | held | {"count": 8, "states": states, "fraction": 0.5}
    report(context, [Report(execution=started[3], fields={"time_started": context.now()})])
    assert progress(provider, sweep) == ends | {**held, "assigned": 1, "count": 8, "states": states, "fraction": 0.5}
    (listed,) = provider.get('/sweeps?projection={"progress":1}').get_json()["_items"]
    assert listed["progress"]["assigned"] == 1


def test_the_etag_of_a_sweep_changes_with_its_tasks(provider: Api) -> None:
    sweep = posted(provider, command="true {x}", grid={"x": [1, 2]})["_id"]
    etag = provider.get(f"/sweeps/{sweep}").headers["ETag"]
    assert provider.get(f"/sweeps/{sweep}", headers={"If-None-Match": etag}).status_code == 304
    provider.post(f"/tasks/{tasks_of(provider, sweep)[0]['_id']}/cancel")
    assert provider.get(f"/sweeps/{sweep}", headers={"If-None-Match": etag}).status_code == 200
    assert provider.post(f"/sweeps/{sweep}/cancel", headers={"If-Match": etag}).status_code == 200
    assert provider.delete(f"/sweeps/{sweep}", headers={"If-Match": '"other"'}).status_code == 412


def test_statistics_are_those_of_its_tasks(provider: Api, context: Context) -> None:
    sweep = posted(provider, **GRID, barrier={})["_id"]
    posted(provider, command="true {x}", grid={"x": [1]})
    SimulatedWorker(context).run_all()
    where = json.dumps({"sweep": sweep})
    own, same = (
        provider.get(path).get_json() for path in (f"/sweeps/{sweep}/statistics", f"/statistics?where={where}")
    )
    assert own == same
    assert (own["total"], own["exit_statuses"]) == (4, {"success": 4})


def test_results_are_a_table_in_the_order_of_the_index(provider: Api, context: Context) -> None:
    sweep = posted(provider, command="true {x} {n}", grid={"x": [3, 1, 2], "n": ["a,b\r\n"]})["_id"]
    worker = SimulatedWorker(context)
    worker.claim()
    first, second, third = sorted(worker.held, key=lambda id: worker.held[id]["index"])
    worker.end(executions=[third], result={"y": math.nan, "x": {"deep": [1, None]}})
    worker.end("failure (exit code 3)", executions=[second], result={"ok": False, "y": 'say "hi"'})
    ids = [task["_id"] for task in tasks_of(provider, sweep)]
    rows = table(provider, sweep)
    assert rows[0] == ["index", "task", "state", "exit_status", "inputs.x", "n", "ok", "y", "result.x"]
    assert rows[1] == ["0", ids[0], "running", "", "3", "a,b\r\n", "", "", ""]
    assert rows[2] == ["1", ids[1], "terminated", "failure (exit code 3)", "1", "a,b\r\n", "false", 'say "hi"', ""]
    assert rows[3] == ["2", ids[2], "terminated", "success", "2", "a,b\r\n", "", "NaN", '{"deep":[1,null]}']
    found = provider.get(f"/sweeps/{sweep}/results").get_json()
    assert found["columns"] == rows[0]
    first_row = {"index": 0, "task": ids[0], "state": "running", "exit_status": None}
    assert found["_items"][0] == first_row | {"inputs.x": 3, "n": "a,b\r\n"}
    assert math.isnan(found["_items"][2]["y"])
    assert found["_items"][2]["result.x"] == {"deep": [1, None]}
    worker.end(executions=[first])


def test_results_that_are_no_objects_or_in_files_have_a_column(provider: Api, context: Context) -> None:
    sweep = posted(provider, command="true {x}", grid={"x": [1, 2, 3]})["_id"]
    worker = SimulatedWorker(context)
    worker.claim()
    left: list[dict[str, Any]] = [{"result": [1, 2]}, {"result_file": "r.json"}, {}]
    for execution, fields in zip(list(worker.held), left, strict=True):
        worker.end(executions=[execution], **fields)
    rows = table(provider, sweep)
    assert [row[4:] for row in rows] == [
        ["x", "result", "result_file"],
        *(["1", "[1,2]", ""], ["2", "", "r.json"], ["3", "", ""]),
    ]


def test_results_of_many_tasks_are_complete(provider: Api) -> None:
    sweep = posted(provider, command="true {x}", grid={"x": list(range(1001))})["_id"]
    rows = table(provider, sweep)
    assert [(row[0], row[4]) for row in rows[1:]] == [(str(index), str(index)) for index in range(1001)]


def test_an_unknown_format_is_refused(provider: Api) -> None:
    sweep = posted(provider, **GRID)["_id"]
    assert provider.get(f"/sweeps/{sweep}/results?format=xml").status_code == 400
    assert provider.get(f"/sweeps/{sweep}/results?where={{}}").status_code == 400
    assert provider.get(f"/sweeps/{ObjectId()}/results").status_code == 404


def test_a_deleted_task_leaves_a_gap_and_nothing_else(provider: Api, context: Context) -> None:
    answer = posted(provider, command="true {x}", grid={"x": [1, 2, 3]}, barrier={})
    sweep = answer["_id"]
    SimulatedWorker(context).run_all()
    gone = tasks_of(provider, sweep)[1]["_id"]
    assert provider.delete(f"/tasks/{gone}").status_code == 200
    assert provider.delete(f"/tasks/{answer['barrier']}").status_code == 200
    now = progress(provider, sweep)
    assert (now["count"], now["deleted"], now["succeeded"], now["fraction"]) == (3, 1, 2, 1.0)
    assert now["barrier"] == "deleted"
    assert [row[0] for row in table(provider, sweep)[1:]] == ["0", "2"]
    assert provider.post(f"/sweeps/{sweep}/retry").get_json()["retried"] == 0
    assert provider.post(f"/sweeps/{sweep}/cancel").get_json()["cancelled"] == 0
    assert provider.delete(f"/sweeps/{sweep}").get_json()["deleted"] == 2


# Who may do what


def test_only_the_owner_and_an_admin_steer_a_sweep(provider: Api, other: Api, admin: Api, worker: Api) -> None:
    sweep = posted(provider, **GRID)["_id"]
    assert other.get(f"/sweeps/{sweep}").status_code == 200
    for api in (other, worker):
        assert api.post(f"/sweeps/{sweep}/cancel").status_code == 403
        assert api.post(f"/sweeps/{sweep}/retry").status_code == 403
        assert api.delete(f"/sweeps/{sweep}").status_code == 403
    assert worker.post("/sweeps", GRID).status_code == 403
    assert admin.post(f"/sweeps/{sweep}/cancel").status_code == 200
    assert admin.delete(f"/sweeps/{sweep}").status_code == 200
    assert admin.delete(f"/sweeps/{sweep}").status_code == 404


class TestPrivate:
    """Where providers see their own alone."""

    @pytest.fixture
    def settings(self) -> ServerSettings:
        return ServerSettings(auth=Auth(private=True), models=Models(path=()))

    def test_others_do_not_see_a_sweep(self, provider: Api, other: Api, admin: Api) -> None:
        sweep = posted(provider, **GRID)["_id"]
        for path in (f"/sweeps/{sweep}", f"/sweeps/{sweep}/results", f"/sweeps/{sweep}/statistics"):
            assert other.get(path).status_code == 404
            assert provider.get(path).status_code == admin.get(path).status_code == 200
        assert other.get("/sweeps").get_json()["_items"] == []
        for act in ("cancel", "retry"):
            assert other.post(f"/sweeps/{sweep}/{act}").status_code == 404
        assert other.delete(f"/sweeps/{sweep}").status_code == 404
