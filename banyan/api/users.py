"""`/users`: the users of the server. Reading is Eve's; a token is shown once, in the response that makes it."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flask import Response, request

from banyan.api import credentials
from banyan.api.bodies import read_object
from banyan.api.context import context
from banyan.api.routes import ADMIN, route
from banyan.api.schema.workers import NEW_USER, ROTATION
from banyan.api.validation import validated
from banyan.domain.roles import Role
from banyan.errors import Invalid

Document = dict[str, Any]

_EXPIRES = ("expires",)
_SHOWN = ("_id", "_etag", "_created", "_updated", "name", "role", "expires")


@route(
    "POST",
    "/users",
    roles=(ADMIN,),
    summary="Make a user",
    body=NEW_USER,
    status=201,
    secret=True,
    told=("name", "role", "expires"),
)
def add_user(body: Document) -> Document:
    """The new user with the token."""
    now = context().now()
    token = context().storage.users.add(body["name"], Role(body["role"]), now, _expiry(body.get("expires"), now))
    return _shown(body["name"], token)


@route("POST", "/users/<name>/rotate", roles=(ADMIN,), summary="Replace a user's token", secret=True, told=_EXPIRES)
def rotate(name: str) -> Document:
    """The user with the new token; the old one is invalid from now on.

    A body `{"expires": ..}` sets the end of the new one; without it the date stays as it was.
    """
    now = context().now()
    users = context().storage.users
    given = read_object() if request.get_data(cache=True) else {}
    body = validated(ROTATION, given)
    wanted = body.get("expires") if "expires" in given else users.document(name).get("expires")
    token = users.rotate(name, now, _expiry(wanted, now))
    file = context().settings.auth.credentials_file
    if file:
        credentials.replace(Path(file), name, token)
    return _shown(name, token)


@route("DELETE", "/users/<name>", roles=(ADMIN,), summary="Remove a user", status=204)
def remove(name: str) -> Response:
    """An empty response; the user's tasks stay."""
    context().storage.users.remove(name, context().now())
    return Response(status=204)


def _expiry(wanted: datetime | timedelta | None, now: datetime) -> datetime | None:
    """The expiry of a new token; raises `Invalid` for a time that has passed."""
    if wanted is None:
        return None
    try:
        date = now + wanted if isinstance(wanted, timedelta) else wanted
    except OverflowError as error:
        raise Invalid({"expires": "it lies behind the year 9999; send null for a token without end"}) from error
    if date <= now:
        text = f"{date:%Y-%m-%d %H:%M:%S} UTC has passed; send a duration such as '30d', a later date, or null"
        raise Invalid({"expires": text})
    return date


def _shown(name: str, token: str) -> Document:
    document = context().storage.users.document(name)
    return {"_status": "OK", **{key: document.get(key) for key in _SHOWN}, "token": token}
