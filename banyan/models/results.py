"""The conversion of the result of a model's computation to the JSON that is stored as the task's result.

A model may return objects of any class. A subclass of a plain type counts as the plain value that it holds: its own
methods are not called, because they may do anything (an `IntEnum` makes `value in range(..)` a search of the whole
range).
"""

import datetime as dt
import decimal
import enum
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from itertools import islice
from typing import Any

from banyan.wire import MAX_DEPTH, MAX_INTEGER, MAX_RESULT_BYTES, unstorable

FILE = "result.json"
MAX_VALUES = 10_000_000
"""The most values in a result, each counted as often as it appears; numbers in NumPy's arrays do not count."""
_DOUBLE_BYTES = 8
_SHOWN_CHARACTERS = 60
_SHOWN_TYPES = (bool, float, bytes, type(None))
_ARRAYS = frozenset("biufUO")
_SURE_ARRAYS = frozenset("bf")


class BadResult(Exception):
    """The computation's result cannot be stored; the text names the place and the reason."""


def encode(result: Any, max_values: int = MAX_VALUES) -> str:
    """The result as JSON, NaN and infinities included; raises `BadResult`.

    It must be a mapping, or an object with `keys` and item access, from names to JSON values, NumPy scalars and arrays
    (nested lists), or such mappings, lists and tuples again; at most `max_values` in all.
    """
    if not _is_mapping(result):
        kind = type(result).__name__
        raise BadResult(f"a model's computation must give a mapping of names to values, such as a dict, not {kind}")
    plain = _Conversion(max_values).plain(result, "result", 0)
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    if len(text) <= MAX_RESULT_BYTES and (fault := unstorable(plain)):  # a longer result stays in a file
        raise BadResult(f"result: {fault}")
    return text


def keep(text: str, workdir: str | None) -> dict[str, str]:
    """The place of the result: `{"result": json}`, or `{"result_file": name}` when it is large; raises `BadResult`."""
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


def _is(value: Any, kind: type) -> bool:
    """Return whether it really is of this type: `isinstance` also believes an object's claim about itself."""
    return issubclass(type(value), kind)


def _is_mapping(value: Any) -> bool:
    if _is(value, dict):
        return True
    if _is(value, type):
        return False
    return isinstance(value, Mapping) or (hasattr(value, "keys") and hasattr(value, "__getitem__"))


def _is_array(value: Any) -> bool:
    """Return whether it is a NumPy array or scalar, or similar."""
    return hasattr(value, "tolist") and hasattr(value, "dtype") and not _is(value, type)


class _Conversion:
    """The conversion of one result to plain values; counts them, and tracks the containers around the current one."""

    def __init__(self, max_values: int) -> None:
        self._most = self._left = max_values
        self._around: set[int] = set()

    def plain(self, value: Any, place: str, depth: int) -> Any:
        """The value in JSON's own types; raises `BadResult`."""
        self._left -= 1
        if self._left < 0:
            raise BadResult(f"{place}: the result has more than {self._most} values")
        if value is None or value is True or value is False:
            return value
        convert = _SCALARS.get(type(value)) or next((each for kind, each in _SCALARS.items() if _is(value, kind)), None)
        if convert is not None:
            return convert(value, place)
        inner = self._container(value)
        if inner is None:
            raise BadResult(f"{place}: a value of type {type(value).__name__} cannot be kept as JSON{_hint(value)}")
        if depth >= MAX_DEPTH:
            raise BadResult(f"{place}: nested deeper than {MAX_DEPTH} levels")
        if id(value) in self._around:
            raise BadResult(f"{place}: it contains itself")
        self._around.add(id(value))
        converted = inner(value, place, depth)
        self._around.discard(id(value))
        return converted

    def _container(self, value: Any) -> Callable[[Any, str, int], Any] | None:
        if _is(value, list) or _is(value, tuple):
            return self._list
        if _is_mapping(value):
            return self._object
        return self._array if _is_array(value) else None

    def _list(self, value: Any, place: str, depth: int) -> list[Any]:
        items = list.__iter__(value) if _is(value, list) else tuple.__iter__(value)
        return [self.plain(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(items)]

    def _object(self, value: Any, place: str, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, each in _items(value, place, self._most):
            text = _name(name, place)
            if text in plain:
                raise BadResult(f"{place}: the name {_shown(text)} is there twice")
            plain[text] = self.plain(each, f"{place}[{_shown(text)}]", depth + 1)
        return plain

    def _array(self, value: Any, place: str, depth: int) -> Any:
        kind = getattr(value.dtype, "kind", "O")
        if kind not in _ARRAYS:
            what = "an array" if getattr(value, "shape", ()) else "a value"
            raise BadResult(f"{place}: {what} of {value.dtype} cannot be kept as JSON")
        if kind == "f" and value.dtype.itemsize > _DOUBLE_BYTES:
            value = value.astype("f8")
        plain = value.tolist()
        sure = kind in _SURE_ARRAYS and type(value).__module__ == "numpy"
        return plain if sure else self.plain(plain, place, depth + 1)


def _items(value: Any, place: str, most: int) -> Iterable[tuple[Any, Any]]:
    """Names and values of a mapping; the items of a dict, unless its class has lookups of its own."""
    kind = type(value)
    if _is(value, dict) and kind.keys is dict.keys and kind.__getitem__ is dict.__getitem__:
        return list(dict.items(value))
    names = list(islice(iter(value.keys()), most + 1))
    if len(names) > most:
        raise BadResult(f"{place}: the result has more than {most} values")
    return ((name, value[name]) for name in names)


def _integer(value: Any, place: str) -> int:
    number = int.__int__(value)
    if not -MAX_INTEGER - 1 <= number <= MAX_INTEGER:
        raise BadResult(f"{place}: an integer of {number.bit_length()} bits is too large; 64 are kept")
    return number


def _float(value: Any, place: str) -> float:
    return float.__float__(value)


def _text(value: Any, place: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadResult(f"{place}: the text {_shown(text)} is no Unicode text (it has a lone surrogate)") from error
    return text


_SCALARS: dict[type, Callable[[Any, str], Any]] = {float: _float, int: _integer, str: _text}


def _name(name: Any, place: str) -> str:
    if not _is(name, str):
        text = f"the name{_shown(name, ' ')} is of type {type(name).__name__}; names of results are texts"
        raise BadResult(f"{place}: {text}")
    text = str.__str__(name)
    if "\0" in text:
        raise BadResult(f"{place}: the name {_shown(text)} contains a NUL")
    return _text(text, place)


def _shown(name: Any, before: str = "") -> str:
    """A name in a message, cut to a limit; empty for an object whose own methods would have to be called."""
    if type(name) is int:
        text = repr(name) if name.bit_length() < _SHOWN_CHARACTERS else f"(an integer of {name.bit_length()} bits)"
    elif type(name) is str or type(name) in _SHOWN_TYPES:
        text = repr(name[: _SHOWN_CHARACTERS + 1] if isinstance(name, (str, bytes)) else name)
    else:
        return ""
    return before + (text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...{text[:1]}")


def _hint(value: Any) -> str:
    """The value that the model can return instead."""
    if is_dataclass(value) and not _is(value, type):
        return "; give dataclasses.asdict(..) of it"
    return next((f"; give {instead}" for kind, instead in _INSTEAD.items() if _is(value, kind)), "")


_INSTEAD: dict[type, str] = {
    decimal.Decimal: "float(..) or str(..) of it",
    bytes: "a text, such as its .decode() or .hex()",
    bytearray: "a text, such as its .decode() or .hex()",
    enum.Enum: "its .value or .name",
    dt.date: "a text, such as its .isoformat()",
    dt.time: "a text, such as its .isoformat()",
    dt.timedelta: "its .total_seconds()",
    set: "a list",
    frozenset: "a list",
    complex: "its .real and .imag",
}
