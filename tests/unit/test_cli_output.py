"""How values are written for people."""

from pathlib import Path

import pytest

from banyan.cli import output
from banyan.cli.demo_words import summary, words


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [([], 60, ""), ([0, 0], 60, "▁▁"), ([1, 4, 8], 60, "▂▅█"), (list(range(100)), 4, "▃▄▆█")],
)
def test_a_curve_keeps_its_peaks(values: list[float], width: int, curve: str) -> None:
    assert output.sparkline(values, width) == curve


def test_a_run_time_counts_from_start_to_end() -> None:
    started = {"time_started": "Tue, 02 Apr 2013 10:29:13 GMT"}
    assert output.run_time({}) == ""
    assert output.run_time(started | {"time_terminated": "Tue, 02 Apr 2013 10:29:13 GMT"}) == "<1s"
    assert output.run_time(started | {"time_terminated": "Tue, 02 Apr 2013 10:29:25 GMT"}) == "12s"
    assert output.run_time(started | {"time_terminated": "Tue, 02 Apr 2013 12:29:13 GMT"}) == "2h 00m"


def test_a_command_is_one_line_that_a_shell_would_read() -> None:
    assert output.command({"command": ["echo", "a b"]}) == "echo 'a b'"
    assert output.command({"command": "one\n  two"}) == "one two"
    assert output.command({"model": "pump"}) == "model pump"
    assert output.command({"command": None}) == "(group)"


def test_resources_are_one_line_with_units() -> None:
    amounts = {"cores": 0.5, "memory": 1 << 30, "gpus": 0, "gpu_indexes": [], "custom": {"licences": 2}}
    assert output.resources(amounts) == "cores 0.5, memory 1.00 GiB, licences 2"


def test_a_state_shows_in_its_colour_how_it_ended() -> None:
    assert output.state({"state": "terminated", "exit_status": "success"}).style == "green"
    assert output.state({"state": "terminated", "exit_status": "timed out"}).style == "red"


def test_words_are_counted_over_all_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    files[0].write_text("self = b + b\n")
    files[1].write_text("def self(a): return self")
    counts = words(files)
    assert summary(counts, 2) == {
        "files": 2,
        "words": 8,
        "distinct": 5,
        "common": [["self", 3], ["b", 2], ["a", 1], ["def", 1], ["return", 1]],
    }
