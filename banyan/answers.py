"""What a server answers, turned back into our errors."""

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
"""Where the answer has `Retry-After`: MongoDB elects a primary, a server has died."""

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
"""Statuses that mean: there is no server that could answer now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said: its status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def not_begun(self) -> bool:
        """Whether the server says that nothing was done, so that the request may be sent again whatever it asks."""
        return self.headers.get("Banyan-Begun") == "no"

    @property
    def is_json(self) -> bool:
        """Whether its headers call the body JSON, as those of all our answers with a fault do."""
        return "json" in self.headers.get("Content-Type", "").lower()


def error_of(answer: Answer, address: str) -> BanyanError:
    """The error that the server meant by `answer`; `address` is named where the answer says too little."""
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
    """Why a request is not done now, of an answer that says so."""
    if answer.status == Conflict.status:
        return f"the server at {address} is still at work on this request"
    return "MongoDB is away" if b"MongoDB" in answer.body else f"the server at {address} is not available now"


def error_in(item: Mapping[str, Any]) -> BanyanError | None:
    """The error that an item of an answer to many tells of; None where all is well."""
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
    """The seconds that it asks us to wait before we try again; 0 where it does not."""
    text = answer.headers.get("Retry-After", "0")
    return float(text) if text.isdecimal() else 0.0


def patience(answer: Answer) -> float:
    """For how many seconds such an answer is worth repeated questions."""
    return _PATIENCE_SECONDS.get(answer.status, 0.0) if retry_after(answer) else 0.0
