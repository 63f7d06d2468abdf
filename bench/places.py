"""Directories of a session, which are all removed at its end.

For minutes after many files were removed, ext4 looks for other inodes than theirs each time that it makes a file. So
who removed what a run has left would slow down the runs that follow, his own and those of others.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

_PREFIX = "banyan-bench-"


def fresh_place() -> Path:
    """An empty directory, which is there until this program ends."""
    return Path(tempfile.mkdtemp(dir=_session()))


@cache
def _session() -> Path:
    made = Path(tempfile.mkdtemp(prefix=_PREFIX))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
