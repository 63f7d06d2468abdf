"""Tables of text that fit the terminal: columns shrink, and the least needed ones go, before a line breaks.

It needs only the standard library, so that a command that prints a table starts quickly.
"""

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP = 2
UNLIMITED = 100_000
"""The width of output that is no terminal: only a column's own limit cuts a cell."""
WHOLE = UNLIMITED
"""The least width of a column whose cells are never cut."""
_LEAST = 4
"""The width to which all columns except the first shrink before a line breaks."""
SHORT = 20
"""The width below which a column shows the short text of a cell where the whole one does not fit."""
_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


@dataclass(frozen=True, slots=True)
class Cell:
    """The content of one place; `short` replaces it where there is too little space."""

    text: str
    style: str = ""
    short: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column with a width from `least` to `most`; of those with a number in `goes`, the highest one goes first."""

    heading: str
    least: int = 1
    most: int = UNLIMITED
    goes: int = 0
    right: bool = False
    middle: bool = False
    """True to cut the middle out of a text that is too long, and not its end."""


def width() -> int:
    """Return the columns of the terminal, or those that the variable COLUMNS names."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else UNLIMITED
    except (OSError, ValueError):
        return UNLIMITED


def coloured() -> bool:
    """Return whether the output shall have colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def lines(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int, *, colours: bool = False) -> list[str]:
    """Return the headings and a line for each row; none is wider than `width`, if the columns can be made as narrow."""
    kept = fitting(columns, rows, width)
    heads = [Cell(column.heading, "bold") for column in columns]
    return [_line([(columns[i], row[i], wide) for i, wide in kept.items()], colours) for row in [heads, *rows]]


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> dict[int, int]:
    """Return the columns for which there is space, by their places, with their widths."""

    def ideal(i: int, place: int) -> int:
        texts = (_fitting_text(row[i], place) for row in rows)
        return min(max(cells(columns[i].heading), *(cells(text) for text in texts), 0), columns[i].most)

    widths = _widths(columns, [ideal(i, UNLIMITED) for i in range(len(columns))], width)
    return _widths(columns, [ideal(i, widths.get(i, UNLIMITED)) for i in range(len(columns))], width)


def _widths(columns: Sequence[Column], ideal: Sequence[int], width: int) -> dict[int, int]:
    widths = {i: min(columns[i].least, wide) for i, wide in enumerate(ideal)}
    while _spare(widths, width) < 0 and any(columns[i].goes for i in widths):
        del widths[max(widths, key=lambda i: columns[i].goes)]
    while _spare(widths, width) < 0 and (wide := [i for i in list(widths)[1:] if widths[i] > _LEAST]):
        widths[max(wide, key=lambda i: (columns[i].middle, widths[i]))] -= 1
    for _ in range(_spare(widths, width)):
        cut_most = max(widths, key=lambda i: ideal[i] - widths[i])
        if ideal[cut_most] == widths[cut_most]:
            break
        widths[cut_most] += 1
    return widths


def _spare(widths: Mapping[int, int], width: int) -> int:
    """Return how much of the width these columns leave."""
    return width - sum(widths.values()) - GAP * (len(widths) - 1)


def _line(places: Sequence[tuple[Column, Cell, int]], colours: bool) -> str:
    return (" " * GAP).join(_shown(column, cell, wide, colours) for column, cell, wide in places).rstrip()


def _shown(column: Column, cell: Cell, wide: int, colours: bool) -> str:
    text = one_line(_fitting_text(cell, wide))
    text = cut(text, wide, middle=column.middle)
    space = " " * (wide - cells(text))
    codes = ";".join(_STYLES[word] for word in cell.style.split() if word in _STYLES)
    styled = f"\x1b[{codes}m{text}\x1b[0m" if colours and codes and text else text
    return space + styled if column.right else styled + space


def _fitting_text(cell: Cell, wide: int) -> str:
    return cell.short if cell.short and cells(cell.text) > wide and wide < SHORT else cell.text


def one_line(text: str) -> str:
    """Return the text in one line, without control sequences and characters that change the order of letters."""
    if text.isascii() and text.isprintable():
        return text
    shown = (" " if each.isspace() else each if each.isprintable() else _unprintable(each) for each in text)
    return "".join(shown)


def _unprintable(each: str) -> str:
    return "" if unicodedata.category(each) == "Cf" else "?"


def cells(text: str) -> int:
    """Return the number of terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(_cell_width(each) for each in one_line(text))


def _cell_width(each: str) -> int:
    if unicodedata.combining(each) or unicodedata.category(each) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(each) in "WF" else 1


def _mark() -> str:
    """Return the mark for letters that are cut."""
    try:
        "…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeError:
        return "~"
    return "…"


def cut(text: str, wide: int, *, middle: bool = False) -> str:
    """Return as much of a text as fits, with … for the cut part."""
    if cells(text) <= wide:
        return text
    tail = ""
    if middle:
        for each in reversed(text):
            if cells(tail) + _cell_width(each) > (wide - 1) // 3:
                break
            tail = each + tail
    head = ""
    for each in text:
        if cells(head) + _cell_width(each) + cells(tail) > wide - 1:
            break
        head += each
    return f"{head}{_mark()}{tail}" if wide else ""
