"""Every error that Banyan raises on purpose, in one tree."""

from collections.abc import Mapping
from typing import ClassVar


class BanyanError(Exception):
    """A refusal or a failure; the text states the fact and the next step."""

    status: ClassVar[int] = 500


class BadRequest(BanyanError):
    """The query or the body cannot be read."""

    status = 400


class Unauthorized(BanyanError):
    """No token was given, or a wrong one."""

    status = 401


class Forbidden(BanyanError):
    """The role or the owner does not allow it."""

    status = 403


class NotFound(BanyanError):
    """There is no such thing."""

    status = 404


class Conflict(BanyanError):
    """Another request was first; read again and decide anew."""

    status = 409


class StaleAttempt(Conflict):
    """The attempt is not the task's current one: stop it, do not report it again."""


class StillRunning(Conflict):
    """The same request, sent before, is still being processed: a retry in a moment gets the response."""


class PreconditionFailed(BanyanError):
    """`If-Match` names another revision than the stored one."""

    status = 412


class TooLarge(BanyanError):
    """More than a limit allows."""

    status = 413


class Invalid(BanyanError):
    """A value is wrong, or not allowed now.

    `issues` maps each field to its fault: a text, a list of texts, or such a mapping again. For a list of items `items`
    holds one mapping per item, in order; an empty one means no fault.
    """

    status = 422

    def __init__(
        self,
        issues: Mapping[str, object] | None = None,
        *,
        items: list[dict[str, object]] | None = None,
    ) -> None:
        self.issues: dict[str, object] = dict(issues or {})
        self.items = items
        super().__init__(describe_issues(self.issues) if items is None else describe_items(items))


class IllegalTransition(Invalid):
    """The task's state does not allow the request."""


class TooManyRequests(BanyanError):
    """A quota is used up; try again later."""

    status = 429


class Unavailable(BanyanError):
    """MongoDB or the server cannot be reached; try again."""

    status = 503


class Untrusted(Unavailable):
    """Client and server do not trust each other, or the address is not the server's: a retry does not help."""


class SetupError(BanyanError):
    """This machine, or its settings, cannot run the command."""


def describe_issues(issues: Mapping[str, object]) -> str:
    """Return one line for people: `field: reason; field: reason`."""
    return "; ".join(f"{field}: {_reason(reason)}" for field, reason in issues.items())


def describe_items(items: list[dict[str, object]]) -> str:
    """Return one line for people, with each faulty item by its place in the list."""
    return "; ".join(f"item {i}: {describe_issues(issues)}" for i, issues in enumerate(items) if issues)


def _reason(reason: object) -> str:
    if isinstance(reason, Mapping):
        return f"({describe_issues(reason)})"
    if isinstance(reason, list):
        return ", ".join(_reason(each) for each in reason)
    return str(reason)
