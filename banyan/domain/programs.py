"""Commands and environments that Linux can start. Lengths are in bytes of UTF-8, as the kernel counts them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_COMMAND = 1_000_000
"""The largest number of characters in a command."""

MAX_STRING_BYTES = 2**17 - 1
"""The longest argument, and the longest variable (`NAME=value`), that Linux accepts. A longer shell line is run from a
file."""

MAX_TOTAL_BYTES = 15 * 2**17
"""The largest sum of all arguments and variables, each counted with `ENTRY_BYTES` more. Linux accepts 2 MiB where the
stack has its usual limit of 8 MiB; an eighth of a MiB is reserved for the variables that a worker adds."""

ENTRY_BYTES = 9
"""The bytes that each argument and variable needs besides its text: a NUL and a pointer."""

TOO_LONG = "failure (E2BIG)"
"""The exit status of an attempt whose kernel accepts less than that: the task can never start."""

MAX_PATH_BYTES = 4095
MAX_NAME_BYTES = 255
_MAX_VARIABLES = 1000
_MAX_VARIABLE_NAME = 1000
_MAX_UTF8 = 4
_SHOWN = 60
_ELSEWHERE = "put the data into 'stdin' or into a file"


def command_faults(command: Any) -> Iterator[str]:
    """The faults of a command: a text for the shell, or a list of texts that is run as it is."""
    words = command if isinstance(command, list) else [command]
    if not all(isinstance(word, str) for word in words):
        yield "must be a text or a list of texts"
    elif not words or not words[0].strip():
        yield "must not be empty; leave it out for a task that only groups others"
    elif any("\0" in word for word in words):
        yield "must not contain NUL bytes"
    elif sum(map(len, words)) > MAX_COMMAND:
        yield f"is longer than {MAX_COMMAND} characters; {_ELSEWHERE}"
    elif isinstance(command, list):
        yield from _word_faults(words)


def _word_faults(words: Sequence[str]) -> Iterator[str]:
    if fault := path_fault(words[0]):
        yield f"its program {fault}"
    for index, word in enumerate(words):
        if (size := _excess(word)) is not None:
            yield f"word {index} has {size} bytes, and Linux takes {MAX_STRING_BYTES} at most; {_ELSEWHERE}"


def environment_faults(environment: Any) -> Iterator[str]:
    """The faults of an object of variables; none for a value that is no object."""
    if not isinstance(environment, Mapping):
        return
    if len(environment) > _MAX_VARIABLES:
        yield f"must have at most {_MAX_VARIABLES} names"
    if any(not 0 < len(name) <= _MAX_VARIABLE_NAME or "=" in name or "\0" in name for name in environment):
        yield f"a name must have 1 to {_MAX_VARIABLE_NAME} characters, and neither '=' nor NUL bytes"
    for name, value in environment.items():
        if not isinstance(value, str) or "\0" in value:
            yield f"the value of {name!r} must be a text without NUL bytes"
        elif (size := _excess(f"{name}={value}")) is not None:
            yield f"{name[:_SHOWN]!r} has {size} bytes, and Linux takes {MAX_STRING_BYTES} at most; {_ELSEWHERE}"


def total_faults(command: str | list[str] | None, environment_bytes: int) -> dict[str, str]:
    """The faults of a command and its environment together (`bytes_of_environment`), by the field to change."""
    command_bytes = bytes_of_command(command)
    if command_bytes + environment_bytes <= MAX_TOTAL_BYTES:
        return {}
    text = (
        f"command and environment have {command_bytes + environment_bytes} bytes, each word and variable counted with "
    )
    text += f"{ENTRY_BYTES} more, and Linux takes {MAX_TOTAL_BYTES} at most; {_ELSEWHERE}"
    return {"env" if environment_bytes > command_bytes else "command": text}


def bytes_of_command(command: str | list[str] | None) -> int:
    """The bytes that the kernel counts for a command; a shell line counts only up to the longest argument."""
    if isinstance(command, str):
        return min(_size(command), MAX_STRING_BYTES) + ENTRY_BYTES
    return sum(_size(word) + ENTRY_BYTES for word in command or ())


def bytes_of_environment(environment: Mapping[str, str] | None) -> int:
    """The bytes that the kernel counts for an environment."""
    return sum(_size(name) + _size(value) + 1 + ENTRY_BYTES for name, value in (environment or {}).items())


def path_fault(path: str) -> str | None:
    """The reason why no file can have this path; None if one can."""
    if len(path) * _MAX_UTF8 <= MAX_NAME_BYTES:
        return None
    if (size := _size(path)) > MAX_PATH_BYTES:
        return f"is a path of {size} bytes, and Linux takes {MAX_PATH_BYTES} at most"
    longest = max(map(_size, path.split("/")))
    if longest > MAX_NAME_BYTES:
        return f"has a name of {longest} bytes in its path, and Linux takes {MAX_NAME_BYTES} at most"
    return None


def too_long(line: str) -> bool:
    """Return whether a shell line is too long for an argument and must be run from a file."""
    return _excess(line) is not None


def _excess(text: str) -> int | None:
    """The size in bytes of a text that is too long for an argument; None if it is short enough."""
    if len(text) * _MAX_UTF8 <= MAX_STRING_BYTES:
        return None
    size = _size(text)
    return size if size > MAX_STRING_BYTES else None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
