"""What a measurement ran on: the machine as it was at the beginning, and the version of everything measured."""

import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from banyan.errors import SetupError
from banyan.storage.mongod_binary import find_mongod

PACKAGES = "banyan-queue celery dask distributed eve fireworks gunicorn hyperqueue numpy pymongo redis scipy".split()
_PROGRAMS = {"xargs": ("xargs", "--version"), "redis-server": ("redis-server", "--version")}
_NUMBER = re.compile(r"\d+(\.\d+)+")
_SECONDS = 20


def machine() -> dict[str, Any]:
    """Cores that this process may use, memory, kernel, processor, and the load before."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "processor": _processor(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "load_before": list(os.getloadavg()),
    }


def versions() -> dict[str, str]:
    """The version of each package and program that is here."""
    found = {name: known for name in PACKAGES if (known := _package(name))}
    programs = dict(_PROGRAMS)
    with suppress(SetupError):
        programs["mongod"] = (str(find_mongod()), "--version")
    return found | {
        name: said[0] for name, command in programs.items() if (said := _NUMBER.search(_first_line(command)))
    }


def revision(directory: Path) -> str:
    """The commit of the sources in `directory`, with a plus where files differ from it; empty if that is unknown."""
    head = _first_line(("git", "-C", str(directory), "rev-parse", "--short=12", "HEAD"))
    return f"{head}+" if head and _first_line(("git", "-C", str(directory), "status", "--porcelain", "-uno")) else head


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _first_line(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""
