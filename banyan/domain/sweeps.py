"""Sweeps: the points that a few words stand for, and the command of each point."""

import json
import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

Point = dict[str, Any]
"""The inputs of one task by name."""

Command = str | list[str]

INDEX = "index"
"""The name that stands for the number of the point in a command template, unless an input has it."""


def grid_size(grid: Mapping[str, Sequence[Any]]) -> int:
    """How many points a grid has."""
    return math.prod(len(values) for values in grid.values())


def grid_points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Every combination of the values; the last name varies fastest."""
    return (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def names_of(points: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of all points in the order in which they appear first."""
    names: dict[str, None] = {}
    for point in points:
        if not point.keys() <= names.keys():
            names.update(dict.fromkeys(point))
    return list(names)


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` indexes: the first, the last, and others evenly between them."""
    if count <= most:
        return list(range(count))
    return [round(step * (count - 1) / (most - 1)) for step in range(most)]


class Template:
    """A command in which `{name}` stands for the value of an input; all other braces are what they are.

    In a text, which is for the shell, values are quoted; in a list of words they are put in as they are. Texts stand
    for themselves, other values are written as JSON. Of two names that would fit the longer one counts.
    """

    def __init__(self, command: Command, names: Collection[str]) -> None:
        known = {*names, INDEX}
        self._is_text = isinstance(command, str)
        self._words = [_pieces(word, known) for word in ([command] if isinstance(command, str) else command)]

    def fill(self, point: Mapping[str, Any], index: int) -> Command:
        """The command of a point; ValueError when it uses a name that this point does not have."""
        values = {INDEX: index, **point}
        words = [self._filled(pieces, values) for pieces in self._words]
        return words[0] if self._is_text else words

    def _filled(self, pieces: Sequence[tuple[str, str | None]], values: Mapping[str, Any]) -> str:
        parts = []
        for literal, name in pieces:
            parts.append(literal)
            if name is None:
                continue
            if name not in values:
                raise ValueError(f"uses {{{name}}}, and this point has no such input")
            text = text_of(values[name])
            parts.append(shlex.quote(text) if self._is_text else text)
        return "".join(parts)


def text_of(value: Any) -> str:
    """A value as a command is given it: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pieces(text: str, names: set[str]) -> list[tuple[str, str | None]]:
    """A text as literals, each but the last followed by the name that stands behind it."""
    lengths = sorted({len(name) for name in names}, reverse=True)
    pieces: list[tuple[str, str | None]] = []
    begin = look = 0
    while (brace := text.find("{", look)) >= 0:
        name = _name_at(text, brace + 1, names, lengths)
        look = brace + 1
        if name is not None:
            pieces.append((text[begin:brace], name))
            begin = look = brace + len(name) + 2
    return [*pieces, (text[begin:], None)]


def _name_at(text: str, start: int, names: set[str], lengths: Sequence[int]) -> str | None:
    for length in lengths:
        end = start + length
        if text[end : end + 1] == "}" and text[start:end] in names:
            return text[start:end]
    return None
