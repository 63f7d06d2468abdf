"""One HTTP connection to a Banyan server: tokens, timeouts and retries."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from banyan import wire
from banyan.answers import AWAY, Answer, error_of, patience, retry_after, why_away
from banyan.errors import BadRequest, Conflict, SetupError, Unauthorized, Unavailable, Untrusted
from banyan.network import CONNECT_SECONDS, BrokenAnswer, Network, NoAnswer, Request, UnusableAddress, names_proxy
from banyan.plain_http import PlainHttp, address_of
from banyan.trust import Trust, is_loopback, is_plain, speaks_tls
from banyan.waits import Waits

if TYPE_CHECKING:
    from requests.adapters import BaseAdapter

READ_SECONDS = 60.0
MAX_PAUSE_SECONDS = 5.0
_MOVED = frozenset({301, 308})
"""Statuses of permanent redirections."""
SAFE_TRIES = 4
"""The most tries of a request that is safe to repeat."""


class Connection:
    """A connection to the server at `url` for the holder of `token`.

    Several threads may use one connection. `transport` replaces the network, for example with a WSGI app. `sleep`
    pauses between retries. SetupError where `trust` does not allow the token to be sent there. A redirection is never
    followed, so the token goes nowhere else. `renew` receives a token that the server has refused and returns the
    current one; SetupError with the reason if there is none. `waits` receives the news of a server that is away, and
    sets how long requests wait for it at least.
    """

    def __init__(
        self,
        url: str,
        token: str,
        transport: "BaseAdapter | None" = None,
        sleep: Callable[[float], None] = time.sleep,
        trust: Trust | None = None,
        renew: Callable[[str], str] | None = None,
        waits: Waits | None = None,
    ) -> None:
        self._waits = waits or Waits()
        self.url = url.rstrip("/")
        self._token = _usable(token)
        self._renew = renew
        self._sleep = sleep
        self._trust = trust or Trust.from_environment()
        self._network, self._direct = _network(self.url, self._trust, transport)
        if not transport:
            self._trust.check()
            if token or renew:
                self._trust.allow(self.url)

    def close(self) -> None:
        """Close the pooled sockets; the next request opens new ones."""
        self._network.close()

    def json(self, method: str, path: str, *, tries: int = 1, **request: Any) -> Any:
        """Return the decoded response of `send`; Unavailable when another program than Banyan responds."""
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
        patient: bool = True,
    ) -> Answer:
        """Send `body` as JSON (or `data` as it is) and return the response.

        A request that surely did not reach the server is sent up to three times; one that may have reached it up to
        `tries` times, so give more than one only if it is safe to repeat; such a request is also repeated for a while
        when the server sends `Retry-After`, if `patient` is set, and so is any request that the server has not begun.
        Statuses of 400 and more raise the matching error of `banyan.errors`, except those in `accept`; Unavailable when
        the server cannot be reached.
        """
        sent = {"Content-Type": "application/json"} if body is not None else {}
        request = Request(
            method=method,
            url=f"{self.url}/{path}",
            query=query,
            data=wire.dumps(body) if body is not None else data,
            headers=sent | dict(headers or {}),
            read_seconds=read_seconds,
        )
        attempt, waited = 0, 0.0
        while True:
            attempt += 1
            self._waits.begin(self._how_it_is)
            pause = _pause_seconds(attempt)
            try:
                answer = self._let_in(request)
            except Untrusted:
                raise
            except _Unreached as error:
                self._waits.away(f"the server at {self.url} cannot be reached")
                if attempt >= max(tries, 3):
                    raise Unavailable(str(error)) from error
            except Unavailable:
                self._waits.away(f"the server at {self.url} does not answer")
                if attempt >= tries:
                    raise
            else:
                again = answer.status in AWAY or (answer.status == Conflict.status and attempt > 1)
                stays = patient and self._stays(answer, waited, repeatable=tries > 1)
                if answer.status in AWAY or stays:
                    self._waits.away(why_away(answer, self.url))
                else:
                    self._waits.answered()
                if not stays and (not again or attempt >= tries):
                    return self._checked(answer, path, accept)
                pause = max(pause, retry_after(answer))
            pause = min(pause, MAX_PAUSE_SECONDS)
            waited += pause
            self._sleep(pause)

    def _stays(self, answer: Answer, waited: float, *, repeatable: bool) -> bool:
        """Return whether a request with such a response is sent again, after `waited` seconds of waiting so far."""
        seconds = patience(answer)
        if answer.status in AWAY and seconds:
            seconds = max(seconds, self._waits.seconds)
            repeatable = repeatable or (answer.not_begun and bool(self._waits.seconds))
        return repeatable and waited < seconds

    def _how_it_is(self) -> str | None:
        """Return why the server cannot process requests now; None if it can, or does not report it."""
        request = Request(method="GET", url=f"{self.url}/health", headers={}, read_seconds=CONNECT_SECONDS)
        try:
            answer = self._once(request, "")
        except Unavailable:
            return None
        return why_away(answer, self.url) if answer.status in AWAY else None

    def _let_in(self, request: Request) -> Answer:
        """Return the response; where our token is refused and there is a newer one, the response to that."""
        token = self._token
        answer = self._once(request, token)
        if answer.status != Unauthorized.status or self._renew is None:
            return answer
        try:
            fresh = _usable(self._renew(token))
        except (SetupError, Unauthorized) as error:
            refusal = error_of(answer, request.url)
            raise Unauthorized(f"{refusal}, and there is no newer one: {error}") from error
        if fresh == token:
            return answer
        self._token = fresh
        return self._once(request, fresh)

    def _once(self, request: Request, token: str) -> Answer:
        headers = {**request.headers, "Authorization": f"Bearer {token}"} if token else request.headers
        try:
            answer = self._network.send(replace(request, headers=headers))
        except NoAnswer as error:
            text = (
                f"cannot reach the server at {self.url} ({error.cause}); check that it runs and that the URL is right"
            )
            if not error.sent:
                raise _Unreached(text) from error
            self._check_scheme()
            raise Unavailable(text) from error
        except BrokenAnswer as error:
            raise Unavailable(f"the server at {self.url} broke off its answer; try again") from error
        except UnusableAddress as error:
            raise Unavailable(f"{self.url} is not a usable address: {error}") from error
        if answer.status == BadRequest.status and not answer.is_json:
            self._check_scheme()  # other servers have a response to plain HTTP on a port of HTTPS
        return answer

    def _check_scheme(self) -> None:
        """Raise Untrusted if the address is one of plain HTTP and the server behind it speaks TLS."""
        if self._direct and is_plain(self.url) and speaks_tls(self.url):
            better = f"https{self.url[self.url.index(':') :]}"
            raise Untrusted(f"the server at {self.url} speaks HTTPS, not plain HTTP; its address is {better}")

    def _checked(self, answer: Answer, path: str, accept: frozenset[int]) -> Answer:
        if answer.status < 300 or answer.status in accept:
            return answer
        if answer.status < 400:
            kind = Untrusted if answer.status in _MOVED else Unavailable
            raise kind(f"{self.url} redirects to {answer.headers.get('Location')}; use that address")
        raise error_of(answer, f"{self.url}/{path}")


def _network(url: str, trust: Trust, transport: "BaseAdapter | None") -> tuple[Network, bool]:
    """Return the network to the server, and whether it is reached without a proxy."""
    local = is_loopback(url)
    if transport is None and address_of(url) is not None and (local or not names_proxy()):
        return PlainHttp(), True
    from banyan.requests_http import RequestsHttp

    network = RequestsHttp(url, trust, transport, direct=local)
    return network, network.direct


def _usable(token: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise Unauthorized("the token holds characters that no token has; check where it was copied from")
    return token


class _Unreached(Unavailable):
    """No connection was made, so the server has received nothing of the request."""


def _pause_seconds(attempt: int) -> float:
    """Return the pause after the given try: doubling from a tenth, shortened by up to half at random."""
    return float(0.1 * 2 ** min(attempt - 1, 6) * (1 - random.random() / 2))
