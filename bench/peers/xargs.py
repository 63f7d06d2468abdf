"""`xargs` as the floor of small commands: no queue, no record, two processes at a time that write to files."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import Incomplete, Missing
from bench.places import fresh_place
from bench.turns import Run, Watch

NAME = "xargs"


@contextmanager
def commands() -> Iterator[Run]:
    """Commands per second: `echo I` by a shell of its own, its stdout in a file of its own."""
    if shutil.which("xargs") is None:
        raise Missing("xargs is not installed: apt-get install -y findutils")
    yield _run


def _run(count: int, watch: Watch) -> float:
    place = fresh_place()
    numbers = "".join(f"{number}\n" for number in range(count))
    cores = str(len(os.sched_getaffinity(0)))
    command = ["xargs", "-P", cores, "-n", "1", "/bin/sh", "-c", 'echo "$0" > "$0.stdout"']
    with watch:
        subprocess.run(command, input=numbers, text=True, cwd=place, check=True)
    written = {int(each.stem): each.read_text() for each in place.glob("*.stdout")}
    if written != {number: f"{number}\n" for number in range(count)}:
        raise Incomplete(f"xargs: {count} files with their number were expected")
    return count / watch.seconds
