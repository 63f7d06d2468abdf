"""The search for a mongod that runs on this machine: one on PATH, else the packaged one."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from banyan.errors import SetupError

OLDEST_VERSION = (5, 0)
_ADVICE = (
    "Install MongoDB 5 or newer, or (x86-64 Linux with OpenSSL 3) `pip install 'banyan-queue[embedded]'`, "
    "or name a running replica set in the setting mongo.uri"
)


def find_mongod() -> Path:
    """The mongod to start; SetupError lists the candidates and why each is unsuitable."""
    faults = []
    for candidate in _candidates():
        fault = _fault(candidate)
        if fault is None:
            return candidate
        faults.append(f"{candidate}: {fault}")
    raise SetupError(f"no usable mongod ({'; '.join(faults) or 'none on PATH, none packaged'}). {_ADVICE}")


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("mongod"):
        yield Path(on_path)
    package = find_spec("fiftyone")
    for location in (package.submodule_search_locations or []) if package else []:
        packaged = Path(location, "db", "bin", "mongod")
        if packaged.exists():
            yield packaged


def _fault(binary: Path) -> str | None:
    """The reason why this program cannot be used; None if it can."""
    try:
        answer = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if answer.returncode != 0:
        return (answer.stderr or answer.stdout).strip()[:300] or f"exit code {answer.returncode}"
    version = re.search(r"db version v(\d+)\.(\d+)", answer.stdout)
    if version is None:
        return "it prints no version"
    if (int(version[1]), int(version[2])) < OLDEST_VERSION:
        return f"version {version[1]}.{version[2]} is older than {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]}"
    return None
