"""All routes that are not Eve's own: one registry gives the rules, the role checks and the OpenAPI document."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bson import ObjectId
from flask import Flask, Response, g, request
from werkzeug.routing import BaseConverter

from banyan.api import bodies, idempotency
from banyan.api.validation import validated
from banyan.domain.roles import Role

ADMIN, PROVIDER, WORKER = Role.ADMIN, Role.PROVIDER, Role.WORKER
ANYONE = (PROVIDER, WORKER, ADMIN)
"""Every role; a token is still required."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path: its roles, its parameters, its handler.

    `body` is a schema: the handler gets the checked value as `body`. `resource` only names the resource whose documents
    a handler reads by itself. `query` names the known parameters; others are refused. A response of a `secret` route is
    never kept; a `repeatable` route needs no `Idempotency-Key`, and ignores one.

    For the audit log: a `quiet` route is logged only when it refuses, the names in the body of an `unnamed` one are its
    user's own, and the values of the fields in `told` are no secrets.
    """

    method: str
    path: str
    roles: frozenset[Role]
    summary: str
    handler: Callable[..., Any]
    body: Mapping[str, Any] | None = None
    resource: str | None = None
    listed: bool = False
    query: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    open: bool = False
    secret: bool = False
    repeatable: bool = False
    quiet: bool = False
    unnamed: bool = False
    told: tuple[str, ...] = ()
    media_type: str = "application/json"

    @property
    def endpoint(self) -> str:
        """The name of the route in Flask; Eve's own endpoints have a `|` in theirs."""
        return f"{self.method} {self.path}"

    def serve(self, **arguments: Any) -> Response:
        """Respond to a request that the guard admitted."""
        if self.method != "POST" or self.repeatable:
            return self._respond(arguments)
        return idempotency.once(self, lambda: self._respond(arguments))

    def _respond(self, arguments: dict[str, Any]) -> Response:
        if self.body is not None:
            arguments["body"] = validated(self.body, bodies.read_object())
        g.answered = result = self.handler(**arguments)
        return result if isinstance(result, Response) else bodies.answer(result, self.status)


ROUTES: dict[str, Route] = {}
"""Every route by endpoint; filled when the route modules are imported."""


def route(
    methods: str | Iterable[str], path: str, *, roles: Iterable[Role] = ANYONE, summary: str, **more: Any
) -> Callable[[Handler], Handler]:
    """Register a handler for one method or several of a path; `more` are the other fields of `Route`.

    The handler returns a Response, or a value that becomes the JSON of a response with the route's status.
    """

    def register(handler: Handler) -> Handler:
        for method in (methods,) if isinstance(methods, str) else methods:
            each = Route(method=method, path=path, roles=frozenset(roles), summary=summary, handler=handler, **more)
            if each.endpoint in ROUTES:
                raise ValueError(f"{each.endpoint} is registered twice")
            ROUTES[each.endpoint] = each
        return handler

    return register


class ObjectIdConverter(BaseConverter):
    """`<objectid:name>` in a path; any text but 24 hex digits is another path."""

    regex = "[0-9a-fA-F]{24}"

    def to_python(self, value: str) -> ObjectId:
        """The id."""
        return ObjectId(value)

    def to_url(self, value: ObjectId) -> str:
        """The id's hex digits."""
        return str(value)


class FilePathConverter(BaseConverter):
    """`<path:name>` at the end of a path: the path of a file, with any characters but NUL, even line breaks.

    Flask shows bytes that are not UTF-8 as U+FFFD: `sent_path` is exact.
    """

    part_isolating = False
    regex = r"[^/](?s:.*?)"
    weight = 200


def sent_path(after: str) -> str:
    """The exact rest of the request's path after a part of it; bytes that are not UTF-8 are lone surrogates."""
    raw: str = request.environ["PATH_INFO"]
    return raw.encode("latin-1").decode(errors="surrogateescape").partition(after)[2]


def install(app: Flask) -> None:
    """Add all registered routes to `app`."""
    for each in ROUTES.values():
        app.add_url_rule(each.path, each.endpoint, each.serve, methods=[each.method])
