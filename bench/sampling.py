"""Where our processes spend their time in Python, while the work of a question is done once more under py-spy."""

import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import psutil

from banyan import child
from bench.errors import Missing
from bench.progress import say
from bench.question import Again
from bench.turns import Watch

Document = dict[str, Any]

LINES, PACKAGES = 10, 6
OURS = frozenset({"banyan", "worker"})
PARTS = ("server", "worker")
"""The commands of ours whose processes are watched."""

_PER_SECOND = 200
_ATTACH_SECONDS = 10.0
_WRITE_SECONDS = 20.0
_POLL_SECONDS = 0.05
_SAME = 0.95
"""A function that hands so much of its time on to a single other one says nothing that this one does not say."""
_NEARLY_ALL = 0.8
"""One that sees so many of all samples hands out the work; it says nothing of where that goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of ours as samples saw it: the share of them in which it ran, or anything that it called.

    `own` is that in which it ran itself, or a library that it called.
    """

    name: str
    file: str
    share: float
    own: float


def profile_of(again: Again) -> Document:
    """What each part of ours did in it: `samples` and its `functions`; or why there is nothing, in `missing`."""
    sampled = Sampled()
    try:
        again(sampled)
    except Exception as error:  # noqa: BLE001 - a profile explains a figure; without one the figure is as good
        reason = str(error) or type(error).__name__
        say(f"  no profile: {reason}")
        return {"missing": reason}
    return sampled.profile


class Sampled(Watch):
    """A watch that samples what servers and workers below this process do in its block; `profile` has it then."""

    def __init__(self) -> None:
        self.profile: Document = {}
        self._spies: dict[str, list[_Spy]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            home = Path(stack.enter_context(TemporaryDirectory(prefix="banyan-bench-")))
            ours, program = _ours(), _program()
            for part, processes in ours.items():
                spies = [_Spy(program, process.pid, home / str(process.pid)) for process in processes]
                self._spies[part] = spies
                for spy in spies:
                    stack.callback(spy.stop)
            for spy in (spy for spies in self._spies.values() for spy in spies):
                spy.attach()
            self._stack = stack.pop_all()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        with self._stack:
            for part, spies in self._spies.items():
                self.profile[part] = folded(line for spy in spies for line in spy.written())


class _Spy:
    """One py-spy at one process."""

    def __init__(self, program: str, process: int, path: Path) -> None:
        self._process = process
        self._log, self._out = path.with_suffix(".log"), path.with_suffix(".raw")
        # Who waits holds no lock of the interpreter. A process that was stopped for each sample would wake too often.
        how = ["--gil", "--nonblocking", "--rate", str(_PER_SECOND), "--format", "raw", "--output", str(self._out)]
        self._spy = child.spawn([program, "record", "--pid", str(process), *how], log=self._log)

    def attach(self) -> None:
        """Return once it samples; `Missing` with what it says if it cannot."""
        deadline = time.monotonic() + _ATTACH_SECONDS
        while "Sampling process" not in (said := self._log.read_text(errors="replace")):
            if self._spy.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"py-spy cannot attach to process {self._process}: {_last_line(said)}")
            time.sleep(_POLL_SECONDS)

    def written(self) -> list[str]:
        """End it; a line for each stack, with the number of samples."""
        self._spy.send_signal(signal.SIGINT)
        self._spy.wait(timeout=_WRITE_SECONDS)
        return self._out.read_text(errors="replace").splitlines() if self._out.exists() else []

    def stop(self) -> None:
        """Leave nothing running."""
        child.stop(self._spy, seconds=_WRITE_SECONDS)


def _program() -> str:
    beside = Path(sys.executable).with_name("py-spy")
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise Missing("py-spy is not installed: pip install -c requirements.lock -e . -e bench")
    return found


def _ours() -> dict[str, list[psutil.Process]]:
    """The processes of each part."""
    found = {part: busiest(["-m", "banyan", part]) for part in PARTS}
    if not any(found.values()):
        raise Missing("there is no process to profile")
    return {part: processes for part, processes in found.items() if processes}


def busiest(arguments: Sequence[str]) -> list[psutil.Process]:
    """Those below this process that were started with these; one that only looks after such children is left out."""
    below = psutil.Process().children(recursive=True)
    found = [process for process in below if _arguments(process)[: len(arguments)] == list(arguments)]
    parents = {process.ppid() for process in found}
    return [process for process in found if process.pid not in parents]


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()[1:]
    except psutil.Error:
        return []


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


def folded(stacks: Iterable[str]) -> Document:
    """What most samples saw, from lines `outer (file:line);inner (file:line) samples`.

    `functions` are ours, for those of libraries are called from everywhere; `packages` are the shares of the innermost
    frames.
    """
    seen: Counter[str] = Counter()
    own: Counter[str] = Counter()
    handed: Counter[tuple[str, str]] = Counter()
    packages: Counter[str] = Counter()
    for line in stacks:
        text, _, number = line.rpartition(" ")
        frames, count = [_without_line(frame) for frame in text.split(";")], int(number)
        packages[_package(frames[-1])] += count
        if mine := [frame for frame in frames if _package(frame) in OURS]:
            own[mine[-1]] += count
            seen.update(dict.fromkeys(mine, count))
            handed.update(dict.fromkeys(combinations(mine, 2), count))
    samples = packages.total()
    dull = {outer for (outer, inner), count in handed.items() if outer != inner and count >= _SAME * seen[outer]}
    dull |= {frame for frame in seen if own[frame] < seen[frame] and seen[frame] > _NEARLY_ALL * samples}
    top = sorted(seen.keys() - dull, key=lambda frame: (-seen[frame], frame))[:LINES]
    functions = [_function(frame, seen[frame] / samples, own[frame] / samples) for frame in top]
    shares = {name: round(count / samples, 4) for name, count in packages.most_common(PACKAGES)}
    return {"samples": samples, "packages": shares, "functions": [asdict(each) for each in functions]}


def _package(frame: str) -> str:
    first = frame.rpartition(" (")[2].removesuffix(")").partition("/")[0].removesuffix(".py")
    return first.strip("<>").removeprefix("frozen ")  # code that was made at run time, or with the interpreter


def _without_line(frame: str) -> str:
    head, colon, line = frame.removesuffix(")").rpartition(":")
    return f"{head})" if colon and line.isdigit() else frame


def _function(frame: str, share: float, own: float) -> Function:
    name, _, file = frame.removesuffix(")").rpartition(" (")
    return Function(name=name, file=file, share=round(share, 4), own=round(own, 4))
