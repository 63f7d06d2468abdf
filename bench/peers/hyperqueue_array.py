"""HyperQueue: one server, one worker, and an array job, all with its own defaults."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import Incomplete, Missing
from bench.processes import running
from bench.turns import Run

NAME = "hyperqueue"

_LONGEST_SECONDS = 600
_LEFT_ALONE = "HQ_"


@contextmanager
def commands() -> Iterator[Run]:
    """Commands per second: an array job of `echo $HQ_TASK_ID`, from `hq submit --wait` to its end."""
    program = _program()
    with tempfile.TemporaryDirectory(prefix="banyan-bench-") as name:
        home = Path(name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_LEFT_ALONE)}
        environment |= {"HQ_SERVER_DIR": str(home / "server"), "HOME": name}

        def hq(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [program, *arguments],
                cwd=home,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_LONGEST_SECONDS,
                check=False,
            )

        def run(count: int) -> float:
            begun = time.perf_counter()
            done = hq("submit", "--array", f"0-{count - 1}", "--wait", "--", "/bin/sh", "-c", "echo $HQ_TASK_ID")
            seconds = time.perf_counter() - begun
            _check(done, home, count)
            return count / seconds

        server = running(
            [program, "server", "start"],
            log=home / "server.log",
            ready=lambda: hq("server", "info").returncode == 0,
            env=environment,
        )
        worker = running(
            [program, "worker", "start"],
            log=home / "worker.log",
            ready=lambda: "RUNNING" in hq("worker", "list").stdout,
            env=environment,
        )
        with server, worker:
            yield run


def _program() -> str:
    beside = Path(sys.executable).with_name("hq")
    found = str(beside) if beside.exists() else shutil.which("hq")
    if found is None:
        raise Missing("HyperQueue is not installed: pip install 'hyperqueue==0.27.*'")
    return found


def _check(done: subprocess.CompletedProcess[str], home: Path, count: int) -> None:
    """The job has finished, and the stdout of each task is kept; the files are removed."""
    if done.returncode != 0:
        raise Incomplete(f"hq submit --wait exited {done.returncode}: {done.stderr or done.stdout}")
    jobs = list(home.glob("job-*"))
    written = {int(each.stem): each.read_text() for job in jobs for each in job.glob("*.stdout")}
    for job in jobs:
        shutil.rmtree(job)
    if written != {number: f"{number}\n" for number in range(count)}:
        raise Incomplete(f"HyperQueue: the stdout of {count} tasks was expected, of {len(written)} it is there")
