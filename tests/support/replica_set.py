"""A replica set of real mongods, whose members a test can kill, stop, continue and cut off.

Each member is known to the others and to clients by the address of a proxy of its own.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from banyan import child
from banyan.storage.embedded import as_the_replica_set, free_port, secret_file
from banyan.storage.mongod_binary import find_mongod
from tests.support.proxy import Line, Proxy
from tests.support.waiting import eventually

Document = dict[str, Any]

READY_SECONDS = 90.0
ELECTION_MS = 2000
_NAME = "trio"
_USER, _PASSWORD = "banyan", "of the tests"
_SETTINGS = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": 500, "heartbeatTimeoutSecs": 2}


@dataclass
class Member:
    """One mongod; `proxy` is how everyone reaches it."""

    number: int
    directory: Path
    port: int
    proxy: Proxy
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        """How the others and the clients know it."""
        return f"127.0.0.1:{self.proxy.port}"

    @property
    def alive(self) -> bool:
        """Whether its process runs (or is stopped)."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it on its data, from the main thread, without waiting for it."""
        if self.alive:
            return
        (self.directory / "db").mkdir(exist_ok=True)
        command = [
            str(find_mongod()),
            *("--dbpath", str(self.directory / "db")),
            *("--logpath", str(self.directory / "log"), "--logappend", "--quiet"),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"),
            *("--replSet", _NAME, "--keyFile", str(self.directory.parent / "keyfile")),
            *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "128"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--setParameter", "oplogNetworkTimeoutBufferSeconds=1"),  # notice soon that the source hangs
        ]
        self.process = child.spawn(command, log=self.directory / "out", death_signal=signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send its process a signal; after SIGKILL wait for its end."""
        if self.process is not None and self.alive:
            self.process.send_signal(number)
            if number is signal.SIGKILL:
                self.process.wait()


@dataclass(frozen=True)
class ReplicaSet:
    """Its members, and the URI for clients."""

    members: list[Member]
    key: str

    @property
    def uri(self) -> str:
        """Where and with which password."""
        hosts = ",".join(member.address for member in self.members)
        password = _PASSWORD.replace(" ", "%20")
        return f"mongodb://{_USER}:{password}@{hosts}/?authSource=admin&replicaSet={_NAME}"

    @contextmanager
    def as_system(self, member: Member) -> Iterator[MongoClient[Document]]:
        """A connection to this very member, past its proxy."""
        with as_the_replica_set(member.port, self.key) as client:
            yield client

    def primary(self) -> Member:
        """The member that is the primary now, once there is one."""
        found = eventually(self._primary, seconds=READY_SECONDS, show=self.states)
        if found is None:
            raise AssertionError("eventually answers with what is true")
        return found

    def _primary(self) -> Member | None:
        found = [member for member in self.members if (self._hello(member) or {}).get("isWritablePrimary")]
        return found[0] if len(found) == 1 else None

    def _hello(self, member: Member) -> Document | None:
        if not member.alive:
            return None
        uri = f"mongodb://127.0.0.1:{member.port}/?directConnection=true&connectTimeoutMS=500&socketTimeoutMS=500"
        with MongoClient[Document](uri, serverSelectionTimeoutMS=500) as client:
            try:
                return dict(client.admin.command("hello"))
            except PyMongoError:
                return None

    def states(self) -> list[str]:
        """What each member says of itself."""
        hellos = [self._hello(member) for member in self.members]
        return ["away" if each is None else "primary" if each["isWritablePrimary"] else "other" for each in hellos]

    def wait_until_whole(self) -> None:
        """Wait until there is a primary, and two secondaries that have what it has."""
        eventually(self._whole, seconds=READY_SECONDS, show=self.states)

    def _whole(self) -> bool:
        primary = self._primary()
        if primary is None:
            return False
        with self.as_system(primary) as client:
            try:
                status = client.admin.command("replSetGetStatus")["members"]
            except PyMongoError:
                return False
        return sorted(each["stateStr"] for each in status) == ["PRIMARY", "SECONDARY", "SECONDARY"]

    def step_down(self, seconds: int = 10) -> None:
        """Ask the primary to let another one be it."""
        with self.as_system(self.primary()) as client:
            client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=seconds // 2)

    def restore(self) -> None:
        """Start, continue and reconnect every member."""
        for member in self.members:
            member.proxy.set(Line.OPEN)
            member.start()
            member.send(signal.SIGCONT)


@contextmanager
def replica_set(directory: Path) -> Iterator[ReplicaSet]:
    """A new set of three members, ready for work; killed at the end."""
    directory.mkdir(parents=True)
    key = secret_file(directory / "keyfile", size_bytes=96)
    with ExitStack() as stack:
        members = []
        for number in range(3):
            port, own = free_port(), directory / str(number)
            own.mkdir()
            proxy = stack.enter_context(Proxy(("127.0.0.1", port)))
            members.append(Member(number=number, directory=own, port=port, proxy=proxy))
        for member in members:
            stack.callback(member.send, signal.SIGKILL)
            member.start()
        trio = ReplicaSet(members, key)
        _initiate(trio)
        trio.wait_until_whole()
        yield trio


def _initiate(trio: ReplicaSet) -> None:
    hosts = [{"_id": member.number, "host": member.address} for member in trio.members]
    config = {"_id": _NAME, "members": hosts, "settings": _SETTINGS}
    for member in trio.members:
        eventually(lambda: trio._hello(member), seconds=READY_SECONDS)  # noqa: B023 - called at once
    with trio.as_system(trio.members[0]) as client:
        client.admin.command("replSetInitiate", config)
    with trio.as_system(trio.primary()) as client:
        _until_done(lambda: client.admin.command("createUser", _USER, pwd=_PASSWORD, roles=["root"]))


def _until_done(act: Callable[[], object]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            act()
        except OperationFailure:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return
