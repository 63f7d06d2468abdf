"""Points as they are written on a command line."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from banyan.cli import late_typer as typer
from banyan.cli.points import parse_grid, parse_ranges, points, read_points

NOTHING: dict[str, Any] = {"grid": (), "file": None, "samples": None, "ranges": (), "method": None, "seed": None}


def asked(**options: Any) -> dict[str, Any]:
    return points(**{**NOTHING, **options})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("x=1,2.5,-3", [1, 2.5, -3]),
        ("x=a,true,null,NaN_", ["a", True, None, "NaN_"]),
        ('x=["a,b", [1], {"k": 2}]', ["a,b", [1], {"k": 2}]),
        ("x=0:4", [0, 1, 2, 3]),
        ("x=4:0:-2", [4, 2]),
        ("x=0:0.4:0.1", [0.0, 0.1, 0.2, 0.3]),
        ("x=1e-1:.3:1E-1", [0.1, 0.2]),
        ("x=one", ["one"]),
        ("x=12:30,13:45", ["12:30", "13:45"]),
        ("x=a=b", ["a=b"]),
        ("x=,", ["", ""]),
    ],
)
def test_values_are_a_list_a_json_list_or_a_range(text: str, values: list[Any]) -> None:
    assert parse_grid([text]) == {"x": values}


def test_a_grid_keeps_the_order_of_its_names() -> None:
    assert list(parse_grid(["b=1", "a=1", "c.x=1", "=1"])) == ["b", "a", "c.x", ""]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "not of the form"),
        ("x=", "has no values"),
        ("x=[]", "has no values"),
        ("x=[1", "not JSON"),
        ("x=3:1", "has no values"),
        ("x=0:1:0", "step of zero"),
        ("x=0:1e9", "more than 1000000 values"),
        ("x=0:1e999999:1e-999999", "out of reach"),
    ],
)
def test_values_that_are_none_are_refused(text: str, reason: str) -> None:
    with pytest.raises(typer.BadParameter, match=reason):
        parse_grid([text])


def test_a_name_is_given_once() -> None:
    with pytest.raises(typer.BadParameter, match="'x' is given twice"):
        parse_grid(["x=1", "x=2"])
    with pytest.raises(typer.BadParameter, match="'x' is given twice"):
        parse_ranges(["x=0:1", "x=0:2"])


def test_points_come_from_csv_with_absent_cells_left_out(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_bytes('\ufeffx,"a ""b""",c.x\r\n1,"two\r\nlines",\r\n[1],,NaN_\r\n\r\n'.encode())
    assert read_points(str(file)) == [{"x": 1, 'a "b"': "two\r\nlines"}, {"x": [1], "c.x": "NaN_"}]


def test_points_come_from_json_and_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "points"
    file.write_text(' [{"x": 1, "": null}]')
    assert read_points(str(file)) == [{"x": 1, "": None}]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x\n1\n")))
    assert read_points("-") == [{"x": 1}]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no points"),
        (b"x,y\n", "has no points"),
        (b"x,x\n1,2\n", "two columns have the same name"),
        (b"x\n1,2\n", "line 2 has 2 cells"),
        (b"[1]", "must hold objects"),
        (b"[{]", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b'x\n"1\n', "cannot be read"),
    ],
)
def test_a_file_without_points_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "points"
    file.write_bytes(content)
    with pytest.raises(typer.BadParameter, match=reason):
        read_points(str(file))


def test_samples_have_a_range_for_each_input() -> None:
    wanted = asked(samples=5, ranges=["x=0:1", "c.k=1e-3:10:log"], seed=3)
    inputs = {"x": {"low": 0.0, "high": 1.0}, "c.k": {"low": 0.001, "high": 10.0, "scale": "log"}}
    assert wanted == {"samples": {"method": "latin_hypercube", "count": 5, "inputs": inputs, "seed": 3}}
    assert asked(samples=5, ranges=["x=0:1"], method="sobol")["samples"]["method"] == "sobol"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "give --grid"),
        ({"grid": ["x=1"], "samples": 3}, "give --grid"),
        ({"grid": ["x=1"], "ranges": ["x=0:1"]}, "go with --samples"),
        ({"grid": ["x=1"], "seed": 0}, "go with --samples"),
        ({"file": "p.csv", "method": "sobol"}, "go with --samples"),
        ({"samples": 3}, "need a range"),
        ({"samples": 3, "ranges": ["x=0"]}, "not of the form"),
        ({"samples": 3, "ranges": ["x"]}, "not of the form"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(typer.BadParameter, match=reason):
        asked(**options)
