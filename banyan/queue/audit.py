"""A search for damage without a mark: wrong counts, edges of deleted parents, attempts and files without owners.

Only a crash between two writes can leave such damage by design; other damage (a database that was edited by hand, or
restored in part) is repaired as well. The cost of a step does not depend on the size of the queue: it continues where
the last one ended, and begins again at the end. Safe in many servers at once.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from bson import ObjectId

from banyan.domain.continuations import ON_ANY, Edge
from banyan.domain.task import WORKER_UNREACHABLE, State, Task
from banyan.queue.context import Context
from banyan.queue.report import lose
from banyan.queue.settle import advance, settle

log = logging.getLogger(__name__)

_PAGE = 1000
_FILES_AGE = timedelta(hours=1)
"""The age below which a file may still be in the middle of its upload."""


class Audit:
    """Checks one page of edges, attempts and files after the other."""

    def __init__(self, context: Context, page: int = _PAGE) -> None:
        self._context = context
        self._page = page
        self._last_edge: ObjectId | None = None
        self._attempts_seen = 0
        self._last_files: dict[str, ObjectId] = {}
        self._drifted: dict[ObjectId, tuple[int, int]] = {}

    def look(self) -> None:
        """Check the next pages and repair the damage there."""
        self._correct_counts()
        self._look_at_edges()
        self._look_at_attempts()
        self._look_at_files()

    # Edges, and the tasks at their ends

    def _look_at_edges(self) -> None:
        storage = self._context.storage
        edges = storage.edges.page(self._last_edge, self._page)
        self._last_edge = edges[-1].id if len(edges) == self._page else None
        if not edges:
            return
        # In this order: a missing parent is in a submission that was pending when its edge was read.
        pending = storage.parts.any_pending()
        tasks = storage.tasks.load({end for edge in edges for end in (edge.parent, edge.child)})
        if not pending:
            self._settle_orphans([edge for edge in edges if not edge.settled and edge.parent not in tasks])
        settle(self._context, {edge.parent for edge in edges if _is_forgotten(edge, tasks)}, thorough=True)
        children = {id: tasks[id] for id in {edge.child for edge in edges} if id in tasks and not tasks[id].ended}
        self._advance_forgotten(children)
        self._note_drift(list(children))

    def _settle_orphans(self, edges: Sequence[Edge]) -> None:
        """Settle edges of deleted parents, whose ends are unknown: only a child that waits for any end continues."""
        context = self._context
        retrying = context.storage.sweeps.retrying(edge.parent for edge in edges)
        orphans = [edge for edge in edges if edge.parent not in retrying]
        if not orphans:
            return
        log.warning("audit: %d edges are settled, because their parents are gone", len(orphans))
        context.storage.edges.settle([edge for edge in orphans if edge.on == ON_ANY], True)
        context.storage.edges.settle([edge for edge in orphans if edge.on != ON_ANY], False)
        settle(context, advance(context, [edge.child for edge in orphans], exact=True))

    def _advance_forgotten(self, children: Mapping[ObjectId, Task]) -> None:
        context = self._context
        inactive = [id for id, task in children.items() if task.state == State.INACTIVE]
        waiting, broken = context.storage.edges.waiting(inactive), context.storage.edges.broken(inactive)
        ready = [id for id in inactive if id in broken or (id not in waiting and not children[id].hold)]
        if ready:
            settle(context, advance(context, ready, exact=True))

    def _note_drift(self, children: Sequence[ObjectId]) -> None:
        """Record differences; one counts if it is the same in the next step, because a settlement may be in progress.

        Children that wait for very many parents are left out until they wait for fewer.
        """
        exact = self._context.storage.edges.few_pending(children)
        shown = self._context.storage.tasks.documents(exact, ["pending_dependency_count"])
        told = {id: document.get("pending_dependency_count", 0) for id, document in shown.items()}
        self._drifted = {id: (told[id], exact[id]) for id in told if told[id] != exact[id]}

    def _correct_counts(self) -> None:
        before = self._drifted
        if before:
            self._note_drift(list(before))
            lasting = {id: counts for id, counts in self._drifted.items() if before[id] == counts}
            self._context.storage.tasks.correct_pending(lasting)

    # Attempts

    def _look_at_attempts(self) -> None:
        """End attempts that are not their tasks' own and are not just being recorded; delete the unstarted ones."""
        context = self._context
        old = context.now() - context.patience
        attempts = context.storage.executions.open(self._attempts_seen, self._page)
        self._attempts_seen = self._attempts_seen + self._page if len(attempts) == self._page else 0
        tasks = context.storage.tasks.load({attempt["task"] for attempt in attempts})
        strays = [
            attempt["_id"]
            for attempt in attempts
            if attempt["time_claimed"] < old
            and (attempt["task"] not in tasks or tasks[attempt["task"]].execution != attempt["_id"])
        ]
        if strays:
            log.warning("audit: %d attempts were of no task", len(strays))
            context.storage.executions.withdraw(strays)
            lose(context, strays, WORKER_UNREACHABLE)

    # Files

    def _look_at_files(self) -> None:
        """Delete pieces of interrupted uploads, and files that were received while their attempt was being deleted."""
        leftovers = self._context.storage.leftovers
        before = self._context.now() - _FILES_AGE
        for name, look in leftovers.looks.items():
            last = look(self._last_files.get(name), before, self._page)
            if last is None:
                self._last_files.pop(name, None)
            else:
                self._last_files[name] = last


def _is_forgotten(edge: Edge, tasks: Mapping[ObjectId, Task]) -> bool:
    """Return whether the edge waits for a parent that has ended without a mark to settle its edges."""
    parent = tasks.get(edge.parent)
    return not edge.settled and parent is not None and parent.ended and not parent.unsettled
