"""How long the server waits for those who send and receive slowly, or not at all: nobody holds its threads for ever.

The head of a request has to be there after `limits.request_seconds`. Its body may take as long again, and a second more
for each `BYTES_PER_SECOND` that arrive; only the time in which the server waits counts. A body that is not sent as HTTP
says looks to the application as if the client had gone.
"""

import errno
import math
import socket
import struct
import time
from contextlib import suppress
from typing import Any, cast

from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

BYTES_PER_SECOND = 1000.0
STALLED_SECONDS = 120
"""So long a TLS handshake, or a client that takes its answer, may not get on at all."""

LINGER_SECONDS = 1.0
"""So long a client may take to close a connection that is at its end."""

_SOONEST = 0.001
_DRAINED_BYTES = 1 << 16
_STALLED = struct.pack("ll", STALLED_SECONDS, 0)
_NOT_NOW = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED)


class PatientReader(SocketUnreader):
    """What a client sends, which ends when it was waited for too long: `seconds` for each head, and for each body."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        super().__init__(sock)
        self.gave_up = False
        self._seconds = seconds
        self.begin_head()

    def begin_head(self) -> None:
        """The next that comes is the head of a request."""
        self._left, self._bytes_per_second = self._seconds, math.inf

    def begin_body(self) -> None:
        """The next that comes is the body of a request."""
        self._left, self._bytes_per_second = self._seconds, BYTES_PER_SECOND

    def chunk(self, size_hint: int | None = None) -> bytes:
        """The next bytes; none when the client has gone, or was too slow."""
        limit = self.sock.gettimeout()
        own = max(self._left, _SOONEST)
        began = time.monotonic()
        self.sock.settimeout(own if limit is None else min(own, limit))
        try:
            data = super().chunk(size_hint)  # type: ignore[call-arg] # the types are of an older gunicorn
        except TimeoutError:
            if limit is not None:  # whoever set that wants to know
                raise
            self.gave_up = True
            return b""
        finally:
            self.sock.settimeout(limit)
        self._left += len(data) / self._bytes_per_second - (time.monotonic() - began)
        return data


class SoundReader:
    """The body of a request; whatever is wrong with how it is sent is an error of the connection."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, size: int) -> bytes:
        """At most `size` bytes; OSError."""
        try:
            data: bytes = self._reader.read(size)
        except ParseException as error:
            raise ConnectionResetError(errno.ECONNRESET, f"malformed body: {error}") from error
        return data


class PatientConnection(TConn):
    """A client's connection."""

    seconds = 0.0
    reader: PatientReader | None = None

    def init(self) -> None:
        """Begin to read, in a thread of the pool."""
        super().init()
        if self.reader is None and isinstance(self.parser, RequestParser):
            self.reader = self.parser.unreader = PatientReader(self.sock, self.seconds)

    def linger(self) -> None:
        """Say that nothing follows, and let the client take what was sent before it is told to be gone."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(LINGER_SECONDS)
            until = time.monotonic() + LINGER_SECONDS
            while self.sock.recv(_DRAINED_BYTES) and time.monotonic() < until:
                pass

    def close(self, graceful: bool = False) -> None:
        """Close at once: this is called in the one thread that accepts, which waits for nobody."""
        with suppress(OSError):
            self.sock.close()


class PatientWorker(ThreadWorker):
    """A server process that is patient, but not endlessly so: its application's `request_seconds` say how long."""

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection."""
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in _NOT_NOW:
                raise
            return
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            client.setsockopt(socket.SOL_SOCKET, option, _STALLED)
        connection = PatientConnection(self.cfg, client, address, listener.getsockname())
        connection.seconds = cast(Any, self.app).request_seconds
        self.nr_conns += 1
        self.enqueue_req(connection)

    def handle(self, conn: Any) -> Any:
        """Read and answer a request."""
        if conn.reader is not None:
            conn.reader.begin_head()
        goes_on = super().handle(conn)
        if not goes_on and not (conn.reader is not None and conn.reader.gave_up):
            conn.linger()
        return goes_on

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request whose head was read."""
        if conn.reader is not None:
            conn.reader.begin_body()
        req.body.reader = SoundReader(req.body.reader)
        return bool(super().handle_request(req, conn))
