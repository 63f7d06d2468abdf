"""The worker's token, and the file that it comes from."""

import json
from pathlib import Path

from banyan.config import WorkerSettings
from banyan.errors import SetupError


def token_of(settings: WorkerSettings) -> str:
    """The token as it is given, or as its file has it now; SetupError if that cannot be read.

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
    """What the file has by now in the place of the one that was refused; SetupError where there is none."""
    if settings.token or not settings.token_file:
        raise SetupError("it came from no file that could have another one; start the worker again with --token-file")
    token = token_of(settings)
    if token == refused:
        raise SetupError(f"{settings.token_file} has this one still; write the new one there")
    return token
