"""The supervisor with real processes: starting, accounting, killing, and leaving nothing behind."""

import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import eventually, processes_with
from worker.spawner import Job, Spawner, SupervisorDied

PATH = "PATH=/usr/local/bin:/usr/bin:/bin"


class Answers:
    """A spawner and all that its supervisor has answered."""

    def __init__(self, directory: Path) -> None:
        self.spawner = Spawner()
        self.heard: list[tuple[Any, ...]] = []
        self.directory = directory

    def run(self, key: str, *argv: str, lane: int = 1, env: tuple[str, ...] = (), **fields: Any) -> None:
        """Run a program with its output beside the test's other files."""
        out = str(self.directory / key)
        values = {"cwd": str(self.directory), "stdin": None, "stdout": f"{out}.out", "stderr": f"{out}.err"}
        job = Job(argv=list(argv), env=[PATH, f"BANYAN_EXECUTION_ID={key}", *env], **(values | fields))
        self.spawner.run(lane, key, job)
        self.spawner.push()

    def listen(self, seconds: float = 0.05) -> None:
        """Take in what was answered, waiting a moment for it."""
        select.select([self.spawner], [], [], seconds)
        self.heard += self.spawner.answers()

    def get(self, kind: str, key: str, seconds: float = 20.0) -> tuple[Any, ...]:
        """The answer of this kind about this job."""

        def look() -> tuple[Any, ...] | None:
            self.listen()
            return next((each for each in self.heard if each[:2] == (kind, key)), None)

        return eventually(look, seconds=seconds, show=lambda: self.heard) or ()

    def text(self, key: str, stream: str = "out") -> str:
        """What the job wrote."""
        return (self.directory / f"{key}.{stream}").read_text()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Answers]:
    answers = Answers(tmp_path)
    yield answers
    answers.spawner.close()


def test_an_exit_code_and_a_signal_are_told(jobs: Answers) -> None:
    jobs.run("code", "sh", "-c", "echo out; echo err >&2; exit 3", lane=1)
    jobs.run("signal", "sh", "-c", "kill -SEGV $$", lane=2)
    assert os.waitstatus_to_exitcode(jobs.get("exited", "code")[5]) == 3
    assert os.waitstatus_to_exitcode(jobs.get("exited", "signal")[5]) == -signal.SIGSEGV
    assert (jobs.text("code"), jobs.text("code", "err")) == ("out\n", "err\n")


AGAIN = {
    "the shell's own": "echo 1; echo 2 > /dev/stdout; echo 3",
    "by its number": "echo 1; echo 2 > /dev/fd/1; echo 3 > /proc/self/fd/1",
    "by tee": "echo 1; echo 2 | tee /dev/fd/3 3>&1 > /dev/null; echo 3",
    "by dd": "echo 1; echo 2 | dd of=/dev/stdout status=none; echo 3",
    "by Python": f'echo 1; {sys.executable} -c \'print(2, file=open("/dev/stdout", "w"))\'; echo 3',
    "by a child": "echo 1; (sh -c 'echo 2 > /dev/stdout'); echo 3",
    "in the background": "echo 1; echo 2 > /dev/stdout & wait; echo 3",
}


@pytest.mark.parametrize("line", AGAIN.values(), ids=AGAIN.keys())
def test_an_output_that_is_opened_again_is_appended_to(jobs: Answers, line: str) -> None:
    jobs.run("job", "sh", "-c", f"{line}; exec >&2; {line.replace('stdout', 'stderr').replace('fd/1', 'fd/2')}")
    jobs.get("exited", "job")
    assert (jobs.text("job"), jobs.text("job", "err")) == ("1\n2\n3\n", "1\n2\n3\n")


def test_a_large_output_is_whole_and_in_order_and_seen_while_the_job_runs(jobs: Answers) -> None:
    jobs.run("job", "sh", "-c", "seq 1 300000; echo err >&2; while ! test -e go; do sleep 0.02; done; echo end")
    jobs.get("started", "job")
    eventually(lambda: jobs.text("job").endswith("\n300000\n") and jobs.text("job", "err") == "err\n")
    (jobs.directory / "go").touch()
    jobs.get("exited", "job")
    assert jobs.text("job") == "".join(f"{number}\n" for number in range(1, 300001)) + "end\n"


def test_jobs_may_close_their_outputs_and_end_with_much_left_to_read(jobs: Answers) -> None:
    jobs.run("closed", "sh", "-c", "echo out; exec >&- 2>&-; sleep 0.2; exit 4", lane=1)
    jobs.run("much", "sh", "-c", "head -c 60000 /dev/zero", lane=2)
    assert os.waitstatus_to_exitcode(jobs.get("exited", "closed")[5]) == 4
    jobs.get("exited", "much")
    assert (jobs.text("closed"), len(jobs.text("much"))) == ("out\n", 60000)


def test_an_output_that_cannot_be_written_ends_what_writes_and_nothing_else(jobs: Answers) -> None:
    jobs.run("writes", "sh", "-c", "exec yes", stdout="/dev/full", lane=1)
    jobs.run("little", "sh", "-c", "echo out; sleep 0.2; exit 3", stdout="/dev/full", lane=2)
    assert os.waitstatus_to_exitcode(jobs.get("exited", "writes")[5]) == -signal.SIGPIPE
    assert os.waitstatus_to_exitcode(jobs.get("exited", "little")[5]) == 3
    jobs.run("next", "echo", "well", lane=1)
    jobs.get("exited", "next")
    assert jobs.text("next") == "well\n"


def test_more_jobs_run_than_a_process_may_usually_have_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 40  # enough for the test's own files, whatever is open here
    numbers = range(limit // 2)  # each job has two pipes
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        jobs = Answers(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        for number in numbers:
            jobs.run(f"job{number}", "sh", "-c", "ulimit -n; while ! test -e go; do sleep 0.1; done", lane=number)
        for number in numbers:
            jobs.get("started", f"job{number}")
        (tmp_path / "go").touch()
        for number in numbers:
            jobs.get("exited", f"job{number}")
            assert jobs.text(f"job{number}") == f"{limit}\n"
    finally:
        jobs.spawner.close()


def test_what_jobs_wrote_is_kept_when_the_worker_is_gone(jobs: Answers) -> None:
    jobs.run("job", "sh", "-c", "echo out; touch wrote; sleep 60")
    eventually((jobs.directory / "wrote").exists)
    jobs.spawner.close()
    assert jobs.text("job") == "out\n"


def test_a_lane_goes_on_while_another_one_is_busy(jobs: Answers) -> None:
    for lane in (1, 2, 3):
        jobs.run(f"long{lane}", "sleep", "60", lane=lane)
    for lane in (4, 5):
        jobs.run(f"short{lane}", "true", lane=lane)
        jobs.run(f"shorter{lane}", "true", lane=lane)
    for lane in (4, 5):
        jobs.get("exited", f"shorter{lane}")
    jobs.spawner.drop("shorter4")
    jobs.spawner.signal("long1", signal.SIGTERM)
    jobs.spawner.signal("long2", signal.SIGTERM)
    jobs.spawner.push()
    assert {jobs.get("exited", f"long{lane}")[5] for lane in (1, 2)} == {int(signal.SIGTERM)}
    assert not [answer for answer in jobs.heard if answer[:2] == ("exited", "long3")]


def test_the_jobs_of_a_lane_run_one_after_another(jobs: Answers) -> None:
    for number in range(5):
        jobs.run(f"job{number}", "sh", "-c", f"echo {number} >> order; sleep 0.02; echo {number} >> order")
    jobs.get("exited", "job4")
    assert (jobs.directory / "order").read_text().split() == [str(n) for n in range(5) for _ in range(2)]


def test_a_queued_job_can_be_dropped_and_a_running_one_cannot(jobs: Answers) -> None:
    jobs.run("first", "sleep", "0.3")
    jobs.run("second", "touch", "second-ran")
    jobs.run("third", "true")
    jobs.spawner.drop("second")
    jobs.spawner.drop("first")
    jobs.spawner.push()
    jobs.get("dropped", "second")
    jobs.get("exited", "third")
    assert not (jobs.directory / "second-ran").exists()
    assert ("dropped", "first") not in jobs.heard


@pytest.mark.parametrize(
    ("argv", "fields", "stage"),
    [
        (("no-such-program",), {}, "command"),
        (("/etc/passwd",), {}, "command"),
        (("true",), {"cwd": "/no/such/directory"}, "directory"),
        (("true",), {"stdout": "/no/such/directory/out"}, "output"),
        (("with\0nul",), {}, "command"),
    ],
)
def test_what_cannot_be_started_is_told_with_the_stage(
    jobs: Answers, argv: tuple[str, ...], fields: dict[str, Any], stage: str
) -> None:
    jobs.run("bad", *argv, **fields)
    assert jobs.get("failed", "bad")[2] == stage
    jobs.run("good", "true")
    jobs.get("exited", "good")


def test_the_job_leads_its_session_and_inherits_nothing(jobs: Answers) -> None:
    jobs.run("job", "sh", "-c", "ls -l /proc/$$/fd; cat /proc/$$/stat; grep Sig /proc/$$/status; pwd")
    pid = jobs.get("exited", "job")[2]
    text = jobs.text("job")
    links = [line.split()[-1] for line in text.splitlines() if " -> " in line]
    assert links[0] == "/dev/null"
    assert all(link == "/dev/null" or link.startswith("pipe:") for link in links)
    assert len(set(links)) == 3
    stat = next(line for line in text.splitlines() if line.startswith(f"{pid} "))
    _, group, session = stat.rpartition(")")[2].split()[1:4]
    assert (int(group), int(session)) == (pid, pid)
    ignored = next(line for line in text.splitlines() if line.startswith("SigIgn"))
    assert int(ignored.split()[1], 16) & sum(1 << (number - 1) for number in (1, 2, 13, 15)) == 0
    assert text.splitlines()[-1] == str(jobs.directory)


def test_a_signal_reaches_the_whole_group(jobs: Answers, mark: str) -> None:
    jobs.run("job", "sh", "-c", "sleep 60 & sleep 60 & wait", env=(f"MARK={mark}",))
    jobs.get("started", "job")
    eventually(lambda: len(processes_with(mark)) >= 3)
    jobs.spawner.signal("job", signal.SIGTERM)
    jobs.spawner.push()
    assert os.waitstatus_to_exitcode(jobs.get("exited", "job")[5]) == -signal.SIGTERM
    assert processes_with(mark) == []


def test_a_stopped_job_hears_a_signal_all_the_same(jobs: Answers) -> None:
    jobs.run("job", "sh", "-c", "trap 'echo heard; exit 5' TERM; kill -STOP $$; sleep 60")
    pid = jobs.get("started", "job")[2]
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    jobs.spawner.signal("job", signal.SIGTERM)
    jobs.spawner.push()
    assert os.waitstatus_to_exitcode(jobs.get("exited", "job")[5]) == 5
    assert jobs.text("job") == "heard\n"


SAVES = """
import os, signal, sys, time
name = sys.argv[1]
heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
open(name + ".ready", "w").close()
while not heard:
    time.sleep(0.005)
open(name + ".heard", "w").close()
while not os.path.exists(name + ".go"):
    time.sleep(0.005)
with open(name + ".saved", "w") as file:
    file.write(str(len(heard)))
"""
"""A program that needs a while to write its checkpoint: until the file `NAME.go` is there."""

LAUNCHES = """
import signal, subprocess, sys
prog = subprocess.Popen([sys.executable, "-c", sys.argv[1], "prog"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: prog.terminate())
sys.exit(prog.wait())
"""
"""A program that passes the signal on, as `mpirun` and `torchrun` do."""

MEANS = {
    "a pipeline": '"$0" -c "$1" prog | cat',
    "a subshell": '(cd . && "$0" -c "$1" prog; true); true',
    "in the background": '"$0" -c "$1" prog & wait',
    "job control": 'set -m; "$0" -c "$1" prog & wait',
    "a session of its own": 'setsid "$0" -c "$1" prog & wait',
    "a daemon without its environment": 'env -i setsid -f "$0" -c "$1" prog; sleep 60; true',
    "a daemon": 'setsid -f "$0" -c "$1" prog; sleep 60; true',
    "a launcher": 'exec "$0" -c "$2" "$1"',
}


@pytest.mark.parametrize("means", MEANS.values(), ids=MEANS.keys())
def test_the_grace_is_that_of_all_processes_of_a_job(jobs: Answers, means: str) -> None:
    there = jobs.directory
    jobs.run("job", "sh", "-c", f"{means}\n", sys.executable, SAVES, LAUNCHES)
    eventually((there / "prog.ready").exists)
    jobs.spawner.signal("job", signal.SIGTERM)
    jobs.spawner.push()
    eventually((there / "prog.heard").exists)
    jobs.run("next", "true")
    jobs.run("other", "true", lane=3)
    jobs.get("exited", "other")
    assert not [answer for answer in jobs.heard if answer[:2] in (("exited", "job"), ("started", "next"))]
    (there / "prog.go").touch()
    jobs.get("exited", "job")
    assert (there / "prog.saved").read_text() == "1"
    jobs.get("exited", "next")


def test_the_grace_ends_with_sigkill(jobs: Answers, mark: str) -> None:
    script = f"{sys.executable} -c '{SAVES}' prog & setsid {sys.executable} -c '{SAVES}' far & wait"
    jobs.run("job", "sh", "-c", script, env=(f"MARK={mark}",))
    for name in ("prog", "far"):
        eventually((jobs.directory / f"{name}.ready").exists)
    jobs.spawner.signal("job", signal.SIGTERM)
    jobs.spawner.push()
    eventually((jobs.directory / "prog.heard").exists)
    jobs.spawner.signal("job", signal.SIGKILL)
    jobs.spawner.push()
    assert os.waitstatus_to_exitcode(jobs.get("exited", "job")[5]) == -signal.SIGTERM
    assert processes_with(mark) == []
    assert not list(jobs.directory.glob("*.saved"))


def test_what_a_job_starts_to_save_its_work_is_not_asked_to_end(jobs: Answers) -> None:
    save = "sleep 60 & trap 'sh -c \"sleep 0.3; echo saved\" & exit' TERM; wait"
    jobs.run("job", "sh", "-c", f"{save}\n")
    pid = jobs.get("started", "job")[2]
    eventually(lambda: _catches_sigterm(pid) and _children(pid))
    jobs.spawner.signal("job", signal.SIGTERM)
    jobs.spawner.push()
    jobs.get("exited", "job")
    assert jobs.text("job") == "saved\n"


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _catches_sigterm(pid: int) -> bool:
    caught = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


ESCAPE = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(60) # " + sys.argv[1]], dict())
"""


@pytest.mark.parametrize(
    "leave",
    [
        "sleep 60 &",
        "nohup sleep 60 >/dev/null 2>&1 &",
        "setsid sleep 60 &",
        "setsid sh -c 'setsid sleep 60 & sleep 60' & sleep 0.2",
        "(setsid -f sleep 60)",
    ],
)
def test_what_an_ended_job_leaves_behind_is_killed(jobs: Answers, mark: str, leave: str) -> None:
    jobs.run("job", "sh", "-c", f"{leave}\nexit 0", env=(f"MARK={mark}",))
    exited = jobs.get("exited", "job", seconds=10)
    assert os.waitstatus_to_exitcode(exited[5]) == 0
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))


def test_an_escapee_that_hides_its_environment_is_killed_too(jobs: Answers, mark: str) -> None:
    jobs.run("job", sys.executable, "-c", ESCAPE, mark)
    jobs.get("exited", "job")
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))


AWAY = {
    "a double fork": '"$0" -c "$1" "$2"',
    "setsid": 'setsid -f env -i "$0" -c "$3" "$2"',
    "in the background": '(env -i setsid "$0" -c "$3" "$2" &) > /dev/null 2>&1 < /dev/null',
    "nohup": 'env -i nohup setsid -f "$0" -c "$3" "$2" > /dev/null 2>&1',
    "twice over": 'env -i setsid -f setsid -f env -i "$0" -c "$3" "$2"',
}
STAYS = "import sys, time; time.sleep(60) # "


@pytest.mark.parametrize("away", AWAY.values(), ids=AWAY.keys())
def test_an_escapee_is_killed_with_its_job_although_an_older_one_runs(jobs: Answers, mark: str, away: str) -> None:
    jobs.run("older", "sleep", "60", lane=1)
    jobs.get("started", "older")
    jobs.run("job", "sh", "-c", f"{away}; sleep 0.5", sys.executable, ESCAPE, mark, STAYS, lane=3)
    jobs.run("younger", "sleep", "60", lane=5)
    jobs.get("started", "job")
    eventually(lambda: any(command.startswith(sys.executable) for _, command in processes_with(mark)))
    jobs.get("exited", "job")
    assert processes_with(mark) == []


def test_an_escapee_that_hides_all_that_it_can_is_killed_when_no_older_job_runs(jobs: Answers, mark: str) -> None:
    hides = "ulimit -x unlimited || exit 9; env -i setsid -f sh -c 'sleep 60; : $0' \"$0\"; sleep 0.3"
    jobs.run("older", "sleep", "60", lane=1)
    jobs.get("started", "older")
    jobs.run("job", "bash", "-c", hides, mark, lane=3)
    jobs.get("started", "job")
    eventually(lambda: any(command.startswith("sh -c") for _, command in processes_with(mark)))
    jobs.get("exited", "job")
    jobs.run("younger", "sleep", "60", lane=5)
    jobs.get("started", "younger")
    assert processes_with(mark) != []
    jobs.spawner.signal("older", signal.SIGTERM)
    jobs.spawner.push()
    jobs.get("exited", "older")
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))
    assert not [answer for answer in jobs.heard if answer[:2] == ("exited", "younger")]


def test_what_an_escapee_uses_counts_for_its_job(jobs: Answers) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass\nopen('burnt', 'w')"
    away = f'env -i setsid -f {sys.executable} -c "$0"; while ! test -e burnt; do sleep 0.05; done; sleep 0.3'
    jobs.run("older", "sleep", "60", lane=1)
    jobs.run("job", "sh", "-c", away, burn, lane=3)
    assert jobs.get("exited", "job")[8] >= 0.5


def test_the_orphans_of_a_running_job_live_on(jobs: Answers, mark: str) -> None:
    jobs.run("daemon", "sh", "-c", "setsid -f sleep 60; sleep 1", lane=1, env=(f"MARK={mark}",))
    jobs.get("started", "daemon")
    eventually(lambda: len(processes_with(mark)) >= 2)
    jobs.run("other", "true", lane=2)
    jobs.get("exited", "other")
    assert any("sleep 60" in command for _, command in processes_with(mark))
    jobs.get("exited", "daemon")
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))


def test_nothing_is_left_when_the_worker_is_gone(jobs: Answers, mark: str) -> None:
    script = "trap '' TERM HUP; setsid sleep 60 & sleep 60 & sleep 60"
    jobs.run("job", "sh", "-c", script, env=(f"MARK={mark}",))
    jobs.run("escaped", sys.executable, "-c", ESCAPE + "\ntime.sleep(60)", mark, lane=2)
    jobs.get("started", "job")
    eventually(lambda: len(processes_with(mark)) >= 4, show=lambda: processes_with(mark))
    began = time.monotonic()
    jobs.spawner.close()
    assert processes_with(mark) == []
    assert time.monotonic() - began < 5
    assert not [pid for pid in jobs.spawner.pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("which", [0, 1])
def test_nothing_is_left_when_a_supervisor_is_killed(tmp_path: Path, mark: str, which: int) -> None:
    jobs = Answers(tmp_path)
    jobs.run("job", "sh", "-c", "setsid sleep 60 & sleep 60", env=(f"MARK={mark}",))
    jobs.run("other", "sh", "-c", "setsid sleep 60 & sleep 60", lane=2, env=(f"MARK={mark}",))
    groups = [jobs.get("started", key)[2] for key in ("job", "other")]
    eventually(lambda: len(processes_with(mark)) >= 6)
    os.kill(jobs.spawner.pids[which], signal.SIGKILL)

    def died() -> bool:
        try:
            jobs.listen()
        except SupervisorDied:
            return True
        return False

    eventually(died)
    jobs.spawner.clean_up(groups)
    eventually(lambda: not processes_with(mark), show=lambda: processes_with(mark))
    assert not [pid for pid in jobs.spawner.pids if Path(f"/proc/{pid}").exists()]


def test_true_is_not_charged_with_the_size_of_a_large_process(jobs: Answers) -> None:
    ballast = bytearray(100 << 20)
    jobs.run("true", "true")
    peak = jobs.get("exited", "true")[6]
    assert peak < 12 << 20, f"{len(ballast)} bytes of ours must not count"


def test_the_peak_of_a_large_program_is_its_own(jobs: Answers) -> None:
    jobs.run("large", sys.executable, "-c", "x = b'x' * 200_000_000")
    exited = jobs.get("exited", "large")
    assert exited[7] is True
    assert 200_000_000 < exited[6] < 220_000_000


def test_the_cpu_time_of_children_counts(jobs: Answers) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    jobs.run("burn", "sh", "-c", f"{sys.executable} -c '{burn}' & {sys.executable} -c '{burn}'; wait")
    assert 0.6 < jobs.get("exited", "burn")[8] < 2


def test_standard_input_is_the_file_given(jobs: Answers, tmp_path: Path) -> None:
    (tmp_path / "input").write_text("hello")
    jobs.run("cat", "cat", stdin=str(tmp_path / "input"))
    jobs.get("exited", "cat")
    assert jobs.text("cat") == "hello"


def test_many_jobs_with_large_environments_pass_the_pipes(jobs: Answers) -> None:
    large = tuple(f"V{number}=" + "x" * 10_000 for number in range(10))
    for number in range(40):
        jobs.spawner.run(1, f"job{number}", Job(["true"], [PATH, *large], "/", None, "/dev/null", "/dev/null"))
    jobs.spawner.push()
    while jobs.spawner.backlog:
        jobs.spawner.push()
        jobs.listen(0.005)
    jobs.get("exited", "job39")
    assert sum(each[0] == "exited" for each in jobs.heard) == 40
