"""Conversion of received values to stored ones: ids, dates, sizes, durations, references.

ValueError names the fault.
"""

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from bson.errors import InvalidId
from bson.timestamp import Timestamp

from banyan.domain.continuations import CONDITIONS
from banyan.domain.exit_status import FORMS, PATTERN
from banyan.domain.resources import parse_capability
from banyan.wire import parse_date, parse_duration, parse_size

_SHOWN_CHARACTERS = 60


def to_id(value: object) -> ObjectId:
    """The id of 24 hex digits."""
    if isinstance(value, ObjectId):
        return value
    try:
        if isinstance(value, str):
            return ObjectId(value)
    except InvalidId:
        pass
    raise ValueError(f"{value!r} is not an id; an id has 24 hex digits")


def to_ids(value: object) -> list[ObjectId]:
    """A list of different ids."""
    if not isinstance(value, list):
        raise ValueError("must be a list of ids")
    ids = [to_id(each) for each in value]
    if len(set(ids)) < len(ids):
        twice, _ = Counter(ids).most_common(1)[0]
        raise ValueError(f"{twice} appears twice")
    return ids


def to_dependencies(value: object) -> list[dict[str, Any]]:
    """Dependencies in their long form, `{"task": id, "on": condition}`."""
    if not isinstance(value, list):
        raise ValueError("must be a list of ids or of {'task': id, 'on': 'success', 'failure' or 'any'}")
    dependencies = [_to_dependency(each) for each in value]
    if len({each["task"] for each in dependencies}) < len(dependencies):
        raise ValueError("a task appears twice")
    return dependencies


def _to_dependency(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"task": to_id(value), "on": "success"}
    unknown = sorted(value.keys() - {"task", "on"})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; a dependency has 'task' and 'on'")
    if "task" not in value:
        raise ValueError("a dependency needs 'task'")
    condition = value.get("on", "success")
    if condition not in CONDITIONS:
        raise ValueError(f"'on' is {condition!r}; it is one of {', '.join(CONDITIONS)}")
    return {"task": to_id(value["task"]), "on": condition}


def to_input_refs(value: object) -> dict[str, dict[str, Any]]:
    """Inputs that are results of other tasks: name to `{"task": id}`, with `"result": key` for one of several."""
    if not isinstance(value, dict):
        raise ValueError("must be an object such as {'x': {'task': id, 'result': key}}")
    return {name: _to_input_ref(name, each) for name, each in value.items()}


def _to_input_ref(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or "task" not in value:
        raise ValueError(f"{name!r} must be an object such as {{'task': id, 'result': key}}")
    unknown = sorted(value.keys() - {"task", "result"})
    if unknown:
        raise ValueError(f"{name!r} has the unknown field {unknown[0]!r}; it has 'task' and 'result'")
    key = value.get("result")
    if key is not None and not isinstance(key, str):
        raise ValueError(f"{name!r}: 'result' must be a text, the name of a result; leave it out for the whole")
    return {"task": to_id(value["task"])} | ({} if key is None else {"result": key})


def to_date(value: object) -> datetime:
    """A UTC time."""
    return value if isinstance(value, datetime) else parse_date(value)


def to_expiry(value: object) -> datetime | timedelta:
    """The expiry of a token: a UTC time, or a duration from now."""
    if isinstance(value, (datetime, timedelta)):
        return value
    if isinstance(value, str) and value.isdecimal() and len(value) in (4, 8):
        raise ValueError(f"{value!r} may be a date or seconds; write '2031-01-01', or '{value}s'")
    try:
        return timedelta(seconds=parse_duration(value))
    except (ValueError, OverflowError):
        pass
    try:
        return to_date(value)
    except ValueError as error:
        raise ValueError(f"it is neither a duration such as '30d' nor a date: {error}") from error


def to_capability(value: object) -> Timestamp:
    """A CUDA compute capability such as "8.0", stored as two numbers that MongoDB compares one after the other."""
    if isinstance(value, Timestamp):
        return value
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a compute capability; write it as '8.0'")
    return Timestamp(*parse_capability(value))


def to_exit_status(value: object) -> str:
    """The end of an attempt, in one of the known forms."""
    if not isinstance(value, str):
        raise ValueError(f"must be a text; there are {FORMS}")
    if re.fullmatch(PATTERN, value) is None:
        shown = value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}..."
        raise ValueError(f"{shown!r} is no way to end; there are {FORMS}")
    return value


COERCIONS: dict[str, Callable[[object], Any]] = {
    "id": to_id,
    "ids": to_ids,
    "dependencies": to_dependencies,
    "input_refs": to_input_refs,
    "date": to_date,
    "expiry": to_expiry,
    "size": parse_size,
    "duration": parse_duration,
    "capability": to_capability,
    "exit_status": to_exit_status,
}
"""The conversions by the name that schemas use in `coerce`."""
