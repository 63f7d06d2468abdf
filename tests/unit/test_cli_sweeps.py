"""`banyan sweep` against recorded answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from banyan.cli.app import run
from tests.support.recorded import Said
from tests.unit.test_cli import OTHER, TASK, Serve, home, items, serve

__all__ = ["home", "serve"]

SWEEP = "7" * 24
FITS = Said(200, {"summary": "", "reasons": []})
MADE = Said(201, {"_status": "OK", "_id": SWEEP, "_etag": "e", "count": 6})
ENDS = {"succeeded": 0, "failed": 0, "cancelled": 0, "deleted": 0}


def progress(states: dict[str, int], **ends: Any) -> dict[str, Any]:
    count = sum(states.values())
    done = states.get("terminated", 0) + states.get("cancelled", 0)
    return ENDS | {"count": count, "states": states, "fraction": done / count} | ends


def sweep(now: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = {
        "_id": SWEEP,
        "name": "s",
        "command": "run {x}",
        "count": now["count"],
        "grid": {"x": [1, 2], "y": [1, 2, 3]},
    }
    made |= {"queue": "default", "priority": 0, "owner": "alice", "requested_resources": {"cores": 1}}
    return made | {"input_names": ["x", "y"], "progress": now} | fields


def test_submit_posts_a_grid_and_prints_the_id_alone(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(MADE, items({"_id": TASK}), FITS)
    assert run(["sweep", "submit", "--grid", "x=1,2", "--grid", "y=0:3", "--", "run", "{x}", "{y}"]) == 0
    assert capsys.readouterr() == (f"{SWEEP}\n", "6 tasks\n")
    assert (app.asked[0].method, app.asked[0].path) == ("POST", "/sweeps")
    assert app.asked[0].json == {
        "command": ["run", "{x}", "{y}"],
        "directory": os.getcwd(),
        "grid": {"x": [1, 2], "y": [0, 1, 2]},
        "state": "available",
    }
    assert list(app.asked[0].json["grid"]) == ["x", "y"]
    assert "Idempotency-Key" in app.asked[0].headers


def test_points_and_barrier_run_where_they_were_submitted_but_models_in_a_directory_of_their_own(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(*[MADE, items({"_id": TASK}), FITS] * 4)
    monkeypatch.chdir(tmp_path)
    submit = ["sweep", "submit", "--grid", "x=1,2"]
    assert run([*submit, "--barrier", "collect", "run {x}"]) == 0
    assert run([*submit, "--fresh", "--barrier", "collect", "run {x}"]) == 0
    assert run([*submit, "--barrier", "", "run {x}"]) == 0
    assert run([*submit, "--model", "sum", "--barrier", "collect"]) == 0
    sent = [app.asked[index].json for index in (0, 3, 6, 9)]
    here = str(tmp_path)
    assert [each.get("directory") for each in sent] == [here, None, here, None]
    barriers = [{"command": "collect", "directory": here}, {"command": "collect"}, {}]
    assert [each["barrier"] for each in sent] == [*barriers, barriers[0]]


def test_submit_sends_every_option(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(Said(201, {**MADE.body, "seed": 5, "barrier": TASK}), items({"_id": TASK}), FITS)
    options = (
        "--samples 6 --range x=0:1 --range k=1:10:log --method sobol --seed 5 --input n=3 --input s=text"
        " --name n --queue q --priority 3 --cores 0.5 --max-retries 2 --retry-delay 10s --timeout 2h --env A=b"
        f" --tag t --label disk=ssd --hold --after {OTHER}:any"
    )
    assert (
        run(["sweep", "submit", *options.split(), "--dir", str(tmp_path), "--barrier", "collect all", "run {x}"]) == 0
    )
    assert capsys.readouterr() == (f"{SWEEP}\n", f"6 tasks, seed 5, barrier {TASK}\n")
    ranges = {"x": {"low": 0, "high": 1}, "k": {"low": 1, "high": 10, "scale": "log"}}
    assert app.asked[0].json == {
        "command": "run {x}",
        "samples": {"method": "sobol", "count": 6, "inputs": ranges, "seed": 5},
        "inputs": {"n": 3, "s": "text"},
        "name": "n",
        "queue": "q",
        "priority": 3,
        "tags": ["t"],
        "hold": True,
        "requested_resources": {"cores": 0.5},
        "max_retry_count": 2,
        "retry_delay": "10s",
        "timeout": "2h",
        "env": {"A": "b"},
        "requires": {"disk": "ssd"},
        "dependencies": [{"task": OTHER, "on": "any"}],
        "directory": str(tmp_path),
        "barrier": {"command": "collect all", "directory": str(tmp_path)},
        "state": "available",
    }


def test_submit_posts_a_model_with_points_and_says_when_nobody_has_it(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = {"reason": "no_fit", "message": "no active worker can run it; start a worker that has the model 'm'"}
    app = serve(MADE, items({"_id": TASK}), Said(200, {"summary": "", "reasons": [lacks]}))
    (tmp_path / "p.csv").write_text("x,note\n1,a\n2,\n")
    assert run(["sweep", "submit", "--model", "m", "--points", str(tmp_path / "p.csv"), "--barrier", "", "--json"]) == 0
    assert app.asked[0].json == {
        "model": "m",
        "points": [{"x": 1, "note": "a"}, {"x": 2}],
        "barrier": {},
        "state": "available",
    }
    printed, told = capsys.readouterr()
    assert json.loads(printed) == MADE.body
    assert told == f"banyan: warning: {lacks['message']}; until then the task waits\n"
    assert json.loads(app.asked[1].query["where"]) == {"sweep": SWEEP}
    assert app.asked[2].path == f"/tasks/{TASK}/explain"


@pytest.mark.parametrize(
    "words",
    [
        ["--grid", "x=1"],
        ["--grid", "x=1", "--model", "m", "--", "run"],
        ["--", "run"],
        ["--grid", "x=1", "--samples", "2", "--", "run"],
        ["--samples", "0", "--range", "x=0:1", "--", "run"],
        ["--grid", "x=1", "--after", "nothing", "--", "run"],
        ["--points", "/nowhere", "--", "run"],
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    serve: Serve, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    app = serve(MADE)
    assert run(["sweep", "submit", *words]) == 2
    assert "banyan: " in capsys.readouterr().err
    assert app.asked == []


def test_a_refused_sweep_is_explained(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(422, {"_status": "ERR", "_issues": {"points": {"3": {"model": "sum: ValueError: no"}}}}))
    assert run(["sweep", "submit", "--grid", "x=1,2", "run {x}"]) == 2
    assert capsys.readouterr().err == "banyan: points: (3: (model: sum: ValueError: no))\n"


def test_wait_exits_0_when_all_succeeded(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    running = sweep(progress({"running": 2, "available": 4}))
    done = sweep(progress({"terminated": 6}, succeeded=6))
    app = serve(MADE, items({"_id": TASK}), FITS, Said(200, running), Said(200, done))
    assert run(["sweep", "submit", "--wait", "--grid", "x=1,2", "run {x}"]) == 0
    assert capsys.readouterr() == (f"{SWEEP}\n", "6 tasks\n6 of 6 tasks succeeded\n")
    assert [asked.path for asked in app.asked[3:]] == [f"/sweeps/{SWEEP}"] * 2


def test_wait_names_those_that_failed_and_exits_1(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    done = sweep(progress({"terminated": 5, "cancelled": 1}, succeeded=4, failed=1, cancelled=1))
    failed = {"_id": TASK, "index": 3, "exit_status": "failure (SIGKILL)"}
    app = serve(Said(200, done), items(failed))
    assert run(["sweep", "wait", SWEEP]) == 1
    told = f"[3] {TASK}: failure (SIGKILL)\n4 of 6 tasks succeeded, 1 failed, 1 cancelled\n"
    assert capsys.readouterr() == ("", told)
    where = {"sweep": SWEEP, "state": "terminated", "exit_status": {"$ne": "success"}}
    assert (json.loads(app.asked[1].query["where"]), app.asked[1].query["sort"]) == (where, "index")


def test_wait_waits_for_the_barrier_and_fails_with_it(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    now = {state: progress({"terminated": 6}, succeeded=6, barrier=state) for state in ("running", "terminated")}
    serve(
        *(Said(200, sweep(each, barrier=TASK)) for each in now.values()),
        Said(200, {"_id": TASK, "exit_status": "timed out"}),
    )
    assert run(["sweep", "wait", SWEEP, "--json"]) == 1
    printed, told = capsys.readouterr()
    assert json.loads(printed)["progress"]["barrier"] == "terminated"
    assert told == f"6 of 6 tasks succeeded\nbarrier {TASK}: timed out\n"


def test_wait_gives_up_after_the_timeout(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(200, sweep(progress({"running": 1, "terminated": 2}, succeeded=2))))
    assert run(["sweep", "wait", SWEEP, "--timeout", "0"]) == 1
    assert capsys.readouterr().err == "banyan: 2 of 3 tasks have ended after 0 s\n"


def test_list_shows_how_far_sweeps_are(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    first = sweep(progress({"terminated": 995, "running": 5}, succeeded=990, failed=5, assigned=2))
    second = sweep(
        progress({"terminated": 2}, succeeded=2, barrier="available"), _id=TASK, name=None, command=["a", "{x}"]
    )
    app = serve(items(first, second))
    assert run(["sweep", "list", "--where", '{"owner": "alice"}', "-n", "5"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "NAME", "TASKS", "DONE", "FAILED", "NOW"]
    assert rows[0].split() == [SWEEP, "s", "1000", "99%", "5", "3", "running,", "5", "failed"]
    assert rows[1].split() == [TASK, "a", "{x}", "2", "100%", "barrier", "available"]
    assert json.loads(app.asked[0].query["projection"])["progress"] == 1
    assert app.asked[0].query["sort"] == "-_id"


def test_show_draws_the_progress_and_names_what_failed(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    now = progress({"terminated": 4, "running": 3}, succeeded=1, failed=3, assigned=1, barrier="inactive")
    statistics = {name: {"min": 1.0, "median": 2.0, "p95": 3.0, "max": 4.0} for name in ("wait_seconds", "run_seconds")}
    failed = {"_id": TASK, "index": 3, "exit_status": "timed out", "inputs": {"x": 2}}
    serve(Said(200, sweep(now, barrier=OTHER)), Said(200, statistics), items(failed))
    assert run(["sweep", "show", SWEEP]) == 0
    shown = capsys.readouterr().out
    for text in (
        *("2 running, 3 failed", "run {x}", "7: every combination of x (2), y (3)", f"{OTHER} (inactive)"),
        *(
            "57% of 7",
            "1 succeeded",
            "3 failed",
            "1 assigned  2 running",
            f'[3]     {TASK}  timed out    {{"x": 2}}',
            "and 2 more",
        ),
    ):
        assert text in shown
    assert (shown.count("█"), shown.count("░")) == (6 + 17, 17)


@pytest.mark.parametrize(
    ("fields", "points"),
    [
        (
            {"samples": {"method": "sobol", "count": 6, "seed": 9, "inputs": {"x": [0, 1]}}},
            "6 samples of x (sobol, seed 9)",
        ),
        ({}, "6 of x, y"),
    ],
)
def test_show_says_where_the_points_come_from(
    serve: Serve, capsys: pytest.CaptureFixture[str], fields: dict[str, Any], points: str
) -> None:
    made = sweep(progress({"available": 6}), model="m", command=None) | fields
    del made["grid"]
    serve(Said(200, made), Said(200, {}))
    assert run(["sweep", "show", SWEEP]) == 0
    assert points in capsys.readouterr().out


ROWS = {
    "columns": ["index", "task", "state", "exit_status", "x", "y"],
    "_items": [
        {"index": 0, "task": TASK, "state": "terminated", "exit_status": "success", "x": "a b", "y": [1, 2]},
        {"index": 1, "task": OTHER, "state": "running", "exit_status": None, "x": 0.5},
    ],
}


def test_results_are_shown_as_a_table(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(200, ROWS))
    assert run(["sweep", "results", SWEEP]) == 0
    printed, told = capsys.readouterr()
    lines = [line.rstrip() for line in printed.splitlines()]
    assert lines == ["#  STATUS   x         y", "0  success  a b       [1, 2]", "1  running  0.5"]
    assert told == ""
    assert run(["sweep", "results", SWEEP, "-n", "1"]) == 0
    assert "1 of 2 rows" in capsys.readouterr().err


def test_results_are_printed_or_saved_whole(
    serve: Serve, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    app = serve(Said(200, b"index\r\n0\r\n"))
    assert run(["sweep", "results", SWEEP, "--csv"]) == 0
    assert capsysbinary.readouterr().out == b"index\r\n0\r\n"
    assert app.asked[0].query == {"format": "csv"}
    assert run(["sweep", "results", SWEEP, "-o", str(tmp_path / "r.csv")]) == 0
    assert (tmp_path / "r.csv").read_bytes() == b"index\r\n0\r\n"
    assert run(["sweep", "results", SWEEP, "-o", str(tmp_path / "no" / "r.csv")]) == 2
    assert run(["sweep", "results", SWEEP, "--csv", "--json"]) == 2
    serve(Said(200, ROWS))
    assert run(["sweep", "results", SWEEP, "--json", "-o", str(tmp_path / "r.json")]) == 0
    assert json.loads((tmp_path / "r.json").read_bytes()) == ROWS


def test_cancel_and_delete_say_how_many(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(
        Said(200, {"cancelled": 4, "progress": progress({"cancelled": 6})}), Said(200, {"deleted": 6}), Said(200, {})
    )
    assert run(["sweep", "cancel", SWEEP]) == 0
    assert run(["sweep", "delete", SWEEP]) == 0
    assert capsys.readouterr().out == "4 of 6 tasks cancelled\n6 tasks deleted\n"
    assert [(asked.method, asked.path) for asked in app.asked] == [
        ("POST", f"/sweeps/{SWEEP}/cancel"),
        ("DELETE", f"/sweeps/{SWEEP}"),
    ]
    for act in ("cancel", "delete"):
        assert run(["sweep", act, SWEEP, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {}


def test_retry_tells_what_is_refused_and_exits_2_then(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    refused = {"_id": TASK, "index": 1, "_error": {"code": 422, "message": "state: it cannot"}}
    serve(
        Said(200, {"retried": 3, "refused": 0, "_items": []}),
        Said(200, {"retried": 2, "refused": 7, "_items": [refused]}),
    )
    assert run(["sweep", "retry", SWEEP]) == 0
    assert capsys.readouterr() == ("3 tasks run again\n", "")
    assert run(["sweep", "retry", SWEEP]) == 2
    told = "banyan: state: it cannot\nbanyan: sweep: 7 tasks cannot be retried\n"
    assert capsys.readouterr() == ("2 tasks run again\n", told)


def test_an_id_that_is_none_is_refused_before_anything_is_asked(serve: Serve) -> None:
    app = serve(MADE)
    for command in ("show", "results", "wait", "cancel", "retry", "delete"):
        assert run(["sweep", command, "5"]) == 2
    assert app.asked == []
