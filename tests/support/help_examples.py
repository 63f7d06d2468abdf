"""The commands that `--help` shows as examples, and which commands and options there are."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from banyan.cli.full import app

_SHOWN = re.compile(r"`(banyan [^`]+)`")


def commands() -> dict[tuple[str, ...], Any]:
    """Every command and group of commands by its words."""
    return dict(_below(get_command(app), ("banyan",)))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        yield from _below(each, (*words, name))


def examples() -> list[str]:
    """The commands that `banyan --help` begins with, but for `banyan up`, and the examples in the help of commands."""
    texts = [" ".join((command.help or "").split()) for command in commands().values()]
    shown = [texts[0], *(text.partition("Example")[2] for text in texts[1:])]
    return [line for text in shown for line in _SHOWN.findall(text) if line != "banyan up"]


def faults(line: str) -> list[str]:
    """The commands and options that a line beginning with `banyan` names and that do not exist."""
    known, words = commands(), [word for word in line.split() if not word.startswith("[")]
    place: tuple[str, ...] = ("banyan",)
    rest = words[1:]
    while rest and (*place, rest[0]) in known:
        place, rest = (*place, rest[0]), rest[1:]
    command = known[place]
    if getattr(command, "commands", None) and rest and re.fullmatch("[a-z]+", rest[0]):
        return [f"{line}: there is no command {' '.join((*place, rest[0]))}"]
    options = {name for each in command.params for name in each.opts} | {"--help", "-h"}
    given = [word.partition("=")[0] for word in _before_command(rest) if re.match("-{1,2}[a-z]", word)]
    return [f"{line}: {' '.join(place)} has no {option}" for option in given if option not in options]


def _before_command(words: list[str]) -> list[str]:
    """The words that are the command's own, and not those of the program that it runs."""
    end = next(
        (index for index, word in enumerate(words) if word in ("--", "|", ">", "||", "&&", "#", "&")), len(words)
    )
    return words[:end]
