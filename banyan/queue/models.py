"""Models as users see them: the models of workers and of this server, and the stored defaults."""

from collections.abc import Mapping
from typing import Any

from banyan.errors import NotFound, PreconditionFailed
from banyan.queue.context import Context
from banyan.queue.submit import check_bytes
from banyan.spelling import suggestion
from banyan.storage.models import NONE_YET

Document = dict[str, Any]

_CAPABILITY = "model:"


def models(context: Context) -> list[Document]:
    """Every model of a living worker, of this server, or with default inputs, by name.

    Each has `name`, `summary`, `defaults`, `workers` (`_id` and `name` of the living ones that have it), `server`
    (whether this server can check its tasks) and, where the server found a faulty one, `fault`.
    """
    sources = {name: source for name, source in context.models.sources().items() if not source.helper}
    kept = context.storage.models.load()
    having: dict[str, list[Document]] = {}
    summaries: dict[str, str] = {}
    for worker in sorted(context.storage.workers.in_states(), key=lambda worker: (str(worker["name"]), worker["_id"])):
        shown = {"_id": worker["_id"], "name": worker["name"]}
        for capability in worker.get("capabilities") or ():
            if capability.startswith(_CAPABILITY):
                having.setdefault(capability.removeprefix(_CAPABILITY), []).append(shown)
        for told in worker.get("models") or ():
            summaries.setdefault(told["name"], told.get("summary", ""))
    found = []
    for name in sorted({*sources, *kept, *having}):
        source = sources.get(name)
        found.append(
            {
                "name": name,
                "summary": (source.summary if source else "") or summaries.get(name, ""),
                "defaults": kept.get(name, {}).get("defaults", {}),
                "workers": having.get(name, []),
                "server": source is not None and source.fault is None,
                **({"fault": source.fault} if source is not None and source.fault is not None else {}),
            }
        )
    return found


def model(context: Context, name: str) -> Document:
    """One of `models`; raises `NotFound`."""
    known = {each["name"]: each for each in models(context)}
    found = known.get(name)
    if found is None:
        helper = context.models.sources().get(name)
        hint = f" ({helper.fault});" if helper is not None else suggestion(name, known) or ";"
        raise NotFound(f"no worker has a model {name!r}, nor does the server{hint} GET /models lists all")
    return found


def helpers(context: Context) -> list[Document]:
    """The modules beside this server's models that are no models, each with the reason; names with `_` are left out."""
    found = {name: each for name, each in context.models.sources().items() if each.helper and name[0] != "_"}
    return [{"name": name, "fault": found[name].fault} for name in sorted(found)]


def defaults(context: Context, name: str) -> tuple[Document, str]:
    """The default inputs of a model and their revision; empty for a model without stored ones."""
    kept = context.storage.models.load([name]).get(name, {})
    return kept.get("defaults", {}), kept.get("_etag", NONE_YET)


def set_defaults(context: Context, name: str, inputs: Mapping[str, Any], revision: str | None = None) -> Document:
    """Replace the default inputs of a model; return the stored document.

    Raises `PreconditionFailed` when they are not at `revision`, `TooLarge` when no task could hold them.
    """
    check_bytes(inputs, f"the default inputs of model {name!r} have")
    kept = context.storage.models.set_defaults(name, inputs, context.now(), revision)
    if kept is None:
        raise PreconditionFailed(f"the default inputs of model {name!r} were changed meanwhile; read them again")
    return kept
