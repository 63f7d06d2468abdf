"""A server process: its main thread reads requests of all connections, and threads respond to complete ones.

No client can occupy a thread before its request is complete and has a valid token. Claims, which wait, long bodies, and
requests without a valid token have lanes of their own.
"""

import errno
import logging
import os
import queue
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.workers.base import Worker

from banyan.api import tls
from banyan.api.serving import refusals
from banyan.api.serving.admission import KnownTokens, is_heavy, waits
from banyan.api.serving.answering import Answering
from banyan.api.serving.connection import Connection, Phase
from banyan.api.serving.crowd import Crowd
from banyan.api.serving.incoming import Incoming, head_end
from banyan.api.serving.lanes import FairQueue, Lane
from banyan.api.serving.memory import LARGE_BYTES, give_memory_back
from banyan.api.serving.refusals import Refusal

log = logging.getLogger("banyan.server")

KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 2.0
BYTES_PER_SECOND = 1000.0
"""The rate at which a body extends its deadline: one more second for so many bytes."""
SMALL_BYTES = 16 * 1024
"""The longest body that is read without a valid token."""
STRANGERS_PER_SECOND = 200.0
REQUEST_THREADS = 128
CHECK_THREADS = 4
HEAVY_THREADS = 8
HEAVY_BUDGET_BYTES = 128 << 20
"""The memory for all long bodies that are parsed at once; a body that takes more is parsed alone."""
ACCEPTED_AT_ONCE = 64

_TICK_SECONDS = 1.0
_ONCE = select.EPOLLONESHOT | select.EPOLLRDHUP
_GONE = (errno.ECONNABORTED, errno.EAGAIN, errno.EWOULDBLOCK, errno.EPROTO)
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class EventLoopWorker(Worker):
    """A gunicorn worker. Its application offers `request_seconds`, `max_body_bytes`, `threads` and `contexts`.

    It also offers `is_known(header)`, which looks a token up.
    """

    graceful_seconds = 8.0

    def init_process(self) -> None:
        """Create the process's own objects, after the fork."""
        app: Any = self.app
        self._seconds: float = app.request_seconds
        self._contexts: tls.Contexts | None = app.contexts
        self._epoll = select.epoll()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listeners: dict[int, socket.socket] = {}
        self._crowd = Crowd()
        self._claims = Lane("claim", app.threads)
        self._requests = Lane("request", min(app.threads, REQUEST_THREADS))
        self._heavy = Lane("heavy", min(app.threads, HEAVY_THREADS), budget=HEAVY_BUDGET_BYTES)
        self._checks = Lane("check", CHECK_THREADS)
        self._strangers = Lane("stranger", CHECK_THREADS)
        self._queue: FairQueue[Connection] = FairQueue(STRANGERS_PER_SECOND)
        self._accepts_again = 0.0
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application."""
        super().load_wsgi()
        self._max_body: int = self.app.max_body_bytes  # type: ignore[attr-defined] # of the settings that are in force
        self._known = KnownTokens(lambda header: bool(self.app.is_known(self.wsgi, header)))  # type: ignore[attr-defined]
        self._answering = Answering(self.cfg, self.wsgi)

    # The loop

    def run(self) -> None:
        """Serve until SIGTERM, or until the main process has ended."""
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self.PIPE[0], select.EPOLLIN)
        self._accept_again()
        ticked = 0.0
        while self.alive and self.is_parent_alive():
            self._turn()
            now = time.monotonic()
            if now - ticked >= _TICK_SECONDS:
                ticked = now
                self.notify()
                self._tick(now)
        self._finish()

    def _turn(self) -> None:
        pause = self._queue.wait_seconds
        for fd, event in self._epoll.poll(_TICK_SECONDS if pause is None else min(pause + 0.001, _TICK_SECONDS)):
            if fd in self._listeners:
                self._accept(self._listeners[fd])
            elif fd == self._wake:
                os.eventfd_read(fd)
            elif fd == self.PIPE[0]:
                with suppress(BlockingIOError):
                    os.read(fd, 4096)
            elif (connection := self._crowd.by_fd.get(fd)) is not None:
                self._safely(connection, lambda c=connection, e=event: self._on_event(c, e))  # type: ignore[misc]
        while not self._calls.empty():
            self._calls.get()()
        self._serve_strangers()

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in the loop; for other threads."""
        self._calls.put(function)
        os.eventfd_write(self._wake, 1)

    def is_parent_alive(self) -> bool:
        """Return whether the main process exists; when it does not, this one stops too."""
        return self.ppid == os.getppid()

    def _tick(self, now: float) -> None:
        """Close or refuse connections that are past their deadline."""
        for connection in self._crowd.late(now):
            match connection.phase:
                case Phase.HEAD:
                    self._refuse(connection, refusals.too_slow("the request", self._seconds))
                case Phase.BODY:
                    self._refuse(connection, refusals.too_slow("the body", self._seconds))
                case _:
                    self._close(connection)
        if self._accepts_again and now >= self._accepts_again and self.alive:
            self._accept_again()

    def _finish(self) -> None:
        """Respond to received requests, and accept nothing new."""
        for fd in self._listeners:
            self._epoll.unregister(fd)
        self._listeners.clear()
        for listener in self.sockets:
            listener.close()
        until = time.monotonic() + self.graceful_seconds
        while True:
            self._crowd.close_those(lambda each: each.phase not in (Phase.ANSWER, Phase.BODY) or not each.known)
            if not self._crowd.by_fd or time.monotonic() > until:
                break
            self.notify()
            for fd, event in self._epoll.poll(0.1):
                if (connection := self._crowd.by_fd.get(fd)) is not None:
                    self._safely(connection, lambda c=connection, e=event: self._on_event(c, e))  # type: ignore[misc]
            while not self._calls.empty():
                self._calls.get()()
        for lane in (self._claims, self._requests, self._heavy, self._checks, self._strangers):
            lane.close()

    # Connections

    def _accept_again(self) -> None:
        self._accepts_again = 0.0
        for listener in self.sockets:
            listener.setblocking(False)
            self._listeners[listener.fileno()] = listener
            self._epoll.register(listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)

    def _accept_later(self) -> None:
        """Stop accepting for a while: no descriptor is free for a connection."""
        for fd in self._listeners:
            self._epoll.unregister(fd)
        self._listeners.clear()
        self._accepts_again = time.monotonic()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                client, address = listener.accept()
            except OSError as error:
                if error.errno in _FULL and not self._crowd.drop_one():
                    self._accept_later()
                elif error.errno not in (*_GONE, *_FULL):
                    log.warning("a connection could not be accepted: %s", error)
                return
            self._enter(client, address, listener.getsockname())

    def _enter(self, client: socket.socket, address: Any, local: Any) -> None:
        client.setblocking(False)
        with suppress(OSError):  # not for Unix sockets
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        phase, seconds = Phase.IDLE, self._seconds
        if self._contexts is not None:
            phase, seconds = Phase.HANDSHAKE, tls.HANDSHAKE_SECONDS
            try:
                context = self._contexts.current()
                client = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            except OSError:
                client.close()
                return
        connection = Connection(client, address, local, phase, time.monotonic() + seconds)
        self._crowd.add(connection)
        if connection.phase is not Phase.CLOSED:
            self._arm(connection)

    def _arm(self, connection: Connection, events: int = select.EPOLLIN) -> None:
        """Wait for one more event of the connection; after this, another thread must not touch it."""
        events |= _ONCE
        if connection.armed:
            self._epoll.modify(connection.fd, events)
        else:
            connection.armed = True
            self._epoll.register(connection.fd, events)

    def _close(self, connection: Connection) -> None:
        if connection.phase is not Phase.CLOSED:
            self._crowd.remove(connection)
            connection.close()

    def _safely(self, connection: Connection, act: Callable[[], None]) -> None:
        """Run a function for a connection; its error ends that connection alone."""
        try:
            act()
        except Refusal as refusal:
            self._refuse(connection, refusal)
        except OSError:
            self._close(connection)
        except Exception:
            log.exception("a connection is closed by an error of the server")
            self._close(connection)

    def _refuse(self, connection: Connection, refusal: Refusal) -> None:
        connection.send_at_once(refusal.response())
        self._linger(connection)

    def _linger(self, connection: Connection) -> None:
        """Give the client time to read the last response before the connection is closed."""
        connection.end_sending()
        if connection.incoming is not None:
            connection.incoming.close()
            connection.incoming = None
        connection.buffer = bytearray()
        connection.phase, connection.deadline = Phase.LINGER, time.monotonic() + LINGER_SECONDS
        self._arm(connection)

    def _on_event(self, connection: Connection, event: int) -> None:
        if connection.phase is Phase.HANDSHAKE:
            self._shake_hands(connection)
        elif connection.phase is Phase.LINGER:
            if connection.drain() and not event & (select.EPOLLHUP | select.EPOLLERR):
                self._arm(connection)
            else:
                self._close(connection)
        elif connection.phase in (Phase.IDLE, Phase.HEAD, Phase.BODY):
            is_open = connection.receive()
            self._advance(connection)
            if not is_open and connection.phase in (Phase.IDLE, Phase.HEAD):
                self._close(connection)
            elif not is_open and connection.phase is Phase.BODY:
                raise refusals.bad_request("the body ended early; send it again")

    def _shake_hands(self, connection: Connection) -> None:
        wanted = tls.shake_hands(connection.sock)
        if wanted is None:
            connection.phase, connection.deadline = Phase.IDLE, time.monotonic() + self._seconds
            self._on_event(connection, select.EPOLLIN)
        else:
            self._arm(connection, wanted)

    # Requests

    def _advance(self, connection: Connection) -> None:
        """Continue with the received bytes."""
        if connection.phase is Phase.IDLE and connection.buffer:
            connection.phase, connection.deadline = Phase.HEAD, time.monotonic() + self._seconds
            connection.searched = 0
        if connection.phase is Phase.HEAD:
            self._read_head(connection)
        if connection.phase is Phase.BODY:
            self._read_body(connection)
        if connection.phase in (Phase.IDLE, Phase.HEAD, Phase.BODY):
            self._arm(connection)

    def _read_head(self, connection: Connection) -> None:
        end = head_end(connection.buffer, connection.searched)
        connection.searched = len(connection.buffer)
        if end < 0:
            return
        incoming = Incoming(self.cfg, bytes(connection.buffer[:end]), connection.address)
        del connection.buffer[:end]
        connection.incoming = incoming
        header = incoming.header("AUTHORIZATION")
        if not header:
            self._begin_body(connection, known=False)
        elif self._known.has(header):
            self._begin_body(connection, known=True)
        else:
            connection.phase = Phase.CHECK
            self._checks.submit(lambda: self._check(connection, header))

    def _check(self, connection: Connection, header: str) -> None:
        """Look a token up, in a thread."""
        known = self._known.check(header)
        self.call(lambda: self._checked(connection, known))

    def _checked(self, connection: Connection, known: bool) -> None:
        def go_on() -> None:
            self._begin_body(connection, known)
            self._advance(connection)

        if connection.phase is Phase.CHECK:
            self._safely(connection, go_on)

    def _begin_body(self, connection: Connection, known: bool) -> None:
        """Read the body, or refuse to, once the token is known to be valid or not."""
        incoming = connection.incoming
        if incoming is None:
            return
        connection.known = known
        if known:
            self._crowd.prove(connection)
        limit = self._max_body if known else SMALL_BYTES
        if known and (incoming.length or 0) > limit:
            raise refusals.too_large(limit)
        connection.phase, connection.deadline = Phase.BODY, time.monotonic() + self._seconds
        if not known and (incoming.expects_continue or (incoming.length or 0) > limit):
            self._dispatch(connection)  # it will be refused, so its body is not needed
        elif incoming.expects_continue and not connection.buffer:
            connection.send_at_once(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, connection: Connection) -> None:
        incoming = connection.incoming
        if incoming is None:
            return
        before = incoming.received
        try:
            incoming.take(connection.buffer, self._max_body if connection.known else SMALL_BYTES)
        except Refusal:
            if connection.known:
                raise
            self._dispatch(connection)  # whatever the fault of the body, the invalid token counts
            return
        connection.deadline += (incoming.received - before) / BYTES_PER_SECOND
        if incoming.complete:
            self._dispatch(connection)

    def _dispatch(self, connection: Connection) -> None:
        incoming = connection.incoming
        if incoming is None:
            return
        if not connection.known:
            connection.phase = Phase.QUEUED
            self._queue.put(connection)
            return
        connection.phase = Phase.ANSWER
        if waits(incoming):
            self._claims.submit(lambda: self._answer(connection, incoming))
        elif is_heavy(incoming):
            self._heavy.submit(lambda: self._answer(connection, incoming), incoming.parsed_bytes)
        else:
            self._requests.submit(lambda: self._answer(connection, incoming))

    def _serve_strangers(self) -> None:
        """Respond to requests without a valid token, each address in its turn, and at a limited rate."""
        while (connection := self._queue.take()) is not None:
            incoming = connection.incoming
            if connection.phase is not Phase.QUEUED or incoming is None or connection.is_gone():
                self._queue.give_back()
                self._close(connection)
            else:
                connection.phase = Phase.ANSWER
                self._strangers.submit(lambda c=connection, i=incoming: self._answer(c, i))  # type: ignore[misc]

    def _answer(self, connection: Connection, incoming: Incoming) -> None:
        """Respond to a request, in a thread."""
        again, large = False, is_heavy(incoming)
        try:
            sent = self._answering.answer(connection, incoming, last=not self.alive or not incoming.complete)
            again, large = sent.reusable, large or sent.size > LARGE_BYTES
            if sent.status == 401 and connection.known:
                self._known.forget(incoming.header("AUTHORIZATION"))
        except Exception:
            log.exception("a request could not be answered")
        incoming.close()
        self._hand_back(connection, again=again)
        if large:
            give_memory_back()

    def _hand_back(self, connection: Connection, *, again: bool) -> None:
        """Return the connection to the loop after a response."""
        if again and self.alive and not connection.buffer and not connection.has_decrypted():
            connection.incoming = None
            connection.deadline = time.monotonic() + (KEEPALIVE_SECONDS if connection.proven else self._seconds)
            connection.phase = Phase.IDLE
            with suppress(OSError, ValueError):
                self._arm(connection)
            return
        self.call(lambda: self._answered(connection, again))

    def _answered(self, connection: Connection, again: bool) -> None:
        """Continue with the next request if it was received already, or end the connection."""
        connection.incoming = None
        if not again or not self.alive:
            self._linger(connection)
            return
        connection.phase, connection.deadline = Phase.IDLE, time.monotonic() + KEEPALIVE_SECONDS
        self._safely(connection, lambda: self._on_event(connection, select.EPOLLIN))

    # Signals

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle SIGQUIT or SIGINT: stop at once."""
        self._claims.close()
        super().handle_quit(sig, frame)
