"""`/models`: the models, the workers that have them, and their default inputs."""

from typing import Any

from flask import Response

from banyan.api.bodies import answer, read_object
from banyan.api.context import context
from banyan.api.queues import if_match
from banyan.api.routes import ADMIN, ANYONE, route
from banyan.api.schema.kinds import Rules
from banyan.api.schema.tasks import GIVEN
from banyan.api.validation import validated
from banyan.errors import Invalid
from banyan.queue import models as modelling
from banyan.wire import unstorable

Document = dict[str, Any]

_NAME: dict[str, Rules] = {"name": {**GIVEN["model"], "nullable": False}}


@route("GET", "/models", roles=ANYONE, summary="The models that workers or the server have")
def list_models() -> Document:
    """All models by name, on one page: summary, default inputs, the living workers that have it.

    `helpers` are files and directories beside the server's models that are no models, with the reason.
    """
    found = modelling.models(context())
    meta = {"page": 1, "max_results": len(found), "total": len(found)}
    return {"_items": found, "_meta": meta, "helpers": modelling.helpers(context())}


@route("GET", "/models/<path:name>", roles=ANYONE, summary="One model")
def one_model(name: str) -> Document:
    """Its summary, default inputs, and the workers that have it."""
    return modelling.model(context(), name)


@route("GET", "/models/<path:name>/defaults", roles=ANYONE, summary="A model's default inputs")
def model_defaults(name: str) -> Response:
    """An object of inputs, empty if none were set; `ETag` names their revision."""
    inputs, revision = modelling.defaults(context(), name)
    return answer(inputs, headers={"ETag": f'"{revision}"'}, noted=False)


@route("PUT", "/models/<path:name>/defaults", roles=(ADMIN,), summary="Replace a model's default inputs", unnamed=True)
def set_model_defaults(name: str) -> Response:
    """The whole object is replaced; tasks that were posted before keep their inputs."""
    validated(_NAME, {"name": name})
    inputs = read_object()
    if fault := unstorable(inputs):
        raise Invalid({"_body": fault})
    kept = modelling.set_defaults(context(), name, inputs, if_match())
    shown = {"_status": "OK", "name": name, "_etag": kept["_etag"], "defaults": kept["defaults"]}
    return answer(shown, headers={"ETag": f'"{kept["_etag"]}"'})
