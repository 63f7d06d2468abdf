"""A real `banyan up` for acceptance tests, and commands run beside it as in a second terminal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A running `banyan up`: its process, and the line that it printed when it was ready."""

    process: subprocess.Popen[str]
    ready: Mapping[str, Any]
    started_in_seconds: float
    home: Path
    environment: Mapping[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        """Where it answers."""
        return str(self.ready["url"])

    @property
    def pids(self) -> list[int]:
        """Every process that it says it has, itself first."""
        pids = self.ready["pids"]
        return [self.process.pid, pids["mongod"], *pids["server"], pids["worker"]]

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `banyan ARGUMENTS` to its end in another process of the same user, in `cwd` or the user's home.

        `stdin` is what it can read.
        """
        command = [sys.executable, "-m", "banyan", *arguments]
        return subprocess.run(
            command,
            env={**self.environment, **(env or {})},
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            input=stdin,
        )

    def json(self, *arguments: str) -> Any:
        """What a command that succeeds prints with `--json`."""
        done = self.run(*arguments, "--json")
        if done.returncode != 0:
            raise AssertionError(f"banyan {' '.join(arguments)} exited {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def rest_of_output(self) -> str:
        """What it wrote to stdout after its first line; wait for its end before."""
        return self.process.stdout.read() if self.process.stdout is not None else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def started(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[Up]:
    """`banyan up --json` on a free port, with its data and its user's home below `directory`; stopped at the end.

    `before` are words before the command, which end by running it in their place.
    """
    home = directory / "home"
    home.mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
    environment = kept | {"HOME": str(home)}
    data = str(directory / "data")
    command = [*before, sys.executable, "-m", "banyan", "up", "--json", "--port", "0", "--data", data, *arguments]
    log = directory / "up.log"
    with log.open("w") as errors:
        begun = time.monotonic()
        settings = {**environment, **(env or {})}
        process = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        if process.stdout is None:
            raise AssertionError("it was started with a pipe")
        line = process.stdout.readline()
        taken = time.monotonic() - begun
        if not line:
            raise AssertionError(f"banyan up exited {process.wait(STOP_SECONDS)}:\n{log.read_text()}")
        up = Up(
            process=process,
            ready=json.loads(line),
            started_in_seconds=taken,
            home=home,
            environment=environment,
        )
        yield up
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def alive(pids: list[int]) -> list[int]:
    """Those of `pids` that still run; zombies do not."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def eventually(look: Callable[[], T], wanted: Callable[[T], bool], seconds: float = 30.0) -> T:
    """What `look` sees once it is `wanted`; AssertionError with the last sight after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if wanted(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s it is still {seen!r}")
        time.sleep(0.05)
