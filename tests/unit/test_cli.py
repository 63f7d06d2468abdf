"""The commands against recorded answers: what they send, print, and exit with."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from banyan.cli.app import run
from tests.support.recorded import RecordedApp, Said, served

TASK = "5" * 24
OTHER = "6" * 24
POSTED = Said(201, {"_status": "OK", "_id": TASK, "_etag": "e", "state": "available"})

Serve = Callable[..., RecordedApp]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any settings of Banyan."""
    for name in ("BANYAN_URL", "BANYAN_TOKEN", "BANYAN_TOKEN_FILE", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a stand-in server that gives these answers, and names it to the commands."""
    with ExitStack() as stack:

        def start(*answers: Said) -> RecordedApp:
            app = RecordedApp(*answers)
            monkeypatch.setenv("BANYAN_URL", stack.enter_context(served(app)))
            monkeypatch.setenv("BANYAN_TOKEN", "secret")
            return app

        yield start


def ended(exit_status: str, task: str = TASK) -> dict[str, Any]:
    return {"_id": task, "state": "terminated", "exit_status": exit_status, "name": "a"}


def items(*documents: dict[str, Any]) -> Said:
    return Said(200, {"_items": list(documents), "_meta": {"total": len(documents), "page": 1}})


def test_submit_prints_the_id_alone(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(POSTED)
    assert run(["submit", "--", "sh", "-c", "echo hi; exit 3"]) == 0
    assert capsys.readouterr() == (f"{TASK}\n", "")
    sent = {"command": ["sh", "-c", "echo hi; exit 3"], "directory": os.getcwd(), "state": "available"}
    assert app.asked[0].json == sent
    assert app.asked[0].headers["Authorization"] == "Bearer secret"


def listed(*paths: bytes) -> Said:
    files = [
        {
            "path": path.decode(errors="replace"),
            "size": len(path),
            "modified": "Tue, 02 Apr 2013 10:29:13 GMT",
            "url": f"/tasks/{TASK}/files/{quote(path)}?attempt=1",
        }
        for path in paths
    ]
    return Said(200, {"_items": files, "attempt": 1, "excess": {}})


def test_files_are_listed_so_that_each_is_one_line(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(listed(b"out/a.csv", b"line\nbreak", b"latin-\xe9", b"\x1b[31mred", "ü".encode()))
    assert run(["files", TASK, "--attempt", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["out/a.csv", "line\\nbreak", "latin-\\xe9", "\\x1b[31mred", "ü"]
    assert (app.asked[0].path, app.asked[0].query) == (f"/tasks/{TASK}/files/", {"attempt": "1"})


def test_one_file_is_printed_as_it_is(serve: Serve, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    app = serve(Said(206, b"\xff\x00\n"), Said(416, b""))
    assert run(["files", TASK, "latin-\udce9"]) == 0
    assert capfdbinary.readouterr().out == b"\xff\x00\n"
    assert app.asked[0].path.encode("latin-1") == f"/tasks/{TASK}/files/latin-".encode() + b"\xe9"
    assert [asked.headers["Range"] for asked in app.asked] == ["bytes=0-16777215", "bytes=3-16777218"]


def test_all_files_are_saved_under_their_own_names(serve: Serve, tmp_path: Path) -> None:
    serve(listed(b"d/latin-\xe9", b"line\nbreak"), Said(206, b"1"), Said(416, b""), Said(206, b"2"), Said(416, b""))
    assert run(["files", TASK, "-o", str(tmp_path / "saved")]) == 0
    assert (Path(os.fsdecode(os.fsencode(tmp_path) + b"/saved/d/latin-\xe9"))).read_bytes() == b"1"
    assert (tmp_path / "saved" / "line\nbreak").read_bytes() == b"2"


@pytest.mark.parametrize("path", [b"../up", b"/etc/passwd", b"a/../../b", b"a//b", b"."])
def test_a_server_cannot_have_files_saved_elsewhere(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: bytes
) -> None:
    serve(listed(path), Said(206, b"1"), Said(416, b""))
    assert run(["files", TASK, "-o", str(tmp_path / "saved")]) == 2
    assert "is not the path of a file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["submit", "--", "echo", "a\udcff"], r"'a\xff'"),
        (["submit", "--env", "A=\udcff", "true"], r"'\xff'"),
        (["queues", "pause", "b\udcffc"], r"'b\xffc'"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_named(
    serve: Serve, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    app = serve(POSTED)
    assert run(arguments) == 2
    assert capsys.readouterr().err.startswith(f"banyan: {word} is not UTF-8")
    assert app.asked == []


def test_submit_sends_every_option(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = serve(POSTED)
    (tmp_path / "in.txt").write_text("to read")
    monkeypatch.chdir(tmp_path)
    options = (
        "--name n --queue q --priority 3 --cores 0.5 --gpus 1 --scratch 1GB --max-retries 2 --retry-delay 10s"
        " --timeout 2h --dir work --env A=b=c --stdin in.txt --tag x --tag y --label disk=ssd --hold --json"
        f" --after {TASK} --after {OTHER}:failure"
    )
    assert run(["submit", *options.split(), "--memory", "1 GiB", "one line | wc"]) == 0
    assert app.asked[0].json == {
        "name": "n",
        "command": "one line | wc",
        "queue": "q",
        "priority": 3,
        "requested_resources": {"cores": 0.5, "memory": "1 GiB", "gpus": 1, "scratch": "1GB"},
        "max_retry_count": 2,
        "retry_delay": "10s",
        "timeout": "2h",
        "dependencies": [TASK, {"task": OTHER, "on": "failure"}],
        "directory": str(tmp_path / "work"),
        "env": {"A": "b=c"},
        "stdin": "to read",
        "tags": ["x", "y"],
        "requires": {"disk": "ssd"},
        "hold": True,
        "state": "available",
    }
    assert json.loads(capsys.readouterr().out) == POSTED.body


@pytest.mark.parametrize(
    ("options", "below"),
    [
        ((), "here"),
        (("--dir", "."), "here"),
        (("--dir", ".."), "here/.."),
        (("--dir", "run 1"), "here/run 1"),
        (("--fresh",), None),
    ],
)
def test_a_command_runs_where_it_was_submitted_unless_it_is_said_otherwise(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], below: str | None
) -> None:
    app = serve(POSTED)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run(["submit", *options, "--", "true"]) == 0
    assert app.asked[0].json.get("directory") == (below and f"{tmp_path}/{below}")


def test_a_group_runs_nowhere(serve: Serve) -> None:
    app = serve(POSTED)
    assert run(["submit", "--name", "all"]) == 0
    assert app.asked[0].json == {"name": "all", "state": "available"}


def test_a_directory_that_cannot_be_sent_is_named_with_the_way_out(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = serve(POSTED)
    gone, odd = tmp_path / "gone", Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin-\xe9"))
    for directory in (gone, odd):
        directory.mkdir()
        monkeypatch.chdir(directory)
        if directory == gone:
            directory.rmdir()
        assert run(["submit", "--", "true"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert ("does not exist any more" if directory == gone else "latin-\\xe9' is no UTF-8") in said
        assert "--dir names another directory, --fresh takes an empty one" in said
        assert run(["submit", "--fresh", "--", "true"]) == 0
        assert run(["submit", "--dir", "relative", "--", "true"]) == 2
    assert run(["submit", "--dir", "/", "--fresh", "--", "true"]) == 2
    assert "does not go with --fresh" in capsys.readouterr().err
    assert run(["submit", "--dir", "/tmp", "--", "true"]) == 0
    posted = [asked.json.get("directory") for asked in app.asked if asked.method == "POST"]
    assert posted == [None, None, "/tmp"]


def test_export_sends_the_environment_without_our_secrets(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    app = serve(POSTED)
    monkeypatch.setenv("LICENSE_SERVER", "here")
    assert run(["submit", "--export", "--env", "LICENSE_SERVER=there", "true"]) == 0
    sent = app.asked[0].json["env"]
    assert sent["LICENSE_SERVER"] == "there"
    assert not [name for name in sent if name.startswith("BANYAN_")]


@pytest.mark.parametrize(
    ("exit_status", "code"), [("success", 0), ("failure (exit code 3)", 1), ("cancelled", 1), ("timed out", 1)]
)
def test_submit_wait_exits_as_the_task_ends(
    serve: Serve, capsys: pytest.CaptureFixture[str], exit_status: str, code: int
) -> None:
    serve(POSTED, items(ended(exit_status)))
    assert run(["submit", "--wait", "true"]) == code
    assert capsys.readouterr() == (f"{TASK}\n", f"{TASK}: {exit_status}\n")


@pytest.mark.parametrize(
    ("attempt", "lines"),
    [
        ({"stderr_tail": "one\n\x1b[31mtwo\x1b[0m\t3\n"}, ["one", "two 3"]),
        ({"stderr_tail": "", "error": "a traceback\nof two lines"}, ["a traceback", "of two lines"]),
        ({"stderr_tail": "said", "error": "result: no JSON"}, ["said", "result: no JSON"]),
        ({}, []),
        (
            {"stderr_tail": "\n".join(f"line {number}" for number in range(30))},
            [*(f"line {number}" for number in range(20, 30)), f"(all of it: banyan logs --stderr {TASK})"],
        ),
    ],
)
def test_a_failure_that_is_waited_for_shows_the_last_lines_of_its_stderr(
    serve: Serve, capsys: pytest.CaptureFixture[str], attempt: dict[str, Any], lines: list[str]
) -> None:
    failed = ended("failure (exit code 3)") | {"execution": OTHER}
    app = serve(POSTED, items(), items(failed), items({"task": TASK, **attempt}))
    assert run(["submit", "--wait", "true"]) == 1
    told = [f"{TASK}: failure (exit code 3)", *(f"  {line}" for line in lines)]
    assert capsys.readouterr() == (f"{TASK}\n", "".join(f"{line}\n" for line in told))
    assert json.loads(app.asked[-1].query["where"]) == {"_id": {"$in": [OTHER]}}


def test_of_several_that_failed_each_shows_a_few_lines(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    failed = [ended("failure (exit code 3)", task) | {"execution": task} for task in (TASK, OTHER)]
    wrote = [{"task": task, "stderr_tail": "a\nb\nc\nd"} for task in (TASK, OTHER)]
    serve(items(*failed), items(*wrote))
    assert run(["wait", TASK, OTHER]) == 1
    more = "  b\n  c\n  d\n  (all of it: banyan logs --stderr {})\n"
    each = [f"{task}: failure (exit code 3)\n{more.format(task)}" for task in (TASK, OTHER)]
    assert capsys.readouterr().err == f"{''.join(each)}0 of 2 tasks succeeded\n"


@pytest.mark.parametrize("command", [["submit"], ["sweep", "submit", "--grid", "x=1"]])
def test_the_result_may_come_from_what_is_printed(serve: Serve, command: list[str]) -> None:
    app = serve(Said(201, {**POSTED.body, "count": 1}), items())
    assert run([*command, "--result", "stdout", "--", "echo", "{x}"]) == 0
    assert app.asked[0].json["result_from"] == "stdout"
    assert run([*command, "--result", "stderr", "--", "echo", "{x}"]) == 2


def test_wait_for_several_names_those_that_failed(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(items(ended("success"), ended("failure (SIGKILL)", OTHER)))
    assert run(["wait", TASK, OTHER]) == 1
    assert capsys.readouterr() == ("", f"{OTHER}: failure (SIGKILL)\n1 of 2 tasks succeeded\n")


def test_wait_gives_up_at_its_timeout(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(items({"_id": TASK, "state": "running"}))
    assert run(["wait", "--timeout", "0", TASK]) == 1
    assert "have not ended after 0 s" in capsys.readouterr().err


def test_list_asks_for_the_newest_and_shows_how_they_stand(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    times = {"time_started": "Tue, 02 Apr 2013 10:29:13 GMT", "time_terminated": "Tue, 02 Apr 2013 10:31:18 GMT"}
    app = serve(items(ended("out of memory") | times | {"peak_memory_bytes": 3 << 30, "queue": "default"}))
    assert run(["list", "--state", "terminated", "--where", '{"name": "a"}', "-n", "3"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == [TASK, "a", "default", "out", "of", "memory", "2m", "05s", "3.00", "GiB"]
    query = app.asked[0].query
    assert (query["sort"], query["max_results"]) == ("-_id", "3")
    assert json.loads(query["where"]) == {"name": "a", "state": "terminated"}


def test_show_tells_the_end_the_attempts_and_what_went_wrong(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    task = ended("failure (exit code 3)") | {"command": ["sh", "-c", "exit 3"], "requested_resources": {"cores": 1}}
    attempt = {"attempt": 1, "host": "node1", "exit_status": "failure (exit code 3)", "stderr_tail": "[no] such file"}
    serve(Said(200, task), items(attempt))
    assert run(["show", TASK]) == 0
    shown = capsys.readouterr().out
    for expected in (TASK, "failure (exit code 3)", "sh -c 'exit 3'", "node1", "[no] such file", "cores 1"):
        assert expected in shown


def test_logs_prints_the_bytes_as_they_are(serve: Serve, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    app = serve(Said(200, b"hi\n\xff[bold]"))
    assert run(["logs", "--stderr", "--attempt", "2", TASK]) == 0
    assert capfdbinary.readouterr().out == b"hi\n\xff[bold]"
    assert (app.asked[0].path, app.asked[0].query) == (f"/tasks/{TASK}/stderr", {"attempt": "2"})


def test_explain_prints_the_summary_and_each_further_reason(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [{"reason": "held", "message": "it is held"}, {"reason": "queue", "message": "queue q is paused"}]
    serve(Said(200, {"state": "available", "summary": "it is held", "reasons": reasons}))
    assert run(["explain", TASK]) == 0
    assert capsys.readouterr().out == "it is held\n  - queue q is paused\n"


def test_explain_shows_the_chain_and_what_the_root_wrote(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    root = {"_id": OTHER, "name": "a", "state": "terminated", "exit_status": "failure (exit code 3)"}
    root |= {"stderr_tail": "one\n[bold]boom"}
    chain = [root, {"_id": "7" * 24, "missing": True}, {"_id": TASK, "name": "c", "state": "cancelled"}]
    reason = {"reason": "cancelled", "message": "it was cancelled", "root": root, "chain": chain, "help": "try again"}
    serve(Said(200, {"state": "cancelled", "summary": "it was cancelled", "reasons": [reason]}))
    assert run(["explain", TASK]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "it was cancelled",
        "",
        "CHAIN NAME HOW IT STANDS",
        f"{OTHER} a failure (exit code 3)",
        f"{'7' * 24} deleted",
        f"{TASK} c cancelled",
        "",
        f"last lines of stderr of a {OTHER}",
        "one",
        "[bold]boom",
        "",
        "helps: try again",
    ]


def test_explain_without_an_id_shows_reasons_what_helps_and_the_workers(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = [
        {"reason": "held", "message": "they are held", "help": "let them go", "count": 1200, "example": TASK},
        {"reason": "waiting", "message": "all workers that fit are busy", "count": 3},
    ]
    worker = {"_id": OTHER, "name": "w", "host": "node", "state": "active", "running": 2, "assigned": 1}
    worker |= {"cores": {"total": 4, "used": 3.5, "free": 0.5}, "last_seen": "Tue, 02 Apr 2024 10:00:00 GMT"}
    worker |= {"silent": True, "note": "it serves a queue that is not there"}
    answer = {"summary": "1203 tasks wait, 2 tasks run; 1200 of them: they are held", "waiting": 1203, "running": 2}
    app = serve(Said(200, answer | {"reasons": reasons, "workers": [worker], "worker_count": 3, "more_reasons": 2}))
    assert run(["explain"]) == 0
    assert app.asked[0].path == "/explain"
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:9] == [
        "1203 tasks wait, 2 tasks run",
        "",
        "TASKS WHY",
        "1200 they are held",
        "helps: let them go",
        f"for example {TASK}",
        "3 all workers that fit are busy",
        "and 2 further reasons",
        "",
    ]
    assert lines[9] == "WORKER STATE CORES USED FREE RUNNING ASSIGNED LAST HEARD OF"
    assert lines[10].startswith("w on node active 3.5 0.5 2 1 ")
    assert lines[11:] == ["w: it serves a queue that is not there", "and 2 further workers"]


def test_submit_warns_when_no_worker_could_ever_take_it(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [
        {"reason": "dependencies", "message": "it waits for a parent"},
        {"reason": "no_fit", "message": "no active worker can run it; request at most 2 cores"},
    ]
    app = serve(POSTED, Said(200, {"summary": "it waits", "reasons": reasons}))
    assert run(["submit", "--cores", "99", "--", "true"]) == 0
    told = "banyan: warning: no active worker can run it; request at most 2 cores; until then the task waits\n"
    assert capsys.readouterr() == (f"{TASK}\n", told)
    assert app.asked[1].path == f"/tasks/{TASK}/explain"
    serve(POSTED, Said(503, {"_status": "ERR"}))
    assert run(["submit", "--", "true"]) == 0
    assert capsys.readouterr() == (f"{TASK}\n", "")


def test_a_task_that_its_worker_has_not_begun_is_called_assigned(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = {"_id": OTHER, "state": "running", "name": "b", "time_started": "Tue, 02 Apr 2024 10:00:00 GMT"}
    serve(items({"_id": TASK, "state": "running", "name": "a"}, begun))
    assert run(["list"]) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["assigned", "running"]


QUEUES = items({"name": "default"}, {"name": "gpu"})
MODELS = items({"name": "sum"})


@pytest.mark.parametrize(
    ("arguments", "answers", "said"),
    [
        (["list", "--queue", "gpus"], [items(), QUEUES], "--queue: there is no queue 'gpus'; did you mean 'gpu'?"),
        (["list", "--where", '{"queue": {"$in": ["gpu", "nope"]}}'], [items(), QUEUES], "no queue 'nope'; there are:"),
        (["list", "--where", '{"model": "smu"}'], [items(), MODELS], "no model 'smu'; did you mean 'sum'?"),
        (["list", "--state", "runing"], [], "there is no state 'runing'; did you mean 'running'?"),
        (["list", "--state", "done"], [], "did you mean 'terminated'?"),
        (["cancel", "--where", '{"queue": "gp"}'], [Said(200, {"matched": 0, "updated": 0}), QUEUES], "queue 'gp'"),
        (["stats", "--where", '{"queue": "defualt"}'], [Said(200, {"total": 0}), QUEUES], "did you mean 'default'?"),
        (["sweep", "list", "--where", '{"queue": "x"}'], [items(), QUEUES], "there is no queue 'x'"),
    ],
)
def test_a_name_that_does_not_exist_is_told_with_the_one_that_was_meant(
    serve: Serve, capsys: pytest.CaptureFixture[str], arguments: list[str], answers: list[Said], said: str
) -> None:
    serve(*answers)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, said in err) == ("", True), err


def test_an_empty_queue_is_no_mistake(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(items(), QUEUES)
    assert run(["list", "--queue", "gpu"]) == 0
    assert capsys.readouterr().err == ""


def test_cancel_goes_on_after_an_unknown_task_and_says_so(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = {"_status": "ERR", "_id": TASK, "_error": {"code": 404, "message": "there is no such task"}}
    done = {"_status": "OK", "_id": OTHER, "state": "cancelled"}
    app = serve(Said(200, {"matched": 2, "cancelled": 1, "refused": 1, "_items": [unknown, done]}))
    assert run(["cancel", TASK, OTHER, TASK]) == 2
    assert [(asked.path, asked.json) for asked in app.asked] == [("/tasks/cancel", {"ids": [TASK, OTHER]})]
    assert capsys.readouterr() == (f"{OTHER} cancelled\n", "banyan: there is no such task\n")


@pytest.mark.parametrize(
    ("words", "method", "path"),
    [(["cancel"], "POST", "/tasks/cancel"), (["retry"], "POST", "/tasks/retry"), (["hold"], "PATCH", "/tasks")],
)
def test_many_ids_are_sent_in_batches(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, words: list[str], method: str, path: str
) -> None:
    ids = [f"{number:024x}" for number in range(2500)]
    app = serve(Said(200, {"matched": 0, "cancelled": 0, "retried": 0, "refused": 0, "_items": []}))
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(ids)))
    assert run([*words, "-"]) == 0
    assert {(asked.method, asked.path) for asked in app.asked} == {(method, path)}
    named = [asked.json["ids"] if method == "POST" else [each["_id"] for each in asked.json] for asked in app.asked]
    assert [len(each) for each in named] == [1000, 1000, 500]
    assert [id for each in named for id in each] == ids


def test_all_that_match_are_cancelled_by_one_request(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(Said(200, {"_status": "OK", "matched": 3, "cancelled": 2, "refused": 0, "_items": []}))
    assert run(["cancel", "--where", '{"tags": "old"}']) == 0
    assert capsys.readouterr().out == "2 of 3 matching tasks cancelled\n"
    [asked] = app.asked
    assert (asked.method, asked.path, asked.json) == ("POST", "/tasks/cancel", {"where": {"tags": "old"}})


@pytest.mark.parametrize(
    ("words", "method", "count"), [(["delete"], "DELETE", "deleted"), (["edit", "priority=2"], "PATCH", "updated")]
)
def test_a_filter_that_names_all_is_sent(serve: Serve, words: list[str], method: str, count: str) -> None:
    app = serve(Said(200, {"_status": "OK", "matched": 3, count: 2, "_items": []}))
    assert run([*words, "--where", "{}"]) == 0
    assert [(asked.method, asked.path, asked.query) for asked in app.asked] == [(method, "/tasks", {"where": "{}"})]


def test_a_new_user_gets_the_token_on_stdout(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(Said(201, {"_status": "OK", "name": "ann", "role": "worker", "token": "shown once"}))
    assert run(["user", "add", "ann", "--role", "worker"]) == 0
    assert capsys.readouterr().out == "shown once\n"
    assert app.asked[0].json == {"name": "ann", "role": "worker"}


def test_queues_are_listed_and_paused(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(items({"name": "gpu", "paused": True, "max_running": 3, "weight": 2.0}))
    assert run(["queues"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["gpu", "paused", "3", "2"]
    assert run(["queues", "resume", "gpu"]) == 0
    assert (app.asked[1].method, app.asked[1].path, app.asked[1].json) == ("PATCH", "/queues/gpu", {"paused": False})


def test_stats_show_counts_times_and_memory(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    spread = {"min": 0.5, "median": 2.0, "p95": 61.0, "max": 7200.0}
    statistics = {
        "total": 7,
        "states": {"running": 5, "terminated": 2},
        "queues": {"default": {"running": 4, "terminated": 2}, "night": {"running": 1}},
        "assigned": {"default": 3},
        "exit_statuses": {"success": 2},
        "wait_seconds": spread,
        "run_seconds": {"min": None, "median": None, "p95": None, "max": None},
        "peak_memory_bytes": {"min": 1 << 20, "median": 1 << 20, "p95": 1 << 20, "max": 1 << 30},
        "rates": {"submitted_per_minute": 3.0, "ended_per_minute": 2.0},
        "workers": {"active": 1},
    }
    serve(Said(200, statistics))
    assert run(["stats"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ["QUEUE", "ASSIGNED", "RUNNING", "TERMINATED", "TOTAL"],
        ["default", "3", "1", "2", "6"],
        ["night", "0", "1", "0", "1"],
        ["all", "3", "2", "2", "7"],
    ]
    assert ["wait", "0.50s", "2.00s", "1m", "01s", "2h", "00m"] in lines
    assert ["success", "2"] in lines
    assert ["workers:", "active", "1"] in lines


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("process", "true peak 120.00 MiB"),
        ("samples", "peak 120.00 MiB"),
        ("control group", "peak 120.00 MiB, with cached files"),
        ("largest process", "120.00 MiB in the largest process, all together perhaps more"),
        (None, "peak 120.00 MiB"),
    ],
)
def test_memory_draws_the_curve_in_the_order_of_time_and_says_what_the_peak_is(
    serve: Serve, capsys: pytest.CaptureFixture[str], source: str | None, told: str
) -> None:
    said = {"peak_memory_source": source} if source else {}
    samples = [
        {"_id": str(i), "time": f"Tue, 02 Apr 2013 10:29:{second} GMT", "resident_memory_bytes": size << 20}
        for i, (second, size) in enumerate([("13", 10), ("15", 100), ("14", 50)])
    ]
    serve(items(*samples), Said(200, {"_id": TASK, "peak_memory_bytes": 120 << 20, **said}))
    assert run(["memory", TASK]) == 0
    curve, summary = capsys.readouterr().out.splitlines()
    assert curve == "▂▅█"
    assert summary == f"3 samples over 2.00s, the highest 100.00 MiB; {told}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "--colour", "x"], "No such option: --colour"),
        (["lits"], "No such command 'lits'. Did you mean 'list'?"),
        (["submit"], "give a command after `--`"),
        (["submit", "--env", "A", "true"], "'A' is not of the form NAME=VALUE"),
        (["submit", "--after", f"{TASK}:maybe", "true"], "write ID, ID:failure or ID:any"),
        (["submit", "--stdin", "/nowhere", "true"], "/nowhere cannot be read as text"),
        (["list", "--where", "{"], "it is not JSON"),
        (["list", "--where", "[]"], "write an object"),
        (["cancel"], "give ids, or --where"),
        (["cancel", TASK, "nonsense"], "there is no task 'nonsense': ids are 24 hexadecimal digits"),
        (["show", "abcde"], "'abcde' is too short for the beginning of an id; write 6 digits or more"),
        (["show", "nonsense"], "there is no task 'nonsense'"),
        (["submit", "--after", "nonsense:any", "true"], "there is no task 'nonsense'"),
        (["logs", "-f", "--json", TASK], "it goes with neither --json nor --attempt"),
        (["user", "add", "ann", "--role", "king"], "king"),
        (["queues", "set", "q"], "give --max-running or --weight"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert (said.out, words in said.err, said.err.count("\n")) == ("", True, 1)


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (401, 3), (403, 3), (404, 2), (409, 2), (413, 2), (429, 3), (500, 3)]
)
def test_refusals_are_one_sentence_and_tell_scripts_their_kind(
    serve: Serve, capsys: pytest.CaptureFixture[str], status: int, code: int
) -> None:
    serve(Said(status, {"_status": "ERR", "_error": {"code": status, "message": "this is why"}}))
    assert run(["retry", TASK]) == code
    assert capsys.readouterr() == ("", "banyan: this is why\n")


def test_an_invalid_task_names_the_field_and_the_reason(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(422, {"_status": "ERR", "_issues": {"timeout": "'soon' is not a duration"}}))
    assert run(["submit", "--timeout", "soon", "true"]) == 2
    assert capsys.readouterr().err == "banyan: timeout: 'soon' is not a duration\n"


def test_without_any_server_it_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 3
    assert capsys.readouterr().err == (
        "banyan: no server is known; start one with `banyan up`, or set BANYAN_URL and BANYAN_TOKEN\n"
    )


def test_an_unreachable_server_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BANYAN_TOKEN", "x")
    assert run(["list"]) == 3
    assert "cannot reach the server at http://127.0.0.1:1 (connection refused)" in capsys.readouterr().err


def test_retry_sends_new_values_and_says_what_becomes_of_what_comes_after(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {"_id": TASK, "requested_resources": {"cores": 2, "memory": 1}}
    became = {"_id": TASK, "state": "terminated", "becomes": "available", "dry_run": True}
    app = serve(Said(200, before), Said(200, became | {"descendants": {"again": 2, "kept": 1, "_items": []}}))
    words = ["--set", "requested_resources.memory=4 GiB", "--set", "priority=3", "--set", "name=x=y"]
    assert run(["retry", TASK, *words, "--downstream", "rerun", "--without", TASK, "--dry-run"]) == 0
    assert json.loads(app.asked[1].body) == {
        "requested_resources": {"cores": 2, "memory": "4 GiB"},
        "priority": 3,
        "name": "x=y",
        "downstream": "rerun",
        "without": [TASK],
        "dry_run": True,
    }
    assert capsys.readouterr().out == f"{TASK} available, 2 after it, 1 kept (nothing was changed)\n"


@pytest.mark.parametrize("words", [["--set", "x"], ["--set", "=1"], ["--set", "a.=1"], ["--downstream", "all"], []])
def test_a_retry_that_makes_no_sense_asks_for_nothing(serve: Serve, words: list[str]) -> None:
    app = serve(Said(200, {}))
    assert run(["retry", *([TASK, *words] if words else [])]) == 2
    assert app.asked == []


def test_all_that_match_are_retried(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    item = {"_id": TASK, "_error": {"code": 422, "message": "state: it cannot"}}
    app = serve(Said(200, {"matched": 3, "retried": 2, "refused": 1, "_items": [item]}))
    assert run(["retry", "--where", '{"name": "x"}', "--set", "hold=true"]) == 2
    assert json.loads(app.asked[0].body) == {"where": {"name": "x"}, "changes": {"hold": True}}
    told = "banyan: state: it cannot\nbanyan: where: 1 of the tasks refused it\n"
    assert capsys.readouterr() == ("2 of 3 matching tasks run again\n", told)


def test_an_entry_of_an_object_is_changed_in_each_task_that_matches(serve: Serve) -> None:
    found = {"_items": [{"_id": TASK}], "_meta": {"total": 1, "page": 1, "max_results": 1000}}
    task = {"_id": TASK, "requested_resources": {"cores": 3}}
    app = serve(Said(200, found), Said(200, task), Said(200, {"_id": TASK, "state": "available"}))
    assert run(["retry", "--where", '{"name": "x"}', "--set", "requested_resources.memory=8 GiB"]) == 0
    assert json.loads(app.asked[-1].body) == {"requested_resources": {"cores": 3, "memory": "8 GiB"}}
