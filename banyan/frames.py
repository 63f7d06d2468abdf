"""Messages between our own processes on one machine, over pipes and sockets.

A frame is four bytes of length (little endian), then a list of tuples as `marshal` writes it. Imported by the worker's
supervisor, which must stay small; so this imports next to nothing. Both ends are ours and of one Python.
"""

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

READ_BYTES = 1 << 16
MAX_BYTES = 1 << 30
"""No frame is longer: what says so is no frame."""


def pack(messages: "Sequence[tuple[Any, ...]]") -> bytes:
    """One frame with these messages, in order."""
    body = marshal.dumps(list(messages))
    return len(body).to_bytes(4, "little") + body


class Unpacker:
    """Cuts what arrives, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> "list[tuple[Any, ...]]":
        """The messages of all frames that `data` completes; ValueError, EOFError or TypeError for what is no frame."""
        self._buffer += data
        found: list[tuple[Any, ...]] = []
        at = 0
        while len(self._buffer) - at >= 4:
            size = int.from_bytes(self._buffer[at : at + 4], "little")
            if size > MAX_BYTES:
                raise ValueError(f"a frame of {size} bytes")
            end = at + 4 + size
            if len(self._buffer) < end:
                break
            found += marshal.loads(memoryview(self._buffer)[at + 4 : end])  # noqa: S302 - a process of ours wrote it
            at = end
        if at:
            del self._buffer[:at]
        return found
