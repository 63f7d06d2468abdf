"""Threads whose failure stops the worker."""

import threading
from collections.abc import Callable

from worker.events import Event, Stop


def start(name: str, work: Callable[[], None], tell: Callable[[Event], None]) -> threading.Thread:
    """Run `work` in a thread of its own; if it fails, the worker stops instead of going on without it."""

    def run() -> None:
        try:
            work()
        except BaseException:
            tell(Stop())
            raise

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
