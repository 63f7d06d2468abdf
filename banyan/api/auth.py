"""The one guard before every request: a valid token, and a role with the permission."""

import base64

from flask import g, request

from banyan.api.context import context
from banyan.api.routes import ADMIN, ANYONE, ROUTES
from banyan.domain.roles import Role
from banyan.errors import Forbidden, Unauthorized, Unavailable
from banyan.queue.context import Context
from banyan.storage.mongo import translate
from banyan.storage.users import User
from banyan.wire import format_date

RESOURCE_ROLES = {"users": frozenset({ADMIN})}
"""The roles that may read an Eve resource; every role where none is given."""


def guard() -> None:
    """Refuse a request without a valid token (Unauthorized) or of a role without permission (Forbidden).

    All requests are refused (Unavailable) while MongoDB has been away for longer than a wait is worth. An admitted
    request is marked: an error before that mark has begun nothing.
    """
    route = ROUTES.get(request.endpoint or "")
    if route is not None and route.open:
        return
    context().storage.reach.require()
    g.user = _user()
    if g.user.expires is not None and g.user.expired(context().now()):
        text = f"this token expired on {format_date(g.user.expires)}"
        raise Unauthorized(f"{text}; an admin makes a new one with `banyan user rotate {g.user.name}`")
    roles = _roles(request.endpoint)
    if g.user.role not in roles:
        allowed = " or ".join(sorted(roles))
        raise Forbidden(f"{request.method} {request.path} is for {allowed}; this token is {g.user.role}'s")
    g.let_in = True


def is_good(context: Context, header: str) -> bool:
    """Return whether the token of an `Authorization` header is valid and unexpired; False while MongoDB is away."""
    token = _token(header)
    try:
        context.storage.reach.require()
        user = context.storage.users.by_token(token) if token else None
        return user is not None and not user.expired(context.now())
    except Exception as error:
        if translate(error) is None and not isinstance(error, Unavailable):
            raise
        return False


def _user() -> User:
    token = _token(request.headers.get("Authorization", ""))
    user = context().storage.users.by_token(token) if token else None
    if user is None:
        text = "this token is not known" if token else "send a token: 'Authorization: Bearer TOKEN', or Basic 'TOKEN:'"
        raise Unauthorized(text)
    return user


def _token(header: str) -> str | None:
    """The token of `Basic base64("TOKEN:")` or `Bearer TOKEN`; None when there is none."""
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() != "basic":
        return None
    try:
        token, _, _ = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # no base64, or no text in it
        return None
    return token


def _roles(endpoint: str | None) -> frozenset[Role]:
    route = ROUTES.get(endpoint or "")
    if route is not None:
        return route.roles
    resource = (endpoint or "").partition("|")[0]
    return RESOURCE_ROLES.get(resource, frozenset(ANYONE))
