"""Everything on one machine: MongoDB, server and worker as child processes, started in order and stopped in reverse."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import psutil

from banyan import certificates, child
from banyan.api.credentials import tokens_at
from banyan.api.tls import OPEN
from banyan.client import Client
from banyan.config import ServerSettings, load_worker_settings
from banyan.errors import SetupError, Unavailable
from banyan.storage import embedded
from banyan.storage.mongod_lock import DirectoryLock
from banyan.trust import Trust, is_loopback_host
from worker.account import Account, account_of, check_root

READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.2
_RENEW_SECONDS = 3600.0
"""How often the certificate that is kept here is looked at."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What runs, once all of it is ready."""

    url: str
    admin_token: str
    provider_token: str
    mongo_uri: str
    parts: tuple[Part, ...]
    worker: dict[str, Any]
    credentials: Path
    ca_file: str = ""
    """The authority that vouches for the server, if that is ours."""
    upkeep: Callable[[], object] = lambda: None

    def pids(self) -> dict[str, Any]:
        """The processes: `mongod` (None where it is not ours), `server` (all of them), `worker`."""
        own = {part.name: part.process.pid for part in self.parts}
        server = psutil.Process(own["server"])
        return {
            "mongod": own.get("mongod"),
            "server": [server.pid, *(each.pid for each in server.children(recursive=True))],
            "worker": own["worker"],
        }

    def watch(self) -> NoReturn:
        """Wait until a part ends by itself, and say which: Unavailable."""
        due = time.monotonic() + _RENEW_SECONDS
        while True:
            if time.monotonic() > due:
                due += _RENEW_SECONDS
                self.upkeep()
            for part in self.parts:
                if ended := part.ended():
                    raise Unavailable(ended)
            time.sleep(_WATCH_SECONDS)


@contextmanager
def running(plan: Plan, *, say: Callable[[str], None] = lambda _: None) -> Iterator[Running]:
    """All of it, ready for work; stopped at the end of the block, however it ends, within 10 s.

    `say` hears what is being waited for. SetupError if a part cannot be started.
    """
    account = account_of(load_worker_settings(config=plan.worker_config, environ=_of_the_worker()))
    # The server is older than MongoDB, and ends before it.
    with child.none_left(), ExitStack() as last, ExitStack() as first:
        lock = DirectoryLock.acquire(plan.data)
        last.callback(lock.release)
        if account is not None:
            _let_pass(plan.data, account)
        tokens = tokens_at(_credentials(plan))
        say("Starting MongoDB")
        files = plan.keep_certificate() if plan.own_tls else None
        server, url, tell = _start_server(plan, first, files)
        parts, uri = _mongodb(plan, last)
        tell(uri)
        say("Starting server and worker")
        ca_file = str(files.authority) if files else ""
        worker = _start_worker(plan, url, ca_file, first)
        trust = Trust.from_environment()
        with Client(url, tokens["admin"], trust=replace(trust, ca_file=ca_file or trust.ca_file)) as admin:
            _wait(server, lambda: bool(admin.health()))
            registered = _wait(worker, lambda: _registered(admin, worker.process.pid))
        yield Running(
            url=url,
            admin_token=tokens["admin"],
            provider_token=tokens["user"],
            mongo_uri=uri,
            parts=(*parts, server, worker),
            worker=registered,
            credentials=_credentials(plan).absolute(),
            ca_file=ca_file,
            upkeep=partial(_renew, plan),
        )


def _renew(plan: Plan) -> None:
    """Renew the certificate if it is ours and nears its end; the server notices."""
    if not plan.own_tls:
        return
    try:
        plan.keep_certificate()
    except SetupError as error:
        print(f"banyan up: {error}; it is tried again", file=sys.stderr, flush=True)


def _mongodb(plan: Plan, stack: ExitStack) -> tuple[list[Part], str]:
    """The user's MongoDB, or one of ours, and its URI."""
    if plan.settings.mongo.uri:
        return [], plan.settings.mongo.uri
    cache = plan.settings.mongo.cache_gigabytes
    mongo = embedded.start(plan.data / "mongo", log=_log(plan, "mongod"), cache_gigabytes=cache)
    stack.callback(mongo.stop, seconds=_MONGOD_STOP_SECONDS)
    return [Part(name="mongod", process=mongo.process, log=mongo.log)], mongo.uri


def _start_server(
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
        url = _url(plan, listener.getsockname()[1])
        command = [sys.executable, "-m", "banyan", "server"]
        command += ["--fd", str(listener.fileno()), "--mongo-uri-fd", str(reading)]
        command += ["--credentials", str(_credentials(plan))]
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


def _start_worker(plan: Plan, url: str, ca_file: str, stack: ExitStack) -> Part:
    command = [sys.executable, "-m", "banyan", "worker", "--url", url, "--token-file", str(_credentials(plan))]
    command += ["--workdir", str(_work(plan.data)), *plan.worker_options]
    command += ["--ca-file", ca_file] if ca_file else []
    command += ["--config", str(plan.worker_config)] if plan.worker_config else []
    log = _log(plan, "worker")
    # Killed at once when we are: its supervisor ends the tasks. A SIGTERM would let them run on.
    process = child.spawn(command, log=log, env=_of_the_worker(), death_signal=signal.SIGKILL)
    stack.callback(child.stop, process, seconds=_WORKER_STOP_SECONDS, ask_again_after=0.3)
    return Part(name="worker", process=process, log=log)


def _of_the_worker() -> dict[str, str]:
    """What of our environment the worker gets."""
    foreign = {*_CLIENT_VARIABLES, "BANYAN_MONGO__URI"}
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _let_pass(data: Path, account: Account) -> None:
    """Let the user as whom tasks run reach the work directory, and nothing else; SetupError if he cannot."""
    data.chmod(data.stat().st_mode | 0o011)  # he may go through; what is in it has modes of its own
    work = _work(data)
    work.mkdir(exist_ok=True)
    try:
        check_root(work, account)
    except SetupError as error:
        raise SetupError(f"{error} (with `banyan up` it is below --data)") from error


def _work(data: Path) -> Path:
    return data / "work"


def _wait(part: Part, question: Callable[[], Any]) -> Any:
    """The first true answer; SetupError if the part ends or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if ended := part.ended():
            raise SetupError(ended)
        try:
            answer = question()
        except Unavailable:
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise SetupError(f"the {part.name} was not ready after {READY_SECONDS:g} s; see {part.log}")
        time.sleep(_POLL_SECONDS)


def _registered(admin: Client, pid: int) -> dict[str, Any] | None:
    return next((dict(each) for each in admin.workers({"state": "active"}) if each.get("pid") == pid), None)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise SetupError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from error


def _url(plan: Plan, port: int) -> str:
    """Where our own worker, and other terminals, reach the server."""
    host, named = plan.settings.server.host, plan.settings.tls.certificate
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    if named:
        reachable = certificates.name_in(Path(named), reachable)
    scheme = "https" if named or plan.tls else "http"
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def _credentials(plan: Plan) -> Path:
    return Path(plan.settings.auth.credentials_file or plan.data / "credentials.json")


def _log(plan: Plan, name: str) -> Path:
    """The part's log file; a long one of earlier runs is put aside."""
    path = plan.data / "logs" / f"{name}.log"
    if path.exists() and path.stat().st_size > _KEEP_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path


def _tail(log: Path) -> str:
    return "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-10:])


def _write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its owner alone."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    unfinished.replace(path)


@contextmanager
def announced(up: Running, directory: Path) -> Iterator[None]:
    """Leave the address and tokens for this user's other terminals, as long as the block runs."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in directory.glob("*.json"):
        if left.stem.isdigit() and not psutil.pid_exists(int(left.stem)):
            left.unlink(missing_ok=True)
    pointer = directory / f"{os.getpid()}.json"
    known = {"token": up.provider_token, "provider_token": up.provider_token, "admin_token": up.admin_token}
    known |= {"credentials": str(up.credentials)} | ({"ca_file": up.ca_file} if up.ca_file else {})
    _write_private(pointer, json.dumps({"url": up.url, **known, "pid": os.getpid(), "started": time.time()}))
    try:
        yield
    finally:
        pointer.unlink(missing_ok=True)
