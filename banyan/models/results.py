"""From what a model's computation gave to the JSON that is kept as the task's result."""

import json
import os
from collections.abc import Mapping
from typing import Any

from banyan.wire import MAX_DEPTH, MAX_RESULT_BYTES, unstorable

FILE = "result.json"
_INTEGERS = range(-(2**63), 2**63)
_DOUBLE_BYTES = 8
_SHOWN_CHARACTERS = 60


class BadResult(Exception):
    """The computation's result cannot be kept; the text says where and why."""


def encode(result: Any) -> str:
    """The result as JSON, NaN and infinities included; raises `BadResult`.

    A mapping, or something with `keys` and item access, from names to JSON values, NumPy scalars and arrays (nested
    lists), or such mappings, lists and tuples again.
    """
    if not _is_mapping(result):
        kind = type(result).__name__
        raise BadResult(f"a model's computation must give a mapping of names to values, such as a dict, not {kind}")
    plain = _plain(result, "result", 0)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    if len(text) <= MAX_RESULT_BYTES and (fault := unstorable(plain)):  # a longer one stays in a file
        raise BadResult(f"result: {fault}")
    return text


def keep(text: str, workdir: str | None) -> dict[str, str]:
    """Where the result goes: `{"result": json}`, or `{"result_file": name}` when it is large; raises `BadResult`."""
    size = len(text.encode())
    if size <= MAX_RESULT_BYTES:
        return {"result": text}
    if workdir is None:
        raise BadResult(
            f"the result has {size} bytes, and at most {MAX_RESULT_BYTES} are kept without a work directory"
        )
    with open(os.path.join(workdir, FILE), "w", encoding="utf-8") as file:
        file.write(text)
    return {"result_file": FILE}


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__"))


def _plain(value: Any, place: str, depth: int) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return float(value) if isinstance(value, float) else value
    if isinstance(value, int):
        if value not in _INTEGERS:
            raise BadResult(f"{place}: an integer of {value.bit_length()} bits is too large; 64 are kept")
        return int(value)
    if isinstance(value, str):
        return _text(value, place)
    if depth >= MAX_DEPTH:
        raise BadResult(f"{place}: nested deeper than {MAX_DEPTH} levels")
    if _is_mapping(value):
        names = list(value.keys())  # it may be no dict
        return {_name(name, place): _plain(value[name], f"{place}[{_shown(name)}]", depth + 1) for name in names}
    if isinstance(value, (list, tuple)):
        return [_plain(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(value)]
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # NumPy's arrays and scalars, and what is like them
        return _array(value, place, depth)
    raise BadResult(f"{place}: a value of type {type(value).__name__} cannot be kept as JSON")


def _array(value: Any, place: str, depth: int) -> Any:
    kind = getattr(value.dtype, "kind", "O")
    if kind not in "biufUO":
        raise BadResult(f"{place}: an array of {value.dtype} cannot be kept as JSON")
    if kind == "f" and value.dtype.itemsize > _DOUBLE_BYTES:
        value = value.astype("f8")
    plain = value.tolist()
    return plain if kind in "bf" else _plain(plain, place, depth + 1)


def _name(name: Any, place: str) -> str:
    if not isinstance(name, str):
        text = f"the name {_shown(name)} is of type {type(name).__name__}; names of results are texts"
        raise BadResult(f"{place}: {text}")
    if "\0" in name:
        raise BadResult(f"{place}: the name {_shown(name)} contains a NUL")
    return _text(name, place)


def _text(text: str, place: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadResult(f"{place}: the text {_shown(text)} is no Unicode text (it has a lone surrogate)") from error
    return str.__str__(text)


def _shown(name: Any) -> str:
    """A name in a message, however long it is."""
    text = repr(name)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...{text[:1]}"
