"""Messages between our own processes on one machine, over pipes and sockets.

A frame is four bytes of length (little endian), then a list of tuples in the format of `marshal`, which both ends can
read for they are ours and of one Python. A process that runs a user's model sends JSON instead: `marshal` must not read
bytes that others may have written. Imported by the worker's supervisor, which must stay small; so this imports next to
nothing.
"""

import _json  # the scanner of `json`, which itself brings `re` along
import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

READ_BYTES = 1 << 16
MAX_BYTES = 1 << 30
"""The longest frame; a longer one is an error."""
MAX_FOREIGN_BYTES = 64 << 20
"""The longest frame that is accepted from a process that is not only ours."""


def pack(messages: "Sequence[tuple[Any, ...]]") -> bytes:
    """Return one frame with these messages, in order."""
    body = marshal.dumps(list(messages))
    return len(body).to_bytes(4, "little") + body


class Nonsense(ValueError):
    """The received bytes are no frame."""


class _Scanning:
    """The defaults of `json` for reading."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def trusted(body: memoryview) -> "list[Any]":
    """Return the messages in a frame that a process of ours has written."""
    return list(marshal.loads(body))  # noqa: S302


def foreign(body: memoryview) -> "list[Any]":
    """Return the messages in a frame from any process, as JSON; Nonsense if it is none."""
    try:
        found, _ = _json.make_scanner(_Scanning)(str(body, "utf-8"), 0)  # type: ignore[arg-type]
    except (ValueError, RecursionError, StopIteration) as error:
        raise Nonsense("no JSON") from error
    if not isinstance(found, list) or not all(isinstance(each, list) and each for each in found):
        raise Nonsense("no list of messages")
    return found


class Unpacker:
    """A decoder of messages that arrive in pieces of any size; Nonsense for a frame that `read` cannot read."""

    def __init__(self, read: "Callable[[memoryview], list[Any]]" = trusted) -> None:
        self._buffer = bytearray()
        self._read = read

    def feed(self, data: bytes) -> "list[tuple[Any, ...]]":
        """Return the messages of all frames that `data` completes."""
        self._buffer += data
        found: list[tuple[Any, ...]] = []
        at = 0
        while len(self._buffer) - at >= 4:
            size = int.from_bytes(self._buffer[at : at + 4], "little")
            if size > (MAX_FOREIGN_BYTES if self._read is foreign else MAX_BYTES):
                raise Nonsense(f"a frame of {size} bytes")
            end = at + 4 + size
            if len(self._buffer) < end:
                break
            found += self._read(memoryview(self._buffer)[at + 4 : end])
            at = end
        if at:
            del self._buffer[:at]
        return found
