"""`banyan up` and the commands of a second terminal, as a user meets them: real processes throughout."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from banyan.client import Client
from tests.support.up import Up, alive, eventually, started

FILL = "import time; held = bytearray(b'x') * 200_000_000; time.sleep(3)"


def submitted(up: Up, *arguments: str) -> str:
    done = up.run("submit", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_it_says_all_in_one_line_and_nothing_else(tmp_path: Path) -> None:
    with started(tmp_path) as up:
        assert up.ready.keys() >= {"url", "admin_token", "provider_token", "mongo_uri", "pids"}
        assert up.ready["pids"].keys() == {"mongod", "server", "worker"}
        assert alive(up.pids) == up.pids
        assert up.stop() == 0
        assert up.rest_of_output() == ""


def test_it_is_ready_within_ten_seconds(up: Up, tmp_path: Path) -> None:
    taken = [up.started_in_seconds]
    while min(taken) > 10 and len(taken) < 4:  # the machine may have been busy with other tests
        with started(tmp_path / str(len(taken))) as another:
            taken.append(another.started_in_seconds)
    assert min(taken) < 10


def test_tokens_are_in_no_command_line_and_no_readable_file(up: Up) -> None:
    tokens = [up.ready["admin_token"], up.ready["provider_token"]]
    for pid in up.pids:
        shown = Path(f"/proc/{pid}/cmdline").read_text()
        assert not [token for token in tokens if token in shown]
    [pointer] = (up.home / ".local/state/banyan/up").iterdir()
    assert stat.S_IMODE(pointer.stat().st_mode) == 0o600


def test_a_failing_command_exits_1_and_its_log_and_status_are_there(up: Up) -> None:
    done = up.run("submit", "--wait", "--", "sh", "-c", "echo hi; exit 3")
    task = done.stdout.strip()
    assert (done.returncode, done.stderr) == (1, f"{task}: failure (exit code 3)\n")
    assert up.run("logs", task).stdout == "hi\n"
    assert "failure (exit code 3)" in up.run("show", task).stdout
    assert up.json("show", task)["exit_status"] == "failure (exit code 3)"


def test_memory_is_measured_for_large_and_for_short_tasks(up: Up, client: Client) -> None:
    large = submitted(up, "--", sys.executable, "-c", FILL)
    small = submitted(up, "--", "true")
    assert up.run("wait", large, small).returncode == 0
    assert client.task(large)["peak_memory_bytes"] == pytest.approx(200_000_000 + 10_000_000, rel=0.1)
    assert 0 < client.task(small)["peak_memory_bytes"] < 8 << 20

    def curve() -> list[int]:
        return [sample["resident_memory_bytes"] for sample in client.memory({"task": large})]

    values = eventually(curve, lambda values: len(values) >= 5)
    assert max(values) == pytest.approx(210_000_000, rel=0.1)
    eventually(lambda: list(client.memory({"task": small})), lambda samples: len(samples) >= 1)
    assert "true peak" in up.run("memory", large).stdout


def test_children_follow_their_parents(up: Up, client: Client) -> None:
    parent = submitted(up, "--hold", "--name", "parent", "--", "true")
    after = submitted(up, "--after", parent, "--", "true")
    never = submitted(up, "--after", f"{parent}:failure", "--", "true")
    group = submitted(up, "--name", "all done", "--after", after, "--after", f"{never}:any")
    assert parent in up.run("explain", after).stdout
    assert "held" in up.run("explain", parent).stdout
    client.update(parent, {"hold": False})
    ended = client.wait([parent, after, never, group], timeout=60)
    assert [task["exit_status"] for task in ended] == ["success", "success", "cancelled", "success"]


def test_a_grandchild_names_the_root_that_failed_and_what_it_wrote(up: Up, client: Client) -> None:
    root = submitted(up, "--name", "root", "--", "sh", "-c", "echo the reason >&2; exit 7")
    child = submitted(up, "--after", root, "--", "true")
    grandchild = submitted(up, "--after", child, "--", "true")
    client.wait([root, child, grandchild], timeout=60)
    said = up.run("explain", grandchild).stdout
    for words in (f"root {root} failed: failure (exit code 7)", child, "the reason"):
        assert words in said


def test_what_no_worker_could_ever_take_is_said_at_once_and_the_whole_queue_is_explained(up: Up) -> None:
    done = up.run("submit", "--cores", "99999", "--hold", "--", "true")
    assert (done.returncode, len(done.stdout.split())) == (0, 1)
    assert "banyan: warning: no active worker can run it; " in done.stderr
    assert "or start a worker with 99999 cores" in done.stderr
    assert up.run("submit", "--cores", "1", "--", "true").stderr == ""
    run = up.run("run", "no_such_model", "x=1")
    assert (run.returncode, "start a worker that has the model 'no_such_model'" in run.stderr) == (0, True)
    answer = up.json("explain")
    reasons = {reason["reason"]: reason for reason in answer["reasons"]}
    assert reasons["held"]["count"] >= 1
    assert reasons["no_fit"]["count"] >= 1
    assert [worker["state"] for worker in answer["workers"]] == ["active"]
    shown = up.run("explain").stdout
    assert "they are held" in shown
    assert "no_such_model" in shown
    assert up.run("cancel", done.stdout.strip(), run.stdout.strip()).returncode == 0


def test_a_running_task_is_cancelled_within_a_second_and_runs_again_after_retry(up: Up, client: Client) -> None:
    task = submitted(up, "--", "sleep", "600")
    eventually(lambda: client.task(task), lambda found: found.get("time_started") is not None)
    begun = time.monotonic()
    assert up.run("cancel", task).stdout.split()[0] == task
    done = up.run("wait", task)
    assert (done.returncode, done.stderr) == (1, f"{task}: cancelled\n")
    assert time.monotonic() - begun < 10  # a worker that is not woken would wait for 20
    assert up.run("retry", task).returncode == 0
    eventually(lambda: client.task(task)["state"], lambda state: state == "running")
    client.cancel(task)
    client.wait([task], timeout=30)
    assert [attempt["attempt"] for attempt in up.json("history", task)] == [1, 2]


def test_a_log_is_followed_while_it_grows(up: Up) -> None:
    task = submitted(up, "--", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done; echo bad >&2")
    assert up.run("logs", "-f", task).stdout == "1\n2\n3\n"
    assert up.run("logs", "--stderr", task).stdout == "bad\n"


def test_a_log_that_a_task_cuts_is_followed_on(up: Up) -> None:
    """Only by its path can a task still cut it."""
    cut = 'echo first; sleep 2; : > "$BANYAN_WORKDIR/../stdout"; echo on > /dev/stdout; sleep 2; echo end'
    task = submitted(up, "--", "sh", "-c", cut)
    done = up.run("logs", "-f", task)
    assert (done.returncode, done.stdout) == (0, "first\non\nend\n")
    assert done.stderr == "banyan: the output was cut; it goes on from its beginning\n"


def test_environment_input_and_directory_reach_the_command(up: Up, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("from the file\n")
    program = "cat; echo $WORD $EXPORTED; pwd; env | grep -c TOKEN"
    done = up.run(
        "submit", "--export", "--env", "WORD=given", "--stdin", str(tmp_path / "in.txt"), "--dir", str(tmp_path),
        "--wait", "--", "sh", "-c", program,
        env={"EXPORTED": "along", "BANYAN_TOKEN": up.ready["provider_token"], "BANYAN_URL": up.url},
    )  # fmt: skip
    lines = up.run("logs", done.stdout.strip()).stdout.splitlines()
    assert lines == ["from the file", "given along", str(tmp_path), "0"]


def test_a_command_runs_where_it_was_submitted(up: Up, tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text("import sys; open(f'{sys.argv[1]}.txt', 'w').write('done')")
    done = up.run("submit", "--wait", "--", sys.executable, "sweep.py", "17", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "17.txt").read_text()) == (0, "done")
    assert str(tmp_path) in up.run("show", done.stdout.strip(), env={"COLUMNS": "300"}).stdout
    done = up.run("submit", "--fresh", "--wait", "--", "sh", "-c", "ls -A; touch here", cwd=tmp_path)
    assert up.run("logs", done.stdout.strip()).stdout == ""
    assert "an empty one for each attempt" in up.run("show", done.stdout.strip()).stdout
    assert "here" in up.run("files", done.stdout.strip()).stdout
    sweep = ["sweep", "submit", "--grid", "x=1,2", "--wait", "--barrier", "cat 1.txt 2.txt > all"]
    assert up.run(*sweep, f"{sys.executable} sweep.py {{x}}", cwd=tmp_path).returncode == 0
    assert (tmp_path / "all").read_text() == "donedone"


def test_a_directory_that_is_not_there_is_told_with_the_way_out(up: Up, tmp_path: Path) -> None:
    done = up.run("submit", "--wait", "--dir", str(tmp_path / "gone"), "--", "true")
    task = done.stdout.strip()
    assert done.returncode == 1
    assert f"failure (no directory: {tmp_path}/gone)" in done.stderr
    for command in ("show", "explain"):
        shown = " ".join(up.run(command, task).stdout.split())
        assert "--fresh" in shown, shown


def test_everything_can_be_looked_at_as_tables_and_as_json(up: Up) -> None:
    task = submitted(up, "--name", "looked at", "--tag", "here", "--", "true")
    assert up.run("wait", task).returncode == 0
    assert [found["_id"] for found in up.json("list", "--where", '{"tags": "here"}')] == [task]
    assert task in up.run("list", "--state", "terminated").stdout
    [worker] = up.json("workers")
    assert worker["_id"] in up.run("workers").stdout
    assert up.json("stats", "--where", json.dumps({"_id": task}))["states"] == {"terminated": 1}
    assert "peak memory" in up.run("stats").stdout
    assert "default" in [queue["name"] for queue in up.json("queues")]


def test_the_administrator_adds_users_and_queues_from_the_second_terminal(up: Up) -> None:
    token = up.run("user", "add", "ann", "--role", "provider").stdout.strip()
    as_ann = {"BANYAN_URL": up.url, "BANYAN_TOKEN": token}
    task = up.run("submit", "--hold", "true", env=as_ann).stdout.strip()
    assert up.json("show", task)["owner"] == "ann"
    refused = up.run("queues", "add", "night", env=as_ann)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (3, "", 1)
    assert up.run("queues", "add", "night").returncode == 0
    assert up.json("queues", "pause", "night")["paused"] is True
    waiting = submitted(up, "--queue", "night", "--", "true")
    assert "paused" in up.run("explain", waiting).stdout
    assert up.run("queues", "resume", "night").returncode == 0
    assert up.run("wait", waiting).returncode == 0

    rotated = up.run("user", "rotate", "ann").stdout.strip()
    assert up.run("list", env=as_ann).returncode == 3
    assert up.run("cancel", task, env=as_ann | {"BANYAN_TOKEN": rotated}).returncode == 0
    assert up.json("user", "rotate", "ann", "--expires", "30d")["expires"]
    assert "EXPIRES" in up.run("user", "list").stdout
    assert up.json("user", "rotate", "ann", "--expires", "never")["expires"] is None
    assert up.json("user", "remove", "ann") == {"_status": "OK", "name": "ann"}
    assert "ann" not in [user["name"] for user in up.json("user", "list")]


def test_its_worker_takes_up_a_new_token_by_itself(up: Up, client: Client) -> None:
    assert up.run("user", "rotate", "worker").returncode == 0
    for _ in range(3):  # whatever claim was open then, one of these comes by another
        assert client.wait([submitted(up, "--", "true")], timeout=60)[0]["exit_status"] == "success"
    assert [each["state"] for each in client.workers({"pid": up.ready["pids"]["worker"]})] == ["active"]


@pytest.mark.parametrize(
    ("arguments", "env", "code", "words"),
    [
        (["submit", "--colour", "red", "true"], {}, 2, "No such option: --colour"),
        (["submit", "--memory", "lots", "true"], {}, 2, "requested_resources"),
        (["show", "5" * 24], {}, 2, "5" * 24),
        (["show", "nonsense"], {}, 2, "nonsense"),
        (["list"], {"BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN": "x"}, 3, "cannot reach the server"),
        (["list"], {"BANYAN_TOKEN": "wrong"}, 3, "token"),
        (["list", "--where", '{"token": 1}'], {}, 2, "token"),
    ],
)
def test_errors_are_one_sentence_with_their_exit_code(
    up: Up, arguments: list[str], env: dict[str, str], code: int, words: str
) -> None:
    done = up.run(*arguments, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_within_ten_seconds(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as up:
        task = submitted(up, "--", "sleep", "600")
        with Client(up.url, up.ready["provider_token"]) as client:
            running = eventually(lambda: client.attempts(task), lambda found: bool(found and found[0].get("pid")))
        pids = [*up.pids, running[0]["pid"]]
        begun = time.monotonic()
        assert up.stop(number) == 0
        assert (alive(pids), time.monotonic() - begun < 10) == ([], True)
    address = urlsplit(up.url)
    with socket.socket() as probe:
        assert probe.connect_ex((str(address.hostname), int(address.port or 0))) != 0
    assert not list((up.home / ".local/state/banyan/up").iterdir())


IGNORING = """
import os, signal, sys
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_what_was_ignored_and_blocked_at_its_start_keeps_nothing_from_ending(tmp_path: Path) -> None:
    with started(tmp_path, before=[sys.executable, "-c", IGNORING]) as up:
        server, worker = up.pids[2], up.ready["pids"]["worker"]
        for pid in (server, worker):
            masks = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line[:6] == "SigBlk"]
            assert [int(line.split()[1], 16) for line in masks] == [0]
        up.process.send_signal(signal.SIGUSR1)
        done = up.run("submit", "--wait", "--", "true")
        assert done.returncode == 0, done.stderr
        assert up.stop(signal.SIGTERM) == 0
        assert alive(up.pids) == []


def test_nothing_outlives_it_when_it_is_killed(tmp_path: Path) -> None:
    with started(tmp_path) as up:
        up.stop(signal.SIGKILL)
        eventually(lambda: alive(up.pids), lambda left: left == [], seconds=30)


def test_the_queue_is_still_there_after_a_restart(tmp_path: Path) -> None:
    with started(tmp_path / "first") as up:
        task = up.run("submit", "--wait", "--", "echo", "kept").stdout.strip()
        assert up.stop() == 0
    (tmp_path / "second").mkdir()
    (tmp_path / "first" / "data").rename(tmp_path / "second" / "data")
    with started(tmp_path / "second") as up:
        assert up.run("logs", task).stdout == "kept\n"


def test_ctrl_c_stops_the_waiting_and_not_the_task(up: Up, client: Client) -> None:
    command = [sys.executable, "-m", "banyan", "submit", "--wait", "--", "sleep", "600"]
    with subprocess.Popen(
        command, env=up.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        try:
            task = first_line(waiting)
            eventually(lambda: client.task(task)["state"], lambda state: state == "running")
            waiting.send_signal(signal.SIGINT)
            _, said = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert (waiting.returncode, said) == (
        130,
        "banyan: stopped waiting; the task goes on (`banyan cancel ID` ends one)\n",
    )
    assert client.cancel(task)["state"] == "pending_cancellation"
    client.wait([task], timeout=30)


def test_waiting_in_the_background_does_not_end_by_a_ctrl_c_for_others(up: Up, client: Client) -> None:
    command = ["bash", "-c", 'trap "" INT; exec "$@"', "bash", sys.executable, "-m", "banyan"]
    submit = ["submit", "--wait", "--", f"until [ -e {up.home}/go ]; do sleep 0.05; done"]
    with subprocess.Popen([*command, *submit], env=up.environment, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            task = first_line(waiting)
            eventually(lambda: client.task(task)["state"], lambda state: state == "running")
            waiting.send_signal(signal.SIGINT)
            (up.home / "go").touch()
            assert waiting.wait(timeout=60) == 0
        finally:
            waiting.kill()


def first_line(process: "subprocess.Popen[str]") -> str:
    """The first line of its output, once it is there."""
    if process.stdout is None:
        raise AssertionError("it was started with a pipe")
    return process.stdout.readline().strip()
