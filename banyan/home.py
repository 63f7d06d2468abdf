"""The home directory of the user as whom this process runs."""

import os
from collections.abc import Mapping
from pathlib import Path

from banyan.errors import SetupError


def home(environ: Mapping[str, str]) -> Path | None:
    """Return `HOME`, else the directory in passwd; None for a user without one."""
    if environ.get("HOME"):
        return Path(environ["HOME"]).absolute()
    try:
        return Path(f"~{_own_name()}").expanduser()
    except (KeyError, RuntimeError):
        return None


def below_home(environ: Mapping[str, str], variable: str, otherwise: str, instead: str) -> Path:
    """Return the directory that an XDG variable names, else one below the home; SetupError names `instead`."""
    if environ.get(variable):
        return Path(environ[variable])
    directory = home(environ)
    if directory is None:
        raise SetupError(
            f"there is no home directory: HOME is not set, and user {os.getuid()} is not in passwd; {instead}"
        )
    return directory / otherwise


def _own_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
