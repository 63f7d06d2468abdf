"""Refusals of requests that never reach the application: each is JSON, as every other response is."""

import json
import re
from http import HTTPStatus

from gunicorn.http import errors

_VERSION = re.compile(r"HTTP/\d\.\d")
_TOKEN = re.compile(r"[A-Za-z!#$%&'*+.^_`|~0-9-]+")


class Refusal(Exception):
    """A request cannot be read, or must not be read further; the connection ends after the response."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self) -> bytes:
        """The whole response."""
        body = json.dumps({"_status": "ERR", "_error": {"code": int(self.status), "message": self.message}}).encode()
        head = (
            f"HTTP/1.1 {int(self.status)} {self.status.phrase}\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


def bad_request(message: str) -> Refusal:
    """A refusal with status 400."""
    return Refusal(HTTPStatus.BAD_REQUEST, message)


def too_large(limit: int) -> Refusal:
    """The refusal of a body that has more than `limit` bytes."""
    text = f"the body has more than {limit} bytes (limits.max_body_bytes)"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)


def too_slow(part: str, seconds: float) -> Refusal:
    """The refusal of a request of which `part` did not arrive in time."""
    text = f"{part} did not come within {seconds:g} s (limits.request_seconds)"
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, text)


def head_too_large(limit: int) -> Refusal:
    """The refusal of a request line with headers of more than `limit` bytes."""
    text = f"the request line and the headers have more than {limit} bytes"
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)


def other_protocol(first: bytes) -> Refusal | None:
    """The refusal of a client that begins with TLS or HTTP/2; None for any other beginning."""
    if first.startswith(b"\x16\x03"):
        return bad_request("this port speaks plain HTTP, and the client began with TLS")
    if first.startswith(b"PRI * HTTP/2"):
        return Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1; HTTP/2 is not supported")
    return None


def of_parser(error: Exception) -> Refusal:
    """The refusal for a parser's error. It repeats no header's value, which may be a token."""
    text = _sentence(error)
    match error:
        case errors.LimitRequestLine():
            return Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, text)
        case errors.LimitRequestHeaders():
            return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
        case errors.InvalidHTTPVersion() if _VERSION.fullmatch(str(error.version)) or isinstance(error.version, tuple):
            return Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, text)
        case errors.InvalidRequestMethod() if _TOKEN.fullmatch(str(error.method)):
            return Refusal(HTTPStatus.NOT_IMPLEMENTED, text)
        case errors.UnsupportedTransferCoding():
            return Refusal(HTTPStatus.NOT_IMPLEMENTED, text)
        case errors.ExpectationFailed():
            return Refusal(HTTPStatus.EXPECTATION_FAILED, text)
    return bad_request(text)


_SENTENCES: tuple[tuple[type[Exception], str], ...] = (
    (errors.LimitRequestLine, "the request line is too long"),
    (errors.LimitRequestHeaders, "there are too many headers, or one is too long"),
    (errors.InvalidHTTPVersion, "this server speaks HTTP/1.1"),
    (errors.InvalidRequestMethod, "there is no such method"),
    (errors.UnsupportedTransferCoding, "this Transfer-Encoding is not supported; send the body as it is, or chunked"),
    (errors.ExpectationFailed, "the only expectation that is supported is 100-continue"),
    (errors.InvalidRequestLine, "the request line is malformed"),
    (errors.InvalidHeaderName, "the name of a header is malformed, or may not stand there"),
    (errors.ObsoleteFolding, "a header goes on in a second line, which is obsolete"),
    (errors.InvalidChunkSize, "the body is malformed: the size of a chunk is wrong"),
    (errors.ChunkMissingTerminator, "the body is malformed: a chunk does not end where it should"),
    (errors.InvalidChunkExtension, "the body is malformed: the extension of a chunk is wrong"),
)


def _sentence(error: Exception) -> str:
    if isinstance(error, errors.InvalidHeader):
        name = str(error.hdr).partition(":")[0]
        named = _TOKEN.fullmatch(name) and len(name) < 100
        return f"the header {name} is malformed, or appears twice" if named else "a header is malformed"
    return next((text for kind, text in _SENTENCES if isinstance(error, kind)), "the request breaks the rules of HTTP")
