"""A client's connection, as the event loop and the threads that answer see it."""

import select
import socket
import ssl
import time
from contextlib import suppress
from enum import Enum, auto

from banyan.api.serving.incoming import Address, Incoming

READ_BYTES = 1 << 16
MOST_BYTES = 1 << 20
"""At most so much is read of a body before other connections have their turn."""
UNPROVEN_BYTES = 1 << 14
"""At most so much is read at once from a client that has not shown a good token."""


class Phase(Enum):
    """What a connection is at."""

    HANDSHAKE = auto()
    IDLE = auto()
    """No byte of the next request has come."""
    HEAD = auto()
    CHECK = auto()
    """A thread looks up the token."""
    BODY = auto()
    QUEUED = auto()
    """A request without a good token waits for its answer."""
    ANSWER = auto()
    """A thread answers; the connection is the thread's."""
    LINGER = auto()
    """The last answer was sent; what the client still sends is thrown away until it closes."""
    CLOSED = auto()


class Connection:
    """The socket never blocks. The event loop alone changes the fields, but for a thread while it answers."""

    __slots__ = (
        "address", "armed", "buffer", "deadline", "fd", "incoming", "known", "local", "phase", "place", "proven",
        "searched", "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, address: Address, local: Address, phase: Phase, deadline: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.local = local
        self.place = address[0] if isinstance(address, tuple) else "local"
        self.phase = phase
        self.deadline = deadline
        self.buffer = bytearray()
        self.searched = 0
        self.incoming: Incoming | None = None
        self.proven = False
        """Whether a request with a good token has come by it."""
        self.known = False
        """Whether the request that is being received has a good token."""
        self.armed = 0

    def receive(self) -> bool:
        """Take what has come into the buffer; false when the client has closed its side. `OSError` if it is gone."""
        taken, most = 0, MOST_BYTES if self.phase is Phase.BODY and self.known else 1
        size = READ_BYTES if self.proven else UNPROVEN_BYTES
        while taken < most:
            try:
                data = self.sock.recv(size)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            if not data:
                return False
            self.buffer += data
            taken += len(data)
            if len(data) < size and not self.has_decrypted():
                return True
        return True

    def has_decrypted(self) -> bool:
        """Whether TLS holds bytes that have come already, of which the socket no longer tells."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def is_gone(self) -> bool:
        """Whether the client has closed its side."""
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def drain(self) -> bool:
        """Throw away what has come; false when the client has closed its side."""
        try:
            while data := self.sock.recv(READ_BYTES):
                del data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return False

    def send_at_once(self, data: bytes) -> None:
        """Send what goes out without waiting; for short answers to clients that may not be waited for."""
        with suppress(OSError):
            self.sock.send(data)

    def end_sending(self) -> None:
        """Tell the client that nothing follows."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it, now."""
        self.phase = Phase.CLOSED
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None
        self.buffer = bytearray()
        with suppress(OSError):
            self.sock.close()


class Sender:
    """The sending side of a connection for the thread that answers; a client may stall for `patience_seconds`."""

    def __init__(self, sock: socket.socket, patience_seconds: float) -> None:
        self._sock = sock
        self._patience_seconds = patience_seconds

    def sendall(self, data: bytes) -> None:
        """Send all of it; `OSError` when the client has gone or takes nothing for too long."""
        sent = self._send(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            rest = rest[self._send(rest) :]

    def _send(self, data: bytes | memoryview) -> int:
        wanted = select.POLLOUT
        until = time.monotonic() + self._patience_seconds
        while True:
            try:
                return self._sock.send(data)
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = select.POLLOUT
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the client does not take its answer")
            poll = select.poll()
            poll.register(self._sock, wanted)
            poll.poll(1000 * left)
