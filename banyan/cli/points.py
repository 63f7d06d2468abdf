"""The points of a command line: grids, ranges, files of points, samples."""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from banyan.cli import late_typer as typer
from banyan.cli.changes import value_of

Points = dict[str, Any]
"""`grid`, `points` or `samples`, as `POST /sweeps` takes them."""

MAX_VALUES = 1_000_000
"""The most numbers of a range."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(f"({_NUMBER}):({_NUMBER})(?::({_NUMBER}))?")
_BOUNDS = re.compile(f"({_NUMBER}):({_NUMBER})(:log)?")


def points(
    *,
    grid: Sequence[str],
    file: str | None,
    samples: int | None,
    ranges: Sequence[str],
    method: str | None,
    seed: int | None,
) -> Points:
    """Return the points of these options; exactly one of a grid, a file and samples is required."""
    if sum(map(bool, (grid, file, samples))) != 1:
        raise typer.BadParameter("give --grid (once for each input), --points or --samples", param_hint="--grid")
    if samples is None and (ranges or method is not None or seed is not None):
        raise typer.BadParameter("--range, --method and --seed go with --samples", param_hint="--range")
    if grid:
        return {"grid": parse_grid(grid)}
    if file is not None:
        return {"points": read_points(file)}
    if not ranges:
        raise typer.BadParameter("samples need a range for each input: --range x=0:1", param_hint="--range")
    wanted = {"method": method or "latin_hypercube", "count": samples, "inputs": parse_ranges(ranges)}
    return {"samples": wanted if seed is None else wanted | {"seed": seed}}


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return `NAME=VALUES` texts as lists of values by name."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, values = _split(text, "--grid", "NAME=1,2,3")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--grid")
        found[name] = parse_values(values, text)
    return found


def parse_values(text: str, whole: str) -> list[Any]:
    """Return the values of `1,2,3`, a JSON list, or a range `START:END` or `START:END:STEP`, whose end is left out."""
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"{whole!r}: the list is not JSON: {error}", param_hint="--grid") from error
    elif bounds := _RANGE.fullmatch(text):
        values = _range(bounds[1], bounds[2], bounds[3] or "1", whole)
    else:
        values = [value_of(each) for each in text.split(",")] if text else []
    if not values:
        raise typer.BadParameter(f"{whole!r} has no values", param_hint="--grid")
    return list(values)


def _range(start: str, end: str, step: str, whole: str) -> list[int | float]:
    """Return the numbers as people write them: 0:1:0.1 has 0.3, not 0.30000000000000004."""
    first, last, width = Decimal(start), Decimal(end), Decimal(step)
    try:
        count = math.ceil((last - first) / width)
    except ArithmeticError as error:
        problem = "is out of reach" if width else "has a step of zero"
        raise typer.BadParameter(f"{whole!r} {problem}", param_hint="--grid") from error
    if count > MAX_VALUES:
        raise typer.BadParameter(f"{whole!r} has more than {MAX_VALUES} values", param_hint="--grid")
    kind = int if all(re.fullmatch(r"[-+]?\d+", each) for each in (start, end, step)) else float
    return [kind(first + index * width) for index in range(count)]


def parse_ranges(texts: Sequence[str]) -> dict[str, Any]:
    """Return `NAME=LOW:HIGH` and `NAME=LOW:HIGH:log` texts as ranges by name."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = _split(text, "--range", "NAME=LOW:HIGH")
        bounds = _BOUNDS.fullmatch(value)
        if bounds is None:
            problem = "is not of the form NAME=LOW:HIGH or NAME=LOW:HIGH:log"
            raise typer.BadParameter(f"{text!r} {problem}", param_hint="--range")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--range")
        scale = {"scale": "log"} if bounds[3] else {}
        found[name] = {"low": float(bounds[1]), "high": float(bounds[2])} | scale
    return found


def read_points(path: str) -> list[dict[str, Any]]:
    """Return the points of a JSON list of objects, or of a CSV file whose first line has the names; `-` is stdin."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        text = data.decode("utf-8-sig")
        found = json.loads(text) if text.lstrip().startswith("[") else list(_csv_points(text))
    except (OSError, ValueError, csv.Error) as error:
        raise typer.BadParameter(f"{path} cannot be read as points: {error}", param_hint="--points") from error
    if not found or not all(isinstance(point, dict) for point in found):
        problem = "has no points" if not found else "must hold objects, names to values"
        raise typer.BadParameter(f"{path} {problem}", param_hint="--points")
    return list(found)


def _csv_points(text: str) -> Iterator[dict[str, Any]]:
    """Yield a point for each row; a cell that is JSON has that value, others are texts, empty ones are left out."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(rows, [])
    if len(set(names)) < len(names):
        raise ValueError("two columns have the same name")
    for row in rows:
        if len(row) > len(names):
            raise ValueError(f"line {rows.line_num} has {len(row)} cells, and there are {len(names)} names")
        if row:
            yield {name: value_of(cell) for name, cell in zip(names, row, strict=False) if cell != ""}


def _split(text: str, option: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not of the form {form}", param_hint=option)
    return name, value
