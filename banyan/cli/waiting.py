"""The notice on stderr that a command waits for its server, or for MongoDB behind it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from banyan.waits import Ask, Waits

if TYPE_CHECKING:
    from rich.progress import Progress

ASK_SECONDS = 0.3
"""The time without a response after which the server is asked for its state, which may take it two seconds."""
ASK_AGAIN_SECONDS = 2.0
SAY_SECONDS = 2.0
"""The wait before the first notice."""
TICK_SECONDS = 0.25

Show = Callable[[str | None], None]
"""Shows a notice in place of the earlier one; None removes it."""


class Notices(Waits):
    """The notices, after two seconds, why a command waits: one line in a log, a changing one on a terminal."""

    seconds = 120.0

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._since: float | None = None
        self._reason: str | None = None
        self._said = False
        self._shown = False
        self._show: Show | None = None

    def begin(self, ask: Ask) -> None:
        """Watch a request from another thread, unless an outage is being watched already."""
        with self._changed:
            if self._since is None:
                self._since = time.monotonic()
                threading.Thread(target=self._watch, args=(self._since, ask), name="notice", daemon=True).start()

    def away(self, reason: str) -> None:
        """Record why it waits."""
        with self._changed:
            self._reason = reason

    def answered(self) -> None:
        """Remove the notice."""
        with self._changed:
            if self._said and not self._shown and self._show is None:
                print("banyan: the server answers again", file=sys.stderr)
            self.reset()

    def reset(self) -> None:
        """Forget the outage, if there is one, and clear the line of the terminal."""
        with self._changed:
            self._clear()
            self._since, self._reason, self._said = None, None, False
            self._changed.notify_all()

    @contextmanager
    def shown_by(self, show: Show) -> Iterator[None]:
        """Show notices by `show` during the block, for example in a progress bar."""
        with self._changed:
            self._clear()
            self._show = show
        try:
            yield
        finally:
            with self._changed:
                self._show = None

    # The methods of the other thread

    def _watch(self, mine: float, ask: Ask) -> None:
        ask_at = mine + ASK_SECONDS
        while True:
            with self._changed:
                self._changed.wait(TICK_SECONDS)
                if self._since != mine:
                    return
                self._tell(time.monotonic() - mine)
                known = self._reason is not None
            if not known and time.monotonic() >= ask_at:
                reason = ask()
                with self._changed:
                    if self._since == mine:
                        self._reason = self._reason or reason
                ask_at = time.monotonic() + ASK_AGAIN_SECONDS

    def _tell(self, waited_seconds: float) -> None:
        if waited_seconds < SAY_SECONDS:
            return
        text = f"{self._reason or 'no answer yet'}; waiting ({waited_seconds:.0f} s, Ctrl-C ends it)"
        if self._show is not None:
            self._show(text)
        elif _is_screen():
            print(f"\r\x1b[K{_cut(f'banyan: {text}')}", end="", file=sys.stderr, flush=True)
            self._shown = True
        elif self._reason is not None and not self._said:
            print(f"banyan: {self._reason}; waiting", file=sys.stderr, flush=True)
        self._said = self._said or self._reason is not None

    def _clear(self) -> None:
        if self._show is not None:
            self._show(None)
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = False


def _is_screen() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _cut(text: str) -> str:
    """Return as much of it as fits one line of the terminal."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        width = 0
    return text[: (width or 80) - 1]


NOTICES = Notices()
"""The notices of this command."""


@contextmanager
def shown_in(bars: "Progress") -> Iterator[None]:
    """Show the bars, whose tasks have a field `notice`, and the notices in them."""

    def show(text: str | None) -> None:
        for task in bars.tasks:
            bars.update(task.id, notice=text or "")

    with bars, NOTICES.shown_by(show):
        yield
