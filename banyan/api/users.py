"""`/users`: who may use the server. Reading is Eve's; a token is shown once, in the answer that makes it."""

from typing import Any

from flask import Response

from banyan.api.context import context
from banyan.api.routes import ADMIN, route
from banyan.api.schema.workers import USER
from banyan.domain.roles import Role

Document = dict[str, Any]


@route("POST", "/users", roles=(ADMIN,), summary="Make a user", body=USER, status=201, secret=True)
def add_user(body: Document) -> Document:
    """The new user with the token."""
    token = context().storage.users.add(body["name"], Role(body["role"]), context().now())
    return _shown(body["name"], token)


@route("POST", "/users/<name>/rotate", roles=(ADMIN,), summary="Give a user a new token", secret=True)
def rotate(name: str) -> Document:
    """The user with the new token; the old one is worth nothing any more."""
    token = context().storage.users.rotate(name, context().now())
    return _shown(name, token)


@route("DELETE", "/users/<name>", roles=(ADMIN,), summary="Take a user's access away", status=204)
def remove(name: str) -> Response:
    """Nothing; the user's tasks stay."""
    context().storage.users.remove(name)
    return Response(status=204)


def _shown(name: str, token: str) -> Document:
    document = context().storage.users.document(name)
    fields = {key: document[key] for key in ("_id", "_etag", "_created", "_updated", "name", "role")}
    return {"_status": "OK", **fields, "token": token}
