"""Servers and workers as processes of their own, which a test can kill, stop and continue."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests
from pymongo import MongoClient

from banyan import child
from banyan.client import Client
from banyan.storage.embedded import free_port
from tests.support.waiting import eventually

READY_SECONDS = 90.0
_BANYAN = [sys.executable, "-m", "banyan"]


@dataclass
class Program:
    """One program of ours and what it started; begin it from a thread that lives as long as it shall."""

    command: list[str]
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, or is stopped."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.alive:
            return
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
        environment = {**kept, "HOME": str(self.log.parent), **self.settings}
        self.process = child.spawn(self.command, log=self.log, env=environment, death_signal=signal.SIGKILL)

    def send(self, number: signal.Signals, *, family: bool = False) -> None:
        """Send a signal to it, with `family` then also to all that it has started."""
        if self.process is None or not self.alive:
            return
        others = self._family() if family else []
        self.process.send_signal(number)  # first, so that it starts nothing in the place of what is killed
        for each in others:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()
            psutil.wait_procs(others)

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid if self.process else 0).children(recursive=True)
        return []

    def stop(self, seconds: float = 15.0) -> None:
        """Continue it and ask it to end; killed with all its children if it does not."""
        if self.process is not None and self.alive:
            self.send(signal.SIGCONT, family=True)
            child.stop(self.process, seconds=seconds, ask_again_after=[1.0, 3.0], family=True)

    def tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:]) if self.log.exists() else ""


@dataclass
class ServerProgram(Program):
    """`banyan server` on a port that it keeps through all its lives."""

    port: int = 0
    credentials: Path = Path()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def client(self, user: str, url: str | None = None) -> Client:
        """A client of `admin`, `user` or `worker`; it may go another way (`url`)."""
        return Client(url or self.url, self.token(user))

    def token(self, user: str) -> str:
        """The token of one of them, once the server has begun."""
        return str(json.loads(self.credentials.read_text())[user])

    @property
    def healthy(self) -> bool:
        """Whether it answers and reaches MongoDB."""
        try:
            return requests.get(f"{self.url}/health", timeout=10).ok
        except requests.RequestException:
            return False

    def wait_until_healthy(self) -> None:
        """Wait for the end of its start."""
        eventually(lambda: self.healthy, seconds=READY_SECONDS, show=self.tail)


def server(directory: Path, name: str, uri: str, database: str, **settings: str) -> ServerProgram:
    """A server on this database; `settings` are variables such as `BANYAN_LEASES__LOST_AFTER`."""
    port, credentials = free_port(), directory / "credentials.json"
    command = [*_BANYAN, "server", "--port", str(port), "--credentials", str(credentials)]
    mongo = {"BANYAN_MONGO__URI": uri, "BANYAN_MONGO__DATABASE": database}
    return ServerProgram(command, directory / f"{name}.log", {**mongo, **settings}, port=port, credentials=credentials)


@contextmanager
def serving(directory: Path, uri: str, **settings: str) -> Iterator[ServerProgram]:
    """A server that is ready, on a database of its own, which goes with it."""
    database = f"test_{uuid.uuid4().hex}"
    program = server(directory, "server", uri, database, **settings)
    program.start()
    program.wait_until_healthy()
    yield program
    program.stop()
    with MongoClient[dict[str, object]](uri) as client:
        client.drop_database(database)


def worker(directory: Path, name: str, url: str, token: str, *, cores: float = 2, **settings: str) -> Program:
    """A worker for the server at `url`, with a work directory of its own."""
    secret = directory / f"{name}.token"
    secret.write_text(token)
    command = [*_BANYAN, "worker", "--url", url, "--token-file", str(secret), "--name", name, "--cores", f"{cores:g}"]
    command += ["--workdir", str(directory / name)]
    return Program(command, directory / f"{name}.log", settings)
