"""A worker that is root runs its tasks as another user, who can turn nothing that root does later against it."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from banyan.beneath import regular_files
from banyan.config import WorkerSettings
from banyan.domain.programs import TOO_LONG
from banyan.errors import SetupError
from banyan.storage.disk import Root, list_beneath, open_beneath
from tests.support.fake_server import FakeServer, work
from tests.support.models import write_models
from tests.support.others import OTHER, as_root, opened, other_user, reachable
from tests.support.waiting import eventually, processes_with
from worker.account import account_of, check_root
from worker.spawner import Job, Spawner

pytestmark = as_root

SECRET = '{"token": "a secret of root"}'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everyone can reach, with a secret that is root's alone."""
    with reachable() as path:
        (path / "secret").write_text(SECRET)
        (path / "secret").chmod(0o600)
        (path / "root").mkdir(mode=0o755)
        yield path


def ends(place: Path, *tasks: dict[str, Any], uploads: bool = False, **settings: Any) -> list[dict[str, Any]]:
    """Run these tasks as the other user; the reports of their ends, in order."""
    server = FakeServer(tasks, uploads=uploads)
    assert work(place / "root", server, run_as=OTHER, **settings) == 0
    return [server.ends[task["execution"]] | {"files": sent_by(server, task["execution"])} for task in server.tasks]


def sent_by(server: FakeServer, execution: str) -> dict[str, bytes]:
    return {path: data for (each, path), data in server.files.items() if each == execution}


def test_the_other_user_can_open_the_outputs_again(place: Path) -> None:
    line = "echo 1; echo 2 > /dev/stdout; echo 3; exec >&2; echo 1; echo 2 > /dev/stderr; echo 3"
    (end,) = ends(place, {"command": line})
    assert (end["stdout_tail"], end["stderr_tail"]) == ("1\n2\n3\n", "1\n2\n3\n")


def test_a_task_is_the_other_users_and_nothing_of_ours_is_in_it(place: Path) -> None:
    who = "id -u; id -g; id -G; umask; ulimit -c; ulimit -Hc; echo $HOME $USER; pwd"
    script = f"{who}; for fd in /proc/$$/fd/*; do [ -e $fd ] && echo ${{fd##*/}}; done; true"
    (end,) = ends(place, {"command": script})
    user = other_user()
    groups = " ".join(str(group) for group in os.getgrouplist(OTHER, user.pw_gid))
    said = end["stdout_tail"].splitlines()
    assert said[:3] == [str(user.pw_uid), str(user.pw_gid), groups]
    assert said[3:] == [
        *("0022", "0", "0"),
        f"{user.pw_dir} {OTHER}",
        str(place / "root/t1/1/work"),
        *("0", "1", "2"),
    ]


def test_it_may_write_where_it_should(place: Path) -> None:
    script = """
        echo file > file; echo again > /dev/stdout; echo wrong > /dev/stderr; cat
        echo '{"fraction": 1}' > $BANYAN_PROGRESS.new && mv $BANYAN_PROGRESS.new $BANYAN_PROGRESS
        head -c 70000 /dev/zero | tr '\\0' 1 > $BANYAN_RESULT
    """
    (end,) = ends(place, {"command": script, "stdin": "from stdin"})
    assert end["exit_status"] == "success"
    assert (end["stdout_tail"], end["stderr_tail"]) == ("again\nfrom stdin", "wrong\n")
    assert (end["progress"], end["result_file"]) == ({"fraction": 1}, "result.json")
    kept = place / "root/t1/1/work/result.json"
    assert (kept.stat().st_size, kept.stat().st_uid) == (70000, other_user().pw_uid)


def test_a_line_that_is_too_long_for_an_argument_runs_as_the_other_user(place: Path) -> None:
    long = "x" * 300_000
    (end,) = ends(place, {"command": f"long={long}; echo $0 ${{#long}}; id -u; cat", "stdin": "from stdin"})
    assert end["exit_status"] == "success"
    assert end["stdout_tail"] == f"/bin/sh 300000\n{other_user().pw_uid}\nfrom stdin"


def test_arguments_that_the_kernel_does_not_take_are_the_tasks_fault(place: Path) -> None:
    (end,) = ends(place, {"command": ["echo", "x" * 140_000]})
    assert end["exit_status"] == TOO_LONG


def test_it_cannot_reach_what_is_roots(place: Path) -> None:
    logs = place / "root/t1/1"
    script = f"""
        for file in {place}/secret {place}/root/.banyan-spool /proc/$PPID/environ; do cat $file && echo READ $file; done
        for name in stdout stderr stdin work told; do
            mv {logs}/$name {logs}/moved && echo MOVED $name
            rm -rf {logs}/$name && echo REMOVED $name
        done
        ln -s /etc/passwd {logs}/planted && echo PLANTED
        mkdir {place}/root/t2 && echo MADE
        kill -9 $PPID && echo KILLED
    """
    (end,) = ends(place, {"command": script, "stdin": "x"})
    assert [line for line in end["stdout_tail"].splitlines() if line.isupper() or " " in line] == []
    assert "secret" not in end["stdout_tail"]
    assert sorted(path.name for path in logs.iterdir()) == ["stderr", "stdin", "stdout", "told", "work"]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_to_a_secret_shows_nobody_the_secret(place: Path, link: Callable[[Path, Path], None]) -> None:
    root = place / "root"
    waiting = "until [ -e linked ]; do sleep 0.02; done; echo x > ours; yes | head -n 9999"
    server = FakeServer([{"command": waiting, "workdir": "task"}], uploads=True)

    def started(report: dict[str, Any]) -> None:
        if "exit_status" not in report:  # as the user himself could, where the kernel does not protect hard links
            for path in ("1/told/progress.json", "1/told/result.json", "work/mine", "work/linked"):
                link(place / "secret", root / "t1" / path)

    server.on_report = started
    assert work(root, server, run_as=OTHER, usage={"interval": 0.1}, files={"upload_interval": 0.1}) == 0
    end = server.ends["e1"]
    assert (end["exit_status"], "result" in end, "progress" in end) == ("success", False, False)
    assert end["files_bytes"] == 2
    assert sent_by(server, "e1").keys() == {"stdout", "ours"}
    assert SECRET not in json.dumps([server.ends, server.reports], default=str)


def test_a_server_that_shares_the_disk_shows_nobody_the_secret_either(place: Path) -> None:
    ends(place, {"command": f"echo x > ours; ln -s {place}/secret soft", "workdir": "task"})
    root = Root(path=str(place / "root"), owner=0)
    os.link(place / "secret", place / "root/t1/work/hard")
    opened = open_beneath(root, "t1/work/ours")
    assert opened is not None
    opened.close()
    assert [open_beneath(root, f"t1/work/{name}") for name in ("hard", "soft")] == [None, None]
    assert [file.path for file in list_beneath(root, "t1/work", 10) or []] == ["ours"]


def test_a_pipe_in_the_place_of_a_file_stops_nobody(place: Path) -> None:
    script = "mkfifo $BANYAN_PROGRESS $BANYAN_RESULT pipe; sleep 0.5"
    (end,) = ends(place, {"command": script}, usage={"interval": 0.1}, uploads=True)
    assert (end["exit_status"], end["files"]) == ("success", {})


def test_a_large_result_is_never_written_through_a_link(place: Path) -> None:
    script = f"ln -s {place}/secret result.json; head -c 70000 /dev/zero | tr '\\0' 1 > $BANYAN_RESULT"
    (end,) = ends(place, {"command": script})
    assert end["result_file"] == "result.json"
    assert (place / "secret").read_text() == SECRET
    assert stat.S_ISREG((place / "root/t1/1/work/result.json").lstat().st_mode)


def test_what_cannot_be_started_is_told_as_ever(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    (closed / "program").write_text("#!/bin/sh\n")
    tasks: list[tuple[dict[str, Any], str]] = [
        ({"command": ["no-such-program"]}, "failure (exit code 127)"),
        ({"command": [str(closed / "program")]}, "failure (exit code 126)"),
        ({"command": "true", "directory": str(closed)}, f"failure (no directory: {closed})"),
        ({"command": "true", "directory": "/no/such/place"}, "failure (no directory: /no/such/place)"),
        ({"command": "exit 3"}, "failure (exit code 3)"),
        ({"command": "sleep 60", "timeout": 0.3}, "timed out"),
    ]
    assert [end["exit_status"] for end in ends(place, *(task for task, _ in tasks))] == [status for _, status in tasks]


def test_what_a_task_leaves_behind_is_killed(place: Path) -> None:
    mark = f"mark-{os.getpid()}-run-as"
    (end,) = ends(place, {"command": "setsid sleep 60 & (setsid -f sleep 60)", "env": {"MARK": mark}})
    assert end["exit_status"] == "success"
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))


def test_the_tasks_variables_have_no_effect_before_it_is_the_other_user(place: Path) -> None:
    variables = {"LD_PRELOAD": "/no/such/library.so", "PYTHONPATH": str(place), "PATH": f"{place}:/usr/bin:/bin"}
    procs = place / "cgroup.procs"
    procs.write_text("")
    spawner = Spawner()
    user = other_user()
    spawner.limit(0o077, 0, (user.pw_uid, user.pw_gid, []))
    out, err = str(place / "root/out"), str(place / "root/err")
    env = [f"{name}={value}" for name, value in variables.items()]
    spawner.run(1, "job", Job(["/bin/sh", "-c", "umask; id -u"], env, "/", None, out, err, procs=str(procs)))
    spawner.push()
    heard: list[tuple[Any, ...]] = []

    def exited() -> bool:
        heard.extend(spawner.answers())
        return any(answer[0] == "exited" for answer in heard)

    eventually(exited, show=lambda: heard)
    spawner.close()
    assert Path(out).read_text() == f"0077\n{user.pw_uid}\n"
    assert "cannot be preloaded" in Path(err).read_text()
    assert procs.read_text() == "0"  # the kernel takes this for whoever writes it, who was root then
    assert (Path(out).stat().st_uid, Path(out).stat().st_mode & 0o777) == (user.pw_uid, 0o600)


def test_a_umask_of_ones_own_closes_the_directories_to_others(place: Path) -> None:
    (end,) = ends(place, {"command": "echo x > file", "workdir": "task"}, tasks={"umask": "077"})
    assert end["exit_status"] == "success"
    task = place / "root/t1"
    paths = (task, task / "work", task / "work/file", task / "1")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in paths}
    assert modes == {"t1": "0o711", "work": "0o700", "file": "0o600", "1": "0o711"}


def test_a_user_a_group_or_a_place_that_will_not_do_is_explained(place: Path) -> None:
    cases = [
        (WorkerSettings(run_as="no-such-user"), "run_as: .*no-such-user.* on this machine"),
        (WorkerSettings(run_as=OTHER, run_as_group="no-such-group"), "no-such-group"),
        (WorkerSettings(run_as_group=OTHER), "run_as_group is of no use without run_as"),
    ]
    for settings, words in cases:
        with pytest.raises(SetupError, match=words):
            account_of(settings)
    account = account_of(WorkerSettings(run_as=OTHER, run_as_group="daemon"))
    assert account is not None
    assert account.gid != other_user().pw_gid
    check_root(place / "root", account)
    (place / "root").chmod(0o777)
    with pytest.raises(SetupError, match="can be changed by others than root"):
        check_root(place / "root", account)
    (place / "root").chmod(0o755)
    place.chmod(0o700)
    with pytest.raises(SetupError, match="this user cannot reach the work directory"):
        check_root(place / "root", account)


WHO = """
    import resource
    def look(cancel):
        return {"uid": os.getuid(), "gid": os.getgid(), "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
                "home": os.environ["HOME"], "shared": isinstance(cancel._numbers, memoryview)}
    open("file", "w").close()
    return delayed(look)(cancel)
"""
NONSENSE = """
    import socket, stat
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, spec.inputs["says"].encode("latin-1"))
        except OSError:
            pass
    time.sleep(60)
"""


def test_a_host_is_the_other_users_too_and_whatever_it_says_harms_nobody(place: Path) -> None:
    models = write_models(place / "models", who=WHO, nonsense=NONSENSE)
    endless = b"\xff\xff\xff\xff".decode("latin-1")
    said = [endless, framed("nothing"), framed('[["ended", 1]]'), framed("[" * 90000)]
    lines = [{"model": "who"}, *({"model": "nonsense", "inputs": {"says": text}} for text in said), {"model": "who"}]
    (place / "tasks").write_text("\n".join(json.dumps(line) for line in lines))
    environment = {
        "PATH": os.environ["PATH"],
        "BANYAN_RUN_AS": OTHER,
        "BANYAN_MODELS__PATH": json.dumps([models]),
        "BANYAN_MODELS__SCHEDULER": "processes",
    }
    command = [sys.executable, "-m", "banyan", "worker", "--cores", "1", "--workdir", str(place / "root")]
    done = subprocess.run(
        [*opened(place / "view"), *command, "--tasks", str(place / "tasks")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    first, *nonsense, last = [json.loads(line) for line in done.stdout.splitlines()]
    user = other_user()
    mine = {"uid": user.pw_uid, "gid": user.pw_gid, "core": [0, 0], "home": user.pw_dir, "shared": True}
    assert [first.get("result", first), last.get("result", last)] == [mine, mine]
    assert {end["exit_status"] for end in nonsense} == {"failure (worker: model host died)"}
    assert [path for path, _ in regular_files(str(place / "root/000001/1/work"))] == ["file"]


def framed(text: str) -> str:
    return len(text).to_bytes(4, "little").decode("latin-1") + text


def test_signals_that_the_worker_ignores_or_blocks_are_neither_in_a_task_of_another_user(place: Path) -> None:
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        (end,) = ends(place, {"command": ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGUSR2, before)
    assert set(end["stdout_tail"].split()[1::2]) == {"0" * 16}
