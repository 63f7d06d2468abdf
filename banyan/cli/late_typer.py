"""Typer's names for declaring commands, without Typer: importing it takes longer than most commands run.

Modules with commands begin with `from banyan.cli import late_typer as typer`, and declare as Typer's documentation
shows. `reading` reads command lines that are plain; for help, mistakes and completion `with_typer` makes an application
of Typer from the declarations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Command = TypeVar("Command", bound=Callable[..., Any])


class Declared:
    """The attributes of a parameter, with the names of `typer.Option` and `typer.Argument`."""

    def __init__(self, *names: str, **attributes: Any) -> None:
        self.names = names
        self.attributes = attributes


class Option(Declared):
    """A parameter with a name on the command line."""


class Argument(Declared):
    """A parameter that is known by its place."""


class BadParameter(Exception):
    """A mistake in a parameter; `param_hint` names the parameter where the error comes from elsewhere."""

    def __init__(self, message: str, *, param_hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param_hint = param_hint


class Exit(Exception):
    """The end of a command with this exit code."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(code)
        self.exit_code = code


class UsageMistake(Exception):
    """A command line that cannot be understood; `command` is the one whose help is recommended, if there is one."""

    def __init__(self, message: str, command: str) -> None:
        hint = f" (see `{command} --help`)" if command else ""
        super().__init__(f"{message.rstrip('.')}{hint}")


@dataclass(frozen=True, slots=True)
class Context:
    """The invocation, for functions with a parameter of this type: some attributes of Typer's context."""

    info_name: str
    invoked_subcommand: str | None = None
    resilient_parsing: bool = False


class Typer:
    """A group of commands, by their names."""

    def __init__(self, **attributes: Any) -> None:
        self.attributes = attributes
        self.commands: dict[str, Callable[..., Any] | Typer] = {}
        self.main: Callable[..., Any] | None = None

    def callback(self) -> Callable[[Command], Command]:
        """Return a decorator for the function that runs before a command of the group."""

        def declare(function: Command) -> Command:
            self.main = function
            return function

        return declare

    def command(self, name: str | None = None) -> Callable[[Command], Command]:
        """Return a decorator for a command; its name is the function's unless it is given."""

        def declare(function: Command) -> Command:
            self.commands[name or function.__name__.replace("_", "-")] = function
            return function

        return declare

    def add_typer(self, group: "Typer", *, name: str) -> None:
        """Add a group of commands."""
        self.commands[name] = group
