"""Where the questions of scale are asked: a mongod and servers of their own, in a directory that goes with them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from banyan.client import Client
from banyan.errors import BanyanError
from banyan.storage import embedded
from banyan.storage.mongo import Storage
from bench.processes import cpu_seconds, running

DURABILITY = "majority write concern, journaled, one mongod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server and where it listens."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[psutil.Process]:
        """Its processes, the main one first."""
        return tree_of(self.process.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A mongod that is there for a question; databases on it hold nothing of each other."""

    directory: Path
    mongo: embedded.EmbeddedMongo

    @contextmanager
    def scene(self, database: str, servers: int = 1, settings: Mapping[str, str] | None = None) -> Iterator["Scene"]:
        """A database with so many servers, each of one process with the default settings but for `settings`."""
        credentials = self.directory / f"{database}.json"
        with ExitStack() as stack:
            started = []
            for number in range(servers):
                log = self.directory / f"{database}-{number}.log"
                environment = {"BANYAN_MONGO__URI": self.mongo.uri, "BANYAN_MONGO__DATABASE": database}
                started.append(stack.enter_context(_server(log, credentials, environment | dict(settings or {}))))
            storage = Storage.open(self.mongo.uri, database)
            stack.callback(storage.close)
            tokens: dict[str, str] = json.loads(credentials.read_text())
            yield Scene(stage=self, servers=started, tokens=tokens, storage=storage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One database, its servers and its tokens; `storage` reaches past the servers."""

    stage: Stage
    servers: Sequence[Server]
    tokens: Mapping[str, str]
    storage: Storage

    def client(self, user: str = "admin") -> Client:
        """A client of the first server."""
        return Client(self.servers[0].url, self.tokens[user])


@contextmanager
def stage(cache_gigabytes: float = 0.5) -> Iterator[Stage]:
    """A mongod with so large a cache, stopped and removed at the end."""
    with (
        TemporaryDirectory(prefix="banyan-bench-") as name,
        embedded.start(Path(name) / "mongo", log=Path(name) / "mongod.log", cache_gigabytes=cache_gigabytes) as mongo,
    ):
        yield Stage(directory=Path(name), mongo=mongo)


@contextmanager
def _server(log: Path, credentials: Path, settings: Mapping[str, str]) -> Iterator[Server]:
    """A server with these settings on a free port, once it answers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = int(listener.getsockname()[1])
        command = [sys.executable, "-m", "banyan", "server", "--fd", str(listener.fileno())]
        command += ["--credentials", str(credentials)]

        def answers() -> bool:
            listener.close()  # it is the server's now; if that dies, nobody waits for it
            with Client(f"http://127.0.0.1:{port}", "") as stranger, suppress(BanyanError):
                return bool(stranger.health())
            return False

        environment = inherited | dict(settings)
        with running(command, log=log, ready=answers, env=environment, pass_fds=[listener.fileno()]) as process:
            yield Server(process=process, port=port)


@contextmanager
def noted_cores(scene: Scene, seen: list[dict[str, float]]) -> Iterator[None]:
    """Add to `seen` how many cores each part kept busy while the block ran."""
    before, begun = _cpu_seconds(scene), time.monotonic()
    yield
    passed = time.monotonic() - begun
    seen.append({name: (seconds - before[name]) / passed for name, seconds in _cpu_seconds(scene).items()})


def _cpu_seconds(scene: Scene) -> dict[str, float]:
    servers = sum(cpu_seconds(server.process.pid) for server in scene.servers)
    mongod = cpu_seconds(scene.stage.mongo.process.pid)
    return {"servers": servers, "mongod": mongod, "simulated workers": time.process_time()}


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and all that came from it."""
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]


def pss_bytes(processes: Sequence[psutil.Process]) -> int:
    """The memory of these processes, what they share counted once."""
    return int(sum(process.memory_full_info().pss for process in processes))
