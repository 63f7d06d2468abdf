"""The worker's token, and its file."""

import json
from pathlib import Path

from banyan.config import WorkerSettings
from banyan.errors import SetupError


def token_of(settings: WorkerSettings) -> str:
    """Return the token from the settings, or from its file; SetupError if that cannot be read.

    The file has the token alone, or is a server's credentials file, which has a worker's beside others.
    """
    if settings.token or not settings.token_file:
        return settings.token
    try:
        text = Path(settings.token_file).expanduser().read_text().strip()
        return str(json.loads(text)["worker"]) if text.startswith("{") else text
    except OSError as error:
        raise SetupError(f"cannot read the token file {settings.token_file}: {error.strerror}") from error
    except (ValueError, KeyError) as error:
        raise SetupError(f"there is no worker's token in the token file {settings.token_file}") from error


def newer_token(settings: WorkerSettings, refused: str) -> str:
    """Return the file's new token in place of the one that was refused; SetupError where there is none."""
    if settings.token or not settings.token_file:
        raise SetupError(
            "it was not read from a file, which could have a newer one; start the worker again with --token-file"
        )
    token = token_of(settings)
    if token == refused:
        raise SetupError(f"{settings.token_file} still has this one; write the new one there")
    return token
