"""`banyan run`, `banyan models`, and what `banyan show` tells of a model task, against recorded answers."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from banyan.cli.app import run
from tests.support.recorded import Said
from tests.unit.test_cli import OTHER, POSTED, TASK, Serve, ended, home, items, serve

__all__ = ["home", "serve"]

NODE = {"_id": "7" * 24, "name": "node1"}
SUM = {"name": "sum", "summary": "Add numbers.", "defaults": {"y": 2}, "workers": [NODE], "server": True}


def test_run_posts_a_model_task_and_prints_its_id(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(POSTED)
    words = ["x=1", "c.y=[1, {}]", "site=north", 'text="3"', "a=b=c", "=5", "nan=NaN", "empty=", "half={"]
    assert run(["run", "sum", *words]) == 0
    assert capsys.readouterr() == (f"{TASK}\n", "")
    sent = app.asked[0].json
    inputs = sent.pop("inputs")
    assert sent == {"model": "sum", "state": "available"}
    assert repr(inputs.pop("nan")) == "nan"
    given = {"x": 1, "c.y": [1, {}], "site": "north", "text": "3", "a": "b=c", "": 5, "empty": "", "half": "{"}
    assert inputs == given


def test_run_takes_the_options_of_submit_and_results_of_other_tasks(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    app = serve(POSTED)
    options = "--name n --cores 2 --memory 1GB --max-retries 2 --timeout 2h --tag t --label a=b --env K=a=b --dir /data"
    options += f" --after {OTHER}:any"
    refs = ["--from", f"x={TASK}", "--from", f"c.y={OTHER}:o.z=1:2", "--from", f"={TASK.upper()}:"]
    assert run(["run", "sum", *options.split(), *refs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == POSTED.body
    assert app.asked[0].json == {
        "model": "sum",
        "name": "n",
        "requested_resources": {"cores": 2, "memory": "1GB"},
        "max_retry_count": 2,
        "timeout": "2h",
        "dependencies": [{"task": OTHER, "on": "any"}],
        "directory": "/data",
        "env": {"K": "a=b"},
        "tags": ["t"],
        "requires": {"a": "b"},
        "state": "available",
        "input_refs": {
            "x": {"task": TASK},
            "c.y": {"task": OTHER, "result": "o.z=1:2"},
            "": {"task": TASK, "result": ""},
        },
    }


def test_inputs_come_from_a_file_or_stdin_and_words_go_over_them(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = serve(POSTED)
    (tmp_path / "in.json").write_text('{"x": 1, "$ref": {"🌳": Infinity}}')
    assert run(["run", "sum", "x=2", "--inputs", str(tmp_path / "in.json")]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO('{"y": 3}'))
    assert run(["run", "sum", "--inputs", "-"]) == 0
    posted = [each for each in app.asked if each.method == "POST"]
    assert [each.json["inputs"] for each in posted] == [{"x": 2, "$ref": {"🌳": float("inf")}}, {"y": 3}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["x"], "'x' is not of the form NAME=JSON"),
        (["--from", "x=1"], "'x=1' is not of the form NAME=ID or NAME=ID:KEY"),
        (["--inputs", "nowhere.json"], "nowhere.json cannot be read as JSON"),
        (["--inputs", "list.json"], "list.json must hold a JSON object"),
    ],
)
def test_wrong_inputs_are_one_sentence_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[1]")
    assert run(["run", "sum", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("result", [{"sum": 3}, {"": float("inf"), "c.x": ["ü"]}, 5, None])
def test_run_wait_prints_the_result_alone_on_one_line(
    serve: Serve, capsys: pytest.CaptureFixture[str], result: Any
) -> None:
    task = {"_id": TASK} if result is None else {"_id": TASK, "result": result}
    serve(POSTED, items(SUM), items(ended("success")), Said(200, task))
    assert run(["run", "sum", "x=1", "--wait"]) == 0
    printed = capsys.readouterr()
    assert (printed.out.count("\n"), json.loads(printed.out)) == (1, result)
    assert printed.err == f"{TASK}\n"


def test_a_large_result_is_fetched_from_its_file(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    found = Said(200, {"_id": TASK, "result_file": "out/result.json"})
    app = serve(POSTED, items(SUM), items(ended("success")), found, Said(200, b'{"big":\n [1, 2]}'))
    assert run(["run", "sum", "--wait"]) == 0
    assert capsys.readouterr().out == '{"big": [1, 2]}\n'
    assert app.asked[-1].path == f"/tasks/{TASK}/files/out/result.json"


def test_run_wait_tells_the_error_on_stderr_and_exits_1(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    error = "Traceback (most recent call last):\n  ..\nValueError: x is missing\n"
    serve(POSTED, items(SUM), items(ended("failure (ValueError)")), items({"_id": "a", "attempt": 1, "error": error}))
    assert run(["run", "sum", "--wait"]) == 1
    assert capsys.readouterr() == ("", f"{TASK}\n{TASK}: failure (ValueError)\n{error}")


def test_run_wait_says_that_no_worker_has_the_model(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    lacks = {"reason": "no_fit", "message": "no active worker can run it; start a worker that has the model 'x'"}
    app = serve(POSTED, Said(200, {"summary": "", "reasons": [lacks]}), items(ended("cancelled")), items())
    assert run(["run", "x", "--wait"]) == 1
    assert f"banyan: warning: {lacks['message']}; until then the task waits\n" in capsys.readouterr().err
    assert app.asked[1].path == f"/tasks/{TASK}/explain"


def test_a_refused_run_names_the_model_and_its_words(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(422, {"_status": "ERR", "_issues": {"model": "sum: ValueError: x is missing"}}))
    assert run(["run", "sum", "--wait"]) == 2
    assert capsys.readouterr() == ("", "banyan: model: sum: ValueError: x is missing\n")


def test_models_are_listed(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {"name": "bad", "summary": "", "defaults": {}, "workers": [], "server": False, "fault": "bad.py, line 1"}
    helpers = [{"name": "parts", "fault": "parts.py has no [task]"}]
    serve(items(SUM, broken), Said(200, {"_items": [], "helpers": helpers}))
    assert run(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["sum", "Add", "numbers.", "node1", "y"]
    assert lines[2].split() == ["bad", "broken:", "bad.py,", "line", "1", "none"]
    assert lines[3:] == ["not a model: parts.py has no [task]"]
    serve(items(SUM, broken))
    assert run(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [SUM, broken]


def test_show_tells_model_inputs_and_where_inputs_come_from(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    refs = {"c.y": {"task": OTHER, "result": "sum"}, "z": {"task": OTHER}}
    task = ended("success") | {"model": "sum", "inputs": {"x": 1}, "input_refs": refs, "name": None}
    serve(Said(200, task), items())
    assert run(["show", TASK]) == 0
    shown = capsys.readouterr().out
    for expected in ('{"x": 1}', f"c.y = 'sum' of the result of task {OTHER}", f"z = the result of task {OTHER}"):
        assert expected in shown
