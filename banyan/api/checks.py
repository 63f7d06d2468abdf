"""Checks beyond types and bounds, named by schemas in `check_with`. Each yields the faults of a value."""

from collections.abc import Callable, Iterator
from typing import Any

from banyan.domain.programs import command_faults, environment_faults, path_fault
from banyan.domain.sampling import MAX_INPUTS, Range

_MAX_NAMES = 1000
_MAX_TEXT = 1000
_MAX_TURN = 1e15


def no_nul(value: object) -> Iterator[str]:
    """Check a text for NUL bytes."""
    if isinstance(value, str) and "\0" in value:
        yield "must not contain NUL bytes"


def path(value: object) -> Iterator[str]:
    """Check that a file can have this path."""
    yield from no_nul(value)
    if isinstance(value, str) and (fault := path_fault(value)):
        yield fault


def texts(value: object) -> Iterator[str]:
    """Check a list of texts, each neither empty nor long."""
    if isinstance(value, list) and not all(_is_text(each) for each in value):
        yield f"must be a list of texts of 1 to {_MAX_TEXT} characters without NUL bytes"


def names_to_texts(value: object) -> Iterator[str]:
    """Check an object such as `requires`."""
    if not isinstance(value, dict):
        return
    yield from _faults_of_names(value)
    for name, each in value.items():
        if not isinstance(each, str) or "\0" in each:
            yield f"the value of {name!r} must be a text without NUL bytes"


def names_to_amounts(value: object) -> Iterator[str]:
    """Check an object such as `custom` resources."""
    if not isinstance(value, dict):
        return
    yield from _faults_of_names(value)
    for name, each in value.items():
        if isinstance(each, bool) or not isinstance(each, (int, float)) or not 0 <= each <= 1e9:
            yield f"the amount of {name!r} must be a number from 0 to 1,000,000,000"


def names_to_turns(value: object) -> Iterator[str]:
    """Check the next start tags of queues."""
    if isinstance(value, dict) and not all(_is_amount(each, _MAX_TURN) for each in value.values()):
        yield "must be an object of numbers that are not negative"


def waiting(value: object) -> Iterator[str]:
    """Check the waiting tasks of a worker, by queue."""
    if isinstance(value, dict) and not all(map(_is_waiting, value.values())):
        example = {"turn": 1.5, "seconds": 0.02, "tasks": [[0, 12, "the order of the last"]]}
        yield f"must be an object like {{'default': {example}}}"


def _is_waiting(value: object) -> bool:
    if (
        not isinstance(value, dict)
        or value.keys() != {"turn", "seconds", "tasks"}
        or not isinstance(value["tasks"], list)
    ):
        return False
    if not _is_amount(value["turn"], _MAX_TURN) or not _is_amount(value["seconds"], _MAX_TURN):
        return False
    return all(_is_group(each) for each in value["tasks"])


def _is_group(value: object) -> bool:
    """Return whether it is a group of waiting tasks: priority, number, and the order of the last."""
    if not isinstance(value, list) or len(value) != 3:
        return False
    priority, count, order = value
    return _is_amount(abs(priority) if isinstance(priority, (int, float)) else priority, _MAX_TURN) and (
        type(count) is int and 0 < count <= _MAX_TURN and isinstance(order, str)
    )


def _is_amount(value: object, most: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value <= most


def grid(value: object) -> Iterator[str]:
    """Check an object of lists with at least one value each."""
    if not isinstance(value, dict):
        return
    if not value:
        yield "must name at least one input"
    for name, each in value.items():
        if not isinstance(each, list) or not each:
            yield f"the value of {name!r} must be a list of at least one value"


def points(value: object) -> Iterator[str]:
    """Check a list of objects."""
    if not isinstance(value, list):
        return
    if not value:
        yield "must have at least one point"
    odd = next((index for index, each in enumerate(value) if not isinstance(each, dict)), None)
    if odd is not None:
        yield f"point {odd} must be an object of inputs by name"


def ranges(value: object) -> Iterator[str]:
    """Check an object of ranges, such as the `inputs` of samples."""
    if not isinstance(value, dict):
        return
    if not 0 < len(value) <= MAX_INPUTS:
        yield f"must have 1 to {MAX_INPUTS} names"
    for name, each in value.items():
        try:
            Range.of(each)
        except ValueError as error:
            yield f"the range of {name!r}: {error}"


def models(value: object) -> Iterator[str]:
    """Check the models of a worker."""
    if isinstance(value, list) and not all(_is_model(each) for each in value):
        yield 'must be a list of models, each like {"name": "sum", "summary": "Adds numbers"}'


def _is_model(value: object) -> bool:
    if not isinstance(value, dict) or not value.keys() <= {"name", "summary"} or not _is_text(value.get("name")):
        return False
    summary = value.get("summary", "")
    return summary == "" or _is_text(summary)


def _faults_of_names(value: dict[str, Any]) -> Iterator[str]:
    if len(value) > _MAX_NAMES:
        yield f"must have at most {_MAX_NAMES} names"
    if any(not _is_text(name) or "=" in name for name in value):
        yield f"a name must have 1 to {_MAX_TEXT} characters, and neither '=' nor NUL bytes"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and "\0" not in value


CHECKS: dict[str, Callable[[object], Iterator[str]]] = {
    "no_nul": no_nul,
    "command": command_faults,
    "environment": environment_faults,
    "path": path,
    "texts": texts,
    "names_to_texts": names_to_texts,
    "names_to_amounts": names_to_amounts,
    "names_to_turns": names_to_turns,
    "waiting": waiting,
    "grid": grid,
    "points": points,
    "ranges": ranges,
    "models": models,
}
"""The checks by the name that schemas use in `check_with`."""
