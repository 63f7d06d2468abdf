"""The first tokens: a file that makes sure that an admin, a provider and a worker can get in."""

import json
import os
import secrets
from datetime import datetime
from pathlib import Path

from banyan.domain.roles import Role
from banyan.errors import SetupError
from banyan.storage.users import UserStore

ROLES = {"admin": Role.ADMIN, "user": Role.PROVIDER, "worker": Role.WORKER}
"""The users that a credentials file names, and what they may do."""

_MIN_TOKEN = 16


def make_sure(users: UserStore, path: Path | None, now: datetime) -> None:
    """Let the users of the file at `path` exist with its tokens; the file is made (mode 0600) when it is missing.

    Raises `SetupError` for a file that cannot be used, and when there is neither a file nor any admin.
    """
    if path is None:
        if not any(user.role == Role.ADMIN for user in users.list()):
            raise SetupError(
                "nobody could get in: there is no admin yet; start the server once with --credentials FILE"
            )
        return
    for name, token in tokens_at(path).items():
        users.make_sure(name, ROLES[name], token, now)


def tokens_at(path: Path) -> dict[str, str]:
    """The tokens of the file at `path`, which is made with fresh ones when it is missing; SetupError if unusable."""
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


def _create(path: Path) -> None:
    """Write fresh tokens; when another server was first, its file stays."""
    tokens = {name: secrets.token_urlsafe(24) for name in ROLES}
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            json.dump(tokens, file, indent=2)
        try:
            os.link(unfinished, path)
        except FileExistsError:
            return
        finally:
            unfinished.unlink()
    except OSError as error:
        raise SetupError(f"cannot write the credentials file {path}: {error.strerror}") from error
