"""One HTTP connection to a Banyan server: tokens, timeouts, repeats, and answers turned back into our errors."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.exceptions import MaxRetryError, NewConnectionError

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
from banyan.trust import Trust, distrust, is_loopback

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
MAX_PAUSE_SECONDS = 5.0
SAFE_TRIES = 4
"""How often a request is sent that is safe to repeat."""

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
_AWAY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server said: its status, headers and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """Sends requests to the server at `url` as the holder of `token`.

    Several threads may use one connection: each has its own `requests` session, all share one pool. `transport`
    replaces the network, for example with a WSGI app. `sleep` pauses between repeats. SetupError where `trust` does not
    let the token go there. A redirection is never followed, so the token goes nowhere else.
    """

    def __init__(
        self,
        url: str,
        token: str,
        transport: BaseAdapter | None = None,
        sleep: Callable[[float], None] = time.sleep,
        trust: Trust | None = None,
    ) -> None:
        if not (token.isascii() and token.isprintable()):
            raise Unauthorized("the token holds characters that no token has; check where it was copied from")
        self.url = url.rstrip("/")
        self._token = token
        self._sleep = sleep
        self._adapter = transport or HTTPAdapter(pool_connections=4, pool_maxsize=32)
        self._trust = trust or Trust.from_environment()
        self._proxies = {} if transport or is_loopback(self.url) else get_environ_proxies(self.url)
        if not transport:
            self._trust.check()
            if token:
                self._trust.allow(self.url)
        self._local = threading.local()

    def close(self) -> None:
        """Close the pooled sockets; the next request opens new ones."""
        self._adapter.close()

    def json(self, method: str, path: str, *, tries: int = 1, **request: Any) -> Any:
        """The decoded answer of `send`; Unavailable when something else than Banyan answers."""
        answer = self.send(method, path, tries=tries, **request)
        if not answer.body:
            return {}
        try:
            return wire.loads(answer.body)
        except ValueError as error:
            raise Unavailable(f"{self.url}/{path} did not answer with JSON; is it a Banyan server?") from error

    def send(
        self,
        method: str,
        path: str,
        *,
        tries: int = 1,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float = READ_SECONDS,
        accept: frozenset[int] = frozenset(),
    ) -> Answer:
        """Send `body` as JSON (or `data` as it is) and return the answer.

        What surely did not reach the server is sent up to three times; what may have reached it up to `tries` times,
        so give more than one only to what is safe to repeat. Statuses of 400 and more raise the matching error
        of `banyan.errors`, except those in `accept`; Unavailable when the server cannot be reached.
        """
        sent = {"Content-Type": "application/json"} if body is not None else {}
        request = {
            "params": query,
            "data": wire.dumps(body) if body is not None else data,
            "headers": sent | dict(headers or {}),
            "timeout": (CONNECT_SECONDS, read_seconds),
            "allow_redirects": False,
        }
        attempt = 0
        while True:
            attempt += 1
            pause = _pause_seconds(attempt)
            try:
                answer = self._once(method, path, request)
            except _Untrusted:
                raise
            except _Unreached as error:
                if attempt >= max(tries, 3):
                    raise Unavailable(str(error)) from error
            except Unavailable:
                if attempt >= tries:
                    raise
            else:
                again = answer.status in _AWAY or (answer.status == Conflict.status and attempt > 1)
                if not again or attempt >= tries:
                    return self._checked(answer, path, accept)
                pause = max(pause, _retry_after(answer.headers))
            self._sleep(min(pause, MAX_PAUSE_SECONDS))

    def _once(self, method: str, path: str, request: Mapping[str, Any]) -> Answer:
        try:
            response = self._session().request(method, f"{self.url}/{path}", **request)
        except requests.exceptions.SSLError as error:
            text = distrust(self.url, error)
            if text is not None:
                raise _Untrusted(text) from error
            hint = "" if self._trust.client_certificate else "; perhaps it asks for a client's certificate"
            raise Unavailable(f"the server at {self.url} broke off the TLS connection{hint}") from error
        except (requests.ConnectionError, requests.Timeout) as error:
            text = (
                f"cannot reach the server at {self.url} ({_cause(error)}); check that it runs and that the URL is right"
            )
            raise (_Unreached if _never_sent(error) else Unavailable)(text) from error
        except requests.exceptions.ChunkedEncodingError as error:
            raise Unavailable(f"the server at {self.url} broke off its answer; try again") from error
        except (requests.RequestException, ValueError) as error:
            raise Unavailable(f"{self.url} is not a usable address: {error}") from error
        return Answer(status=response.status_code, headers=response.headers, body=response.content)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.trust_env = False  # no ~/.netrc that replaces the token
            session.proxies.update(self._proxies)
            session.verify = self._trust.verify
            session.cert = self._trust.shown
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
            session.headers["Accept"] = "application/json, */*;q=0.5"
            if self._token:
                session.headers["Authorization"] = f"Bearer {self._token}"
        return session

    def _checked(self, answer: Answer, path: str, accept: frozenset[int]) -> Answer:
        if answer.status < 300 or answer.status in accept:
            return answer
        if answer.status < 400:
            raise Unavailable(f"{self.url} redirects to {answer.headers.get('Location')}; use that address")
        raise error_of(answer, f"{self.url}/{path}")


class _Unreached(Unavailable):
    """No connection came about, so the server has seen nothing of the request."""


class _Untrusted(Unavailable):
    """The two sides did not come to trust each other; trying again at once is of no use."""


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
    if answer.status in _AWAY:
        return Unavailable(f"the server at {address} is not available now ({text or answer.status}); try again later")
    kind = _BY_STATUS.get(answer.status, BanyanError)
    return kind(text or f"{address} answered with status {answer.status}")


def _issues_of(item: object) -> dict[str, object]:
    issues = item.get("_issues") if isinstance(item, dict) else None
    return issues if isinstance(issues, dict) else {}


def _message(document: Mapping[str, Any]) -> str:
    error = document.get("_error")
    return str(error.get("message", "")) if isinstance(error, dict) else ""


def _pause_seconds(attempt: int) -> float:
    """How long to wait after the given try: doubling from a tenth, shortened by up to half at random."""
    return float(0.1 * 2 ** min(attempt - 1, 6) * (1 - random.random() / 2))


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "0")
    return float(text) if text.isdecimal() else 0.0


def _never_sent(error: Exception) -> bool:
    inner = error.args[0] if error.args else None
    return isinstance(error, requests.ConnectTimeout) or (
        isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)
    )


_CAUSES = (
    "Connection refused",
    "Name or service not known",
    "Failed to resolve",
    "Connection reset",
    "Remote end closed connection without response",
)


def _cause(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner: object = error.args[0] if error.args else error
    if isinstance(inner, MaxRetryError):
        inner = inner.reason
    text = str(inner)
    for known in _CAUSES:
        if known in text:
            return known.lower()
    return text.rpartition(": ")[2].strip(" ')\"") or text
