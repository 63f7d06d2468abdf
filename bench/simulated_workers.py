"""Workers that speak the worker's protocol over HTTP and run nothing: a thousand of them fit into one process.

Each has one connection, which carries one request at a time, as a worker's long-poll does. They are driven by one
asyncio loop and cost little, for they share the machine with the servers that they measure.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import count, cycle
from typing import Any

Document = dict[str, Any]

HEARTBEAT_SECONDS = 20.0
"""The default of `leases.heartbeat`: how long the claim of an idle worker stays open."""
FEW_AT_ONCE = 50
"""How many workers register at the same time."""
_TRIES = 3

_numbers = count(1)


class Refused(Exception):
    """The server answered a simulated worker with an error."""


class _Wire(asyncio.Protocol):
    """A connection on which one answer is waited for at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.closed = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """Send a request; its status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.transport is not None:
            self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        size = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) < end + 4 + size:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + size])
        self._buffer.clear()
        if b"\r\nconnection: close" in head:
            self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the server closed the connection"))


class Line:
    """A connection to the server at `url` for one request at a time, opened when it is needed."""

    def __init__(self, url: str, token: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = host, int(port)
        self._head = f" HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n".encode()
        self._head += b"Content-Type: application/json\r\nContent-Length: "
        self._wire: _Wire | None = None

    async def post(self, path: str, body: Any) -> bytes:
        """The body of the answer; `Refused` with what the server says."""
        data = json.dumps(body).encode()
        request = b"POST " + path.encode() + self._head + str(len(data)).encode() + b"\r\n\r\n" + data
        status, answer = await self._answered(request)
        if status >= 400:
            raise Refused(f"{path}: {status} {answer.decode(errors='replace')[:500]}")
        return answer

    async def _answered(self, request: bytes) -> tuple[int, bytes]:
        """A worker's calls are safe to repeat, but for a registration, of which one more does no harm here."""
        for _ in range(_TRIES):
            if self._wire is None or self._wire.closed:
                loop = asyncio.get_running_loop()
                _, self._wire = await loop.create_connection(_Wire, *self._address)
            try:
                return await self._wire.ask(request)
            except ConnectionResetError:
                continue
        raise ConnectionResetError(f"the server closed {_TRIES} connections without an answer")

    def close(self) -> None:
        """Let go of the connection."""
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.close()


class SimulatedWorker:
    """One worker. `held` are its tasks by attempt; `claims` and `received_bytes` count the answers to its claims."""

    def __init__(self, url: str, token: str, registration: Mapping[str, Any]) -> None:
        self._line = Line(url, token)
        self._registration = {"name": f"simulated-{next(_numbers)}", "host": "simulated", **registration}
        self._asked = 0
        self.id = ""
        self.held: dict[str, Document] = {}
        self.claims = 0
        self.received_bytes = 0

    async def register(self) -> None:
        """Become known to the server."""
        self.id = json.loads(await self._line.post("/workers", self._registration))["_id"]

    async def claim(self, max_tasks: int = 1, wait: float = 0.0) -> list[Document]:
        """Ask for so many tasks, and wait for so long; what was granted is held until it is reported."""
        self._asked += 1
        body = {
            "request": f"{self.id}-{self._asked}",
            "number": self._asked,
            "resources": self._registration["resources"],
            "max_tasks": max_tasks,
            "held": list(self.held),
            "wait": wait,
        }
        answer = await self._line.post(f"/workers/{self.id}/claim", body)
        self.claims += 1
        self.received_bytes += len(answer)
        tasks: list[Document] = json.loads(answer)["tasks"]
        self.held |= {task["execution"]: task for task in tasks}
        return tasks

    async def report(self, exit_status: str = "success") -> None:
        """Report that all that is held has ended."""
        ends = [
            {"execution": execution, "token": task["token"], "exit_status": exit_status, "exit_code": 0}
            for execution, task in self.held.items()
        ]
        answer = json.loads(await self._line.post(f"/workers/{self.id}/report", {"reports": ends}))
        if answer["stale"]:
            raise Refused(f"stale: {answer['stale']}")
        self.held.clear()

    def close(self) -> None:
        """Go without a word: the server hears nothing of it."""
        self._line.close()


async def crowd(
    urls: Sequence[str], token: str, size: int, resources: Mapping[str, Any] | None = None
) -> list[SimulatedWorker]:
    """So many registered workers, spread evenly over the servers at `urls`."""
    registration = {"resources": resources or {"cores": 1, "memory": 1 << 30}, "capabilities": ["shell"]}
    places = cycle(urls)
    workers = [SimulatedWorker(next(places), token, registration) for _ in range(size)]
    for start in range(0, size, FEW_AT_ONCE):
        await asyncio.gather(*(worker.register() for worker in workers[start : start + FEW_AT_ONCE]))
    return workers


def idle(workers: Sequence[SimulatedWorker], came: Callable[[Document], object]) -> "list[asyncio.Task[None]]":
    """Let all of them wait for work for ever, as idle workers do: `came` hears of each task, which then ends at once.

    Their claims end evenly spread over a heartbeat.
    """
    spread = HEARTBEAT_SECONDS / len(workers)
    return [asyncio.create_task(_idle(worker, (n + 1) * spread, came)) for n, worker in enumerate(workers)]


async def _idle(worker: SimulatedWorker, first_wait: float, came: Callable[[Document], object]) -> None:
    wait = first_wait
    while True:
        for task in await worker.claim(1, wait):
            came(task)
        if worker.held:
            await worker.report()
        wait = HEARTBEAT_SECONDS
