"""What the worker reads from the machine and from its tasks, and what it keeps."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from banyan.beneath import regular_files
from banyan.config import Reserve, WorkerSettings
from banyan.domain.programs import TOO_LONG
from banyan.domain.resources import Resources
from banyan.errors import SetupError
from tests.support.worker import grant
from worker.capacity import Machine, capacity, machine
from worker.cgroups import ControlGroups, Left, own_group
from worker.collect import Malformed, printed_result, progress, result, tail
from worker.gpus import Gpu
from worker.layout import Layout
from worker.outcome import exit_status, worker_failure
from worker.spool import Spool
from worker.tasksfile import TasksFile, read
from worker.usage import Process, trees

GIB = 2**30
Document = dict[str, Any]
SOURCE = Path(__file__).parents[2]


# Capacity


def fake_root(root: Path, groups: str, **limits: str) -> Path:
    """A file system root with these control groups; `limits` maps `DIR__FILE` to a text."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemAvailable:    1 kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_limits_count_wherever_they_are_set(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        "0::/slice/job\n",
        **{"slice/cpu.max": "150000 100000\n", "slice/job/cpu.max": "max 100000\n", "slice/memory.max": str(2 * GIB)},
        **{"slice/job/memory.max": str(3 * GIB)},
    )
    found = machine(tmp_path, root)
    assert (found.cores, found.memory_bytes) == (min(1.5, found.cores), 2 * GIB)
    assert found.scratch_bytes > 0


def test_version_1_limits_count_also_inside_a_container(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n",
        **{"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        **{"memory/memory.limit_in_bytes": f"{GIB}\n"},
    )
    found = machine(tmp_path, root)
    assert (found.cores, found.memory_bytes) == (0.5, GIB)


def test_no_limit_means_the_whole_machine(tmp_path: Path) -> None:
    unlimited = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu/cpu.cfs_quota_us": "-1\n"}
    root = fake_root(tmp_path, "4:memory:/\n1:cpu:/\n", **unlimited)
    assert machine(tmp_path, root).memory_bytes == 16 * GIB


HERE = Machine(
    cores=8.0,
    memory_bytes=100 * GIB,
    scratch_bytes=50 * GIB + 5,
    gpus=tuple(Gpu(index=i, memory_bytes=(16 + i) * GIB, compute_capability=(8 - i, 0)) for i in range(3)),
)


def test_reserves_are_left_for_others() -> None:
    reserve = Reserve(cores=1.5, memory_bytes=10 * GIB, memory_percent=5, gpus=1)
    resources, indexes = capacity(HERE, WorkerSettings(reserve=reserve, custom={"licence": 2}))
    assert resources == Resources(
        millicores=6500,
        memory_bytes=85 * GIB,
        gpus=2,
        gpu_memory_bytes=16 * GIB,
        gpu_compute_capability=(7, 0),
        scratch_bytes=50 * GIB,
        custom={"licence": 2000},
    )
    assert indexes == (0, 1)


def test_settings_replace_what_was_found_but_no_gpu_is_invented() -> None:
    settings = WorkerSettings(cores=20, memory=GIB, gpus=5, scratch=7)
    resources, indexes = capacity(HERE, settings)
    assert (resources.millicores, resources.memory_bytes, resources.scratch_bytes) == (20_000, GIB, 7)
    assert indexes == (0, 1, 2)
    assert capacity(HERE, WorkerSettings(gpus=0))[1] == ()


# Processes


def process(pid: int, parent: int, session: int) -> Process:
    return Process(pid, parent, session, 0, 0, 0)


def test_a_tree_is_found_by_parents_and_by_sessions() -> None:
    table = [
        process(10, 1, 10),  # the supervisor
        process(20, 10, 20),  # task a
        process(21, 20, 20),
        process(22, 21, 22),  # a session of its own, but still a's child
        process(23, 10, 20),  # an orphan of a's session
        process(30, 10, 30),  # task b
        process(40, 1, 40),  # somebody else
    ]
    found = trees({each.pid: each for each in table}, {20: "a", 30: "b"}, reapers=[10])
    assert {task: sorted(each.pid for each in processes) for task, processes in found.items()} == {
        "a": [20, 21, 22, 23],
        "b": [30],
    }


# What tasks write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"fraction": 0.5, "message": "half"}', {"fraction": 0.5, "message": "half"}),
        ('{"fraction": 1}', {"fraction": 1}),
        ('{"message": null}', {}),
        ("", None),
        (" \n", None),
    ],
)
def test_progress(tmp_path: Path, text: str, said: Any) -> None:
    (tmp_path / "progress").write_text(text)
    assert progress(str(tmp_path / "progress")) == said


@pytest.mark.parametrize(
    "text", ["half", "[]", "0.5", '{"fraction": 1.5}', '{"fraction": "x"}', '{"fraction": NaN}', '{"message": 1}',
             '{"other": 1}', '{"fraction": true}', "[" * 100_000]
)  # fmt: skip
def test_nonsense_is_not_progress(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress").write_text(text)
    with pytest.raises(Malformed, match="progress"):
        progress(str(tmp_path / "progress"))


@pytest.mark.parametrize("text", ["nonsense", f"{2**63}", '{"a\\u0000b": 1}', '"\\ud800"', "[" * 95 + "]" * 95])
def test_a_result_that_cannot_be_kept_is_malformed(tmp_path: Path, text: str) -> None:
    (tmp_path / "result").write_text(text)
    with pytest.raises(Malformed, match="result"):
        result(str(tmp_path / "result"), None)


def test_odd_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "result").write_text('{"": 1, "a.b": [null, Infinity], "$x": "é"}')
    kept = {"result": {"": 1, "a.b": [None, float("inf")], "$x": "é"}}
    assert result(str(tmp_path / "result"), None) == kept
    assert result(str(tmp_path / "nothing"), None) == {}


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        (b'{"x": 1}\n', {"result": {"x": 1}}),
        (b"working ..\n[1, 2]\n\n  \n", {"result": [1, 2]}),
        (b"4.5", {"result": 4.5}),
        (b"a\r\n  null \r\n", {"result": None}),
        (b"\xff\xfe\n" + '"温度"\n'.encode(), {"result": "温度"}),
        (b"x" * 200_000 + b"\n7\n" + b"\n" * 200_000, {"result": 7}),
        (b"", {}),
        (b"\n \n", {}),
    ],
)
def test_the_last_line_that_is_printed_is_the_result(tmp_path: Path, printed: bytes, kept: Document) -> None:
    (tmp_path / "stdout").write_bytes(printed)
    assert printed_result(str(tmp_path / "stdout"), None, str(tmp_path / "spare")) == kept


def test_a_long_line_that_is_printed_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    line = json.dumps(list(range(60_000)))
    (tmp_path / "stdout").write_text(f"first\n{line}\n")
    found = printed_result(str(tmp_path / "stdout"), str(tmp_path / "work"), str(tmp_path / "spare"))
    assert found == {"result_file": "result.json"}
    assert (tmp_path / "work" / "result.json").read_text() == line
    assert not (tmp_path / "spare").exists()


@pytest.mark.parametrize("printed", ["done", "{'x': 1}", "1\nnot json", f"{2**63}"])
def test_a_last_line_that_is_no_json_is_told(tmp_path: Path, printed: str) -> None:
    (tmp_path / "stdout").write_text(printed)
    with pytest.raises(Malformed, match="result, the last line of stdout: "):
        printed_result(str(tmp_path / "stdout"), None, str(tmp_path / "spare"))


def test_a_tail_is_text_whatever_it_is_cut_from(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"\xff" + "é".encode() * 10)
    assert tail(str(tmp_path / "out"), 3) == ("\ufffdé", 21)
    assert tail(str(tmp_path / "nothing"), 3) == ("", 0)


# Directories


def test_an_attempt_starts_in_an_empty_directory(tmp_path: Path) -> None:
    layout, attempt = Layout(tmp_path), grant("a")
    layout.make(attempt)
    (tmp_path / "task-a/1/work/left").write_text("x")
    layout.make(attempt)
    assert sorted(path.name for path in (tmp_path / "task-a/1").iterdir()) == ["work"]
    assert list((tmp_path / "task-a/1/work").iterdir()) == []
    layout.clear(attempt)
    layout.trash.empty()
    assert [list(path.iterdir()) for path in tmp_path.iterdir()] == [[]]


def test_forgetting_never_leaves_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "task").mkdir(parents=True)
    (tmp_path / "precious").mkdir()
    (root / ".banyan-spool").touch()
    layout = Layout(root)
    names = ["../precious", "..", ".", "", "/etc", ".banyan-spool", "task/../../precious", "task/x", "task/1/..", "/1"]
    assert layout.forget(names) == []
    assert layout.forget(["task", "gone", "gone/3"]) == ["task", "gone", "gone/3"]
    layout.trash.empty()
    assert sorted(path.name for path in root.rglob("*")) == [".banyan-spool", ".banyan-trash"]
    assert (tmp_path / "precious").exists()


def test_attempts_are_forgotten_up_to_one_and_the_work_directory_with_the_last(tmp_path: Path) -> None:
    for name in ("task/1/work", "task/2", "task/10", "task/work"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    layout = Layout(tmp_path)
    assert layout.forget(["task/2"]) == ["task/2"]
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == ["10", "work"]
    assert layout.forget(["task/10"], busy={"task"}) == []
    assert layout.forget(["task/10"]) == ["task/10"]
    assert not (tmp_path / "task").exists()


def test_what_an_earlier_life_threw_away_is_removed(tmp_path: Path) -> None:
    (tmp_path / "task/1").mkdir(parents=True)
    assert Layout(tmp_path).forget(["task"]) == ["task"]
    Layout(tmp_path).trash.empty()
    assert list((tmp_path / ".banyan-trash").iterdir()) == []


WITHOUT_ROOTS_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
"""Before a command: it is held to the modes of files, also if it is root's."""

THROWING_AWAY = """
import sys
from pathlib import Path
from tests.support.worker import grant
from worker.layout import Layout
layout = Layout(Path(sys.argv[1]))
print(layout.forget(sys.argv[2:]))
layout.trash.empty()
"""


def throw_away(root: Path, *names: str) -> str:
    """Forget these in a process that has no more rights than their owner; what came of it."""
    command = [*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", THROWING_AWAY, str(root), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=SOURCE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("mode", [0o555, 0o500, 0o000, 0o111])
@pytest.mark.parametrize(
    "taken",
    [
        ["t/1/work/go/pkg/mod", "t/1/work/go/pkg", "t/1/work/go"],
        ["t/1/work"],
        ["t/1/work", "t/1", "t"],
    ],
    ids=["deep", "work", "all"],
)
def test_directories_without_rights_are_removed(tmp_path: Path, mode: int, taken: list[str]) -> None:
    deep = tmp_path / "t/1/work/go/pkg/mod"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "file").chmod(0o444)
    (tmp_path / "t/2").mkdir()
    for path in taken:
        (tmp_path / path).chmod(mode)
    assert throw_away(tmp_path, "t/1") == "['t/1']"
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [".banyan-trash", "t", "t/2"]
    assert throw_away(tmp_path, "t") == "['t']"


def test_rights_are_given_back_to_nothing_outside_of_what_is_removed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o555)
    (tmp_path / "root/t/1/work").mkdir(parents=True)
    (tmp_path / "root/t/1/work/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/t/1/work").chmod(0o555)
    assert throw_away(tmp_path / "root", "t") == "['t']"
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o555
    assert list((tmp_path / "root/.banyan-trash").iterdir()) == []


def test_only_regular_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/file").write_text("x")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [path for path, _ in regular_files(str(tmp_path))] == ["d/e/file"]


# Spool


def test_a_spool_outlives_its_worker_and_is_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert (spool.worker, spool.ends()) == (None, [])
    spool.worker = "w1"
    spool.add([{"execution": "a", "exit_status": "success"}, {"execution": "b"}])
    spool.add([{"execution": "c"}], acknowledged=["b"])
    with pytest.raises(SetupError, match="another worker uses"):
        Spool(tmp_path)
    spool.close()
    again = Spool(tmp_path)
    assert again.worker == "w1"
    assert again.ends() == [{"execution": "a", "exit_status": "success"}, {"execution": "c"}]
    again.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_broken_spool_is_explained(tmp_path: Path) -> None:
    (tmp_path / ".banyan-spool").write_text("this is not a database, but it is long enough to be mistaken for one" * 99)
    with pytest.raises(SetupError, match="cannot use"):
        Spool(tmp_path)


# A file of tasks


def test_a_file_of_tasks_hands_out_what_fits_and_retries(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text('{"command": "a", "max_retry_count": 1, "timeout": "120s"}\n\n{"command": ["b"], "_id": "b"}\n')
    shown: list[dict[str, Any]] = []
    tasks = TasksFile(read(path), shown.append)
    done: list[bool] = []
    tasks.done = lambda: done.append(True)
    tasks.register_worker({"resources": {"cores": 2}})
    ask = {"request": "1", "resources": {"cores": 1}, "max_tasks": 9, "wait": 0}
    (first,) = tasks.claim("w", ask)["tasks"]
    assert (first["_id"], first["execution"], first["timeout"]) == ("000001", "000001.1", 120.0)
    key = first["class"]
    ahead = {"seconds": 2.0, "most": 5, "classes": {key: 0.1}, "resources": {"cores": 2}}
    (second,) = tasks.claim("w", {**ask, "request": "2", "max_tasks": 0, "ahead": ahead})["tasks"]
    assert second["_id"] == "b"
    tasks.report("w", {"reports": [{"execution": "000001.1", "exit_status": "failure (exit code 1)"}]})
    assert tasks.claim("w", ask)["tasks"][0]["execution"] == "000001.2"
    ends = [{"execution": "000001.2", "exit_status": "timed out"}, {"execution": "b.1", "exit_status": "success"}]
    tasks.report("w", {"reports": ends})
    assert shown == [
        {"_id": "000001", "exit_status": "timed out", "attempts": 2},
        {"_id": "b", "exit_status": "success", "attempts": 1},
    ]
    assert (done, tasks.failed, tasks.ended) == ([True], 1, 2)


def test_a_task_of_a_file_that_can_never_start_is_not_retried(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text('{"command": "a", "max_retry_count": 3}\n')
    shown: list[dict[str, Any]] = []
    tasks = TasksFile(read(tmp_path / "tasks"), shown.append)
    tasks.register_worker({"resources": {"cores": 1}})
    tasks.claim("w", {"request": "1", "resources": {"cores": 1}, "max_tasks": 9, "wait": 0})
    tasks.report("w", {"reports": [{"execution": "000001.1", "exit_status": TOO_LONG}]})
    assert shown == [{"_id": "000001", "exit_status": TOO_LONG, "attempts": 1}]


def test_a_file_of_tasks_may_name_models(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text('{"model": "sum", "inputs": {"c.x": 1}}\n{"command": "x"}\n')
    model, command = read(path)
    assert (model.document["model"], model.document["inputs"]) == ("sum", {"c.x": 1})
    assert model.task_class != command.task_class


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"model": "sum", "command": "x"}', "without a command beside it"),
        ('{"model": 3}', "the name of a model"),
        ('{"model": "sum", "inputs": [1]}', "inputs must be an object"),
        ("{}", "command must be a text"),
        ('{"command": []}', "command must not be empty"),
        ('{"command": "a\\u0000"}', "command must not contain NUL"),
        (f'{{"command": ["a", "{"x" * 140_000}"]}}', "command word 1 has 140000 bytes"),
        (f'{{"command": "a", "env": {{"A": "{"x" * 140_000}"}}}}', "env: 'A' has 140002 bytes"),
        ('{"command": "a", "env": {"A": 1}}', "env: the value of 'A' must be a text"),
        ('{"command": "a", "env": {"A=B": "1"}}', "env: a name must have"),
        ('{"command": "a", "env": []}', "env must be an object"),
    ],
)
def test_a_line_of_a_file_needs_one_program(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "tasks").write_text(line)
    with pytest.raises(SetupError, match=f"line 1: .*{said}"):
        read(tmp_path / "tasks")


def test_a_file_of_tasks_that_is_wrong_is_explained(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text('{"command": "x", "_id": "../up"}\n{"command": "x", "_id": "a"}\n')
    with pytest.raises(SetupError, match="line 1: _id must be"):
        read(tmp_path / "tasks")
    (tmp_path / "twice").write_text('{"command": "x", "_id": "a"}\n{"command": "x", "_id": "a"}\n')
    with pytest.raises(SetupError, match="the id a occurs twice"):
        read(tmp_path / "twice")
    with pytest.raises(SetupError, match="cannot read"):
        read(tmp_path / "nothing")


# Control groups


def test_a_version_2_group_limits_memory_and_tells_of_its_kills(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    groups = ControlGroups(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
    argv = groups.enter("e1", GIB, ["prog", "arg"])
    (group,) = tmp_path.glob("banyan-worker-*/e1")
    assert (group.parent / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "memory.max").read_text() == str(GIB)
    assert argv[-3:] == [f"{group}/cgroup.procs", "prog", "arg"]
    assert groups.leave("e1") == Left()
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    (group / "memory.peak").write_text("4096\n")
    assert groups.leave("e1") == Left(True, 4096)
    groups.make("e2", None)
    assert list((group.parent / "e2").iterdir()) == []


def test_a_version_1_group_limits_memory_and_tells_of_its_kills(tmp_path: Path) -> None:
    groups = ControlGroups(tmp_path)
    groups.enter("e1", GIB, ["prog"])
    (group,) = tmp_path.glob("banyan-worker-*/e1")
    assert (group / "memory.limit_in_bytes").read_text() == str(GIB)
    (group / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    (group / "memory.max_usage_in_bytes").write_text("8192\n")
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")  # of a process that is elsewhere by now
    assert groups.leave("e1") == Left(True, 8192)


def test_groups_of_workers_that_live_stay_and_those_of_killed_ones_go(tmp_path: Path) -> None:
    (tmp_path / "banyan-worker-killed/e1").mkdir(parents=True)
    (tmp_path / "of-others").mkdir()
    first = ControlGroups(tmp_path)
    (own,) = tmp_path.glob("banyan-worker-*")
    (own / "e1").mkdir()
    second = ControlGroups(tmp_path)
    assert (own / "e1").is_dir()
    second.close()
    assert sorted(tmp_path.iterdir()) == [own, tmp_path / "of-others"]
    first.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "of-others"]


@pytest.mark.parametrize(
    ("lines", "files", "found"),
    [
        ("0::/unit\n", {"unit/cgroup.controllers": "cpu memory"}, "unit"),
        ("0::/unit/banyan-processes\n", {"unit/banyan-processes/cgroup.controllers": "memory"}, "unit"),
        ("5:cpu:/c\n4:memory:/m\n0::/\n", {"cpu/c/cpu.shares": "", "memory/m/memory.limit_in_bytes": ""}, "memory/m"),
        ("4:memory:/host/path\n", {"memory/memory.limit_in_bytes": ""}, "memory"),
        ("0::/unit\n", {"unit/cgroup.controllers": "cpu"}, None),
        ("", {}, None),
    ],
    ids=["version 2", "moved by us before", "version 1", "in a container", "no memory", "no groups"],
)
def test_the_workers_own_group_is_found(tmp_path: Path, lines: str, files: dict[str, str], found: str | None) -> None:
    fake_root(tmp_path, lines)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if found is None:
        with pytest.raises(SetupError, match=r"name one as tasks\.cgroup"):
            own_group(tmp_path)
    else:
        assert own_group(tmp_path) == tmp_path / "sys/fs/cgroup" / found


def test_a_control_group_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"correct tasks\.cgroup"):
        ControlGroups(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 65 + "]" * 65, "deeper than 64"),
        ("[" * 50_000, "recursion"),
        ('{"x": 18446744073709551616}', "64 bits"),
        ('"\\ud800"', "surrogate"),
        ('{"a\\u0000": 1}', "NUL"),
        ('{"$ref": "a", "$id": 1, "$db": null}', "$db"),
        (f"[{','.join(['1e9'] * 16_000)}]", "written out"),
    ],
)
def test_a_result_that_the_server_would_not_keep_is_no_result(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(Malformed, match=re.escape(told)):
        result(str(tmp_path / "result.json"), None)


def test_a_result_as_deep_as_the_server_takes_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("[" * 64 + "]" * 64)
    assert "result" in result(str(tmp_path / "result.json"), None)


def test_a_message_that_is_too_long_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_text(json.dumps({"message": "x" * 10_001}))
    with pytest.raises(Malformed, match="10000 characters"):
        progress(str(tmp_path / "progress.json"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a\nb", "a b"), ("", "unknown"), ("\0\ud800", "??"), ("x" * 10_000, "x" * 500), ("Ärger", "Ärger")],
)
def test_an_exit_status_is_one_line_whatever_a_program_calls_its_errors(name: str, shown: str) -> None:
    assert exit_status(0, None, {"exception": name}) == f"failure ({shown})"
    assert worker_failure(name) == f"failure (worker: {shown})"
