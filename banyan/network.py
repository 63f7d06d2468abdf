"""The network below a client: a port with two implementations, `plain_http` and `requests_http`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from banyan.answers import Answer

CONNECT_SECONDS = 10.0
ACCEPT = "application/json, */*;q=0.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for `url`; `read_seconds` is how long a silence of the server is borne."""

    method: str
    url: str
    query: Mapping[str, str] | None = None
    data: bytes | None = None
    headers: Mapping[str, str]
    read_seconds: float


class NoAnswer(Exception):
    """No answer came, for this cause; where it was not `sent` the server has seen nothing of the request."""

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sent = sent


class BrokenAnswer(Exception):
    """The answer began and broke off."""


class UnusableAddress(Exception):
    """The address, or something else of the request, cannot be sent at all."""


class Network(Protocol):
    """Sends requests and pools connections; several threads may use one network."""

    def send(self, request: Request) -> Answer:
        """Return the answer; NoAnswer, BrokenAnswer, UnusableAddress, and Untrusted or Unavailable for TLS."""

    def close(self) -> None:
        """Close what is pooled; the next request opens new connections."""


def names_proxy(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names a proxy for addresses of plain HTTP."""
    return any(environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"))
