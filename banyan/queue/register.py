"""The life of workers: registration, drain and departure, and the consequences for the tasks that they hold."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from bson import ObjectId

from banyan.domain.matching import SHELL
from banyan.domain.roles import Role
from banyan.domain.task import WORKER_UNREACHABLE
from banyan.errors import Conflict, Forbidden, Invalid, NotFound
from banyan.queue.actor import Actor
from banyan.queue.context import Context
from banyan.queue.report import lose
from banyan.spelling import unknown
from banyan.storage.disk import shared_root
from banyan.storage.tasks import new_revision
from banyan.storage.workers import ACTIVE, ALIVE, DRAINING, GONE, QUARANTINED

Document = dict[str, Any]

PROBE = ".banyan-probe"


def register(context: Context, document: Document, actor: Actor) -> Document:
    """Store a new worker (a validated document); return its id, its lease and the way of its files to the server.

    The attempts of a worker that it `replaces` end at once, except those in `finished`: these are in its spool and will
    be reported. Raises `Invalid` if the replaced worker is unknown or another user's.
    """
    now = context.now()
    finished = set(document.pop("finished", None) or ())
    document.setdefault("capabilities", [SHELL])
    files = document.pop("files", None)
    replaces = document.get("replaces")
    old = _replaced(context, replaces, actor) if replaces is not None else None
    root = shared_root(files["root"], PROBE, files["probe"]) if files else None
    stored = {"_id": ObjectId(), **document, "owner": actor.name, "state": ACTIVE}
    if document.get("place") is not None:
        stored["place"] = f"{actor.name}/{document['place']}"  # a worker of another user never matches it
    stored["lease_seconds"] = context.settings.leases.lost_after
    stored["files_root"] = None if root is None else asdict(root)
    stored |= {"last_seen": now, "_created": now, "_updated": now, "_etag": new_revision()}
    if old is not None:
        stored["replaced"] = [old["_id"], *old.get("replaced", ())][:100]
    context.storage.workers.register(stored)
    if old is not None:
        leave(context, old["_id"], finished)
    return {
        "_id": stored["_id"],
        "_etag": stored["_etag"],
        "_created": now,
        "_updated": now,
        "state": ACTIVE,
        "lease_seconds": context.settings.leases.lost_after,
        "heartbeat_seconds": context.settings.leases.heartbeat,
        "files": "upload" if root is None else "shared",
    } | ({"notes": notes} if (notes := _notes(context, stored)) else {})


def _notes(context: Context, worker: Document) -> list[str]:
    """Notes for the worker's log: queues that it serves and that do not exist, or not yet."""
    if not worker.get("queues"):
        return []
    known = context.storage.queues.names()
    return [
        f"{unknown('queue', name, known)}; this worker serves it once an administrator has made it"
        for name in worker["queues"]
        if name not in known
    ]


def _replaced(context: Context, worker: ObjectId, actor: Actor) -> Document:
    old = context.storage.workers.load(worker)
    if old is None or (actor.role != Role.ADMIN and old["owner"] != actor.name):
        raise Invalid({"replaces": f"there is no worker {worker} of yours"})
    return old


def leave(context: Context, worker: ObjectId, finished: Iterable[ObjectId] = ()) -> None:
    """Let a worker leave: its id is never used again, and its attempts, except `finished`, are lost at once."""
    context.storage.workers.move(worker, GONE, context.now())
    lose_held(context, worker, finished)
    context.hub.worker(worker)


def lose_held(context: Context, worker: ObjectId, but: Iterable[ObjectId] = ()) -> int:
    """End the attempts that a worker holds as abandoned; return their number."""
    kept = set(but)
    held = [execution for execution in context.storage.tasks.holdings(worker) if execution not in kept]
    lose(context, held, WORKER_UNREACHABLE)
    return len(held)


def owned_worker(context: Context, worker_id: ObjectId, actor: Actor) -> Document:
    """The worker, if the actor may act for it; raises `NotFound` or `Forbidden` otherwise."""
    worker = context.storage.workers.load(worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id}")
    if actor.role != Role.ADMIN and worker["owner"] != actor.name:
        raise Forbidden(f"worker {worker_id} was registered by {worker['owner']!r}")
    return worker


def change_state(context: Context, worker_id: ObjectId, state: str) -> None:
    """Drain a worker, or make it active again, also after a quarantine; raises `Conflict` if it is lost or gone."""
    if state not in (ACTIVE, DRAINING, QUARANTINED):
        raise Invalid({"state": f"{state!r} cannot be requested; use 'draining' or 'active'"})
    worker = context.storage.workers.load(worker_id)
    if worker is None:
        raise NotFound(f"there is no worker {worker_id}")
    if worker["state"] == QUARANTINED and state == ACTIVE:
        context.storage.tasks.stop_avoiding(worker_id)
    if worker["state"] not in ALIVE or not context.storage.workers.move(worker_id, state, context.now()):
        raise Conflict(f"worker {worker_id} is {worker['state']}; its id is not used again")
    context.hub.worker(worker_id)
