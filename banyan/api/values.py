"""What MongoDB can keep: names, numbers and texts that would fail or change on their way are refused here."""

from collections.abc import Mapping
from typing import Any

from banyan.wire import MAX_INTEGER

MAX_DEPTH = 64
"""How deep lists and objects may be nested."""


def unstorable(value: Any, depth: int = 1) -> str | None:
    """Why MongoDB cannot keep a JSON value; None when it can."""
    if isinstance(value, str):
        return _bad_text(value)
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return None
    if isinstance(value, int):
        if -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
            return None
        return "an integer has at most 64 bits; send a larger one as a text"
    if not isinstance(value, (list, dict, Mapping)):  # a dict is found quicker than any mapping
        return None
    if depth > MAX_DEPTH:
        return f"it is nested deeper than {MAX_DEPTH} levels"
    if isinstance(value, list):
        return next((fault for each in value if (fault := unstorable(each, depth + 1))), None)
    return _bad_object(value, depth)


def _bad_object(value: Mapping[str, Any], depth: int) -> str | None:
    if "$ref" in value and "$id" in value and value.get("$db", "") is None:
        return "an object with the names '$ref' and '$id' cannot have null as '$db'"
    for name, each in value.items():
        fault = bad_name(name) or unstorable(each, depth + 1)
        if fault:
            return fault
    return None


def bad_name(name: str) -> str | None:
    """Why a text cannot be the name of a field; None when it can."""
    if "\0" in name:
        return f"the name {name!r} contains a NUL byte"
    return _bad_text(name)


def _bad_text(text: str) -> str | None:
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start} is half of a surrogate pair, which is no text"
    return None
