"""`shell_sum`: a model that runs another program."""

from pathlib import Path
from typing import Any

import pytest

from tests.models.running import SCHEDULERS, post, run


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_two_whole_numbers_give_a_whole_sum(scheduler: str) -> None:
    result = run("shell_sum", {"x": 1, "y": 2}, scheduler=scheduler)
    assert result == {"sum": 3}
    assert type(result["sum"]) is int


@pytest.mark.parametrize(
    ("x", "y"), [(0.1, 0.2), (-1, 1), (2**52, 2**52), (-(2**52), -5), (1e-300, 1.5), (1e22, -1), (1.7e308, 1.7e308)]
)
def test_the_program_adds_like_python(x: float, y: float) -> None:
    assert run("shell_sum", {"x": x, "y": y}) == {"sum": x + y}


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        ({"x": 1}, "input 'y' is missing: give a finite number"),
        ({"x": "1; rm", "y": 2}, "input 'x' is '1; rm': give a finite number"),
        ({"x": 1, "y": False}, "input 'y' is False: give a finite number"),
        ({"x": 1, "y": float("nan")}, "input 'y' is nan: give a finite number"),
        ({"x": 2**52 + 1, "y": 2}, f"input 'x' is {2**52 + 1}: give a whole number from"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_before_anything_runs(inputs: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        post("shell_sum", inputs)


def use_as_awk(directory: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model find this script when it looks for awk."""
    program = directory / "awk"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_a_failing_program_is_told_with_its_exit_code_and_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_as_awk(tmp_path, "echo out of paper >&2; exit 3", monkeypatch)
    with pytest.raises(RuntimeError, match=r"^awk ended with exit code 3: out of paper$"):
        run("shell_sum", {"x": 1, "y": 2})


def test_an_answer_that_is_no_number_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_as_awk(tmp_path, "echo three", monkeypatch)
    with pytest.raises(RuntimeError, match=r"awk answered 'three\\n' where a number should be"):
        run("shell_sum", {"x": 1, "y": 2})


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="awk"):
        run("shell_sum", {"x": 1, "y": 2})
