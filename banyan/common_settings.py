"""The settings that all servers of a database must share, as plain values that can be stored."""

from collections.abc import Mapping
from typing import Any

from banyan.config import ServerSettings

Values = Mapping[str, Mapping[str, Any]]
"""Sections of settings by name, each with its keys."""

_SHARED = ("limits", "auth", "leases", "queue", "quarantine", "files", "retention", "posting")
_OWN = frozenset({("limits", "request_seconds"), ("auth", "credentials_file")})
"""Keys of these sections that are each server's own."""


def common_of(settings: ServerSettings) -> dict[str, dict[str, Any]]:
    """Return the settings of a server that all servers must share."""
    sections = settings.model_dump()
    return {name: {key: value for key, value in sections[name].items() if (name, key) not in _OWN} for name in _SHARED}


def with_common(settings: ServerSettings, values: Values) -> ServerSettings:
    """Return the settings with these values in place of its own; values unknown to this version are left out."""
    update = {}
    for name in _SHARED:
        section = getattr(settings, name)
        known = {key: value for key, value in values.get(name, {}).items() if key in type(section).model_fields}
        kept = {key: value for key, value in known.items() if (name, key) not in _OWN}
        update[name] = type(section).model_validate({**section.model_dump(), **kept})
    return settings.model_copy(update=update)


def differences(wished: Values, in_force: Values) -> list[str]:
    """Return the settings in which two differ, as `name (wished, in force)`."""
    return [
        f"{name}.{key} ({value!r} here, {in_force[name][key]!r} there)"
        for name, section in wished.items()
        for key, value in section.items()
        if key in in_force.get(name, {}) and in_force[name][key] != value
    ]


def settle(in_force: Values | None, wishes: list[Values], *, adopt: bool = True) -> Values:
    """Return the settings in force among servers that wish these: the common wishes, else the earlier values.

    Without `adopt` a wish that all share changes nothing yet. Reads are private as soon as one server wishes it.
    """
    if in_force is None or (adopt and all(wish == wishes[0] for wish in wishes)):
        in_force = wishes[0]
    if any(wish.get("auth", {}).get("private") for wish in wishes):
        return {**in_force, "auth": {**in_force.get("auth", {}), "private": True}}
    return in_force
