"""The parts of `banyan up`, MongoDB, server and worker: what they are told, and how each is started and stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from banyan import certificates, child
from banyan.api.tls import OPEN
from banyan.config import ServerSettings, WorkerSettings, load_worker_settings
from banyan.errors import SetupError, Unavailable
from banyan.storage import embedded
from banyan.transport import Untrusted
from banyan.trust import is_loopback_host
from banyan.up_address import url_of

READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_WORKER_STOP_SECONDS = 5.0
_SERVER_STOP_SECONDS = 2.5
_MONGOD_STOP_SECONDS = 2.0
_KEEP_LOG_BYTES = 10 * 2**20
_CLIENT_VARIABLES = ("BANYAN_CONFIG", "BANYAN_URL", "BANYAN_TOKEN", "BANYAN_TOKEN_FILE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start: the server's settings, where its data live, and what the worker is told."""

    settings: ServerSettings
    data: Path
    config: Path | None = None
    worker_config: Path | None = None
    worker_options: tuple[str, ...] = ()
    tls: bool = False
    """Whether to speak TLS with a certificate made for this machine, unless the settings name one."""

    @property
    def own_tls(self) -> bool:
        """Whether the certificate is ours to keep."""
        return self.tls and not self.settings.tls.certificate

    def worker_settings(self) -> WorkerSettings:
        """What the worker will find in its files and our environment; SetupError."""
        environ = environment_of_the_worker()
        return load_worker_settings(config=self.worker_config, shared=self.config, environ=environ)

    def keep_certificate(self) -> certificates.Files:
        """Make or renew the certificate that is kept here."""
        names = certificates.names_of_this_machine(self.settings.server.host)
        return certificates.keep(self.data / "tls", names, datetime.now(UTC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One child process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> str | None:
        """How it ended, with the end of its log; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the {self.name} ended ({reason}); its log {self.log} ends with:\n{_tail(self.log)}"


def start_mongodb(plan: Plan, stack: ExitStack) -> tuple[list[Part], str]:
    """The user's MongoDB, or one of ours, and its URI."""
    if plan.settings.mongo.uri:
        return [], plan.settings.mongo.uri
    cache = plan.settings.mongo.cache_gigabytes
    mongo = embedded.start(plan.data / "mongo", log=_log(plan, "mongod"), cache_gigabytes=cache)
    stack.callback(mongo.stop, seconds=_MONGOD_STOP_SECONDS)
    return [Part(name="mongod", process=mongo.process, log=mongo.log)], mongo.uri


def start_server(
    plan: Plan, stack: ExitStack, files: certificates.Files | None
) -> tuple[Part, str, Callable[[str], None]]:
    """The server, which loads its code while MongoDB starts; its URL, and how to tell it MongoDB's URI.

    It inherits the listening socket, so that no port is chosen twice and whoever connects early waits. The URI comes
    through a pipe: a command line or an environment would show the password.
    """
    http = plan.settings.server
    if not (plan.tls or plan.settings.tls.certificate or is_loopback_host(http.host)):
        print(f"banyan up: {OPEN} (banyan up --tls makes one)", file=sys.stderr, flush=True)
    reading, writing = os.pipe()
    pipe = stack.enter_context(os.fdopen(writing, "wb", buffering=0))
    with _listen(http.host, http.port) as listener, open(reading):
        url = url_of(listener, http.host, plan.tls, plan.settings.tls.certificate)
        command = [sys.executable, "-m", "banyan", "server"]
        command += ["--fd", str(listener.fileno()), "--mongo-uri-fd", str(reading)]
        command += ["--credentials", str(credentials_file(plan))]
        command += ["--certificate", str(files.certificate), "--key", str(files.key)] if files else []
        command += ["--config", str(plan.config)] if plan.config else []
        log = _log(plan, "server")
        audit = plan.settings.log.audit or str(plan.data / "logs" / "audit.log")
        environment = {**os.environ, "BANYAN_LOG__AUDIT": audit}
        process = child.spawn(command, log=log, env=environment, pass_fds=[listener.fileno(), reading])
    stack.callback(child.stop, process, seconds=_SERVER_STOP_SECONDS, family=True)

    def tell(uri: str) -> None:
        with suppress(BrokenPipeError), pipe:  # a server that has ended is noticed soon
            pipe.write(uri.encode())

    return Part(name="server", process=process, log=log), url, tell


def start_worker(plan: Plan, url: str, ca_file: str, stack: ExitStack) -> Part:
    """The worker, which reads its token where the server keeps the first tokens."""
    command = [sys.executable, "-m", "banyan", "worker", "--url", url, "--token-file", str(credentials_file(plan))]
    command += ["--workdir", str(work_directory(plan.data)), *plan.worker_options]
    command += ["--ca-file", ca_file] if ca_file else []
    command += ["--shared-config", str(plan.config)] if plan.config else []
    command += ["--config", str(plan.worker_config)] if plan.worker_config else []
    log = _log(plan, "worker")
    # Killed at once when we are: its supervisor ends the tasks. A SIGTERM would let them run on.
    process = child.spawn(command, log=log, env=environment_of_the_worker(), death_signal=signal.SIGKILL)
    stack.callback(child.stop, process, seconds=_WORKER_STOP_SECONDS, ask_again_after=0.3)
    return Part(name="worker", process=process, log=log)


def environment_of_the_worker() -> dict[str, str]:
    """What of our environment the worker gets."""
    foreign = {*_CLIENT_VARIABLES, "BANYAN_MONGO__URI"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def work_directory(data: Path) -> Path:
    """Where the worker's tasks run."""
    return data / "work"


def wait_for(part: Part, question: Callable[[], Any]) -> Any:
    """The first true answer; SetupError if the part ends, takes too long, or cannot be trusted."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if ended := part.ended():
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


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise SetupError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from error


def credentials_file(plan: Plan) -> Path:
    """Where the first tokens are kept."""
    return Path(plan.settings.auth.credentials_file or plan.data / "credentials.json")


def _log(plan: Plan, name: str) -> Path:
    """The part's log file; a long one of earlier runs is put aside."""
    path = plan.data / "logs" / f"{name}.log"
    if path.exists() and path.stat().st_size > _KEEP_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def _tail(log: Path) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-10:])
