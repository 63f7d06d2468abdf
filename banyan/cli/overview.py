"""`banyan --help`: all commands on a page. The help of each command is Typer's."""

import os
import sys
from collections.abc import Iterator

from banyan.cli.commands import COMMANDS, banyan

_OPTIONS = {
    "--version": "Print the version and stop.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
    "-h, --help": "Show this message and exit.",
}
_WIDEST = 120


def overview(columns: int) -> str:
    """Return the page, in lines of at most so many columns."""
    return "\n".join(
        [
            "Usage: banyan [OPTIONS] COMMAND [ARGS]...",
            "",
            *(line.strip() for line in (banyan.__doc__ or "").strip().splitlines()),
            "",
            "Options:",
            *_listed(_OPTIONS, columns),
            "",
            "Commands:",
            *_listed({name: about for name, (_, about) in COMMANDS.items()}, columns),
            "",
            "`banyan COMMAND --help` says more.",
        ]
    )


def columns() -> int:
    """Return the width of the terminal; 80 where there is none."""
    try:
        wide = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        wide = 0
    return min(wide or 80, _WIDEST)


def _listed(entries: dict[str, str], columns: int) -> Iterator[str]:
    """Yield a line for each entry, its text in a column of its own and broken where the line ends."""
    indent = max(len(name) for name in entries) + 4
    for name, about in entries.items():
        line = f"  {name}".ljust(indent)
        for word in about.split():
            if len(line) + len(word) > columns and len(line) > indent:
                yield line.rstrip()
                line = " " * indent
            line += f"{word} "
        yield line.rstrip()
