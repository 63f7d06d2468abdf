"""The whole worker with real processes, against a stand-in for the server."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from banyan.domain.programs import (
    ENTRY_BYTES,
    MAX_STRING_BYTES,
    MAX_TOTAL_BYTES,
    TOO_LONG,
    bytes_of_environment,
    total_faults,
)
from banyan.errors import Conflict, Forbidden, Invalid, SetupError, Unavailable
from tests.support.fake_server import FakeServer, work
from tests.support.waiting import eventually, processes_with
from worker.spool import Spool

PYTHON = sys.executable
SOURCE = Path(__file__).parents[2]


def ends(root: Path, *tasks: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """Run these tasks; the reports of their ends, in the order of the tasks."""
    server = FakeServer(tasks)
    assert work(root, server, **settings) == 0
    assert server.goodbyes == ["worker-1"]
    return [server.ends[task["execution"]] for task in server.tasks]


@pytest.mark.parametrize(
    ("task", "exit_status", "exit_code"),
    [
        ({"command": "exit 0"}, "success", 0),
        ({"command": "exit 3"}, "failure (exit code 3)", 3),
        ({"command": ["false"]}, "failure (exit code 1)", 1),
        ({"command": "kill -SEGV $$"}, "failure (SIGSEGV)", None),
        ({"command": ["no-such-program"]}, "failure (exit code 127)", 127),
        ({"command": "no-such-program"}, "failure (exit code 127)", 127),
        ({"command": ["/etc/passwd"]}, "failure (exit code 126)", 126),
        ({"command": "true", "directory": "/no/such/place"}, "failure (no directory: /no/such/place)", None),
        ({"command": "true", "directory": "/etc/passwd"}, "failure (no directory: /etc/passwd)", None),
        ({"command": "true", "directory": f"/{'x' * 300}"}, f"failure (no directory: /{'x' * 300})", None),
        ({"command": "true", "directory": "/no/a\nb"}, "failure (no directory: /no/a b)", None),
        ({"command": ["true"], "directory": "no/such/place"}, "failure (exit code 126)", 126),
        ({"command": "sleep 60", "timeout": 0.3}, "timed out", None),
        ({"command": "trap 'exit 0' TERM; sleep 60 & wait", "timeout": 0.3}, "timed out", 0),
    ],
)
def test_exit_statuses(tmp_path: Path, task: dict[str, Any], exit_status: str, exit_code: int | None) -> None:
    (end,) = ends(tmp_path, task)
    assert (end["exit_status"], end.get("exit_code")) == (exit_status, exit_code)


def test_a_directory_that_is_not_there_is_told_in_words_that_name_the_way_out(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, {"command": "true", "directory": "/no/such/place"})
    assert end["error"].startswith(
        f"no directory /no/such/place on {socket.gethostname()} (No such file or directory);"
    )
    assert "`--dir`" in end["error"]
    assert "`--fresh`" in end["error"]
    assert end["stderr_tail"] == f"banyan: {end['error']}\n"


def test_what_a_command_prints_last_is_its_result_where_that_is_asked_for(tmp_path: Path) -> None:
    def printing(script: str) -> dict[str, Any]:
        return {"command": script, "result_from": "stdout"}

    wrote = "echo 2; echo 1 > $BANYAN_RESULT"
    good, written, text, failed, silent, other = ends(
        tmp_path,
        printing("echo working; echo '{\"x\": [1, 2]}'"),
        printing(wrote),
        printing("echo done"),
        printing("echo half way; exit 3"),
        printing("true"),
        {"command": "echo 5"},
    )
    assert good["result"] == {"x": [1, 2]}
    assert written["result"] == 1
    assert (text["exit_status"], "result" in text) == ("success", False)
    assert text["error"].startswith("result, the last line of stdout: Expecting value")
    assert (failed["exit_status"], failed.get("error")) == ("failure (exit code 3)", None)
    for end in (failed, silent, other):
        assert "result" not in end
    assert "no_result" not in text


def test_a_line_that_is_too_long_for_an_argument_is_run_as_a_short_one_is(tmp_path: Path) -> None:
    said = 'echo "$0 $# ${#long}"; cat; pwd; sh -c true; exit 7'
    short, long, wide = ends(
        tmp_path,
        {"command": f"long=x; {said}", "stdin": "from stdin\n", "workdir": "task"},
        {"command": f"long='{'x' * 500_000}'\n{said}", "stdin": "from stdin\n", "workdir": "task"},
        {"command": f"long='{'ü' * 65_600}'; {said}", "stdin": "from stdin\n", "workdir": "task"},
        cores=1,
    )
    for end in (short, long, wide):
        assert (end["exit_status"], end["stderr_tail"]) == ("failure (exit code 7)", "")
    assert short["stdout_tail"] == f"/bin/sh 0 1\nfrom stdin\n{tmp_path}/t1/work\n"
    assert long["stdout_tail"] == f"/bin/sh 0 500000\nfrom stdin\n{tmp_path}/t2/work\n"
    assert wide["stdout_tail"].endswith(f"\nfrom stdin\n{tmp_path}/t3/work\n")
    assert [(tmp_path / f"t{number}/1/command").exists() for number in (1, 2, 3)] == [False, True, True]


def test_the_longest_line_and_word_and_variable_that_the_server_takes_can_be_run(tmp_path: Path) -> None:
    most = MAX_STRING_BYTES
    variables = {f"V{n:02}": "x" * (most - len(f"V{n:02}=")) for n in range(14)}
    variables["LAST"] = "x" * (
        MAX_TOTAL_BYTES - 14 * (most + ENTRY_BYTES) - 6 * ENTRY_BYTES - len("LAST=/bin/sh-cecho ${#LAST}")
    )
    line = ["/bin/sh", "-c", "echo ${#LAST}"]
    assert total_faults(line, bytes_of_environment(variables)) == {}
    assert total_faults([*line, "", "", "xxx"], bytes_of_environment(variables)) != {}
    at_most, in_all = ends(
        tmp_path,
        {"command": "echo " + "x" * (most - len("echo "))},
        {"command": line, "env": variables},
    )
    assert (at_most["exit_status"], at_most["stdout_bytes"]) == ("success", most - len("echo ") + 1)
    assert (in_all["exit_status"], in_all["stdout_tail"]) == ("success", f"{len(variables['LAST'])}\n")


@pytest.mark.parametrize(
    "task",
    [
        {"command": ["echo", "x" * 140_000]},
        {"command": "true", "env": {"A": "x" * 140_000}},
        {"command": ["true"], "env": {f"A{n}": "x" * 100_000 for n in range(70)}},
        {"command": "x" * 140_000, "env": {f"A{n}": "x" * 100_000 for n in range(70)}},
    ],
)
def test_what_the_kernel_does_not_take_is_the_tasks_fault_and_no_machines(tmp_path: Path, task: dict[str, Any]) -> None:
    (end,) = ends(tmp_path, task)
    assert (end["exit_status"], end["exit_code"]) == (TOO_LONG, 126)
    assert "longer than the kernel" in end["error"]
    assert end["stderr_tail"] == f"banyan: {end['error']}\n"


def test_what_the_task_said_is_in_its_report(tmp_path: Path) -> None:
    script = "echo out; echo err >&2; echo '[1, {\"a.b\": null}]' > $BANYAN_RESULT; echo x > file; cat"
    (end,) = ends(tmp_path, {"command": script, "stdin": "from stdin"})
    assert (end["stdout_tail"], end["stdout_bytes"]) == ("out\nfrom stdin", 14)
    assert (end["stderr_tail"], end["stderr_bytes"]) == ("err\n", 4)
    assert (end["result"], end["files_bytes"]) == ([1, {"a.b": None}], 2)
    assert end["directory"] == {"logs": "t1/1", "work": "t1/1/work"}
    assert (tmp_path / "t1/1/work/file").read_text() == "x\n"
    assert (tmp_path / "t1/1/stdout").read_text() == "out\nfrom stdin"
    assert end["time_started"] < end["time_terminated"]


def test_a_long_output_is_told_by_its_tail(tmp_path: Path) -> None:
    (end,) = ends(tmp_path, {"command": "seq 100000"})
    assert end["stdout_bytes"] == 588895
    assert end["stdout_tail"].endswith("99999\n100000\n")
    assert len(end["stdout_tail"]) == 8192


def test_the_environment_is_the_stated_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANYAN_TOKEN", "secret")
    monkeypatch.setenv("SOMETHING_OF_OURS", "secret")
    task = {"command": ["env"], "env": {"FOO": "a=b\nc", "HOME": "/mine"}, "requested_resources": {"cores": 1.5}}
    (end,) = ends(tmp_path, task)
    assert "secret" not in end["stdout_tail"]
    names = {line.split("=")[0] for line in end["stdout_tail"].splitlines() if "=" in line}
    assert names == {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TMPDIR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
        *("BANYAN_TASK_ID", "BANYAN_EXECUTION_ID", "BANYAN_WORKDIR", "BANYAN_PROGRESS", "BANYAN_RESULT", "FOO"),
    }
    assert "FOO=a=b\nc\n" in end["stdout_tail"]
    assert "HOME=/mine\n" in end["stdout_tail"]
    assert "OMP_NUM_THREADS=1\n" in end["stdout_tail"]
    assert "CUDA_VISIBLE_DEVICES=\n" in end["stdout_tail"]
    assert f"BANYAN_WORKDIR={tmp_path}/t1/1/work\n" in end["stdout_tail"]


def test_a_point_of_a_sweep_knows_its_sweep_and_its_index(tmp_path: Path) -> None:
    task = {"command": "echo $BANYAN_SWEEP_ID $BANYAN_SWEEP_INDEX", "sweep": "5" * 24, "index": 0}
    (end,) = ends(tmp_path, task)
    assert end["stdout_tail"] == f"{'5' * 24} 0\n"


def test_work_directories(tmp_path: Path) -> None:
    script = "ls; pwd; touch here"
    same = {"_id": "same", "command": script, "workdir": "task"}
    first, second, fresh, none, below = ends(
        tmp_path,
        same | {"attempt": 1},
        same | {"attempt": 2},
        {"command": script},
        {"command": "pwd; echo ${BANYAN_WORKDIR-unset}", "workdir": "none"},
        {"_id": "same", "attempt": 3, "command": "pwd", "workdir": "task", "directory": "../2"},
        cores=1,
    )
    assert first["stdout_tail"] == f"{tmp_path}/same/work\n"
    assert second["stdout_tail"] == f"here\n{tmp_path}/same/work\n"
    assert second["directory"] == {"logs": "same/2", "work": "same/work"}
    assert fresh["stdout_tail"] == f"{tmp_path}/t3/1/work\n"
    assert none["stdout_tail"].endswith("\nunset\n")
    assert below["stdout_tail"] == f"{tmp_path}/same/2\n"
    assert none["directory"] == {"logs": "t4/1", "work": None}


def test_cancelling_asks_then_kills_the_whole_tree(tmp_path: Path, mark: str) -> None:
    script = "trap '' TERM; (trap '' TERM; setsid sleep 60) & sleep 60 & wait; wait; wait"
    server = FakeServer([{"command": script, "env": {"MARK": mark}, "max_shutdown_time": 0.5}])
    server.on_report = lambda report: server.cancel.append("e1") if "pid" in report and not server.cancel else None
    began = time.monotonic()
    work(tmp_path, server)
    assert server.ends["e1"]["exit_status"] == "cancelled"
    assert server.ends["e1"]["signal"] == "SIGKILL"
    assert processes_with(mark) == []
    assert time.monotonic() - began < 10


SAVES = (
    "import signal, time; heard = []; signal.signal(signal.SIGTERM, lambda *_: heard.append(1)); open('ready', 'w')\n"
    "while not heard: time.sleep(0.01)\n"
    "time.sleep(1); open('saved', 'w').write('checkpoint')"
)
"""A program that takes a while to write its checkpoint."""


@pytest.mark.parametrize("exit_status", ["cancelled", "timed out"])
def test_a_program_below_a_shell_can_save_its_work(tmp_path: Path, exit_status: str) -> None:
    task: dict[str, Any] = {"command": f'{PYTHON} -c "{SAVES}"; true'}
    server = FakeServer([task | ({"timeout": 3} if exit_status == "timed out" else {})])

    def on_report(report: dict[str, Any]) -> None:
        if "pid" in report and exit_status == "cancelled" and not server.cancel:
            eventually((tmp_path / "t1/1/work/ready").exists)
            server.cancel.append("e1")

    server.on_report = on_report
    work(tmp_path, server)
    assert server.ends["e1"]["exit_status"] == exit_status
    assert (tmp_path / "t1/1/work/saved").read_text() == "checkpoint"


def test_a_task_that_ends_well_in_its_grace_has_succeeded(tmp_path: Path) -> None:
    server = FakeServer([{"command": "trap 'echo saved; exit 0' TERM; sleep 60 & wait"}])
    server.on_report = lambda report: server.cancel.append("e1") if "pid" in report and not server.cancel else None
    work(tmp_path, server)
    assert server.ends["e1"]["exit_status"] == "success"
    assert server.ends["e1"]["stdout_tail"] == "saved\n"


def test_the_curve_and_the_peak_of_a_tree_that_fills_memory(tmp_path: Path) -> None:
    fill = "import time; x = b'x' * 100_000_000; time.sleep(2.5)"
    server = FakeServer([{"command": f'{PYTHON} -c "{fill}" & {PYTHON} -c "{fill}"; wait'}])
    work(tmp_path, server, usage={"interval": 0.5})
    peak = server.ends["e1"]["peak_memory_bytes"]
    assert 200_000_000 < peak < 230_000_000
    curve = [sample["resident_memory_bytes"] for sample in server.samples]
    assert len(curve) >= 3
    assert max(curve) == peak
    assert all(sample["virtual_memory_bytes"] > sample["resident_memory_bytes"] for sample in server.samples)
    assert server.samples[0]["task"] == "t1"


LARGE = "x = b'x' * 100_000_000"
STAYS = f"import time; {LARGE}; time.sleep(1)"


@pytest.mark.parametrize(
    ("command", "interval", "source"),
    [
        (["true"], 60, "process"),
        ([PYTHON, "-c", LARGE], 60, "process"),
        ([PYTHON, "-c", STAYS], 0.2, "process"),
        (f'exec {PYTHON} -c "{LARGE}"', 60, "process"),
        (f'{PYTHON} -c "{LARGE}" & {PYTHON} -c "{LARGE}"; wait', 60, "largest process"),
        (
            f"setsid -f {PYTHON} -c \"{LARGE}; open('done', 'w')\"; until test -e done; do :; done",
            60,
            "largest process",
        ),
        (f'{PYTHON} -c "{STAYS}"; true', 0.2, "samples"),
    ],
)
def test_the_peak_comes_with_what_it_is(tmp_path: Path, command: Any, interval: float, source: str) -> None:
    server = FakeServer([{"command": command}])
    work(tmp_path, server, usage={"interval": interval})
    end = server.ends["e1"]
    assert end["peak_memory_source"] == source
    assert (end["peak_memory_bytes"] > 100_000_000) == (command != ["true"])


def test_the_memory_of_a_daemon_that_hides_counts_for_its_task(tmp_path: Path) -> None:
    fill = "import time; x = b'x' * 100_000_000; open('full', 'w'); time.sleep(60)"
    away = f'env -i setsid -f {PYTHON} -c "{fill}"; while ! test -e full; do sleep 0.1; done; sleep 1.5'
    server = FakeServer([{"command": away}])
    work(tmp_path, server, usage={"interval": 0.3})
    assert 100_000_000 < server.ends["e1"]["peak_memory_bytes"] < 130_000_000


def test_a_short_task_has_one_sample_and_a_small_peak(tmp_path: Path) -> None:
    server = FakeServer([{"command": ["true"]}])
    work(tmp_path, server)
    (sample,) = server.samples
    assert sample["execution"] == "e1"
    assert sample["resident_memory_bytes"] == server.ends["e1"]["peak_memory_bytes"] < 12 << 20


def test_a_busy_task_shows_its_cpu(tmp_path: Path) -> None:
    server = FakeServer([{"command": [PYTHON, "-c", "import time\nwhile time.process_time() < 1.5: pass"]}])
    work(tmp_path, server, usage={"interval": 0.5})
    assert 1.5 <= server.ends["e1"]["cpu_seconds"] < 3
    assert max(sample["cpu_percent"] for sample in server.samples) > 20


def test_a_memory_request_is_enforced(tmp_path: Path, mark: str) -> None:
    fill = f"import time; x = b'x' * 300_000_000; time.sleep(60) # {mark}"
    greedy, modest = ends(
        tmp_path,
        {"command": [PYTHON, "-c", fill], "requested_resources": {"cores": 1, "memory": 100_000_000}},
        {"command": ["sleep", "1.5"], "requested_resources": {"cores": 1, "memory": 100_000_000}},
    )
    assert greedy["exit_status"] == "out of memory"
    assert greedy["peak_memory_bytes"] > 100_000_000
    assert modest["exit_status"] == "success"
    assert processes_with(mark) == []


def test_a_task_with_a_memory_request_runs_in_the_group_that_it_is_given(tmp_path: Path) -> None:
    groups = tmp_path / "groups"  # stands in for a control group: what the kernel does there is the kernel's
    groups.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    limited = {"requested_resources": {"cores": 1, "memory": 100_000_000}}
    killed, missing, free = ends(
        root,
        {"command": f"echo 'oom_kill 1' > $(echo {groups}/*/e1)/memory.oom_control; echo $$; kill -9 $$"} | limited,
        {"command": ["no-such-program"]} | limited,
        {"command": "true"},
        tasks={"cgroup": str(groups)},
    )
    assert killed["exit_status"] == "out of memory"
    (procs,) = groups.glob("banyan-worker-*/e1/cgroup.procs")
    assert int(killed["stdout_tail"]) == killed["pid"] == int(procs.read_text())
    assert missing["exit_status"] == "failure (exit code 127)"
    assert free["exit_status"] == "success"
    (other,) = groups.glob("banyan-worker-*/e3")
    assert int((other / "cgroup.procs").read_text()) == free["pid"]
    assert not (other / "memory.limit_in_bytes").exists()


def test_progress_is_told_while_the_task_runs_and_nonsense_is_noted(tmp_path: Path) -> None:
    half = """echo '{"fraction": 0.5, "message": "half"}' > $BANYAN_PROGRESS"""
    server = FakeServer(
        [
            {"command": f"{half}; sleep 1.5"},
            {"command": "echo '{\"fraction\": 7}' > $BANYAN_PROGRESS; echo nonsense > $BANYAN_RESULT; sleep 1.5"},
            {"command": half},
        ]
    )
    work(tmp_path, server, usage={"interval": 0.4})
    told = [report["progress"] for report in server.reports if "progress" in report and "exit_status" not in report]
    assert told == [{"fraction": 0.5, "message": "half"}]
    assert server.ends["e1"]["progress"] == {"fraction": 0.5, "message": "half"}
    assert server.ends["e3"]["progress"] == {"fraction": 0.5, "message": "half"}
    assert server.ends["e2"]["exit_status"] == "success"
    assert "fraction must be a number between 0 and 1" in server.ends["e2"]["error"]
    assert "result: Expecting value" in server.ends["e2"]["error"]


def test_a_large_result_becomes_a_file(tmp_path: Path) -> None:
    command = [PYTHON, "-c", "import json, os; json.dump('x' * 70_000, open(os.environ['BANYAN_RESULT'], 'w'))"]
    kept, lost = ends(tmp_path, {"command": command}, {"command": command, "workdir": "none"})
    assert "result" not in kept
    assert kept["result_file"] == "result.json"
    assert len(json.loads((tmp_path / "t1/1/work/result.json").read_text())) == 70_000
    assert "too many for a task without a work directory" in lost["error"]


def test_gpus_that_are_not_there_are_no_trouble_and_the_machine_is_described(tmp_path: Path) -> None:
    server = FakeServer([{"command": "true"}])
    work(tmp_path, server, name="me", labels={"kind": "test"}, queues=["a"], memory="1 GiB")
    (said,) = server.registrations
    assert (said["name"], said["labels"], said["queues"], said["pid"]) == ("me", {"kind": "test"}, ["a"], os.getpid())
    assert said["resources"]["cores"] == 2
    assert said["resources"]["memory"] == 1 << 30
    assert said["resources"]["scratch"] > 0
    assert said["capabilities"] == ["shell"]
    assert said["files"]["root"] == str(tmp_path)
    assert "replaces" not in said


def test_hundreds_of_short_tasks_are_run_once_each_and_reported_in_batches(tmp_path: Path) -> None:
    server = FakeServer([{"command": ["true"], "workdir": "none"} for _ in range(400)])
    batches: list[int] = []
    report = server.report

    def counted(worker: str, body: dict[str, Any], /) -> dict[str, Any]:
        batches.append(len(body["reports"]))
        return report(worker, body)

    server.report = counted  # type: ignore[method-assign]
    work(tmp_path, server)
    assert {end["exit_status"] for end in server.ends.values()} == {"success"}
    assert sorted(each["execution"] for each in server.reports) == sorted(task["execution"] for task in server.tasks)
    assert len(batches) < 200


def test_a_server_that_comes_and_goes_costs_nothing(tmp_path: Path) -> None:
    failures = {"register": 2, "claim": 2, "report": 2}

    def fail(call: str) -> Unavailable | None:
        failures[call] = failures.get(call, 0) - 1
        return Unavailable("away") if failures[call] >= 0 else None

    server = FakeServer([{"command": "true"} for _ in range(5)])
    server.fail = fail
    assert work(tmp_path, server) == 0
    assert {end["exit_status"] for end in server.ends.values()} == {"success"}


def test_a_worker_that_was_given_up_stops_its_tasks_and_registers_anew(tmp_path: Path, mark: str) -> None:
    first = {"command": f"touch {tmp_path}/began; sleep 60", "env": {"MARK": mark}}
    server = FakeServer([first, {"command": f"until test -e {tmp_path}/began; do sleep 0.05; done"}])
    refused: list[str] = []

    def fail(call: str) -> Conflict | None:
        if call == "report" and server.ends == {} and not refused and processes_with(mark):
            refused.append(call)
            server.tasks = server.tasks[1:]  # the server has given up the other
            return Conflict("lost")
        return None

    server.fail = fail
    assert work(tmp_path, server) == 0
    assert refused == ["report"]
    assert server.registrations[1]["replaces"] == "worker-1"
    assert processes_with(mark) == []
    assert list(server.ends) == ["e2"]


def test_a_server_that_does_not_know_the_earlier_life_takes_the_worker_all_the_same(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.worker = "unknown"
    spool.add([{"execution": "old", "token": "t", "exit_status": "success"}])
    spool.close()
    server = FakeServer([{"command": "true"}])
    server.spooled = {"old"}
    register = server.register_worker

    def strict(worker: dict[str, Any], /) -> dict[str, Any]:
        if "replaces" in worker:
            raise Invalid({"replaces": "no such worker"})
        return register(worker)

    server.register_worker = strict  # type: ignore[method-assign]
    assert work(tmp_path, server) == 0
    assert server.ends["e1"]["exit_status"] == "success"
    assert "finished" not in server.registrations[0]


def test_a_stranger_is_turned_away(tmp_path: Path) -> None:
    server = FakeServer([])
    server.fail = lambda call: Forbidden("no such token") if call == "register" else None
    assert work(tmp_path, server) == 3


def test_two_workers_cannot_share_a_work_directory(tmp_path: Path) -> None:
    server = FakeServer([{"command": "true"}])
    faults: list[str] = []

    def second(report: dict[str, Any]) -> None:
        try:
            work(tmp_path, FakeServer([]))
        except SetupError as error:
            faults.append(str(error))

    server.on_report = second
    work(tmp_path, server)
    assert faults == [f"another worker uses {tmp_path}; give this one a work directory of its own"]


def test_a_killed_worker_leaves_no_process_and_its_results_outlive_it(tmp_path: Path, mark: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    script = f"echo done-{mark}; exit 4"
    worker = subprocess.Popen([PYTHON, "-m", "tests.support.fake_server", str(root), script], cwd=SOURCE)
    try:
        spool = eventually(lambda: _spooled(root), show=lambda: list(root.iterdir()))
    finally:
        worker.kill()
        worker.wait()
    assert spool == ["e1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.glob(".banyan-spool*")} == {0o600}
    server = FakeServer([{"command": "true", "_id": "t2", "execution": "e2"}])
    server.fail = lambda call: None
    work(root, server)
    assert (server.registrations[0]["replaces"], server.registrations[0]["finished"]) == ("worker-1", ["e1"])
    assert server.ends["e1"]["exit_status"] == "failure (exit code 4)"
    assert server.ends["e1"]["token"] == "token-e1"
    assert _spooled(root) == []


def _spooled(root: Path) -> list[str]:
    try:
        database = sqlite3.connect(f"file:{root}/.banyan-spool?mode=ro", uri=True)
    except sqlite3.Error:
        return []
    try:
        return [execution for (execution,) in database.execute("SELECT execution FROM ends")]
    except sqlite3.Error:
        return []  # it is being made
    finally:
        database.close()


def tasks_file(path: Path, *tasks: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(task)}\n" for task in tasks))
    return path


def run_file(path: Path, root: Path) -> subprocess.Popen[str]:
    command = [PYTHON, "-m", "banyan", "worker", "--tasks", str(path), "--workdir", str(root), "--cores", "2"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=SOURCE, stdout=pipe, stderr=pipe, text=True)


def test_kill_9_of_the_worker_leaves_nothing_of_its_tasks(tmp_path: Path, mark: str) -> None:
    script = "trap '' TERM HUP; setsid sleep 60 & sleep 60"
    path = tasks_file(tmp_path / "tasks", *({"command": script, "env": {"MARK": mark}} for _ in range(2)))
    worker = run_file(path, tmp_path / "root")
    try:
        eventually(lambda: len(processes_with(mark)) >= 6, show=lambda: processes_with(mark))
    finally:
        worker.kill()
        worker.communicate()
    eventually(lambda: not processes_with(mark), seconds=5, show=lambda: processes_with(mark))


def test_a_file_of_tasks_is_run_without_a_server(tmp_path: Path) -> None:
    path = tasks_file(
        tmp_path / "tasks",
        {"command": "echo hi", "name": "greet"},
        {"command": "test $BANYAN_EXECUTION_ID = again.3", "_id": "again", "max_retry_count": 5},
        {"command": ["true"], "requested_resources": {"cores": 64}},
    )
    worker = run_file(path, tmp_path / "root")
    out, err = worker.communicate(timeout=60)
    shown = {each["_id"]: each for each in map(json.loads, out.splitlines())}
    assert worker.returncode == 1
    assert shown["000001"] | {"peak_memory_bytes": 0, "cpu_seconds": 0} == {
        "_id": "000001",
        "name": "greet",
        "exit_status": "success",
        "attempts": 1,
        "exit_code": 0,
        "peak_memory_bytes": 0,
        "cpu_seconds": 0,
        "stdout_tail": "hi\n",
    }
    assert (shown["again"]["exit_status"], shown["again"]["attempts"]) == ("success", 3)
    assert "cores 64 of 2" in shown["000003"]["exit_status"]
    assert "2 succeeded, 1 failed" in err


def test_a_task_of_a_file_whose_directory_is_not_there_is_not_tried_again(tmp_path: Path) -> None:
    lacking = {"command": "true", "directory": f"{tmp_path}/gone", "max_retry_count": 5}
    there = {"command": "pwd", "directory": str(tmp_path)}
    worker = run_file(tasks_file(tmp_path / "tasks", lacking, there), tmp_path / "root")
    out, _ = worker.communicate(timeout=60)
    assert worker.returncode == 1
    shown = {each["_id"]: each for each in map(json.loads, out.splitlines())}
    assert (shown["000001"]["exit_status"], shown["000001"]["attempts"]) == (
        f"failure (no directory: {tmp_path}/gone)",
        1,
    )
    assert shown["000002"]["stdout_tail"] == f"{tmp_path}\n"


def test_a_file_of_tasks_may_have_long_lines_for_the_shell(tmp_path: Path) -> None:
    path = tasks_file(tmp_path / "tasks", {"command": f"long={'x' * 200_000}; echo $0 ${{#long}}"})
    out, _ = run_file(path, tmp_path / "root").communicate(timeout=60)
    assert json.loads(out)["stdout_tail"] == "/bin/sh 200000\n"


def test_a_wrong_file_of_tasks_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text('{"command": []}\nnonsense\n{"command": "x", "timeout": "soon"}\n{"command": "x", "colour": 1}\n')
    worker = run_file(path, tmp_path / "root")
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 2
    for fault in (
        "line 1: command must not be empty",
        "line 2: Expecting value",
        "line 3: 'soon' is not",
        "line 4: colour",
    ):
        assert fault in err


def test_sigterm_drains_and_a_second_one_stops_now(tmp_path: Path, mark: str) -> None:
    path = tasks_file(tmp_path / "tasks", {"command": "sleep 60; echo late", "env": {"MARK": mark}})
    worker = run_file(path, tmp_path / "root")
    eventually(lambda: processes_with(mark))
    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1.5)
    assert processes_with(mark)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=10)
    assert processes_with(mark) == []
    assert worker.returncode == 1
    assert "0 succeeded, 0 failed, 1 not run" in err


def test_a_task_of_a_worker_that_stops_can_save_its_work_and_a_third_signal_kills_it(tmp_path: Path, mark: str) -> None:
    endless = SAVES.replace("time.sleep(1)", "time.sleep(60)")
    places = [tmp_path / "heeds", tmp_path / "does not"]
    tasks = []
    for place, program in zip(places, (SAVES, endless), strict=True):
        place.mkdir()
        tasks.append({"command": f'{PYTHON} -c "{program}"; true', "directory": str(place), "env": {"MARK": mark}})
    worker = run_file(tasks_file(tmp_path / "tasks", *tasks), tmp_path / "root")
    eventually(lambda: all((place / "ready").exists() for place in places))
    for _ in range(2):
        worker.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(timeout=0.3)
    eventually((places[0] / "saved").exists)
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)
    assert processes_with(mark) == []
    assert not (places[1] / "saved").exists()


def test_the_death_of_the_supervisor_costs_the_task_but_not_the_worker(tmp_path: Path, mark: str) -> None:
    server = FakeServer([{"command": "setsid sleep 60 & sleep 60", "env": {"MARK": mark}}, {"command": "true"}])

    def kill(report: dict[str, Any]) -> None:
        if report["execution"] == "e1" and "exit_status" not in report:
            parent = Path(f"/proc/{report['pid']}/stat").read_text().rpartition(")")[2].split()[1]
            os.kill(int(parent), signal.SIGKILL)

    server.on_report = kill
    work(tmp_path, server, cores=1)
    assert server.ends["e1"]["exit_status"] == "failure (worker: its supervisor died)"
    assert server.ends["e2"]["exit_status"] == "success"
    assert processes_with(mark) == []


def test_uploads_bring_everything_while_it_runs_and_at_the_end(tmp_path: Path) -> None:
    script = "seq 5000; echo a > file; mkdir d; head -c 9000000 /dev/zero > d/large; ln -s /etc/passwd link; sleep 1.5"
    server = FakeServer([{"command": f"{script}; echo b >> file; rm -f d/large; seq 2000 >&2"}], uploads=True)
    seen: list[set[str]] = []
    server.on_report = lambda report: seen.append({path for _, path in server.files})
    work(tmp_path, server, files={"upload_interval": 0.3}, usage={"interval": 0.4})
    assert server.files["e1", "file"] == b"a\nb\n"
    assert len(server.files["e1", "d/large"]) == 9_000_000
    assert server.files["e1", "stdout"] == "".join(f"{n}\n" for n in range(1, 5001)).encode()
    assert server.files["e1", "stderr"] == "".join(f"{n}\n" for n in range(1, 2001)).encode()
    assert "link" not in {path for _, path in server.files}
    assert not (tmp_path / "t1").exists()


def test_uploads_over_the_quota_are_shown(tmp_path: Path) -> None:
    server = FakeServer([{"command": "head -c 3000 /dev/zero > large; echo x > small"}], uploads=True, quota_bytes=1000)
    work(tmp_path, server)
    assert server.ends["e1"]["excess"] == {"large": 3000}
    assert server.files == {("e1", "small"): b"x\n"}


def test_files_of_any_name_are_sent(tmp_path: Path) -> None:
    script = "printf a > $(printf 'latin-\\351'); printf b > 'line\nbreak'; printf c > $(printf '\\001')"
    script += "; seq 999 > $(printf 'x\\377')"
    server = FakeServer([{"command": script}], uploads=True, quota_bytes=100)
    work(tmp_path, server)
    assert server.files == {
        ("e1", "latin-\udce9"): b"a",
        ("e1", "line\nbreak"): b"b",
        ("e1", "\x01"): b"c",
    }
    assert server.ends["e1"]["excess"] == {"x\N{REPLACEMENT CHARACTER}": 3888}


def test_files_written_anew_are_sent_anew(tmp_path: Path) -> None:
    script = "echo first version > file; sleep 1.6; echo second > file; echo more of it >> file"
    server = FakeServer([{"command": script}], uploads=True)
    work(tmp_path, server, files={"upload_interval": 0.3})
    assert server.files["e1", "file"] == b"second\nmore of it\n"


def _writes_to_stderr(pid: int) -> bool:
    """True while one of the process's threads waits in a write to its standard error."""
    calls = [(each / "syscall").read_text().split()[:2] for each in Path(f"/proc/{pid}/task").iterdir()]
    return ["1", "0x2"] in calls


def test_a_worker_whose_log_nobody_reads_still_hears_that_it_is_to_end(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    command = [
        PYTHON,
        "-m",
        "tests.support.fake_server",
        str(tmp_path / "work"),
        f"touch {tmp_path}/ran; exec sleep 600",
    ]
    (tmp_path / "work").mkdir()
    worker = subprocess.Popen(command, cwd=SOURCE, stderr=writing)
    try:
        eventually((tmp_path / "ran").exists)
        eventually(lambda: _writes_to_stderr(worker.pid))  # the server takes no reports, and the worker says so
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGINT)
        assert worker.wait(timeout=30) == 0
    finally:
        worker.kill()
        worker.wait()
        os.close(writing)
        os.close(reading)


def test_half_a_core_runs_tasks_that_ask_for_nothing_one_at_a_time(tmp_path: Path) -> None:
    alone = f"mkdir {tmp_path}/lock && sleep 0.2 && rmdir {tmp_path}/lock"
    tasks = tmp_path / "tasks"
    lines = [{"command": alone}, {"command": alone}, {"command": alone, "requested_resources": {"cores": 0.5}}]
    lines.append({"command": "true", "requested_resources": {"cores": 2}})
    tasks.write_text("\n".join(json.dumps(line) for line in lines))
    command = [PYTHON, "-m", "banyan", "worker", "--tasks", str(tasks), "--cores", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    statuses = {each["_id"]: each["exit_status"] for each in map(json.loads, done.stdout.splitlines())}
    assert [statuses[f"{number:06}"] for number in (1, 2, 3)] == ["success"] * 3
    assert statuses["000004"].startswith("failure (worker: it needs more than this machine has: cores 2 of 1")
    assert "there are 0.5 cores, less than one" in done.stderr
