"""Commands as an application of Typer: for help, mistakes and completion."""

import functools
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.exceptions import TyperException

from banyan.cli import late_typer
from banyan.cli.commands import banyan, declared

_EXIT_USAGE = 2
_ABOUT = (late_typer.Option, late_typer.Argument)


def run(arguments: list[str], commands: late_typer.Typer | None = None) -> Any:
    """Run the command of these arguments among these commands, by default all; UsageMistake for a mistake in them."""
    try:
        return application(commands or declared())(arguments, standalone_mode=False, prog_name="banyan")
    except typer.Abort:
        raise KeyboardInterrupt from None
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return _EXIT_USAGE
        context = getattr(error, "ctx", None)
        raise late_typer.UsageMistake(
            error.format_message(), context.command_path if context is not None else ""
        ) from error


def application(group: late_typer.Typer, main: Callable[..., Any] = banyan) -> typer.Typer:
    """Return the application with these commands."""
    app = typer.Typer(
        name="banyan",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_in_typers_words(main))
    _add(app, group)
    return app


def _add(app: typer.Typer, group: late_typer.Typer) -> None:
    for name, command in group.commands.items():
        if isinstance(command, late_typer.Typer):
            below = typer.Typer(**command.attributes)
            if command.main is not None:
                below.callback()(_in_typers_words(command.main))
            _add(below, command)
            app.add_typer(below, name=name)
        else:
            app.command(name)(_in_typers_words(command))


def _in_typers_words(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with Typer's own annotations and errors."""

    @functools.wraps(function)
    def translated(*args: Any, **values: Any) -> Any:
        try:
            return function(*args, **values)
        except late_typer.BadParameter as error:
            raise typer.BadParameter(error.message, param_hint=error.param_hint) from error
        except late_typer.Exit as end:
            raise typer.Exit(end.exit_code) from end

    hints = get_type_hints(function, include_extras=True)
    parameters = [
        each.replace(annotation=_annotation(hints.get(name, each.annotation)))
        for name, each in signature(function).parameters.items()
    ]
    vars(translated)["__signature__"] = Signature(parameters)
    translated.__annotations__ = {each.name: each.annotation for each in parameters}
    return translated


def _annotation(annotation: Any) -> Any:
    if annotation is late_typer.Context:
        return typer.Context
    if get_origin(annotation) is not Annotated:
        return Any if annotation is Parameter.empty else annotation
    kind, *about = get_args(annotation)
    return Annotated[(kind, *(_declaration(each) if isinstance(each, _ABOUT) else each for each in about))]


def _declaration(about: late_typer.Declared) -> Any:
    make: Callable[..., Any] = typer.Option if isinstance(about, late_typer.Option) else typer.Argument
    attributes = {
        name: _in_typers_words(value) if name in ("callback", "autocompletion") else value
        for name, value in about.attributes.items()
    }
    return make(*about.names, **attributes)
