"""A reader of plain command lines with the results of Typer, without it; help and mistakes are left to Typer."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from banyan.cli.late_typer import Argument, BadParameter, Context, Declared, Option, Typer, UsageMistake

_UNDERSTOOD = frozenset({"autocompletion", "callback", "help", "hidden", "max", "metavar", "min"})
_INTEGER = re.compile("-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


@dataclass(frozen=True, slots=True)
class Step:
    """A function of the command line with the arguments for its parameters, as values of their types."""

    function: Callable[..., Any]
    parameters: "Sequence[_Parameter]"
    values: dict[str, Any]
    command: str
    subcommand: str | None = None

    def run(self) -> Any:
        """Call the parameters' callbacks and then the function; UsageMistake for values that they refuse."""
        context = Context(self.command.rpartition(" ")[2], self.subcommand)
        arguments = dict(self.values)
        try:
            for each in self.parameters:
                arguments[each.name] = each.called_back(context, arguments.get(each.name, each.default))
            return self.function(**arguments)
        except BadParameter as error:
            named = f" for {error.param_hint}" if error.param_hint is not None else ""
            raise UsageMistake(f"Invalid value{named}: {error.message}", self.command) from error


def read(group: Typer, words: Sequence[str], command: str = "banyan") -> list[Step] | None:
    """Return the steps for these words; None if they are not plain, so that Typer has to read them."""
    try:
        return list(_read(group, words, command))
    except _NotPlain:
        return None


class _NotPlain(Exception):
    """Words or a declaration that only Typer understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """A parameter of a command; `kind` is the type of one value, and `names` are those on the command line."""

    name: str
    kind: Any
    many: bool
    default: Any
    about: Declared | None

    @property
    def names(self) -> tuple[str, ...]:
        if not isinstance(self.about, Option):
            return ()
        names = self.about.names or (f"--{self.name.replace('_', '-')}",)
        if any("/" in each for each in names) or (self.kind is bool and not self.about.names):
            raise _NotPlain
        return names

    def value(self, texts: Sequence[Any]) -> Any:
        """Return the value of the texts that were given for it."""
        values = [self._one(each) for each in texts]
        return values if self.many else values[-1]

    def called_back(self, context: Context, value: Any) -> Any:
        """Return the value that its callback returns."""
        callback = self.about.attributes.get("callback") if self.about else None
        if self.about is None or callback is None:
            return context if self.about is None else value
        try:
            return callback(context, value) if len(signature(callback).parameters) > 1 else callback(value)
        except BadParameter as error:
            raise BadParameter(error.message, param_hint=error.param_hint or self._hint()) from error

    def _hint(self) -> str:
        shown = self.names or (self.about.attributes.get("metavar", self.name) if self.about else self.name,)
        return " / ".join(f"'{each}'" for each in shown)

    def _one(self, text: Any) -> Any:
        if self.kind in (bool, str):
            return text
        if self.kind is Path:
            return Path(text)
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return next(_or_not_plain(each for each in self.kind if each.value == text))
        if self.kind not in (int, float) or not (_INTEGER if self.kind is int else _NUMBER).fullmatch(text):
            raise _NotPlain
        number, bounds = self.kind(text), self.about.attributes if self.about else {}
        if not bounds.get("min", number) <= number <= bounds.get("max", number):
            raise _NotPlain
        return number


def _or_not_plain(values: Iterator[Any]) -> Iterator[Any]:
    yield from values
    raise _NotPlain


def _read(group: Typer, words: Sequence[str], command: str) -> Iterator[Step]:
    if group.main is not None:
        step, words = _step(group.main, words, command, before=True)
        yield step
    if not words:
        if group.main is None or not group.attributes.get("invoke_without_command"):
            raise _NotPlain
        return
    name, *rest = words
    chosen = group.commands.get(name)
    if chosen is None:
        raise _NotPlain
    if isinstance(chosen, Typer):
        yield from _read(chosen, rest, f"{command} {name}")
    else:
        yield _step(chosen, rest, f"{command} {name}")[0]


def _step(
    function: Callable[..., Any], words: Sequence[str], command: str, *, before: bool = False
) -> tuple[Step, list[str]]:
    """Return the function's step, and the remaining words; `before` a command they begin with its name."""
    parameters = list(_parameters(function))
    given, rest = _options(parameters, words, before)
    subcommand = rest[0] if before and rest else None
    if not before:
        given |= _arguments([each for each in parameters if isinstance(each.about, Argument)], rest)
    values = {each.name: each.value(given[each.name]) for each in parameters if each.name in given}
    missing = [each for each in parameters if each.default is Parameter.empty and each.name not in values]
    if any(each.about is not None for each in missing):
        raise _NotPlain
    order = [each.name for each in parameters]
    parameters.sort(key=lambda each: (each.name not in given, [*given, *order].index(each.name)))
    return Step(function, parameters, values, command, subcommand), rest


def _options(
    parameters: Sequence[_Parameter], words: Sequence[str], before: bool
) -> tuple[dict[str, list[Any]], list[str]]:
    options = {name: each for each in parameters for name in each.names}
    given: dict[str, list[Any]] = {}
    left, rest = list(words), []
    while left:
        word = left.pop(0)
        if word == "--" or not word.startswith("-") or word == "-":
            if before and word == "--":
                raise _NotPlain
            rest += [word] if word != "--" else []
            if before or word == "--":
                return given, rest + left
            continue
        name, joined, text = word.partition("=") if word.startswith("--") else (word[:2], word[2:], word[2:])
        option = options.get(name)
        if option is None or (option.kind is bool and joined) or not (option.kind is bool or joined or left):
            raise _NotPlain
        value = True if option.kind is bool else text if joined else left.pop(0)
        given.setdefault(option.name, []).append(value)
    return given, rest


def _arguments(arguments: Sequence[_Parameter], words: Sequence[str]) -> dict[str, list[Any]]:
    left, given = list(words), {}
    for each in arguments:
        taken = left if each.many else left[:1]
        left = left[len(taken) :]
        if taken:
            given[each.name] = taken
    if left:
        raise _NotPlain
    return given


def _parameters(function: Callable[..., Any]) -> Iterator[_Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, each in signature(function).parameters.items():
        if hints[name] is Context:
            yield _Parameter(name=name, kind=Context, many=False, default=Parameter.empty, about=None)
            continue
        if get_origin(hints[name]) is not Annotated:
            raise _NotPlain
        kind, about = get_args(hints[name])
        if get_origin(kind) in (Union, UnionType):
            kind = next(each for each in get_args(kind) if each is not NoneType)
        many = get_origin(kind) is list
        if not isinstance(about, Declared) or not about.attributes.keys() <= _UNDERSTOOD:
            raise _NotPlain
        (kind,) = get_args(kind) if many else (kind,)
        yield _Parameter(name=name, kind=kind, many=many, default=each.default, about=about)
