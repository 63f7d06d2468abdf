"""Where the questions of scale are asked: a mongod and servers of their own, in a directory that goes with them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from banyan import child
from banyan.client import Client
from banyan.errors import BanyanError
from banyan.storage import embedded
from banyan.storage.mongo import Storage

DURABILITY = "majority write concern, journaled, one mongod"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0


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
            running = []
            for number in range(servers):
                log = self.directory / f"{database}-{number}.log"
                environment = {"BANYAN_MONGO__URI": self.mongo.uri, "BANYAN_MONGO__DATABASE": database}
                process, port = _start_server(log, credentials, environment | dict(settings or {}))
                stack.callback(child.stop, process, seconds=STOP_SECONDS)
                running.append(Server(process=process, port=port))
                _wait_for(running[-1], log)
            storage = Storage.open(self.mongo.uri, database)
            stack.callback(storage.close)
            tokens: dict[str, str] = json.loads(credentials.read_text())
            yield Scene(stage=self, servers=running, tokens=tokens, storage=storage)


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


def _start_server(log: Path, credentials: Path, settings: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("BANYAN_")}
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        command = [sys.executable, "-m", "banyan", "server", "--fd", str(listener.fileno())]
        command += ["--credentials", str(credentials)]
        process = child.spawn(command, log=log, env=inherited | dict(settings), pass_fds=[listener.fileno()])
        return process, int(listener.getsockname()[1])


def _wait_for(server: Server, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with Client(server.url, "") as stranger:
        while True:
            try:
                stranger.health()
            except BanyanError as error:
                if server.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not get ready ({error}):\n{log.read_text()}") from error
                time.sleep(0.05)
            else:
                return


@contextmanager
def noted_cores(scene: Scene, seen: list[dict[str, float]]) -> Iterator[None]:
    """Add to `seen` how many cores each part kept busy while the block ran."""
    parts = {"servers": [process for server in scene.servers for process in server.processes()]}
    parts |= {"mongod": tree_of(scene.stage.mongo.process.pid), "simulated workers": [psutil.Process()]}
    before, begun = {name: cpu_seconds(processes) for name, processes in parts.items()}, time.monotonic()
    yield
    passed = time.monotonic() - begun
    seen.append({name: (cpu_seconds(processes) - before[name]) / passed for name, processes in parts.items()})


def tree_of(pid: int) -> list[psutil.Process]:
    """A process and all that came from it."""
    main = psutil.Process(pid)
    return [main, *main.children(recursive=True)]


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """What these processes have used so far."""
    times = [process.cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def pss_bytes(processes: Sequence[psutil.Process]) -> int:
    """The memory of these processes, what they share counted once."""
    return int(sum(process.memory_full_info().pss for process in processes))
