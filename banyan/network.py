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
    """A request for `url`; `read_seconds` is the longest silence of the server."""

    method: str
    url: str
    query: Mapping[str, str] | None = None
    data: bytes | None = None
    headers: Mapping[str, str]
    read_seconds: float


class NoAnswer(Exception):
    """No response arrived, for this cause; unless it was `sent` the server has received nothing of the request."""

    def __init__(self, cause: str, *, sent: bool) -> None:
        super().__init__(cause)
        self.cause = cause
        self.sent = sent


class BrokenAnswer(Exception):
    """The response began and broke off."""


class UnusableAddress(Exception):
    """The address, or another part of the request, cannot be sent at all."""


class Network(Protocol):
    """The sender of requests, with a pool of connections; several threads may use one network."""

    def send(self, request: Request) -> Answer:
        """Return the response; NoAnswer, BrokenAnswer, UnusableAddress, and Untrusted or Unavailable for TLS."""

    def close(self) -> None:
        """Close the pooled connections; the next request opens new ones."""


def names_proxy(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment names a proxy for addresses of plain HTTP."""
    return any(environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"))
