"""`banyan list` and `banyan workers` against recorded answers, on terminals of any width."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from banyan import wire
from banyan.cli.app import run
from tests.support.recorded import Said
from tests.unit.test_cli import OTHER, TASK, Serve, home, items, serve

__all__ = ["home", "serve"]

ATTEMPT, WORKER = "8" * 24, "9" * 24


def ago(**span: float) -> str:
    return wire.format_date(datetime.now(UTC) - timedelta(**span))


def task(id: str, state: str, name: str = "fit", **fields: Any) -> dict[str, Any]:
    return {"_id": id, "name": name, "state": state, "queue": "default", "_created": ago(hours=3.5), **fields}


RUNNING = task(
    TASK,
    "running",
    time_started=ago(seconds=75),
    execution=ATTEMPT,
    progress={"fraction": 0.425, "message": "half way"},
)
PLACES = (items({"task": TASK, "host": "lab3", "worker": WORKER}), items({"_id": WORKER, "name": "node7"}))


def shown(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_what_runs_shows_where_and_how_far_it_is(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    app = serve(items(RUNNING), *PLACES)
    assert run(["list"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == "ID NAME QUEUE STATUS AGE RUN TIME MEMORY PROGRESS WHERE/WHY".split()
    words = line.split()
    assert words[:6] == [TASK, "fit", "default", "running", "42%", "3h"]
    assert words[-4:] == ["42%", "half", "way", "node7"]
    assert [asked.path for asked in app.asked] == ["/tasks", "/execution_history", "/workers"]
    assert json.loads(app.asked[1].query["where"]) == {"_id": {"$in": [ATTEMPT]}}


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ({"reason": "held"}, "held"),
        ({"reason": "dependencies", "count": 1}, "waits for 1 parent"),
        ({"reason": "dependencies", "count": 7}, "waits for 7 parents"),
        ({"reason": "queue_paused"}, "the queue is paused"),
        ({"reason": "queue_full", "limit": 4}, "the queue runs its 4 at once"),
        ({"reason": "no_worker"}, "no worker is active"),
        (
            {"reason": "no_fit", "missing": {"cores": {"wanted": 64, "there": 8}, "memory": {"wanted": 1 << 40}}},
            "no worker has 64 cores and memory 1.00 TiB",
        ),
        ({"reason": "no_fit", "missing": {"label site": {"wanted": "north"}}}, "no worker has label site north"),
        ({"reason": "busy"}, "the workers that fit are busy"),
        ({"reason": "of_tomorrow", "message": "because of it"}, "because of it"),
    ],
)
def test_what_waits_says_why(
    serve: Serve, capsys: pytest.CaptureFixture[str], reason: dict[str, Any], words: str
) -> None:
    app = serve(items(task(TASK, "available")), items({"_id": TASK, **reason}))
    assert run(["list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(f"  {words}")
    assert (app.asked[1].path, app.asked[1].query) == ("/tasks/explain", {"ids": TASK})


def test_a_server_that_cannot_say_why_is_no_fault(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(items(task(TASK, "available")), Said(404, {"_error": {"message": "there is nothing at /tasks/explain"}}))
    assert run(["list"]) == 0
    assert shown(capsys)[1] == [TASK, "fit", "default", "available", "3h"]


def test_eighty_columns_hold_what_matters(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    failed = task(OTHER, "terminated", exit_status="failure (exit code 3)", queue="night", name="温度計算の" * 9)
    named = {**RUNNING, "name": "simulation-of-the-northern-wing[117]"}
    waiting = task("1" * 24, "available", name="wide\x1b[31m\nred")
    serve(items(named, failed, waiting), *PLACES, items({"_id": "1" * 24, "reason": "queue_paused"}))
    assert run(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ID                        NAME                QUEUE    STATUS     AGE  WHERE/WHY",
        f"{TASK}  simulation-o…[117]  default  42%         3h  node7",
        f"{OTHER}  温度計算の温…算の   night    exit 3      3h",
        f"{'1' * 24}  wide?[31m red       default  available   3h  paused",
    ]


def test_json_has_all_that_match(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    full = [task(f"{number:024x}", "inactive") for number in range(300, 100, -1)]
    last = task(TASK, "inactive")
    app = serve(items(*full), items(last))
    assert run(["list", "--json", "--where", '{"name": "fit"}']) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ([*full, last], "")
    assert [asked.query["sort"] for asked in app.asked] == ["-_id", "-_id"]
    after = {"$and": [{"name": "fit"}, {"_id": {"$lt": full[-1]["_id"]}}]}
    assert json.loads(app.asked[1].query["where"]) == after


def test_json_of_so_many_says_that_there_are_more(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(Said(200, {"_items": [RUNNING], "_meta": {"total": 42, "page": 1}}))
    assert run(["list", "--json", "-n", "1"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ([RUNNING], "1 of 42 tasks; -n shows more, --page the next\n")


def test_json_in_another_order_is_read_page_by_page(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    full = [task(f"{number:024x}", "inactive") for number in range(200)]
    app = serve(items(*full), items())
    assert run(["list", "--json", "--sort", "-priority"]) == 0
    assert json.loads(capsys.readouterr().out) == full
    assert [(asked.query["sort"], asked.query["page"]) for asked in app.asked] == [
        ("-priority", "1"),
        ("-priority", "2"),
    ]


def test_json_of_nothing_is_an_empty_list(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    serve(items())
    assert run(["list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def worker(name: str, **fields: Any) -> dict[str, Any]:
    made = {"_id": WORKER, "name": name, "state": "active", "last_seen": ago(seconds=61), "queues": [], "labels": {}}
    return {**made, "resources": {"cores": 8, "memory": 32 << 30}, **fields}


def test_workers_show_what_is_used_and_free_and_when_they_were_heard(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = worker(
        "node7",
        resources={"cores": 8, "memory": 32 << 30, "gpus": 4},
        free={"cores": 3.5, "memory": 20 << 30, "gpus": 1},
        labels={"site": "north"},
        queues=["night", "day"],
    )
    serve(items(busy, worker("idle"), worker("old", state="lost")))
    assert run(["workers", "--all"]) == 0
    head, *rows, legend = shown(capsys)
    assert head == "ID NAME STATE CORES MEMORY GPUS LAST HEARD QUEUES LABELS".split()
    assert rows == [
        [WORKER, "node7", "active", "4.5/3.5", "12/20", "GiB", "3/1", "1m", "ago", "night,", "day", "site=north"],
        [WORKER, "idle", "active", "0/8", "0/32", "GiB", "1m", "ago", "all"],
        [WORKER, "old", "lost", "1m", "ago", "all"],
    ]
    assert "used/free," in legend


def test_workers_fit_eighty_columns(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    free = {"cores": 100.125, "memory": 3 << 39, "gpus": 3}
    large = worker("a-worker-with-a-long-name", resources={"cores": 128, "memory": 2 << 40, "gpus": 16}, free=free)
    serve(items({**large, "state": "quarantined", "quarantine": {"reason": "it failed"}}))
    assert run(["workers"]) == 0
    *table, _, quarantine = capsys.readouterr().out.splitlines()
    assert max(map(len, table)) <= 80
    assert "27.9/100.1" in table[1]
    assert quarantine == "a-worker-with-a-long-name is quarantined: it failed"


@pytest.mark.parametrize(
    ("exit_status", "short"),
    [
        ("failure (exit code 137)", "exit 137"),
        ("failure (SIGKILL)", "SIGKILL"),
        ("failure (worker: disk full)", "disk full"),
        ("failure (no directory: /home/ada/runs)", "no dir"),
        ("abandoned (worker unreachable)", "abandoned"),
        ("out of memory", "memory"),
        ("failure (VeryLongNameOfAnError)", "VeryLong…"),
    ],
)
def test_a_narrow_terminal_shows_the_telling_word_of_an_end(
    serve: Serve,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    exit_status: str,
    short: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "a-simulation-of-the-north-wing-with-a-long-name"
    ended = task(TASK, "terminated", name=long, exit_status=exit_status, execution=ATTEMPT)
    named = {"_id": WORKER, "name": "a-machine-with-a-long-name.example.org"}
    serve(items(ended), PLACES[0], items(named))
    assert run(["list"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert f"  {short}  " in f"{line}  "
    assert len(line) <= 80


def test_statistics_of_all_states_fit_eighty_columns(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    states = dict.fromkeys(("inactive", "available", "terminated", "cancelled"), 250_000)
    states |= {"running": 300, "pending_cancellation": 3}
    queues = {"a-queue-with-a-long-name": states}
    serve(Said(200, {"total": 1_000_303, "states": states, "queues": queues, "assigned": {next(iter(queues)): 50}}))
    assert run(["stats"]) == 0
    head, queue, whole = capsys.readouterr().out.splitlines()[:3]
    assert max(map(len, (head, queue, whole))) <= 80
    assert head.split()[-1] == "TOTAL"
    assert whole.split() == ["all", "250000", "250000", "50", "250", "3", "250000", "250000", "1000303"]
    assert queue.startswith("a-queue-")
    assert "…" in queue.split()[0]
