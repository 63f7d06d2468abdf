"""The responses of a server, and the errors that they carry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from banyan import wire
from banyan.errors import (
    BadRequest,
    BanyanError,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    describe_issues,
)

_PATIENCE_SECONDS = {503: 20.0, 409: 70.0}
"""The retry budget for responses with `Retry-After`: MongoDB elects a primary, or a server has died."""

_BY_STATUS: dict[int, type[BanyanError]] = {
    kind.status: kind
    for kind in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        PreconditionFailed,
        TooLarge,
        TooManyRequests,
    )
}
AWAY = frozenset({502, 503, 504})
"""Statuses that mean: no server can respond now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A server's response: its status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def not_begun(self) -> bool:
        """Return whether the server reports that it did nothing, so that any request may be sent again."""
        return self.headers.get("Banyan-Begun") == "no"

    @property
    def is_json(self) -> bool:
        """Return whether its headers call the body JSON, as in all our responses with a fault."""
        return "json" in self.headers.get("Content-Type", "").lower()


def error_of(answer: Answer, address: str) -> BanyanError:
    """Return the error in a response; `address` completes a text without details."""
    try:
        document = wire.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    issues, items = document.get("_issues"), document.get("_items")
    if isinstance(items, list) and not issues:
        return Invalid(items=[_issues_of(item) for item in items])
    if isinstance(issues, dict) and answer.status == Invalid.status:
        return Invalid(issues)
    text = describe_issues(issues) if isinstance(issues, dict) else _message(document)
    if answer.status in AWAY:
        return Unavailable(f"the server at {address} is not available now ({text or answer.status}); try again later")
    kind = _BY_STATUS.get(answer.status, BanyanError)
    return kind(text or f"{address} answered with status {answer.status}")


def why_away(answer: Answer, address: str) -> str:
    """Return the reason for which a request is not done now, of a response after which it is sent again."""
    if answer.status == Conflict.status:
        return f"the server at {address} is still at work on this request"
    return "MongoDB is away" if b"MongoDB" in answer.body else f"the server at {address} is not available now"


def error_in(item: Mapping[str, Any]) -> BanyanError | None:
    """Return the error of one item in a response to many; None without one."""
    error = item.get("_error")
    if not isinstance(error, dict):
        return None
    issues, status = item.get("_issues"), error.get("code")
    if isinstance(issues, dict) and status == Invalid.status:
        return Invalid(issues)
    return _BY_STATUS.get(status if isinstance(status, int) else 0, BanyanError)(str(error.get("message", "")))


def _issues_of(item: object) -> dict[str, object]:
    issues = item.get("_issues") if isinstance(item, dict) else None
    return issues if isinstance(issues, dict) else {}


def _message(document: Mapping[str, Any]) -> str:
    error = document.get("_error")
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def retry_after(answer: Answer) -> float:
    """Return the seconds that the response asks us to wait before a retry; 0 without `Retry-After`."""
    text = answer.headers.get("Retry-After", "0")
    return float(text) if text.isdecimal() else 0.0


def patience(answer: Answer) -> float:
    """Return the retry budget for such a response, in seconds."""
    return _PATIENCE_SECONDS.get(answer.status, 0.0) if retry_after(answer) else 0.0
