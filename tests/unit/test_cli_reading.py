"""Plain command lines: they are read as Typer reads them, quickly, and what is not plain is left to Typer."""

import contextlib
import functools
import importlib
import io
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from inspect import signature
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

import banyan.cli
from banyan.cli import late_typer, with_typer
from banyan.cli.app import run
from banyan.cli.commands import COMMANDS, declared
from banyan.cli.overview import overview
from banyan.cli.reading import read
from tests.support.recorded import RecordedApp, Said, served

Called = list[tuple[str, dict[str, Any]]]

PLAIN = """
list
list -n 5 --sort -name --json
list --count=5 -n7
show 555555
submit -- echo --help
submit --cores 2 echo hi
submit --tag a --tag b --label k=v -- sh -c x
wait 55 66 --timeout 1.5
retry 5 --downstream keep
hold 55 66 --json
edit 55 a=1 b.c=2 --where {}
workers drain 55
queues
queues --json
queues add a --weight 2
user add a --role provider
sweep list -n 3
worker --url http://x --labels a=b
up --port 0
backup /tmp/b
"""

LEFT_TO_TYPER = """
list --help
list --sate x
list -n
list -n 0
show
sweep
queues -h
user add a --role x
"""

LIGHT = """
--help
list
list --json
list --state running
submit -- true
submit --file run.py
show 555555555555555555555555
wait 555555555555555555555555
logs 555555555555555555555555
show 555555
cancel 555555555555555555555555
hold 555555555555555555555555
edit 555555555555555555555555 priority=1
delete 555555555555555555555555
queues
workers
workers drain 555555555555555555555555
stats
"""

WITHOUT_RICH = """
list
list --json
submit -- true
submit --json -- true
workers
cancel 555555555555555555555555
"""

HEAVY = {
    "bson", "cryptography", "dask", "eve", "flask", "numpy", "psutil", "pydantic", "pymongo", "requests", "typer",
    "urllib3",
}  # fmt: skip
"""Modules that a command which only sends a request does not import."""


def recording(group: late_typer.Typer, called: Called, path: str = "banyan") -> late_typer.Typer:
    """The same commands with the same parameters, which write down how they are called and do nothing."""
    copy = late_typer.Typer(**group.attributes)
    for name, command in group.commands.items():
        if isinstance(command, late_typer.Typer):
            copy.commands[name] = recording(command, called, f"{path} {name}")
        else:
            copy.commands[name] = recorded(command, called, f"{path} {name}")
    copy.main = None if group.main is None else recorded(group.main, called, path)
    return copy


def recorded(command: Callable[..., Any], called: Called, path: str) -> Callable[..., Any]:
    @functools.wraps(command)
    def write_down(**values: Any) -> None:
        contexts = {name for name, value in values.items() if hasattr(value, "invoked_subcommand")}
        told = {name: values[name].invoked_subcommand if name in contexts else values[name] for name in values}
        called.append((path, told))

    hints = get_type_hints(command, include_extras=True)
    parameters = [
        each.replace(annotation=without_callback(hints[n])) for n, each in signature(command).parameters.items()
    ]
    vars(write_down)["__signature__"] = signature(command).replace(parameters=parameters)
    write_down.__annotations__ = {each.name: each.annotation for each in parameters}
    return write_down


def without_callback(annotation: Any) -> Any:
    """The annotation of a parameter whose callback asks no server."""
    for about in getattr(annotation, "__metadata__", ()):
        if "callback" in about.attributes:
            kept = {name: value for name, value in about.attributes.items() if name != "callback"}
            return annotation.__class__(annotation.__origin__, (type(about)(*about.names, **kept),))
    return annotation


def commands_of(
    group: late_typer.Typer, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    if group.main is not None:
        yield path, group.main
    for name, command in group.commands.items():
        if isinstance(command, late_typer.Typer):
            yield from commands_of(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands_of(declared()))

WORDS = st.sampled_from(
    ["a", "x=1", "5" * 24, "", "-", "--", "-x", "--json", "a b", "ü", "[1]", "2h", "-1", "--name=b"]
)
NUMBERS = st.sampled_from(["0", "1", "7", "2000", "-3", "1.5", "1e3", " 2", "0x1", "nan", "", "--", "1_0", "٣"])


@st.composite
def words_for(draw: DrawFn, command: Callable[..., Any]) -> list[str]:
    """Words that a command may be given: mostly those that it has, some that it does not."""
    words: list[str] = []
    hints = get_type_hints(command, include_extras=True)
    for name in draw(st.lists(st.sampled_from([*hints, "other"]), max_size=5)):
        if name in ("other", "return", "context"):
            words.append(draw(WORDS))
            continue
        kind, about = get_args(hints[name])
        text = draw(text_of(kind))
        if isinstance(about, late_typer.Argument):
            words += [text]
        else:
            option = draw(st.sampled_from(about.names or (f"--{name.replace('_', '-')}",)))
            given = (
                [option]
                if kind is bool
                else draw(st.sampled_from([[option, text], [f"{option}={text}"], [option + text]]))
            )
            words += given
    return words


def text_of(kind: Any) -> SearchStrategy[str]:
    """Texts for a value of this type."""
    kinds = [each for each in (get_args(kind) if isinstance(kind, UnionType) else (kind,)) if each is not NoneType]
    (one,) = get_args(kinds[0]) if get_origin(kinds[0]) is list else kinds
    if one in (int, float):
        return NUMBERS
    if isinstance(one, type) and issubclass(one, Enum):
        return st.sampled_from([*(each.value for each in one), "none"])
    return WORDS


def by_typer(words: Sequence[str]) -> Called | None:
    """The words by which Typer calls the commands; None where it does not."""
    called: Called = []
    app = with_typer.application(recording(declared(words[:1]), called))
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            app(list(words), standalone_mode=False, prog_name="banyan")
        except Exception:  # noqa: BLE001 - any mistake that it finds
            return None
    return called


def plainly(words: Sequence[str]) -> Called | None:
    called: Called = []
    steps = read(recording(declared(words[:1]), called), words)
    for step in steps or ():
        step.run()
    return None if steps is None else called


def test_every_command_is_declared_with_its_line_of_the_overview() -> None:
    modules = [each.name for each in pkgutil.iter_modules(banyan.cli.__path__)]
    parts = [importlib.import_module(f"banyan.cli.{name}") for name in modules if name != "__main__"]
    app = late_typer.Typer()
    for each in parts:
        if hasattr(each, "register") and each.__name__ != "banyan.cli.sweep_submit":
            each.register(app)
    assert set(app.commands) == set(COMMANDS)
    for name, command in declared().commands.items():
        text = command.attributes["help"] if isinstance(command, late_typer.Typer) else command.__doc__ or ""
        assert COMMANDS[name][1] == re.split(r"(?<=[.]) ", " ".join(text.split()))[0]
        assert f"\n  {name} " in overview(80)


def test_the_overview_keeps_within_the_terminal() -> None:
    for columns in (40, 80, 120):
        assert max(len(line) for line in overview(columns).splitlines()) <= max(columns, 74)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_plain_words_are_read_as_typer_reads_them(path: tuple[str, ...]) -> None:
    @settings(max_examples=20)
    @given(words_for(ALL[path]))
    def check(words: list[str]) -> None:
        read_plainly = plainly([*path, *words])
        assert read_plainly is None or read_plainly == by_typer([*path, *words])

    check()


@pytest.mark.parametrize("line", PLAIN.strip().splitlines())
def test_what_people_type_is_read_without_typer(line: str) -> None:
    assert plainly(line.split()) == by_typer(line.split()) is not None


@pytest.mark.parametrize("line", LEFT_TO_TYPER.strip().splitlines())
def test_help_and_mistakes_are_left_to_typer(line: str) -> None:
    assert plainly(line.split()) is None


@pytest.mark.parametrize("line", LIGHT.strip().splitlines())
def test_a_command_imports_nothing_heavy(line: str) -> None:
    program = (
        "import sys; from banyan.cli.app import run; run(sys.argv[1:]);"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    env = {"BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN": "x"}
    command = [sys.executable, "-c", program, *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("line", WITHOUT_RICH.strip().splitlines())
def test_what_is_printed_without_colours_and_frames_needs_no_rich(line: str) -> None:
    task = {"_id": "5" * 24, "state": "terminated", "exit_status": "success", "name": "a"}
    found = Said(200, {"_items": [task], "_meta": {"total": 1, "page": 1}, **task})
    program = (
        "import sys; from banyan.cli.app import run; status = run(sys.argv[1:]);"
        "print(status, 'rich' in sys.modules, file=sys.stderr)"
    )
    with served(RecordedApp(*[found] * 4)) as url:
        env = {"BANYAN_URL": url, "BANYAN_TOKEN": "x"}
        command = [sys.executable, "-c", program, *line.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stderr.splitlines()[-1] == "0 False"


def test_mistakes_that_a_command_finds_itself_are_said_as_typer_says_them(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("list --state x", "show zz", "list --where {", "submit", "retry"):
        assert run(line.split()) == 2
        plain = capsys.readouterr()
        with pytest.raises(late_typer.UsageMistake) as caught:
            with_typer.run(line.split())
        assert (plain.out, plain.err) == ("", f"banyan: {caught.value}\n")
        capsys.readouterr()


def test_every_command_that_asks_a_server_takes_json() -> None:
    without = [
        path
        for path, command in ALL.items()
        if not any(
            isinstance(each, late_typer.Option) and "--json" in each.names
            for hint in get_type_hints(command, include_extras=True).values()
            for each in get_args(hint)
        )
    ]
    assert without == [("server",), ("worker",), ("demo",)]
