"""Bodies as bytes: strict JSON in requests, Eve's variant of JSON in responses."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId
from bson.timestamp import Timestamp
from flask import Response, g, request
from werkzeug.exceptions import ClientDisconnected

from banyan.api import strict_json
from banyan.api.context import context
from banyan.api.json_size import has_more_values
from banyan.domain.resources import capability_text
from banyan.errors import BadRequest, TooLarge
from banyan.wire import format_date

MAX_DEPTH = 100
"""The largest depth of any JSON; fields that are stored accept less (`banyan.wire.MAX_DEPTH`)."""

_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})


def read_bytes() -> bytes:
    """The body as it was sent; BadRequest when it is incomplete or compressed, TooLarge beyond the limit."""
    packed = request.headers.get("Content-Encoding", "identity")
    if packed.strip().lower() != "identity":
        raise BadRequest(f"the body is sent with 'Content-Encoding: {packed}'; send it as it is")
    if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
        raise BadRequest("the body is sent with another 'Transfer-Encoding' than chunked; send it as it is")
    limit = context().settings.limits.max_body_bytes
    request.max_content_length = limit + 1  # one more, to distinguish a body that is too long from one that just fits
    try:
        body = request.get_data(cache=True)
    except ClientDisconnected as error:
        raise BadRequest("the body ended early, or breaks the rules of HTTP; send it again") from error
    if len(body) > limit:
        raise TooLarge(f"the body has more than {limit} bytes (limits.max_body_bytes)")
    if len(body) < (request.content_length or 0):
        raise BadRequest(f"the body ended after {len(body)} of {request.content_length} bytes; send it again")
    return body


def read_body() -> Any:
    """The request's JSON value; BadRequest names the position of a fault, or another media type."""
    if request.mimetype in _FORM_TYPES:
        raise BadRequest(f"the body is sent as {request.mimetype}; send JSON with 'Content-Type: application/json'")
    body = read_bytes()
    if not body:
        raise BadRequest("the body is empty; send JSON")
    most = context().settings.limits.max_body_values
    if has_more_values(body, most):
        raise TooLarge(f"the body has more than {most} values; send fewer at once (limits.max_body_values)")
    g.body = read_json(body, "the body")
    return g.body


def read_object() -> dict[str, Any]:
    """The request's JSON object; BadRequest for any other value."""
    body = read_body()
    if not isinstance(body, dict):
        raise BadRequest(f'the body is {_kind(body)}; send an object such as {{"name": "value"}}')
    return body


def read_json(text: str | bytes, place: str) -> Any:
    """The value of a JSON text, NaN and infinities included; BadRequest names `place`, line and column of a fault."""
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"{place} is not JSON: {error.msg} at {where}") from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"{place} is not UTF-8: byte {error.start} is wrong") from error
    except RecursionError as error:
        raise BadRequest(f"{place} is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"{place} cannot be read: {error}") from error
    if _too_deep(value):
        raise BadRequest(f"{place} is nested deeper than {MAX_DEPTH} levels")
    return value


def _too_deep(value: Any) -> bool:
    """Return whether lists and objects are nested too deeply; works without recursion."""
    level = [value] if isinstance(value, (list, dict)) else []
    for _ in range(MAX_DEPTH):
        insides = (each if isinstance(each, list) else each.values() for each in level)
        level = [inner for inside in insides for inner in inside if isinstance(inner, (list, dict))]
        if not level:
            return False
    return True


def render(value: Any, *, strict: bool = False) -> bytes:
    """JSON in UTF-8: ids as hex digits, dates in RFC 1123 form, NaN and infinities as Python writes them.

    With `strict` a ValueError for NaN and infinities.
    """
    text = json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=not strict, separators=(",", ":"))
    return text.encode(errors="replace")


def render_as_asked(value: Any, *, noted: bool = True) -> bytes:
    """A whole response body, as strict JSON if the request wants it; if `noted`, with a note of replaced values."""
    if not strict_json.is_asked():
        return render(value)
    try:
        return render(value, strict=True)
    except ValueError:  # it contains a NaN or an infinity
        return render(strict_json.strict(value, noted=noted), strict=True)


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None, *, noted: bool = True) -> Response:
    """A JSON response; an object whose names are all a user's own is not `noted`."""
    body = render_as_asked(value, noted=noted)
    return Response(body, status=status, headers=headers, mimetype="application/json")


class JSONRenderer:
    """Renders Eve's responses."""

    mime = ("application/json",)

    def render(self, data: Any) -> bytes:
        """The bytes of Eve's response."""
        return render_as_asked(data)


def _plain(value: object) -> str:
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, datetime):
        return format_date(value if value.tzinfo else value.replace(tzinfo=UTC))
    if isinstance(value, Timestamp):
        return capability_text(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {name!r} appears twice in one object")
            seen.add(name)
    return value


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
