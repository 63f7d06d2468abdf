"""TLS for the server: each handshake uses the present certificate file, so a renewed one needs no restart."""

import logging
import os
import select
import socket
import ssl
import threading
from typing import Any

from banyan.config import Tls
from banyan.errors import SetupError
from banyan.trust import is_loopback_host

log = logging.getLogger("banyan.tls")

HANDSHAKE_SECONDS = 10.0
"""The time that a client may take for its handshake."""

Seen = tuple[tuple[int, int, int], ...]


class Contexts:
    """The TLS context for new connections; safe to be shared by threads.

    Open connections keep the context that they began with. A renewal that cannot be used (half written, or with the key
    of another certificate) is logged, and the last good one stays in use. SetupError if there is none at first.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._files = [name for name in (settings.certificate, settings.key, settings.client_ca) if name]
        self._lock = threading.Lock()
        self._refused: Seen | None = None
        try:
            self._seen = self._look()
            self._context = self._load()
        except OSError as error:
            raise SetupError(f"TLS cannot begin: {_said(error)}; correct the section [tls]") from error

    def current(self) -> ssl.SSLContext:
        """The context to use now."""
        with self._lock:
            seen: Seen = ()
            try:
                seen = self._look()
                if seen != self._seen:
                    self._context, self._seen, self._refused = self._load(), seen, None
                    log.info("the renewed certificate %s is in use", self._settings.certificate)
            except OSError as error:
                if seen != self._refused:  # it is logged once, and tried again with each connection
                    self._refused = seen
                    log.warning("the renewed certificate cannot be used (%s); the earlier one stays", _said(error))
            return self._context

    def _look(self) -> Seen:
        statuses = [os.stat(name) for name in self._files]
        return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in statuses)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._settings.certificate, self._settings.key or None, password="")
        if self._settings.client_ca:
            context.load_verify_locations(cafile=self._settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def shake_hands(connection: socket.socket) -> int | None:
    """Continue the handshake of a non-blocking socket: return the epoll event to wait for, or None when it is done.

    `OSError` when it has failed, which concerns the client alone.
    """
    if not isinstance(connection, ssl.SSLSocket):
        return None
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return select.EPOLLIN
    except ssl.SSLWantWriteError:
        return select.EPOLLOUT
    except OSError as error:
        log.info("no TLS with a client: %s", _said(error))
        raise
    return None


def options(settings: Tls) -> dict[str, Any]:
    """The options from which gunicorn learns that requests arrive by HTTPS."""
    return {"certfile": settings.certificate, "keyfile": settings.key or None} if settings.certificate else {}


def warn_if_open(host: str, listen_fd: int | None) -> None:
    """Warn of plain HTTP if other machines can reach the address, or the inherited socket, that we listen on."""
    if listen_fd is not None:
        with socket.socket(fileno=os.dup(listen_fd)) as listener:
            host = "localhost" if listener.family == socket.AF_UNIX else str(listener.getsockname()[0])
    if not is_loopback_host(host):
        log.warning(OPEN)


OPEN = (
    "the server listens to other machines without TLS: tokens and tasks can be read and changed on the way; set "
    "tls.certificate, or listen on 127.0.0.1 behind a proxy that speaks TLS"
)


def _said(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)
