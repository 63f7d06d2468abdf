"""The HTTP application: Eve for reading, our routes for the rest, one guard in front, one error table behind."""

import copy
from typing import Any

from eve import Eve
from flask import request

from banyan.api import (  # noqa: F401 - importing a module registers its routes
    attempts,
    audit,
    auth,
    continuations,
    explaining,
    failures,
    files,
    health,
    history,
    memory,
    metrics,
    models,
    openapi,
    queues,
    routes,
    statistics,
    steering,
    strict_json,
    sweep_results,
    sweeps,
    tasks,
    uploads,
    users,
    workers,
)
from banyan.api.context import CONFIG_KEY
from banyan.api.data import Data
from banyan.api.schema import RESOURCES
from banyan.api.selection import ITEM, LISTING, check_parameters, refuse_unknown
from banyan.api.validator import Validator
from banyan.queue.context import Context

_BY_NAME = {"item_lookup_field": "name", "item_url": 'regex("[^/]+")'}
_BY_ID = {"item_url": 'regex("[0-9a-fA-F]{24}")'}


def create_app(context: Context) -> Eve:
    """A WSGI application that serves `context`; it holds no other state, so that many can exist side by side."""
    app = Eve("banyan.api", settings=_settings(context), data=Data, validator=Validator, media=None, static_folder=None)
    app.config[CONFIG_KEY] = context
    app.url_map.converters["objectid"] = routes.ObjectIdConverter
    app.url_map.converters["path"] = routes.FilePathConverter
    routes.install(app)
    failures.install(app)
    metrics.install(app)
    audit.install(app, audit.Trail(context.settings.log.audit))
    app.before_request(_forget_dates)
    app.before_request(auth.guard)
    app.before_request(_read_wish)
    app.before_request(_check_query)
    app.after_request(strict_json.tell)
    return app


def domain() -> dict[str, dict[str, Any]]:
    """Eve's resources: all of them can be read, none is written by Eve."""
    return {
        name: {
            "schema": copy.deepcopy(schema),
            "resource_methods": ["GET"],
            "item_methods": ["GET"],
            **(_BY_NAME if name in ("queues", "users") else _BY_ID),
        }
        for name, schema in RESOURCES.items()
    }


def _settings(context: Context) -> dict[str, Any]:
    limits = context.settings.limits
    return {
        "DOMAIN": domain(),
        "HATEOAS": False,
        "RENDERERS": ["banyan.api.bodies.JSONRenderer"],
        "STANDARD_ERRORS": [],
        "IF_MATCH": True,
        "ENFORCE_IF_MATCH": False,
        "PAGINATION_DEFAULT": 25,
        "PAGINATION_LIMIT": limits.max_page_items,
        "ALLOW_OVERRIDE_HTTP_METHOD": False,
        "MAX_CONTENT_LENGTH": limits.max_body_bytes,
        "URL_PREFIX": "",
        "API_VERSION": "",
    }


def _forget_dates() -> None:
    """Decide by `If-None-Match` alone whether a document is unchanged: dates with whole seconds are too coarse."""
    request.environ.pop("HTTP_IF_MODIFIED_SINCE", None)


def _read_wish() -> None:
    """Read from the request whether the response must be strict JSON."""
    route = routes.ROUTES.get(request.endpoint or "")
    strict_json.read_wish(route is None or route.media_type == "application/json")


def _check_query() -> None:
    """Refuse query parameters that do not exist, so that a typing error in `where` never matches everything."""
    route = routes.ROUTES.get(request.endpoint or "")
    if route is not None:
        refuse_unknown(request.args, route.query)
    elif "|" in (request.endpoint or ""):
        resource, kind = str(request.endpoint).split("|")
        check_parameters(resource, request.args, LISTING if kind == "resource" else ITEM)
