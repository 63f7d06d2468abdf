"""The names in a sweep's command template: each must be an input, and each input that makes points must be used."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from banyan.domain.sweeps import INDEX, Template
from banyan.spelling import closest, listed

_UNFILLED = ("env", "stdin", "directory")
"""Fields without replacement."""
_NAMED = 3


def check_placeholders(body: Mapping[str, Any], template: Template, names: Collection[str]) -> dict[str, object]:
    """The faults of a sweep's `command`: unknown placeholders, and inputs that it never uses.

    A grid or a range whose input is not used would run the same command several times. The points of a list may have
    more columns than the command uses.
    """
    issues: dict[str, object] = {}
    unknown = template.unknown()[:_NAMED]
    if unknown:
        issues["command"] = "; ".join(_unknown(name, names) for name in unknown)
    misspelt = {closest(name, names) for name in unknown}
    for source, given in _sources(body):
        unused = [name for name in given if name not in template.used and name not in misspelt]
        if unused:
            issues[source] = _unused(unused, body)
    return issues


def _sources(body: Mapping[str, Any]) -> Iterable[tuple[str, list[str]]]:
    if "samples" in body:
        yield "samples", list(body["samples"]["inputs"])
    if "grid" in body:
        yield "grid", list(body["grid"])
    yield "inputs", list(body.get("inputs") or {})


def _unknown(name: str, names: Collection[str]) -> str:
    meant = closest(name, [*names, INDEX])
    near = f"; did you mean {{{meant}}}?" if meant is not None else ";"
    own = f"braces of the program's own are left alone with blanks inside: {{ {name} }}"
    return f"{{{name}}} is no input of this sweep{near} there are: {listed({*names, INDEX})} ({own})"


def _unused(unused: list[str], body: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{{{name}}}" for name in unused[:5])
    which = f"the command never uses {shown}"
    elsewhere = [field for field in _UNFILLED if any(f"{{{name}}}" in str(body.get(field, "")) for name in unused)]
    if elsewhere:
        return f"{which}; in {elsewhere[0]!r} nothing is replaced, only in 'command'"
    same = "all points would run the same command" if len(unused) == 1 else "points would run the same commands"
    return f"{which}, so {same}; write it there, or leave the input out"
