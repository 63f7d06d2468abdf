"""The production server: gunicorn's processes, in each of which an event loop reads and threads respond."""

import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from gunicorn.app.base import BaseApplication

from banyan.api import auth, tls
from banyan.api.app import create_app
from banyan.api.audit import Trail
from banyan.api.context import CONFIG_KEY
from banyan.api.credentials import make_sure
from banyan.api.serving.worker import EventLoopWorker
from banyan.config import ServerSettings
from banyan.errors import Unavailable
from banyan.models.checker import Checker
from banyan.queue.agreement import Agreement
from banyan.queue.context import Context
from banyan.queue.hub import Hub
from banyan.queue.rescue import Rescuer
from banyan.storage.mongo import Storage, translate
from banyan.storage.reach import Listener

log = logging.getLogger("banyan.server")

Result = TypeVar("Result")

RESCUER_KEY = "BANYAN_RESCUER"
AGREEMENT_KEY = "BANYAN_AGREEMENT"

_GRACEFUL_SECONDS = 10
_SILENT_SECONDS = 120
_RETRY_SECONDS = 1.0
_NEW_OBJECTS = 50_000
"""The number of new objects before the next search for cycles: lists of tasks have many without cycles, and a search
costs."""


def serve(
    settings: ServerSettings,
    credentials: Path | None = None,
    listen_fd: int | None = None,
    *,
    wait: bool = False,
    listeners: Sequence[Listener] = (),
) -> None:
    """Serve until SIGTERM or SIGINT; `listen_fd` is an inherited listening socket, in place of host and port.

    `credentials` (else the setting auth.credentials_file) names the file with the first tokens. `listeners` receive the
    events of the MongoDB driver in each process. Raises `SetupError` or, without `wait`, `Unavailable` when it cannot
    start.
    """
    _configure_log(settings.log.level)
    _allow_open_files()
    Trail(settings.log.audit).check()
    contexts = tls.Contexts(settings.tls) if settings.tls.certificate else None
    named = credentials or (Path(settings.auth.credentials_file) if settings.auth.credentials_file else None)
    if named is not None:
        auth = settings.auth.model_copy(update={"credentials_file": str(named.absolute())})
        settings = settings.model_copy(update={"auth": auth})
    _make_sure(settings, named, wait=wait)
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    bind = f"{host}:{settings.server.port}" if listen_fd is None else f"fd://{listen_fd}"
    if contexts is None:
        tls.warn_if_open(settings.server.host, listen_fd)
    _Server(settings, bind, contexts, listeners).run()


def _make_sure(settings: ServerSettings, credentials: Path | None, *, wait: bool) -> None:
    """Create the first users; with `wait`, retry while MongoDB is away."""
    while True:
        try:
            storage = Storage.connect(settings.mongo.uri, settings.mongo.database)
            try:
                return make_sure(storage.users, credentials, storage.clock.now())
            finally:
                storage.close()  # a connection does not survive a fork; each process makes its own
        except Unavailable as error:
            if not wait:
                raise
            log.warning("waiting for MongoDB: %s", error)
            time.sleep(_RETRY_SECONDS)


def build(settings: ServerSettings, listeners: Sequence[Listener]) -> Any:
    """The application of one server process, with its wake-ups and its rescuer running."""
    storage = _patiently(lambda: Storage.connect(settings.mongo.uri, settings.mongo.database, listeners))
    agreement = Agreement(storage, settings)
    settings = _patiently(agreement.join)
    models = Checker(settings.models, settings.posting.check_seconds)
    context = Context(storage=storage, hub=Hub(storage), settings=settings, models=models)
    app = create_app(context)
    context.hub.start()
    app.config[RESCUER_KEY] = Rescuer(context)
    app.config[RESCUER_KEY].start()
    app.config[AGREEMENT_KEY] = agreement
    agreement.start(on_change=lambda: os.kill(os.getpid(), signal.SIGTERM))  # gunicorn starts another process
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
    return app


def _patiently(act: Callable[[], Result]) -> Result:
    """Wait for MongoDB: a process that is started again while it is away must not end the server."""
    while True:
        try:
            return act()
        except Exception as error:
            if not isinstance(error, Unavailable) and not isinstance(translate(error), Unavailable):
                raise
            log.warning("waiting for MongoDB: %s", error)
            time.sleep(_RETRY_SECONDS)


class _Server(BaseApplication):
    """Gunicorn, configured by our settings alone."""

    def __init__(
        self, settings: ServerSettings, bind: str, contexts: tls.Contexts | None, listeners: Sequence[Listener]
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._bind = bind
        self.contexts = contexts
        super().__init__(prog="banyan server")

    def load_config(self) -> None:
        """Pass our settings to gunicorn."""
        http = self._settings.server
        options = {
            "bind": self._bind,
            "worker_class": "banyan.api.server.ReleasingWorker",
            "workers": http.processes,
            "backlog": 2048,
            "graceful_timeout": _GRACEFUL_SECONDS,
            "timeout": _SILENT_SECONDS,
            "limit_request_line": 8190,
            "forwarder_headers": "",  # no header may set the path below which we are mounted
            "loglevel": self._settings.log.level.replace("debug", "info"),  # it would log requests without a token
            "worker_exit": _leave,
            "control_socket_disable": True,
            **tls.options(self._settings.tls),
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    @property
    def request_seconds(self) -> float:
        """The time that a client may take to send a request."""
        return self._settings.limits.request_seconds

    @property
    def max_body_bytes(self) -> int:
        """The longest body."""
        return self._settings.limits.max_body_bytes

    @property
    def threads(self) -> int:
        """The number of claims that can be held open."""
        return self._settings.server.threads

    def is_known(self, application: Any, header: str) -> bool:
        """Return whether the token in this `Authorization` header is valid for the application from `load`."""
        return auth.is_good(application.config[CONFIG_KEY], header)

    def load(self) -> Any:
        """The application, made in each process after the fork."""
        application = build(self._settings, self._listeners)
        self._settings = application.config[CONFIG_KEY].settings
        return application


class ReleasingWorker(EventLoopWorker):
    """A process that, when it must stop, responds to its open claims and ends posting checks at once."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM: take no more requests, release open claims."""
        super().handle_exit(sig, frame)
        self._release()

    def is_parent_alive(self) -> bool:
        """Return whether the main process exists; when it does not, this one stops too."""
        alive = super().is_parent_alive()
        if not alive:
            self._release()
        return alive

    def _release(self) -> None:
        app = getattr(self, "wsgi", None)
        if app is not None:
            app.config[CONFIG_KEY].hub.close()
            app.config[CONFIG_KEY].models.close()


def _leave(_: object, worker: Any) -> None:
    """Stop the threads of a process that run beside its requests."""
    app = getattr(worker, "wsgi", None)
    if app is None:
        return
    app.config[AGREEMENT_KEY].leave()
    app.config[RESCUER_KEY].stop()
    app.config[CONFIG_KEY].hub.close()
    app.config[CONFIG_KEY].models.close()
    app.config[CONFIG_KEY].storage.close()


def _allow_open_files() -> None:
    """Raise the soft limit on open files to the hard one: each held claim keeps a socket open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _configure_log(level: str) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("pymongo").setLevel(logging.WARNING)
