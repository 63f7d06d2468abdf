"""The objects that every use case needs."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from banyan.config import ServerSettings
from banyan.domain.matching import TaskClass
from banyan.domain.shares import Shares
from banyan.models.checker import Checker
from banyan.queue.heads import Heads
from banyan.queue.hub import Hub
from banyan.queue.quiet import Quiet
from banyan.queue.together import Together
from banyan.storage.mongo import Storage
from banyan.storage.reading import Reader


class Classes:
    """Classes by key; a class never changes, so a class that was read once stays true."""

    _KEPT = 100_000

    def __init__(self) -> None:
        self._by_key: dict[str, TaskClass] = {}

    def of(self, document: dict[str, object]) -> TaskClass:
        """The class of a stored task."""
        key = document.get("task_class")
        known = self._by_key.get(str(key)) if key else None
        if known is not None:
            return known
        task_class = TaskClass.of(document)
        return self.add(replace(task_class, key=str(key)) if key else task_class)

    def add(self, task_class: TaskClass) -> TaskClass:
        """Store a class."""
        if len(self._by_key) >= self._KEPT:
            self._by_key.clear()
        return self._by_key.setdefault(task_class.key, task_class)

    def known(self, key: str) -> TaskClass | None:
        """The class with this key, if it was read here."""
        return self._by_key.get(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The storage, the wake-ups, the settings and the models of one server process."""

    storage: Storage
    hub: Hub
    settings: ServerSettings
    shares: Shares = field(default_factory=Shares)
    classes: Classes = field(default_factory=Classes)
    claims: Together[Any, Any] = field(default_factory=Together)
    """The batches of claims (`grant`), and of reports (`report_together`)."""
    reports: Together[Any, Any] = field(default_factory=lambda: Together(apart=True))
    quiet: Quiet = field(default_factory=Quiet)
    heads: Heads = field(default_factory=Heads)
    weights: dict[str, float] = field(default_factory=dict)
    """The weights of queues at the last round of claims."""
    models: Checker = field(default_factory=Checker)

    def __post_init__(self) -> None:
        self.hub.on_work(self.heads.changed)

    def now(self) -> datetime:
        """MongoDB's time: the only clock for leases, delays and histories."""
        return self.storage.clock.now()

    def reader(self) -> Reader:
        """A reader of any collection, within the time limit of a query."""
        return Reader(self.storage.db, self.settings.limits.query_seconds)

    @property
    def patience(self) -> timedelta:
        """The time after its last write at which a use case counts as interrupted and its server as dead.

        Correctness does not depend on it: another server that continues finds the guarded writes done, or has its own
        refused.
        """
        return timedelta(seconds=self.settings.leases.lost_after * 2 / 3)
