"""The CPU time of commands that people type, beside that of starting Python at all."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bench.errors import Missing
from bench.question import OURS, Answer, Question, Size, Target
from bench.stage import stage
from bench.turns import Watch

FLOOR = "python3 -c pass"
HELP = "banyan --help"
SUBMIT = "banyan submit"
_BANYAN = [sys.executable, "-m", "banyan"]
_COMMANDS: Mapping[str, Sequence[str]] = {
    FLOOR: [sys.executable, "-c", "pass"],
    HELP: [*_BANYAN, "--help"],
    OURS: [*_BANYAN, "list"],
    SUBMIT: [*_BANYAN, "submit", "--hold", "--", "true"],
}
_TASKS = 40
_ROUNDS = {Size.QUICK: 15, Size.FULL: 51}


def measure(size: Size) -> Answer:
    """CPU time of each command and of the floor, in turns."""
    return _measured(_ROUNDS[size])


def _again(watch: Watch) -> None:
    with watch:
        _measured(15)


def _measured(rounds: int) -> Answer:
    with stage() as here, here.scene("commands") as scene:
        with scene.client("user") as client:
            client.submit([{"command": "true", "hold": True, "state": "available"}] * _TASKS)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}
        known = {"BANYAN_URL": scene.servers[0].url, "BANYAN_TOKEN": scene.tokens["user"]}
        environment = inherited | known | {"HOME": str(here.directory)}
        series: dict[str, list[float]] = {name: [] for name in _COMMANDS}
        for number in range(rounds + 1):
            for name, command in _COMMANDS.items():
                taken = _cpu_milliseconds(command, environment)
                if number:  # the first finds nothing in the caches
                    series[name].append(taken)
    return Answer(unit="ms CPU", series=series, details={"rounds": rounds, "tasks": _TASKS})


def _cpu_milliseconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """CPU time of a command, in user and system mode, until it has ended well."""
    process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Missing(f"{' '.join(command)} ended with exit code {process.returncode}")
    return 1000 * (usage.ru_utime + usage.ru_stime)


QUESTION = Question(
    name="commands",
    text="CPU time of `banyan list` of 20 tasks, `--help` and `submit`, beside that of `python3 -c pass`",
    conditions="1 server of 1 process on this machine, plain HTTP, no worker; medians of commands that take turns; "
    "user and system time of the command alone",
    targets=(
        Target(text="`list`: at most 8x `python3 -c pass`", relative_to=FLOOR, floor=True, at_most=8),
        Target(text="`--help`: at most 4x", series=HELP, relative_to=FLOOR, floor=True, at_most=4),
        Target(text="`submit`: at most 8x", series=SUBMIT, relative_to=FLOOR, floor=True, at_most=8),
    ),
    measure=measure,
    again=_again,
)
