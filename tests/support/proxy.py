"""A TCP proxy that a test can cut, delay, or make swallow what comes back."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int]

_PIECE_BYTES = 64 * 1024


class Line(Enum):
    """What the proxy does with what passes."""

    OPEN = "open"
    HELD = "held"
    """Nothing passes in either direction; it does when the line is open again."""
    SWALLOWING = "swallowing"
    """What clients say passes, what is answered is lost: connections end when the line changes."""
    CUT = "cut"
    """Connections are ended, new ones are ended at once."""


class Proxy:
    """Listens on a free port of this machine and passes on to the first of `targets` that takes the connection.

    A context manager; its thread ends with it.
    """

    def __init__(self, *targets: Address, port: int = 0) -> None:
        self.targets: Sequence[Address] = targets
        self.port = port
        self.delay_seconds = 0.0
        self._line = Line.OPEN
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def line(self) -> Line:
        """How the line is now."""
        return self._line

    def set(self, line: Line, delay_seconds: float = 0.0) -> None:
        """Change the line, for connections that are there and those that come."""
        self._do(self._set(line, delay_seconds))

    def _do(self, act: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(act, self._loop).result()

    # In the thread

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._set(Line.CUT, 0.0)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports close in the loop's next rounds

    async def _set(self, line: Line, delay_seconds: float) -> None:
        ends_all = line is Line.CUT or (self._line is Line.SWALLOWING and line is not self._line)
        self._line, self.delay_seconds = line, delay_seconds
        if ends_all:
            for writer in list(self._writers):
                writer.transport.abort()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            far = None if self._line is Line.CUT else await self._connect()
            if far is not None:
                await self._join(reader, writer, *far)
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for host, port in self.targets:
            with suppress(OSError):
                return await asyncio.open_connection(host, port)
        return None

    async def _join(
        self,
        near: asyncio.StreamReader,
        near_writer: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        self._writers.add(far_writer)
        ways = [
            asyncio.ensure_future(self._pump(near, far_writer, self._may_go)),
            asyncio.ensure_future(self._pump(far, near_writer, self._may_come)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._writers.discard(far_writer)
            far_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowed: Callable[[], Awaitable[bool]]
    ) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if await allowed():
                    writer.write(piece)
                    await writer.drain()

    async def _may_go(self) -> bool:
        while self._line is Line.HELD:
            await self._changed.wait()
        return True

    async def _may_come(self) -> bool:
        await self._may_go()
        return self._line is not Line.SWALLOWING
