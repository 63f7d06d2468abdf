"""`KEY=VALUE` words of a command line as new values of a task's fields."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from banyan.cli import late_typer as typer

_RESOURCES = frozenset({"cores", "memory", "gpus", "gpu_memory", "gpu_compute_capability", "scratch"})
"""Entries of `requested_resources` that may be given alone, like the options of `banyan submit`."""
_OPTIONS = {
    "max_retries": "max_retry_count",
    "result": "result_from",
    "dir": "directory",
    "label": "requires",
    "tag": "tags",
}
"""Other options of `banyan submit`, and the fields that they set."""
_TEXTS = frozenset({"name", "queue", "command", "model", "directory", "stdin", "workdir", "result_from"})
_TABLES_OF_TEXTS = frozenset({"env", "requires"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A new value of a field, or of one entry of it."""

    field: str
    entry: str | None
    value: Any


def settings_of(texts: Iterable[str], option: str) -> list[Setting]:
    """Return `KEY=VALUE` and `KEY.ENTRY=VALUE` texts as settings; BadParameter, naming the option, for another form."""
    return [_setting(text, option) for text in texts]


def _setting(text: str, option: str) -> Setting:
    key, equals, value = text.partition("=")
    name, dot, entry = key.partition(".")
    name = name.replace("-", "_")
    field = _OPTIONS.get(name, name)
    if not equals or not field or (dot and not entry):
        raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE or KEY.ENTRY=VALUE", param_hint=option)
    if field in _RESOURCES and not dot:
        return Setting(field="requested_resources", entry=field, value=value_of(value))
    if field in (_TABLES_OF_TEXTS if dot else _TEXTS):
        return Setting(field=field, entry=entry or None, value=_text(value, may_be_list=field == "command"))
    if field == "tags" and not dot:
        return Setting(field=field, entry=None, value=_list(value))
    return Setting(field=field, entry=entry or None, value=value_of(value))


def name_entries(settings: Iterable[Setting]) -> bool:
    """Return whether only an entry of an object changes, so that the rest of it must be read."""
    return any(setting.entry is not None for setting in settings)


def changes_of(settings: Sequence[Setting], read: Callable[[], Mapping[str, Any]], option: str) -> dict[str, Any]:
    """Return the new values of the fields; `read` returns the current task where only entries of a field change."""
    before = read() if name_entries(settings) else {}
    changes: dict[str, Any] = {}
    for setting in settings:
        if setting.entry is None:
            changes[setting.field] = setting.value
            continue
        there = changes.get(setting.field, before.get(setting.field))
        there = {} if there is None else there
        if not isinstance(there, dict):
            raise typer.BadParameter(f"{setting.field} is no object; write {setting.field}=VALUE", param_hint=option)
        changes[setting.field] = {**there, setting.entry: setting.value}
    return changes


def value_of(text: str) -> Any:
    """Return the value of a JSON text, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(text: str, *, may_be_list: bool) -> Any:
    """Return the text, also where it looks like a number; a text in JSON's quotes without them, and null as null."""
    value = value_of(text)
    return value if value is None or isinstance(value, str) or (may_be_list and isinstance(value, list)) else text


def _list(text: str) -> Any:
    """Return a list in JSON, else words with commas between them."""
    value = value_of(text)
    return value if value is None or isinstance(value, list) else [word for word in text.split(",") if word]
