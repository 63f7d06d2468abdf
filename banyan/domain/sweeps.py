"""Sweeps: the points that a short description stands for, and the command of each point."""

import json
import math
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from banyan.domain.programs import MAX_COMMAND

Point = dict[str, Any]
"""The inputs of one task by name."""

Command = str | list[str]

INDEX = "index"
"""The name that stands for the number of the point in a command template, unless an input has it."""


def grid_size(grid: Mapping[str, Sequence[Any]]) -> int:
    """The number of points of a grid."""
    return math.prod(len(values) for values in grid.values())


def grid_points(grid: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """All combinations of the values; the last name varies fastest."""
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
    """A command in which `{name}` stands for the value of an input; all other braces are kept.

    In a text, which is for the shell, values are quoted; in a list of words they are inserted unquoted. Texts stand for
    themselves, other values are written as JSON. If two names match, the longer one is used.
    """

    def __init__(self, command: Command, names: Collection[str]) -> None:
        known = {*names, INDEX}
        self._is_text = isinstance(command, str)
        self._words = [_pieces(word, known) for word in ([command] if isinstance(command, str) else command)]
        self.used = frozenset(name for pieces in self._words for _, name in pieces if name is not None)
        """The names that the command uses."""

    def unknown(self) -> list[str]:
        """Names in braces that look like placeholders but are not names of inputs; each once, in order.

        `${NAME}` is the shell's, and braces around anything but one word are the program's.
        """
        literals = (literal for pieces in self._words for literal, _ in pieces)
        return list(dict.fromkeys(found for literal in literals for found in _PLACEHOLDER.findall(literal)))

    def fill(self, point: Mapping[str, Any], index: int) -> Command:
        """The command of a point; ValueError when it uses a name that this point does not have, or grows too long."""
        values = {INDEX: index, **point}
        texts: dict[str, str] = {}
        words: list[str] = []
        left = MAX_COMMAND
        for pieces in self._words:
            words.append(self._filled(pieces, values, texts, left))
            left -= len(words[-1])
        return words[0] if self._is_text else words

    def _filled(
        self, pieces: Sequence[tuple[str, str | None]], values: Mapping[str, Any], texts: dict[str, str], most: int
    ) -> str:
        parts = []
        for literal, name in pieces:
            parts.append(literal)
            if name is not None:
                if name not in texts:
                    texts[name] = self._text(name, values)
                parts.append(texts[name])
            most -= len(literal) + len(parts[-1] if name is not None else "")
            if most < 0:
                raise ValueError(f"becomes longer than {MAX_COMMAND} characters; pass large values in files")
        return "".join(parts)

    def _text(self, name: str, values: Mapping[str, Any]) -> str:
        if name not in values:
            raise ValueError(f"uses {{{name}}}, and this point has no such input")
        text = text_of(values[name])
        return shlex.quote(text) if self._is_text else text


def text_of(value: Any) -> str:
    """A value as it appears in a command: a text unchanged, any other value as JSON."""
    return value if isinstance(value, str) else _as_json(value)


_as_json = json.JSONEncoder(ensure_ascii=False).encode


def _pieces(text: str, names: set[str]) -> list[tuple[str, str | None]]:
    """A text as literals, each but the last followed by the name that stands after it."""
    with_braces = sorted((name for name in names if _BRACE.search(name)), key=len, reverse=True)
    if text.count("{") * len(with_braces) > _MAX_LOOKS:
        raise ValueError("has too many braces for so many names with braces; rename the inputs")
    pieces: list[tuple[str, str | None]] = []
    begin = look = 0
    while (brace := text.find("{", look)) >= 0:
        name = _name_at(text, brace + 1, names, with_braces)
        look = brace + 1
        if name is not None:
            pieces.append((text[begin:brace], name))
            begin = look = brace + len(name) + 2
    return [*pieces, (text[begin:], None)]


_BRACE = re.compile("[{}]")
_PLACEHOLDER = re.compile(r"(?<![$\\{])\{([A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*)\}(?!\})")
_MAX_LOOKS = 1_000_000


def _name_at(text: str, start: int, names: set[str], with_braces: Sequence[str]) -> str | None:
    """The longest name at this position that a closing brace follows; a name without braces ends at the next brace."""
    for name in with_braces:
        if text.startswith(f"{name}}}", start):
            return name
    brace = _BRACE.search(text, start)
    if brace is None or brace.group() == "{":
        return None
    name = text[start : brace.start()]
    return name if name in names else None
