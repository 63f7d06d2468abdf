"""Plain HTTP without a proxy, by Python's own client: `requests` takes longer to import than most commands run."""

import re
import select
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import cast
from urllib.parse import quote, urlencode

from banyan.answers import Answer
from banyan.network import ACCEPT, CONNECT_SECONDS, BrokenAnswer, NoAnswer, Request, UnusableAddress

_ADDRESS = re.compile(r"http://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?(?P<path>/[^?#]*)?")
_SAFE = "!#$%&'()*+,/:;=?@[]~"
"""Characters that stay as they are in a path or a query that is already quoted."""
_POOLED = 32


@dataclass(frozen=True, slots=True)
class Address:
    """An address of plain HTTP that all programs read in the same way."""

    host: str
    port: int
    path: str


def address_of(url: str) -> Address | None:
    """Return the parts of the address; None unless it is a simple one of plain HTTP."""
    found = _ADDRESS.fullmatch(url)
    port = int(found["port"] or 80) if found else 0
    if found is None or not 0 < port < 1 << 16:
        return None
    return Address(found["host"].strip("[]").lower(), port, found["path"] or "/")


class PlainHttp:
    """A network of connections to one server, which are closed at the latest with its last reference."""

    def __init__(self) -> None:
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)

    def send(self, request: Request) -> Answer:
        """Return the response; see `Network`."""
        plain, _, query = request.url.partition("#")[0].partition("?")
        address = address_of(plain)
        if address is None:
            raise UnusableAddress(f"{plain} cannot be read")  # the query may hold secrets
        connection = self._connected(address)
        try:
            answer = _asked(connection, _target(address.path, query, request.query), request)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        return answer

    def close(self) -> None:
        """Close the pooled connections."""
        with self._lock:
            _close(self._idle)

    def _connected(self, address: Address) -> HTTPConnection:
        while (connection := self._pooled()) is not None:
            if not _dropped(connection):
                return connection
            connection.close()
        connection = HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:
            raise NoAnswer(_cause(error), sent=False) from error
        return connection

    def _pooled(self) -> HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, connection: HTTPConnection) -> None:
        if connection.sock is not None:  # else the server has announced that it closes it
            with self._lock:
                if len(self._idle) < _POOLED:
                    self._idle.append(connection)
                    return
            connection.close()


def _close(connections: list[HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _target(path: str, query: str, more: Mapping[str, str] | None) -> str:
    """Return the path and the query of a request: those of its address, and `more`."""
    queries = "&".join(part for part in (quote(query, safe=_SAFE), urlencode(more or {})) if part)
    return quote(path, safe=_SAFE) + (f"?{queries}" if queries else "")


def _asked(connection: HTTPConnection, target: str, request: Request) -> Answer:
    connection.sock.settimeout(request.read_seconds)
    headers = {"Accept": ACCEPT, "User-Agent": "banyan", **request.headers}
    try:
        with suppress(BrokenPipeError):  # the server may respond before it has read all
            connection.request(request.method, target, request.data, headers)
        response = connection.getresponse()
    except (OSError, HTTPException) as error:
        raise NoAnswer(_cause(error), sent=True) from error
    except ValueError as error:
        raise UnusableAddress(str(error)) from error
    try:
        body = response.read()
    except TimeoutError as error:
        raise NoAnswer(_cause(error), sent=True) from error
    except (OSError, IncompleteRead, HTTPException, ValueError) as error:
        raise BrokenAnswer(str(error)) from error
    return Answer(status=response.status, headers=cast(Mapping[str, str], response.headers), body=body)


def _dropped(connection: HTTPConnection) -> bool:
    """Return whether the server has closed the connection: nothing else makes an idle one readable."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _cause(error: Exception) -> str:
    """Return the cause of a missing response, in few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error).strip() or type(error).__name__
    return "connection reset" if text == "Connection reset by peer" else text.lower()
