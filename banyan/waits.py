"""A client's waiting while its server, or MongoDB behind it, is away."""

from collections.abc import Callable

Ask = Callable[[], str | None]
"""A function that asks the server for its state; returns the reason for which it is away, or None."""


class Waits:
    """A listener for the progress of requests; this one prints nothing and adds no retries."""

    seconds = 0.0
    """The least time for which a request is repeated that the server cannot begin now."""

    def begin(self, ask: Ask) -> None:
        """Note that a request begins; `ask` may be called from another thread."""

    def away(self, reason: str) -> None:
        """Note that it cannot be done now, for this reason; it may be sent again."""

    def answered(self) -> None:
        """Note that the server has responded, with or without an error."""
