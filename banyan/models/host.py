"""The command that starts a host process; the program itself is `worker.model_host`."""

import functools
import sys
from pathlib import Path

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from worker.model_host import main; main(*map(int, sys.argv[2:]))"


def command(*descriptors: int) -> list[str]:
    """The command line of a host process.

    It inherits `descriptors`: its end of a socket on which it receives requests and, unless it only checks, the memory
    of its cancellations (`banyan.models.cancel.create`).
    """
    return [sys.executable, "-P", "-c", _PROGRAM, _root(), *map(str, descriptors)]


@functools.cache
def _root() -> str:
    return str(Path(__file__).resolve().parents[2])
