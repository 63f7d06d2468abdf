"""A decoder of chunked bodies that accepts bytes as they arrive."""

from gunicorn.http.body import CHUNK_EXT_RE  # type: ignore[attr-defined] # the types are of an older gunicorn
from gunicorn.http.errors import ChunkMissingTerminator, InvalidChunkExtension, InvalidChunkSize, LimitRequestHeaders
from gunicorn.http.message import Request

MAX_LINE = 8190
MAX_TRAILERS = 32 * 1024
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ChunkDecoder:
    """Decodes the body of `request`; each fault is one of gunicorn's parse errors."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._left = 0
        self._after_chunk = False
        self._in_trailers = False
        self.complete = False

    def feed(self, buffer: bytearray) -> list[bytes]:
        """Decode the front of `buffer`, which keeps the rest; return the decoded pieces of the body."""
        pieces: list[bytes] = []
        while buffer and not self.complete:
            if self._left:
                piece = bytes(buffer[: self._left])
                del buffer[: len(piece)]
                self._left -= len(piece)
                pieces.append(piece)
            elif not self._take_frame(buffer):
                break
        return pieces

    def _take_frame(self, buffer: bytearray) -> bool:
        """Take the end of a chunk, the size of the next, or the trailers; False when they are incomplete."""
        if self._in_trailers:
            return self._take_trailers(buffer)
        if self._after_chunk:
            if len(buffer) < 2:
                return False
            if buffer[:2] != b"\r\n":
                raise ChunkMissingTerminator(bytes(buffer[:2]))
            del buffer[:2]
            self._after_chunk = False
            return True
        end = buffer.find(b"\r\n", 0, MAX_LINE + 2)
        if end < 0:
            if len(buffer) > MAX_LINE or b"\n" in buffer:
                raise InvalidChunkSize(b"a line without an end")
            return False
        self._left = _size(bytes(buffer[:end]))
        self._in_trailers = self._left == 0
        self._after_chunk = not self._in_trailers
        del buffer[: end + 2]
        return True

    def _take_trailers(self, buffer: bytearray) -> bool:
        if buffer[:2] == b"\r\n":
            del buffer[:2]
            self.complete = True
            return True
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_TRAILERS:
                raise LimitRequestHeaders("the trailers are too long")
            return False
        self._request.parse_headers(bytes(buffer[:end]), from_trailer=True)
        del buffer[: end + 4]
        self.complete = True
        return True


def _size(line: bytes) -> int:
    size, extended, extension = line.partition(b";")
    if extended:
        size = size.rstrip(b" \t")
    if not size or not _HEX.issuperset(size):
        raise InvalidChunkSize(size)
    if extended and (b"\r" in extension or not CHUNK_EXT_RE.fullmatch(b";" + extension)):
        raise InvalidChunkExtension("malformed")
    return int(size, 16)
