"""A client's connection, shared by the event loop and the threads that respond."""

import select
import socket
import ssl
import time
from contextlib import suppress
from enum import Enum, auto

from banyan.api.serving.incoming import Address, Incoming

READ_BYTES = 1 << 16
MOST_BYTES = 1 << 20
"""The most bytes of a body that are read before other connections have their turn."""
UNPROVEN_BYTES = 1 << 14
"""The most bytes that are read at once from a client that has not shown a valid token."""


class Phase(Enum):
    """The phase of a connection."""

    HANDSHAKE = auto()
    IDLE = auto()
    """The next request has not begun."""
    HEAD = auto()
    CHECK = auto()
    """A thread looks up the token."""
    BODY = auto()
    QUEUED = auto()
    """A request without a valid token waits for its response."""
    ANSWER = auto()
    """A thread responds; the connection is the thread's."""
    LINGER = auto()
    """The last response was sent; further bytes of the client are discarded until it closes."""
    CLOSED = auto()


class Connection:
    """A connection whose socket never blocks. Only the event loop changes the fields, or a thread while it responds."""

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
        """True if a request with a valid token was received on it."""
        self.known = False
        """True if the request that is being received has a valid token."""
        self.armed = 0

    def receive(self) -> bool:
        """Receive available bytes into the buffer; False when the client has closed its side.

        `OSError` if it is gone.
        """
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
        """Return whether TLS holds received bytes that the socket no longer reports."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def is_gone(self) -> bool:
        """Return whether the client has closed its side."""
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def drain(self) -> bool:
        """Discard available bytes; False when the client has closed its side."""
        try:
            while data := self.sock.recv(READ_BYTES):
                del data
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return False

    def send_at_once(self, data: bytes) -> None:
        """Send as much as possible without waiting; for short responses to clients that must not hold a thread."""
        with suppress(OSError):
            self.sock.send(data)

    def end_sending(self) -> None:
        """Close the sending side: nothing follows."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it at once."""
        self.phase = Phase.CLOSED
        if self.incoming is not None:
            self.incoming.close()
            self.incoming = None
        self.buffer = bytearray()
        with suppress(OSError):
            self.sock.close()


class Sender:
    """The sending side of a connection for the thread that responds; a client may stall for `patience_seconds`."""

    def __init__(self, sock: socket.socket, patience_seconds: float) -> None:
        self._sock = sock
        self._patience_seconds = patience_seconds

    def sendall(self, data: bytes) -> None:
        """Send all of it; `OSError` when the client has gone or accepts nothing for too long."""
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
