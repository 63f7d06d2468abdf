"""A request that is being received: its head as gunicorn parses it, and its body as it arrives."""

from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader

from banyan.api.json_size import VALUE_BYTES, marks
from banyan.api.serving import refusals
from banyan.api.serving.chunks import ChunkDecoder

MAX_HEAD_BYTES = 32 * 1024
KEPT_BYTES = 1 << 20
"""The size above which a body is kept in a temporary file."""

Address = tuple[str, int] | str


def head_end(buffer: bytearray, searched: int) -> int:
    """The start of the body; -1 while the head is incomplete. A head that can never become complete is a `Refusal`.

    `searched` bytes are known to contain no end of it.
    """
    if searched == 0 and (other := refusals.other_protocol(bytes(buffer[:16]))):
        raise other
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3), MAX_HEAD_BYTES)
    if end >= 0:
        return end + 4
    if len(buffer) >= MAX_HEAD_BYTES:
        raise refusals.head_too_large(MAX_HEAD_BYTES)
    fresh = max(0, searched - 1)
    if buffer.count(b"\n", fresh) != buffer.count(b"\r\n", fresh):
        raise refusals.bad_request("a line ends with a line feed alone; HTTP wants a carriage return before it")
    return -1


class Incoming:
    """One request. `head` is complete; the bytes after it are passed to `take` until `complete`."""

    __slots__ = ("_body", "_decoder", "_marks", "expects_continue", "length", "received", "request")

    def __init__(self, cfg: Config, head: bytes, address: Address) -> None:
        try:
            self.request = cast(Any, Request(cfg, IterUnreader([head]), address))  # its types are of an older gunicorn
        except (ParseException, NoMoreData, StopIteration) as error:
            raise refusals.of_parser(error) from error
        self.expects_continue: bool = self.request._expected_100_continue
        self.request._expected_100_continue = False  # gunicorn would send it when the application begins
        reader = self.request.body.reader
        self.length: int | None = reader.length if isinstance(reader, LengthReader) else 0
        self._decoder = ChunkDecoder(self.request) if isinstance(reader, ChunkedReader) else None
        if self._decoder is not None:
            self.length = None
        self.received = 0
        self._marks = 0
        self._body: SpooledTemporaryFile[bytes] | None = None

    @property
    def complete(self) -> bool:
        """Return whether the body is complete."""
        return self._decoder.complete if self._decoder is not None else self.received == self.length

    def header(self, name: str) -> str:
        """A header by its name in capitals; empty when it is missing."""
        return next((value for each, value in self.request.headers if each == name), "")

    def take(self, buffer: bytearray, limit: int) -> None:
        """Take the bytes of the body from the front of `buffer`; `Refusal` if they are wrong, or beyond `limit`."""
        if self._decoder is not None:
            try:
                pieces = self._decoder.feed(buffer)
            except ParseException as error:
                raise refusals.of_parser(error) from error
        else:
            piece = bytes(buffer[: (self.length or 0) - self.received])
            del buffer[: len(piece)]
            pieces = [piece] if piece else []
        for piece in pieces:
            self.received += len(piece)
            if self.received > limit:
                raise refusals.too_large(limit)
            self._keep(piece)

    def _keep(self, piece: bytes) -> None:
        if self._body is None:
            self._body = SpooledTemporaryFile(max_size=KEPT_BYTES)  # noqa: SIM115 - closed by `close`
        self._body.write(piece)
        self._marks += marks(piece)

    @property
    def parsed_bytes(self) -> int:
        """An estimate of the memory that the body takes when it is parsed as JSON."""
        return self.received + VALUE_BYTES * self._marks

    def body(self) -> IO[bytes]:
        """The body, for the application to read."""
        if self._body is None:
            return BytesIO()
        self._body.seek(0)
        return cast(IO[bytes], self._body)

    def close(self) -> None:
        """Release the body."""
        if self._body is not None:
            self._body.close()
