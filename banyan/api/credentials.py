"""The first tokens: a file with the tokens of an admin, a provider and a worker, whose users are created from it."""

import json
import logging
import os
import secrets
from datetime import datetime
from pathlib import Path

from banyan.domain.roles import Role
from banyan.errors import SetupError
from banyan.storage.users import UserStore

ROLES = {"admin": Role.ADMIN, "user": Role.PROVIDER, "worker": Role.WORKER}
"""The users that a credentials file names, and their roles."""

log = logging.getLogger("banyan.server")

_MIN_TOKEN = 22
"""The shortest token: so many characters of the alphabet of `secrets.token_urlsafe` are more than 128 bits."""


def make_sure(users: UserStore, path: Path | None, now: datetime) -> None:
    """Create the users of the file at `path` with its tokens; the file is created (mode 0600) when it is missing.

    A token that was rotated away, or whose user was removed, stays invalid. Raises `SetupError` for a file that cannot
    be used, and when no admin has a valid token.
    """
    for name, token in tokens_at(path).items() if path is not None else ():
        if not users.make_sure(name, ROLES[name], token, now):
            text = "was rotated, or its user removed, and lets nobody in; write the new one there, or delete the file"
            log.warning("the token of %r in %s %s to get three fresh ones", name, path, text)
    if not any(user.role == Role.ADMIN and not user.expired(now) for user in users.list()):
        raise SetupError(
            "nobody could get in: there is no admin with a token that is good; "
            "start the server once with --credentials FILE, where there is no such file yet"
        )


def tokens_at(path: Path) -> dict[str, str]:
    """The tokens of the file at `path`, which is created with new ones when it is missing; SetupError if unusable."""
    if not path.exists():
        _create(path)
    try:
        tokens = json.loads(path.read_text())
        found = {name: tokens[name] for name in ROLES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is not a credentials file with 'admin', 'user' and 'worker': {error!r}") from error
    if not all(isinstance(token, str) and len(token) >= _MIN_TOKEN for token in found.values()):
        raise SetupError(f"{path}: each token must be a text of at least {_MIN_TOKEN} characters")
    if len(set(found.values())) < len(found):
        raise SetupError(f"{path}: the tokens must be different")
    return found


def replace(path: Path, name: str, token: str) -> None:
    """Write a user's new token into the file at `path`, if the file names the user; a warning if that fails."""
    if name not in ROLES or not path.exists():
        return
    try:
        unfinished = _written(path, {**tokens_at(path), name: token})
        unfinished.replace(path)
    except (OSError, SetupError) as error:
        log.warning("the new token of %r could not be written into %s; do it by hand: %s", name, path, error)


def _written(path: Path, tokens: dict[str, str]) -> Path:
    """A new file beside `path`, readable by its owner alone."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        json.dump(tokens, file, indent=2)
    return unfinished


def _create(path: Path) -> None:
    """Write new tokens; when another server was first, its file stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _written(path, {name: secrets.token_urlsafe(24) for name in ROLES})
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return
        finally:
            unfinished.unlink()
    except OSError as error:
        raise SetupError(f"cannot write the credentials file {path}: {error.strerror}") from error
