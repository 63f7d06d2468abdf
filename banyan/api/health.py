"""`/health`: whether the server can do its work; the one path that needs no token."""

from flask import Response

from banyan.api.bodies import answer
from banyan.api.context import context
from banyan.api.failures import RETRY_AFTER_SECONDS
from banyan.api.routes import route
from banyan.storage.mongo import translate

PING_SECONDS = 2.0


@route("GET", "/health", open=True, summary="The health of the server and of MongoDB")
def health() -> Response:
    """200 when MongoDB responds, else 503."""
    try:
        context().storage.ping(PING_SECONDS)
    except Exception as error:
        if translate(error) is None:
            raise
        body = {"_status": "ERR", "_error": {"code": 503, "message": "MongoDB does not answer"}, "mongo": "away"}
        return answer(body, 503, {"Retry-After": str(RETRY_AFTER_SECONDS)})
    return answer({"_status": "OK", "mongo": "ok"})
