"""Every error as a response: one table of statuses, one form of body, no internals."""

import logging
import uuid
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as PlainResponse

from banyan.api.bodies import answer, render
from banyan.api.faults import shortened
from banyan.errors import BanyanError, Invalid, StillRunning, Unauthorized, Unavailable, describe_items
from banyan.storage.mongo import translate

log = logging.getLogger("banyan.api")

RETRY_AFTER_SECONDS = 2
_INTERNAL = 500


def install(app: Flask) -> None:
    """Make `app` respond to all errors as the interface defines."""
    app.register_error_handler(BanyanError, refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _other_error)
    app.after_request(_stay_here)


def refused(error: BanyanError) -> Response:
    """The response to an error that was raised on purpose."""
    if error.status >= _INTERNAL and not isinstance(error, Unavailable):
        return _internal(error)
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Basic realm="banyan", charset="UTF-8"'
    if isinstance(error, (Unavailable, StillRunning)):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if isinstance(error, Unavailable) and not g.get("let_in"):
        headers["Banyan-Begun"] = "no"
    return answer(_body(error), error.status, headers)


def _body(error: BanyanError) -> dict[str, Any]:
    body: dict[str, Any] = {"_status": "ERR"}
    if isinstance(error, Invalid) and error.items is not None:
        items = shortened(error.items)
        body["_items"] = [_item(issues) for issues in items]
        return body | {"_error": {"code": error.status, "message": _text(describe_items(items))}}
    if isinstance(error, Invalid):
        return body | {"_issues": shortened(error.issues)}
    return body | {"_error": {"code": error.status, "message": _text(error)}}


def _text(error: object) -> str:
    return str(shortened(str(error)))


def _item(issues: dict[str, object]) -> dict[str, Any]:
    return {"_status": "ERR", "_issues": issues} if issues else {"_status": "OK"}


def _http_error(error: HTTPException) -> Response | PlainResponse:
    """The response to errors of Flask and Eve: unknown paths and methods, bodies that are too large."""
    response = error.get_response()
    code = error.code or _INTERNAL
    if code < 400:
        return response
    if code >= _INTERNAL:
        return _internal(error)
    message = {
        404: _nothing(),
        405: f"{request.path} does not take {request.method}",
        413: "the body is larger than the server's limit (limits.max_body_bytes)",
    }.get(code, error.description)
    kept = {name: value for name, value in response.headers if name in ("Allow", "Content-Range")}
    return answer({"_status": "ERR", "_error": {"code": code, "message": message}}, code, kept)


_THINGS = {
    "execution_history": "attempt",
    "memory_usage": "sample of memory usage",
    "continuations": "continuation",
}
"""The resources whose name is not that of one document with an `s`."""


def _nothing() -> str:
    """The sentence for a path without a document: an id or a name that does not exist, or an unknown path."""
    resource, bar, _ = (request.endpoint or "").partition("|")
    if bar and request.view_args:
        thing = _THINGS.get(resource, resource.removesuffix("s"))
        return f"there is no {thing} {next(iter(request.view_args.values()))}"
    return f"there is nothing at {request.path}"


def _stay_here(response: PlainResponse) -> PlainResponse:
    """Keep a redirect to the canonical form of a path on this server, whatever host name the request has."""
    if response.location is not None:
        place = urlsplit(response.location)
        response.location = urlunsplit(("", "", "/" + place.path.lstrip("/"), place.query, ""))
        if 300 <= response.status_code < 400:
            response.data = render(
                {
                    "_status": "ERR",
                    "_error": {"code": response.status_code, "message": f"the path is {response.location}"},
                }
            )
            response.mimetype = "application/json"
    return response


def _other_error(error: Exception) -> Response:
    meant = translate(error)
    return _internal(error) if meant is None else refused(meant)


def _internal(error: BaseException) -> Response:
    number = uuid.uuid4().hex
    log.error("request %s: %s %r failed", number, request.method, request.path, exc_info=error)
    text = f"internal error; the server's log has the details about request {number}"
    return answer({"_status": "ERR", "_error": {"code": _INTERNAL, "message": text}}, _INTERNAL)
