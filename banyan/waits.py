"""How a client waits while its server, or MongoDB behind it, is away."""

from collections.abc import Callable

Ask = Callable[[], str | None]
"""Asks the server how it is; answers with the reason why it can do nothing now, or None."""


class Waits:
    """Hears how requests fare; this one says nothing and adds no patience."""

    seconds = 0.0
    """How long a request is repeated at least that the server cannot begin now."""

    def begin(self, ask: Ask) -> None:
        """A request begins; `ask` may be called from another thread."""

    def away(self, reason: str) -> None:
        """It cannot be done now, for this reason; it may be sent again."""

    def answered(self) -> None:
        """The server has answered it, well or badly."""
