"""Another user for tests that run as root, and what he can reach."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
OTHER = "nobody"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run tasks as another user")

_OPEN = """
set -e
hidden=$1; shift
n=0
for path in $hidden; do
    [ -e "$path" ] || continue
    n=$((n + 1)); mkdir "$VIEW/$n"; mount --bind "$path" "$VIEW/$n"
done
closed=$1; shift
for path in $closed; do mount -t tmpfs -o mode=755 none "$path"; done
n=0
for path in $hidden; do
    n=$((n + 1)); mkdir -p "$path"; mount --move "$VIEW/$n" "$path"
done
exec "$@"
"""
"""Mounts what another user needs to see below directories that are closed to him, in a name space of its own."""


def other_user() -> pwd.struct_passwd:
    """The other user."""
    return pwd.getpwnam(OTHER)


@contextmanager
def reachable() -> Iterator[Path]:
    """A directory of root's that every user can reach, unlike pytest's; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="banyan-test-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def opened(view: Path) -> list[str]:
    """The words before a command that let every user reach Python, its packages and our sources; [] if all can.

    `view` is made, and is not below what is closed, as pytest's own directories may be. It takes a mount name space, so
    nothing outside of the command changes.
    """
    view.mkdir()
    python = Path(sys.executable).resolve().parent
    needed = {SOURCE, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), python}
    closed = {above for path in needed for above in path.parents if not above.stat().st_mode & 0o001}
    if not closed:
        return []
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip(f"another user cannot reach {min(closed)}, and this root may not mount anything")
    tops = {above for above in closed if not any(other in above.parents for other in closed)}
    below = {path for path in needed if any(top in path.parents for top in tops)}
    apart = {path for path in below if not any(other in path.parents for other in below)}
    texts = [" ".join(map(str, sorted(paths))) for paths in (apart, tops)]
    return ["env", f"VIEW={view}", "unshare", "--mount", "sh", "-c", _OPEN, "open", *texts]
