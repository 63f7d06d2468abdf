"""Wake-ups for waiting claims: of this server directly, and of the other servers through signals."""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from banyan.storage.mongo import Storage, translate

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.02
_PAUSE_SECONDS = 2.0
_DECLINED_SECONDS = 1.0
"""The time for which a claim is not woken again for a class that had no task for it."""
_FIRST = float("inf")
"""The priority of tasks of unknown priority: every claim that might start them early is woken."""


@dataclass(eq=False, slots=True)
class Token:
    """A class for whose tasks claims are woken; `declined` are claims that were woken and could not take one."""

    key: str
    priority: float
    declined: "set[Waiter]" = field(default_factory=set)


@dataclass(eq=False, slots=True)
class Waiter:
    """One claim that is held open."""

    worker: ObjectId
    accepts: Callable[[str], bool] = field(default=lambda key: False)
    """Returns whether a task of the class with this key could be started at once."""
    lines_up: Callable[[str, float], bool] = field(default=lambda key, priority: False)
    """Returns whether a task of the class and of this priority could wait at the worker, to be started soon."""
    declined: dict[str, float] = field(default_factory=dict)
    """Classes that had no task for it when it was woken for them, and the times (monotonic)."""
    woken: threading.Event = field(default_factory=threading.Event)
    called: bool = False
    """True if there is news for this very worker."""
    looking: "Token | None" = None
    """The class for which it was woken and now searches tasks."""
    offered: "Token | None" = None
    """The class that arrived after it began to search."""

    def is_idle_for(self, key: str) -> bool:
        """Return whether it could start a task of the class, as far as is known."""
        declined = self.declined.get(key)
        return (declined is None or time.monotonic() - declined > _DECLINED_SECONDS) and self.accepts(key)

    def wait(self, seconds: float) -> bool | None:
        """Wait for a wake-up; return whether it was for news of this worker, not for tasks. None after a timeout."""
        if not self.woken.wait(seconds):
            return None
        self.woken.clear()
        self.looking, self.offered = self.offered, None
        called, self.called = self.called, False
        return called


class Hub:
    """Keeps the claims that wait here, and passes on the signals of other servers.

    Correctness never depends on a wake-up: a claim that misses one checks again when its time is up.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._name = str(ObjectId())
        self._lock = threading.Lock()
        self._waiters: dict[Waiter, None] = {}
        self._of_worker: dict[ObjectId, list[Waiter]] = {}
        self._on_work: list[Callable[[Iterable[str]], None]] = []
        self._outbox: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to exchange signals with the other servers."""
        for target in (self._send, self._follow):
            thread = threading.Thread(target=target, name=f"hub{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Release every waiting claim, and stop."""
        self._stop.set()
        self._outbox.put(None)
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.woken.set()

    @property
    def closed(self) -> bool:
        """Return whether this server is stopping: claims then respond at once."""
        return self._stop.is_set()

    def on_work(self, hear: Callable[[Iterable[str]], None]) -> None:
        """Call `hear` with the keys of classes whose tasks have become claimable, here or at another server."""
        self._on_work.append(hear)

    def enter(self, waiter: Waiter) -> None:
        """Begin to wake `waiter`."""
        with self._lock:
            self._waiters[waiter] = None
            self._of_worker.setdefault(waiter.worker, []).append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Stop waking `waiter`, and pass its unused wake-ups on to another one."""
        with self._lock:
            if waiter in self._waiters:
                del self._waiters[waiter]
                of_worker = self._of_worker[waiter.worker]
                of_worker.remove(waiter)
                if not of_worker:
                    del self._of_worker[waiter.worker]
        left = [token for token in (waiter.looking, waiter.offered) if token is not None]
        waiter.looking = waiter.offered = None
        for token in left:
            self._wake({token: 1})

    def decline(self, waiter: Waiter) -> None:
        """Pass on the wake-up of `waiter`, which could not take a task, to another claim that may be able to."""
        token, waiter.looking = waiter.looking, None
        if token is not None:
            waiter.declined[token.key] = time.monotonic()
            token.declined.add(waiter)
            self._wake({token: 1})

    def call_idle(self, key: str, but: ObjectId) -> bool:
        """Return whether another waiting worker could start a task of the class at once; it is woken if it sleeps."""
        with self._lock:
            waiters = list(self._waiters)
        idle = next((each for each in waiters if each.worker != but and each.is_idle_for(key)), None)
        if idle is not None and idle.offered is None:
            idle.offered = Token(key, _FIRST)
            idle.woken.set()
        return idle is not None

    def work(self, counts: Mapping[str, int], priorities: Mapping[str, float] | None = None) -> None:
        """Announce so many claimable tasks of each class (by key); `priorities` are the highest of them."""
        if counts:
            best = dict(priorities or {})
            self._wake_for_work(counts, best)
            self._outbox.put({"work": dict(counts), "priorities": best})

    def worker(self, worker: ObjectId, but: Waiter | None = None, *, everywhere: bool = True) -> None:
        """Announce news for a worker: a cancellation, a drain, a newer claim (`but` itself is not woken).

        The other servers are notified only with `everywhere`.
        """
        self._wake_worker(worker, but)
        if everywhere:
            self._outbox.put({"worker": worker})

    def _wake_for_work(self, counts: Mapping[str, int], priorities: Mapping[str, float]) -> None:
        for hear in self._on_work:
            hear(counts)
        self._wake({Token(key, priorities.get(key, _FIRST)): count for key, count in counts.items()})

    def _wake(self, left: dict[Token, int]) -> None:
        """Wake claims that could start these tasks, and for the rest claims at whose workers they could wait."""
        with self._lock:
            waiters = [waiter for waiter in self._waiters if not waiter.woken.is_set()]
        for could_take in (_could_start, _could_line_up):
            for waiter in waiters:
                if not left:
                    return
                token = None if waiter.woken.is_set() else next((t for t in left if could_take(waiter, t)), None)
                if token is not None:
                    waiter.offered = token
                    waiter.woken.set()
                    if waiter not in self._waiters:
                        continue  # it has left meanwhile
                    left[token] -= 1
                    if not left[token]:
                        del left[token]

    def _wake_worker(self, worker: ObjectId, but: Waiter | None = None) -> None:
        with self._lock:
            waiters = [waiter for waiter in self._of_worker.get(worker, ()) if waiter is not but]
        for waiter in waiters:
            waiter.called = True
            waiter.woken.set()

    def _send(self) -> None:
        while (first := self._outbox.get()) is not None:
            if self._stop.wait(_GATHER_SECONDS):
                return
            self._deliver({"from": self._name, **_gathered([first, *self._drained()])})

    def _drained(self) -> list[dict[str, object]]:
        signals = []
        while not self._outbox.empty():
            signal = self._outbox.get()
            if signal is None:
                self._outbox.put(None)
                break
            signals.append(signal)
        return signals

    def _deliver(self, signal: dict[str, object]) -> None:
        try:
            self._storage.signals.send({**signal, "at": self._storage.clock.now()})
        except Exception as error:
            log.warning("a signal to the other servers was lost", exc_info=_unless_away(error))

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                for signal in self._storage.signals.follow(self._stop):
                    if signal["from"] != self._name:
                        self._wake_for_work(signal["work"], signal.get("priorities") or {})
                        for worker in signal["workers"]:
                            self._wake_worker(worker)
            except Exception as error:
                if self.closed:
                    log.debug("no more signals are received: %s", error)
                    return
                log.warning("signals of other servers are not received", exc_info=_unless_away(error))
                self._stop.wait(_PAUSE_SECONDS)


def _could_start(waiter: Waiter, token: Token) -> bool:
    return waiter not in token.declined and waiter.accepts(token.key)


def _could_line_up(waiter: Waiter, token: Token) -> bool:
    return waiter not in token.declined and waiter.lines_up(token.key, token.priority)


def _gathered(signals: Iterable[Mapping[str, Any]]) -> dict[str, object]:
    """Many signals merged into one."""
    work: Counter[str] = Counter()
    best: dict[str, float] = {}
    workers: list[object] = []
    for signal in signals:
        for key, count in signal.get("work", {}).items():
            priority = signal["priorities"].get(key, _FIRST)
            best[key] = max(best.get(key, priority), priority)
            work[key] += count
        if "worker" in signal:
            workers.append(signal["worker"])
    return {"work": dict(work), "priorities": best, "workers": workers}


def _unless_away(error: Exception) -> Exception | None:
    """The error to show in the log; None when MongoDB is unavailable."""
    return error if translate(error) is None else None
