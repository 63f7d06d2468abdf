"""An embedded MongoDB server: found, started, protected by a password, stopped.

The server is a replica set of one node, because transactions need a replica set. It listens on the loopback interface
only, and since any program of the machine can reach a loopback port, every request needs the password: MongoDB's
"localhost exception" is switched off from the start, and the first user is created with the replica set's own key.
"""

import base64
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from banyan import child
from banyan.errors import SetupError
from banyan.storage.mongod_binary import find_mongod
from banyan.storage.mongod_lock import DirectoryLock, wait_until_unlocked

_REPLICA_SET = "banyan"
_USER = "banyan"
_POLL_SECONDS = 0.02
_PORT_ATTEMPTS = 5
_OPLOG_MEGABYTES = 1024  # the default is a twentieth of the disk
_ALREADY_INITIALIZED = 23
_NOT_YET_INITIALIZED = 94  # it still reads the stored configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedMongo:
    """A running mongod that belongs to this process; a context manager that stops it at the end."""

    uri: str
    """The address with the password: secret."""
    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    log: Path
    lock: DirectoryLock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_again(self) -> subprocess.Popen[bytes]:
        """Start another process in place of one that has ended, on the same data and port: clients just reconnect."""
        return child.spawn(self.command, log=self.log)

    def complaint(self) -> str:
        """The last error in its log."""
        return _complaint(self.log)

    def stop(self, *, seconds: float = 8.0) -> None:
        """Shut down cleanly, or kill it after `seconds` (the journal keeps the data even then)."""
        child.stop(self.process, seconds=seconds)
        self.lock.release()


def start(directory: Path, *, log: Path, cache_gigabytes: float = 0.5, start_seconds: float = 60.0) -> EmbeddedMongo:
    """Start a mongod on `directory` (created when absent) and wait until it accepts writes.

    `log` is the path of its log. Raises SetupError if there is no usable mongod on this machine, if the directory is in
    use (the error names the process), or if the server is not ready within `start_seconds`.
    """
    binary = find_mongod()
    lock = DirectoryLock.acquire(directory)
    try:
        (directory / "db").mkdir(exist_ok=True)
        wait_until_unlocked(directory / "db" / "mongod.lock", seconds=5.0)
        key = secret_file(directory / "keyfile", size_bytes=96)
        password = secret_file(directory / "password", size_bytes=24)
        launch = _Launch(
            binary=binary, directory=directory, log=log, cache_gigabytes=cache_gigabytes, seconds=start_seconds
        )
        process, port = _start_on_afree_port(launch)
        try:
            _make_ready(process, port, key=key, password=password, launch=launch)
        except BaseException:
            child.stop(process, seconds=5.0)
            raise
    except BaseException:
        lock.release()
        raise
    return EmbeddedMongo(
        uri=_uri(password, port), process=process, command=tuple(launch.command(port)), log=log, lock=lock
    )


def running_at(directory: Path) -> str | None:
    """The URI of the mongod that another process of ours runs on `directory`; None if there is none.

    Raises `SetupError` if one is being started, or if its password may not be read.
    """
    if not DirectoryLock.held(directory):
        return None
    try:
        password, port = (directory / "password").read_text(), int((directory / "port").read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"the MongoDB in {directory} cannot be used now: {error}") from error
    return _uri(password, port)


def _uri(password: str, port: int) -> str:
    return f"mongodb://{_USER}:{password}@127.0.0.1:{port}/?authSource=admin&replicaSet={_REPLICA_SET}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    binary: Path
    directory: Path
    log: Path
    cache_gigabytes: float
    seconds: float

    def command(self, port: int) -> list[str]:
        return [
            str(self.binary),
            *("--dbpath", str(self.directory / "db")),
            *("--logpath", str(self.log), "--logappend", "--quiet"),
            *("--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"),
            *("--replSet", _REPLICA_SET, "--keyFile", str(self.directory / "keyfile")),
            *("--wiredTigerCacheSizeGB", str(self.cache_gigabytes), "--oplogSize", str(_OPLOG_MEGABYTES)),
            *("--setParameter", "enableLocalhostAuthBypass=false"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # No query reads the past: the default keeps five minutes of it in the cache, and dropped files open.
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=0"),
        ]


def _start_on_afree_port(launch: _Launch) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that listens; return it and its port: the previous port if that is still free."""
    memory = launch.directory / "port"
    deadline = time.monotonic() + launch.seconds
    for _ in range(_PORT_ATTEMPTS):
        port = free_port(preferred=int(memory.read_text()) if memory.exists() else 0)
        process = child.spawn(launch.command(port), log=launch.log)
        try:
            if _listens(process, port, deadline):
                memory.write_text(str(port))
                return process, port
        except BaseException:
            child.stop(process, seconds=5.0)
            raise
        if "Address already in use" not in _complaint(launch.log):
            break
    raise SetupError(f"mongod did not start (exit code {process.poll()}): {_complaint(launch.log)}; see {launch.log}")


def _listens(process: subprocess.Popen[bytes], port: int, deadline: float) -> bool:
    """Wait until the port responds; False when the process ended instead."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            _pause(deadline, "mongod did not open its port in time")
        else:
            return process.poll() is None
    return False


def _make_ready(process: subprocess.Popen[bytes], port: int, *, key: str, password: str, launch: _Launch) -> None:
    """Make the node a writable primary with our user, in whatever state it was left."""
    deadline = time.monotonic() + launch.seconds
    try:
        with as_the_replica_set(port, key) as client:
            while not client.admin.command("hello")["isWritablePrimary"]:
                _join_itself(client, f"127.0.0.1:{port}")
                _pause(deadline, f"mongod did not become writable in time; see {launch.log}")
            _ensure_user(client, password)
    except PyMongoError as error:
        if process.poll() is None:
            raise SetupError(f"mongod cannot be used: {error}; see {launch.log}") from error
        raise SetupError(f"mongod ended with code {process.poll()}: {_complaint(launch.log)}") from error


@contextmanager
def as_the_replica_set(port: int, key: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A client with the rights of the key file; SCRAM proves the key to both sides, so no other program passes."""
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        port,
        username="__system",
        password=key,
        authSource="local",
        authMechanism="SCRAM-SHA-256",
        directConnection=True,
        serverSelectionTimeoutMS=10_000,
    )
    try:
        yield client
    finally:
        client.close()


def _join_itself(client: MongoClient[dict[str, Any]], address: str) -> None:
    """Initiate the set on the first start; update the node's address when it has changed since. Safe to repeat."""
    member = {"_id": 0, "host": address}
    stored = client.local["system.replset"].find_one()
    try:
        if stored is None:
            client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": [member]})
        elif [each["host"] for each in stored["members"]] != [address]:
            config = {**stored, "version": stored["version"] + 1, "members": [member]}
            client.admin.command("replSetReconfig", config, force=True)
    except OperationFailure as error:
        if error.code not in (_NOT_YET_INITIALIZED, _ALREADY_INITIALIZED):
            raise


def _ensure_user(client: MongoClient[dict[str, Any]], password: str) -> None:
    known = client.admin.command("usersInfo", _USER)["users"]
    client.admin.command("updateUser" if known else "createUser", _USER, pwd=password, roles=["root"])


def secret_file(path: Path, *, size_bytes: int) -> str:
    """The text of a file that only its owner may read, created with random content on first use."""
    if not path.exists():
        text = base64.b64encode(secrets.token_bytes(size_bytes), altchars=b"ab").decode()
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    return path.read_text()


def free_port(*, preferred: int = 0) -> int:
    """`preferred` if no process listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SetupError("no free port on the loopback interface")


def _complaint(log: Path) -> str:
    """The last error in a mongod's log."""
    for line in reversed(child.last_lines(log, 200)):
        try:
            entry = json.loads(line)
        except ValueError:
            return line
        if entry.get("s") in ("E", "F"):
            return f"{entry.get('msg')} {json.dumps(entry.get('attr', {}))}"
    return "its log is empty"


def _pause(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise SetupError(complaint)
    time.sleep(_POLL_SECONDS)
