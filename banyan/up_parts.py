"""The parts of `banyan up`, MongoDB, server and worker: their settings, their start and their stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from banyan import certificates, child
from banyan.adoption import Orphans
from banyan.api.tls import OPEN
from banyan.config import ServerSettings, WorkerSettings, load_worker_settings
from banyan.errors import SetupError, Unavailable, Untrusted
from banyan.storage import embedded
from banyan.trust import is_loopback_host
from banyan.up_address import listen, url_of
from banyan.up_mending import Death, say

READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_WORKER_STOP_SECONDS = 5.0
_WORKER_ASK_AGAIN = (0.3, 4.0)
"""The worker's first signal drains it; the second asks its tasks to end, and the third kills them."""
_SERVER_STOP_SECONDS = 2.5
_MONGOD_STOP_SECONDS = 2.0
_SUPERVISOR_SECONDS = 1.0
_KEEP_LOG_BYTES = 10 * 2**20
_LINE_CHARACTERS = 300
_CLIENT_VARIABLES = ("BANYAN_CONFIG", "BANYAN_URL", "BANYAN_TOKEN", "BANYAN_TOKEN_FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a start: the server's settings, the directory of the data, and the worker's settings."""

    settings: ServerSettings
    data: Path
    config: Path | None = None
    worker_config: Path | None = None
    worker_options: tuple[str, ...] = ()
    tls: bool = False
    """True to use TLS with a certificate made for this machine, unless the settings name one."""

    @property
    def own_tls(self) -> bool:
        """Return whether the certificate is ours to keep."""
        return self.tls and not self.settings.tls.certificate

    def worker_settings(self) -> WorkerSettings:
        """Return the settings that the worker will find in its files and our environment; SetupError."""
        environ = environment_of_the_worker()
        return load_worker_settings(config=self.worker_config, shared=self.config, environ=environ)

    def keep_certificate(self) -> certificates.Files:
        """Make or renew our own certificate."""
        names = certificates.names_of_this_machine(self.settings.server.host)
        return certificates.keep(self.data / "tls", names, datetime.now(UTC))


class Part:
    """One child process, the log that it appends to, and the way to replace it."""

    def __init__(
        self,
        name: str,
        log: Path,
        start: Callable[[], subprocess.Popen[bytes]],
        stop: Callable[[subprocess.Popen[bytes]], object],
        *,
        process: subprocess.Popen[bytes] | None = None,
        complaint: Callable[[], str] | None = None,
        family: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        self._start = start
        self._stop = stop
        self._complaint = complaint or self._last_line
        self._family = family
        self.process = process or start()

    def start_again(self) -> None:
        """Start another process; no signal interrupts between its start and our record of it."""
        with child.undisturbed():
            self.process = self._start()

    def stop(self, seconds: float | None = None) -> None:
        """Stop the process, if it runs; it is killed when that takes longer than usual, or than these seconds."""
        if seconds is None:
            self._stop(self.process)
        else:
            child.stop(self.process, seconds=seconds)

    def death(self) -> Death | None:
        """Return the end of the process, after its own children are killed; None while it runs."""
        code = child.reap(self.process, family=self._family)
        if code is None:
            return None
        if code < 0:
            return Death(code=code, reason=f"signal {_signal_name(-code)}")
        said = self._complaint() if code else ""
        return Death(code=code, reason=f"exit code {code}{said and ': '}{said}")

    def ended(self) -> str | None:
        """Return its end as a text, with the end of its log; None while it runs."""
        death = self.death()
        if death is None:
            return None
        reason = death.reason.partition(":")[0]
        return f"the {self.name} ended ({reason}){self.last_words()}"

    def last_words(self) -> str:
        """Return the end of its log, for the end of a sentence."""
        lines = child.last_lines(self.log, 10)
        if not lines:
            return f"; its log {self.log} is empty"
        return "\n".join([f"; its log {self.log} ends with:", *(f"  {line}" for line in lines)])

    def _last_line(self) -> str:
        lines = [line for line in child.last_lines(self.log, 10) if line.strip()]
        return lines[-1].strip()[:_LINE_CHARACTERS] if lines else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return str(number)


def start_mongodb(plan: Plan, stack: ExitStack) -> tuple[list[Part], str]:
    """Start MongoDB, or use the user's; return the parts, and its URI."""
    if plan.settings.mongo.uri:
        return [], plan.settings.mongo.uri
    cache = plan.settings.mongo.cache_gigabytes
    mongo = embedded.start(plan.data / "mongo", log=_log(plan, "mongod"), cache_gigabytes=cache)
    stack.callback(mongo.lock.release)
    part = Part(
        "mongod",
        mongo.log,
        mongo.start_again,
        partial(child.stop, seconds=_MONGOD_STOP_SECONDS),
        process=mongo.process,
        complaint=lambda: mongo.complaint()[:_LINE_CHARACTERS],
    )
    stack.callback(part.stop)
    return [part], mongo.uri


def start_server(
    plan: Plan, stack: ExitStack, files: certificates.Files | None
) -> tuple[Part, str, Callable[[str], None]]:
    """Start the server, which loads its code while MongoDB starts; return its URL, and the function that sends the URI.

    It inherits the listening socket, so that no port is chosen twice and early clients wait. The socket stays open here
    too: while the server is started again, its port stays ours and its clients wait.
    """
    http = plan.settings.server
    if not (plan.tls or plan.settings.tls.certificate or is_loopback_host(http.host)):
        say(f"{OPEN} (banyan up --tls makes one)")
    listener = listen(http.host, http.port)
    stack.callback(listener.close)
    url = url_of(listener, http.host, plan.tls, plan.settings.tls.certificate)
    starter = _ServerStarter(plan, listener, files)
    stop = partial(child.stop, seconds=_SERVER_STOP_SECONDS, family=True)
    part = Part("server", starter.log, starter.start, stop, family=True)
    stack.callback(part.stop)
    stack.callback(listener.close)  # clients that come while it stops are refused, and do not wait
    return part, url, starter.tell


class _ServerStarter:
    """The starter of servers on one listening socket.

    MongoDB's URI reaches each through a pipe: a command line or an environment would show the password.
    """

    def __init__(self, plan: Plan, listener: socket.socket, files: certificates.Files | None) -> None:
        self.log = _log(plan, "server")
        self._uri = ""
        self._listener = listener
        self._pipe: IO[bytes] | None = None
        self._command = [sys.executable, "-m", "banyan", "server", "--fd", str(listener.fileno())]
        self._command += ["--credentials", str(credentials_file(plan))]
        self._command += ["--certificate", str(files.certificate), "--key", str(files.key)] if files else []
        self._command += ["--config", str(plan.config)] if plan.config else []
        audit = plan.settings.log.audit or str(plan.data / "logs" / "audit.log")
        self._environment = {**os.environ, "BANYAN_LOG__AUDIT": audit}

    def start(self) -> subprocess.Popen[bytes]:
        """Start a server; it waits for the URI until that is known."""
        reading, writing = os.pipe()
        self._pipe = os.fdopen(writing, "wb", buffering=0)
        command = [*self._command, "--mongo-uri-fd", str(reading)]
        command += ["--wait-for-mongo"] if self._uri else []
        try:
            descriptors = [self._listener.fileno(), reading]
            process = child.spawn(command, log=self.log, env=self._environment, pass_fds=descriptors)
        finally:
            os.close(reading)
            if self._uri:
                self.tell(self._uri)
        return process

    def tell(self, uri: str) -> None:
        """Send MongoDB's address to the server that waits for it and to later ones."""
        self._uri = uri
        if self._pipe is not None:
            with suppress(BrokenPipeError), self._pipe:  # a server that has ended is noticed soon
                self._pipe.write(uri.encode())


def start_worker(plan: Plan, url: str, ca_file: str, orphans: Orphans, stack: ExitStack) -> Part:
    """Start the worker, which reads its token from the server's file of the first tokens.

    One that follows another on the same work directory takes its place there.
    """
    command = [sys.executable, "-m", "banyan", "worker", "--url", url, "--token-file", str(credentials_file(plan))]
    command += ["--workdir", str(work_directory(plan.data)), *plan.worker_options]
    command += ["--ca-file", ca_file] if ca_file else []
    command += ["--shared-config", str(plan.config)] if plan.config else []
    command += ["--config", str(plan.worker_config)] if plan.worker_config else []
    log = _log(plan, "worker")
    environment = environment_of_the_worker()
    # Killed at once when we are: its supervisor ends the tasks. After a SIGTERM they would run on.
    spawn = partial(child.spawn, command, log=log, env=environment, death_signal=signal.SIGKILL)

    def start() -> subprocess.Popen[bytes]:
        orphans.end(seconds=_SUPERVISOR_SECONDS)  # the supervisors of a killed worker end its tasks
        return spawn()

    part = Part(
        "worker", log, start, partial(child.stop, seconds=_WORKER_STOP_SECONDS, ask_again_after=_WORKER_ASK_AGAIN)
    )
    stack.callback(part.stop)
    return part


def environment_of_the_worker() -> dict[str, str]:
    """Return the variables of our environment that the worker gets."""
    foreign = {*_CLIENT_VARIABLES, "BANYAN_MONGO__URI"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def work_directory(data: Path) -> Path:
    """Return the directory in which the worker's tasks run."""
    return data / "work"


def wait_for(parts: Sequence[Part], question: Callable[[], Any]) -> Any:
    """Return the first true result of the last part; SetupError if one ends, or the last is too slow or not trusted."""
    part = parts[-1]
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if ended := next(filter(None, (each.ended() for each in parts)), None):
            raise SetupError(ended)
        try:
            answer = question()
        except Untrusted as error:
            raise SetupError(str(error)) from error
        except Unavailable:
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SetupError(f"the {part.name} was not ready after {READY_SECONDS:g} s; see {part.log}")
        time.sleep(_POLL_SECONDS)


def credentials_file(plan: Plan) -> Path:
    """Return the file of the first tokens."""
    return Path(plan.settings.auth.credentials_file or plan.data / "credentials.json")


def _log(plan: Plan, name: str) -> Path:
    """Return the part's log file; a long one of earlier runs is renamed."""
    path = plan.data / "logs" / f"{name}.log"
    if path.exists() and path.stat().st_size > _KEEP_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path
