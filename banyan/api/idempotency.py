"""`Idempotency-Key`: a POST that is sent twice is done once, and gets the same response twice."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flask import Response, g, request

from banyan.api.bodies import read_bytes, render
from banyan.api.context import context, user
from banyan.errors import BadRequest, Conflict
from banyan.storage.idempotency import FirstAnswer, Key

if TYPE_CHECKING:
    from banyan.api.routes import Route
    from banyan.storage.mongo import Session

HEADER = "Idempotency-Key"
_MAX_KEY = 255


def once(route: "Route", respond: Callable[[], Response]) -> Response:
    """Respond to a POST; with a key, only the first request is processed, and a failed one is forgotten."""
    text = request.headers.get(HEADER)
    if text is None:
        return respond()
    store, now = context().storage.idempotency, context().now()
    kept_seconds = context().settings.queue.idempotency_seconds
    begun = store.begin(_id(text), _digest(), now, kept_seconds)
    if isinstance(begun, FirstAnswer):
        g.repeated = True
        return _first(begun)
    g.idempotency = begun
    try:
        response = respond()
    except BaseException:
        store.release(begun)
        raise
    if not g.get("idempotency_recorded", False):
        store.finish(begun, response.status_code, None if route.secret else response.get_data())
    return response


def recorder(status: int, answer: Callable[[list[Any]], Any]) -> "Callable[[Session | None, list[Any]], None] | None":
    """The function that a use case calls with its results within its transaction, which then stores the response too.

    `answer` makes the body of the response from the results. None when the request has no key.
    """
    key: Key | None = g.get("idempotency")
    if key is None:
        return None
    store = context().storage.idempotency

    def record(session: "Session | None", results: list[Any]) -> None:
        store.finish(key, status, render(answer(results)), session=session)
        g.idempotency_recorded = True

    return record


def _first(first: FirstAnswer) -> Response:
    if first.body is None:
        raise Conflict("this request was done already; its answer held a token and was not kept: rotate the token")
    return Response(first.body, status=first.status, mimetype="application/json")


def _id(key: str) -> str:
    if not 0 < len(key) <= _MAX_KEY or not key.isprintable():
        raise BadRequest(f"{HEADER}: send 1 to {_MAX_KEY} printable characters")
    return hashlib.sha256(f"{user().name}\0{request.path}\0{key}".encode()).hexdigest()


def _digest() -> str:
    digest = hashlib.sha256(request.query_string + b"\0")
    digest.update(read_bytes())
    return digest.hexdigest()
