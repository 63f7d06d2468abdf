"""FireWorks: a workflow of one script for each command, and an `rlaunch rapidfire` for each core."""

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import Incomplete, Missing
from bench.peers.plain_mongod import mongod
from bench.processes import eventually, running
from bench.turns import Run, Watch

NAME = "fireworks"

_LONGEST_SECONDS = 600.0
_LOOK_SECONDS = 0.1
_IDLE_SECONDS = "1"


@contextmanager
def commands() -> Iterator[Run]:
    """Commands per second, from adding the workflows to the completion of all; stdout is kept in the database."""
    program = _program()
    with mongod() as port, tempfile.TemporaryDirectory(prefix="banyan-bench-") as name, ExitStack() as stack:
        from fireworks import LaunchPad

        home = Path(name)
        launchpad = LaunchPad(host="127.0.0.1", port=port, name="fireworks", strm_lvl="ERROR")
        launchpad.reset("", require_password=False)
        launchpad.to_file(str(home / "launchpad.yaml"))
        for number in range(len(os.sched_getaffinity(0))):
            (home / str(number)).mkdir()
            command = ["env", "-C", str(home / str(number)), program, "-l", str(home / "launchpad.yaml"), "--silencer"]
            command += ["rapidfire", "--nlaunches", "infinite", "--sleep", _IDLE_SECONDS]
            stack.enter_context(running(command, log=home / f"{number}.log"))
        yield lambda count, watch: _run(launchpad, count, watch)


def _program() -> str:
    beside = Path(sys.executable).with_name("rlaunch")
    found = str(beside) if beside.exists() else shutil.which("rlaunch")
    if found is None or find_spec("fireworks") is None:
        raise Missing("FireWorks is not installed: pip install -c requirements.lock -e . -e bench")
    return found


def _run(launchpad: Any, count: int, watch: Watch) -> float:
    from fireworks import Firework, ScriptTask, Workflow

    def one(number: int) -> Any:
        script = ScriptTask({"script": f"echo {number}", "store_stdout": True})
        return Workflow.from_firework(Firework(script, name=str(number)))

    before = launchpad.fireworks.count_documents({})
    with watch:
        with redirect_stderr(io.StringIO()):  # it draws its progress
            launchpad.bulk_add_wfs([one(number) for number in range(count)])
        done = {"state": {"$in": ["COMPLETED", "FIZZLED"]}}
        eventually(
            lambda: launchpad.fireworks.count_documents(done) == before + count,
            seconds=_LONGEST_SECONDS,
            what=f"FireWorks: {count} fireworks have ended",
            poll_seconds=_LOOK_SECONDS,
        )
    kept = sorted(
        int(launch["action"]["stored_data"]["stdout"])
        for firework in launchpad.fireworks.find({"state": "COMPLETED"}).sort("fw_id", -1).limit(count)
        for launch in launchpad.launches.find({"launch_id": {"$in": firework["launches"]}})
    )
    if kept != list(range(count)):
        raise Incomplete(f"FireWorks: the stdout of {count} fireworks was expected, of {len(kept)} it is there")
    return count / watch.seconds
