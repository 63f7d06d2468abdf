"""Waiting for conditions, never for time alone."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], *, seconds: float = 20.0, show: Callable[[], object] | None = None) -> Found:
    """The first true answer of `look`; AssertionError with the last one (and what `show` says) when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r} after {seconds:g} s; {show() if show else ''}")
        time.sleep(0.02)


def processes_with(text: str) -> list[tuple[int, str]]:
    """The living processes whose environment or command line contains `text`: ids and command lines."""
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                if text.encode() in command + (entry / "environ").read_bytes():
                    found.append((int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
            except OSError:
                continue  # it has ended, or is a zombie
    return found
