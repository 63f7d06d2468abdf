"""A real server process, its log and its first tokens."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from banyan.client import Client, Trust
from banyan.errors import Unavailable
from tests.support.waiting import eventually

SERVER = [sys.executable, "-m", "banyan", "server"]
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, and the tokens in its credentials file."""

    process: subprocess.Popen[bytes]
    url: str
    credentials: Path
    log: Path
    trust: Trust | None = None

    def token(self, user: str) -> str:
        """The token of `admin`, `user` or `worker`."""
        return str(json.loads(self.credentials.read_text())[user])

    def client(self, user: str, *, trust: Trust | None = None) -> Client:
        """A client with that token."""
        return Client(self.url, self.token(user), trust=trust or self.trust)

    def healthy(self) -> bool:
        """Whether it answers."""
        assert self.process.poll() is None
        try:
            with Client(self.url, "", trust=self.trust) as stranger:
                return bool(stranger.health())
        except Unavailable:
            return False

    def processes(self) -> list[psutil.Process]:
        """Its processes, the main one first."""
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]


@contextmanager
def running(
    uri: str, database: str, directory: Path, trust: Trust | None = None, /, **variables: str
) -> Iterator[Server]:
    """A server with these settings; with `trust` it is expected to speak TLS on `localhost`."""
    credentials, log = directory / "credentials.json", directory / "log"
    settings = {"BANYAN_MONGO__URI": uri, "BANYAN_MONGO__DATABASE": database, **variables}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, log.open("ab") as output:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [*SERVER, "--credentials", str(credentials), "--fd", str(listener.fileno())],
            env={**os.environ, **settings},
            pass_fds=[listener.fileno()],
            stderr=output,
        )
    url = f"https://localhost:{port}" if trust else f"http://127.0.0.1:{port}"
    server = Server(process=process, url=url, credentials=credentials, log=log, trust=trust)
    try:
        eventually(server.healthy, show=log.read_text)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
