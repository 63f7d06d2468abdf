"""The units that the package brings: they start commands as these are, and stop them as these expect it."""

import configparser
import shlex
from importlib import resources

import pytest
import typer

from banyan.cli.full import app

UNITS = ("banyan-server", "banyan-up", "banyan-worker")


def service(name: str) -> dict[str, str]:
    """The section `[Service]` of a unit."""
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((resources.files("banyan") / "systemd" / f"{name}.service").read_text())
    return dict(unit["Service"])


def test_every_unit_is_named_here() -> None:
    found = (resources.files("banyan") / "systemd").iterdir()
    assert sorted(each.name for each in found) == [f"{name}.service" for name in UNITS]


@pytest.mark.parametrize("name", UNITS)
def test_what_a_unit_starts_is_a_command_with_options_that_it_has(name: str) -> None:
    program, command, *arguments = shlex.split(service(name)["ExecStart"])
    assert program == "/opt/banyan/bin/banyan"
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    assert known.parse_args(typer.Context(known), arguments) == []


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_restarts_after_a_crash_within_two_seconds_and_stops_its_main_process_first(name: str) -> None:
    section = service(name)
    wanted = {"Restart": "on-failure", "KillMode": "mixed", "LimitNOFILE": "65536"}
    assert {key: section[key] for key in wanted} == wanted
    assert float(section["RestartSec"]) <= 2
    assert section["User"]
