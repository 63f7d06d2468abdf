"""The server and the token that the commands use."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from banyan.cli.waiting import NOTICES
from banyan.errors import SetupError, Unauthorized, Unavailable
from banyan.home import home
from banyan.trust import POINTED, Trust

if TYPE_CHECKING:
    from banyan.client import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The address of the server, the token, and the trusted authorities; `source` names their origin."""

    url: str
    token: str
    source: str
    trust: Trust = field(default_factory=Trust)


def connect(admin: bool = False) -> "Client":
    """Return a client for the server that the environment, the settings or a running `banyan up` name.

    `admin` chooses the administrator's token where both are known. Unavailable if no server is known, Unauthorized if
    no token is. A command that runs for long reads its token again when it is refused.
    """
    from banyan.client import Client

    found = find_credentials(os.environ, admin)

    def renew(refused: str) -> str:
        """Return the token for the same server as it is known now, or the same one."""
        try:
            now = find_credentials(os.environ, admin)
        except Unavailable as error:
            raise SetupError(str(error)) from error
        return now.token if now.url == found.url else refused

    return Client(found.url, found.token, trust=found.trust, renew=renew, waits=NOTICES)


def find_credentials(environ: Mapping[str, str], admin: bool = False) -> Credentials:
    """Return the first address of: `BANYAN_URL`, `client.toml`, the newest living `banyan up`; and the token for it.

    A token from a file is only ever sent to the address beside it. The trusted authorities come from the environment
    and, where that names none, from the place of the address.
    """
    known = [*_from_settings(environ), *_from_running(environ, admin)]
    token = _token_of(environ)
    if environ.get("BANYAN_URL"):
        chosen = Credentials(url=environ["BANYAN_URL"].rstrip("/"), token="", source="BANYAN_URL")
    elif known:
        chosen = known[0]
    else:
        raise Unavailable("no server is known; start one with `banyan up`, or set BANYAN_URL and BANYAN_TOKEN")
    beside = [chosen, *(each for each in known if each.url == chosen.url)]
    tokens = [token, *(each.token for each in beside)]
    usable = next((each for each in tokens if each), None)
    if usable is None:
        raise Unauthorized(
            f"no token is known for {chosen.url} ({chosen.source}); set BANYAN_TOKEN or BANYAN_TOKEN_FILE"
        )
    trust = _joined([Trust.from_environment(environ), *(each.trust for each in beside)])
    return Credentials(url=chosen.url, token=usable, source=chosen.source, trust=trust)


def pointer_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory where each `banyan up` of this user leaves its address and tokens, None without a home."""
    base = _base(environ, "XDG_STATE_HOME", ".local/state")
    return base and base / "banyan" / "up"


def _token_of(environ: Mapping[str, str]) -> str:
    if environ.get("BANYAN_TOKEN"):
        return environ["BANYAN_TOKEN"]
    path = environ.get("BANYAN_TOKEN_FILE")
    return _read_token(Path(path), "BANYAN_TOKEN_FILE") if path else ""


def _joined(said: Sequence[Trust]) -> Trust:
    """Return each field from the first one that sets it; a key belongs to its certificate."""
    shown = next((each for each in said if each.client_certificate), said[0])
    return replace(
        shown,
        ca_file=next((each.ca_file for each in said if each.ca_file), ""),
        allow_insecure=any(each.allow_insecure for each in said),
    )


def _from_settings(environ: Mapping[str, str]) -> Iterator[Credentials]:
    base = _base(environ, "XDG_CONFIG_HOME", ".config")
    path = base and base / "banyan" / "client.toml"
    if path is None or not _is_there(path):
        return
    try:
        settings = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}") from error
    unknown = settings.keys() - {"url", "token", "token_file", *_TRUST}
    if unknown or not isinstance(settings.get("url"), str):
        problem = f"unknown key {min(unknown)}" if unknown else "no url"
        known = f"url, token or token_file, {', '.join(_TRUST)}"
        raise SetupError(f"{path}: {problem}; it may hold {known}; allow_insecure is true or false, the rest are texts")
    token = str(settings.get("token", ""))
    if not token and "token_file" in settings:
        token = _read_token(path.parent / Path(str(settings["token_file"])).expanduser(), str(path))
    given = {name: settings[name] for name in _TRUST if name in settings}
    named = {n: str(path.parent / Path(str(v)).expanduser()) for n, v in given.items() if n != "allow_insecure" and v}
    trust = Trust(**named, allow_insecure=given.get("allow_insecure") is True)
    yield Credentials(url=settings["url"].rstrip("/"), token=token, source=str(path), trust=trust)


_TRUST = tuple(each.name for each in fields(Trust))


def _from_running(environ: Mapping[str, str], admin: bool) -> Iterator[Credentials]:
    directory = pointer_directory(environ)
    there = directory is not None and _is_there(directory)
    files = sorted(directory.glob("*.json"), key=_age_key, reverse=True) if directory and there else []
    for path in files:
        pointer = _read_pointer(path)
        if pointer and _alive(pointer["pid"]):
            trust = Trust().with_files({name: str(pointer.get(name, "")) for name in POINTED})
            url, token = pointer["url"].rstrip("/"), _pointed(pointer, admin)
            yield Credentials(url=url, token=token, source=str(path), trust=trust)


def _pointed(pointer: Mapping[str, Any], admin: bool) -> str:
    """Return the token from the server's own file, for it may have been rotated since; else that of the start."""
    try:
        tokens = json.loads(Path(pointer["credentials"]).read_text())
        return str(tokens["admin" if admin else "user"])
    except (KeyError, TypeError, OSError, ValueError):
        return str(pointer["admin_token"] if admin else pointer["token"])


def _read_pointer(path: Path) -> dict[str, Any] | None:
    try:
        pointer = json.loads(path.read_text())
    except (OSError, ValueError):
        return None  # it is being removed: that server is gone
    wanted = {"url": str, "token": str, "admin_token": str, "pid": int}
    usable = isinstance(pointer, dict) and all(isinstance(pointer.get(key), kind) for key, kind in wanted.items())
    return pointer if usable else None


def _read_token(path: Path, source: str) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SetupError(f"{source} names the token file {path}, which cannot be read: {error.strerror}") from error


def _age_key(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _base(environ: Mapping[str, str], name: str, otherwise: str) -> Path | None:
    """Return the directory that an XDG variable names, else that below the home; None where there is no home."""
    if environ.get(name):
        return Path(environ[name])
    directory = home(environ)
    return directory and directory / otherwise


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # another user's home
        return False
