"""Responses to complete requests by the WSGI application, in a thread."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gunicorn.config import Config
from gunicorn.http import wsgi

from banyan.api.serving.connection import Connection, Sender
from banyan.api.serving.incoming import Incoming
from banyan.api.serving.refusals import Refusal

log = logging.getLogger("banyan.server")

STALLED_SECONDS = 120.0
"""The time for which a client with a valid token may accept no byte of its response."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The result: the status (0 for none), the bytes of the body, whether the connection can be used again."""

    status: int
    size: int
    reusable: bool


class _Response(wsgi.Response):
    """A response whose headers leave with the first bytes of its body, so that most are sent in one piece."""

    _head = b""

    @property
    def has_begun(self) -> bool:
        """Return whether some of it was sent."""
        return bool(self.headers_sent and not self._head)

    def send_headers(self) -> None:
        """Keep the headers until there are bytes to send with them."""
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        self.sock.sendall(self._head + data)
        self._head = b""

    def close(self) -> None:
        """Send the rest."""
        self.send_headers()
        end = self._head + (b"0\r\n\r\n" if self.chunked else b"")
        if end:
            self.sock.sendall(end)
        self._head = b""


class Answering:
    """Responds to requests by one application."""

    def __init__(self, cfg: Config, application: Application) -> None:
        self._cfg = cfg
        self._application = application

    def answer(self, connection: Connection, incoming: Incoming, *, last: bool) -> Sent:
        """Send the response. After the `last` request the connection cannot be used again.

        The thread never waits for a client without a valid token.
        """
        sender = Sender(connection.sock, STALLED_SECONDS if connection.known else 0.0)
        request = incoming.request
        create: Any = wsgi.create
        response, environ = create(
            request, sender, connection.address, connection.local, self._cfg, response_class=_Response
        )
        environ |= {"wsgi.multithread": True, "wsgi.input": incoming.body(), "gunicorn.socket": connection.sock}
        if last:
            response.force_close()
        try:
            self._run(environ, response)
        except OSError as error:
            log.debug("an answer could not be sent: %s", error)
            return _sent(response, reusable=False)
        except Exception:
            log.exception("%s %s could not be answered", request.method, request.path)
            if response.has_begun:
                return _sent(response, reusable=False)
            failure = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the server's log has the details")
            connection.send_at_once(failure.response())
            return Sent(status=500, size=0, reusable=False)
        return _sent(response, reusable=not response.should_close())

    def _run(self, environ: dict[str, Any], response: _Response) -> None:
        items = self._application(environ, response.start_response)
        try:
            for item in items:
                response.write(item)
            response.close()
        finally:
            if hasattr(items, "close"):
                items.close()


def _sent(response: wsgi.Response, *, reusable: bool) -> Sent:
    status = int(getattr(response, "status_code", 0) or 0)
    return Sent(status=status, size=response.sent, reusable=reusable)
