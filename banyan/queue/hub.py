"""Waking those who wait: claims held open in this server, and through signals those in the others."""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bson import ObjectId

from banyan.storage.mongo import Storage, translate

log = logging.getLogger(__name__)

_GATHER_SECONDS = 0.02
_PAUSE_SECONDS = 2.0


@dataclass(eq=False, slots=True)
class Waiter:
    """One claim that is held open."""

    worker: ObjectId
    accepts: Callable[[str], bool] = field(default=lambda key: False)
    """Whether a task of the class with this key could be taken."""
    woken: threading.Event = field(default_factory=threading.Event)
    called: bool = False
    """Whether there is news for this very worker."""
    offered: str | None = None
    """The class of the task that it was woken for last."""

    def wait(self, seconds: float) -> bool | None:
        """Wait to be woken; whether it was for news of this worker, and not for work. None if nothing came in time."""
        if not self.woken.wait(seconds):
            return None
        self.woken.clear()
        called, self.called = self.called, False
        return called


class Hub:
    """Knows the claims that wait here, and passes on what other servers say.

    Nothing depends on a wake-up for correctness: a claim that misses one looks again when its time is up.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._name = str(ObjectId())
        self._lock = threading.Lock()
        self._waiters: dict[Waiter, None] = {}
        self._of_worker: dict[ObjectId, list[Waiter]] = {}
        self._generation = 0
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
        """Release every claim that waits, and stop."""
        self._stop.set()
        self._outbox.put(None)
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.woken.set()

    @property
    def closed(self) -> bool:
        """Whether this server is stopping: claims answer at once."""
        return self._stop.is_set()

    def generation(self) -> int:
        """A number that changes whenever something is told that can be claimed now."""
        return self._generation

    def enter(self, waiter: Waiter) -> None:
        """Begin to wake `waiter`."""
        with self._lock:
            self._waiters[waiter] = None
            self._of_worker.setdefault(waiter.worker, []).append(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Stop to wake `waiter`."""
        with self._lock:
            if waiter in self._waiters:
                del self._waiters[waiter]
                of_worker = self._of_worker[waiter.worker]
                of_worker.remove(waiter)
                if not of_worker:
                    del self._of_worker[waiter.worker]

    def pass_on(self, waiter: Waiter) -> None:
        """Stop to wake `waiter`, which takes nothing any more, and wake another one for what it was woken for."""
        self.leave(waiter)
        if waiter.offered is not None:
            self.work({waiter.offered: 1})

    def work(self, counts: Mapping[str, int]) -> None:
        """Tell that so many tasks of each class (by key) can be claimed now."""
        if counts:
            self._wake_for_work(counts)
            self._outbox.put({"work": dict(counts)})

    def worker(self, worker: ObjectId, but: Waiter | None = None, *, everywhere: bool = True) -> None:
        """Tell that there is news for a worker: a cancellation, a drain, a newer claim (`but` itself is not woken).

        The other servers hear of it only if it is told `everywhere`.
        """
        self._wake_worker(worker, but)
        if everywhere:
            self._outbox.put({"worker": worker})

    def _wake_for_work(self, counts: Mapping[str, int]) -> None:
        left = dict(counts)
        with self._lock:
            self._generation += 1
            waiters = [waiter for waiter in self._waiters if not waiter.woken.is_set()]
        for waiter in waiters:
            key = next((key for key in left if waiter.accepts(key)), None)
            if key is None:
                continue
            waiter.offered = key
            waiter.woken.set()
            left[key] -= 1
            if not left[key]:
                del left[key]
                if not left:
                    return

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
            work: dict[str, int] = {}
            workers: list[object] = []
            for signal in [first, *self._drained()]:
                for key, count in (signal.get("work") or {}).items():  # type: ignore[attr-defined]
                    work[key] = work.get(key, 0) + count
                if "worker" in signal:
                    workers.append(signal["worker"])
            self._deliver({"from": self._name, "work": work, "workers": workers})

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
                        self._wake_for_work(signal["work"])
                        for worker in signal["workers"]:
                            self._wake_worker(worker)
            except Exception as error:
                if self.closed:
                    log.debug("no more signals are heard: %s", error)
                    return
                log.warning("signals of other servers are not heard", exc_info=_unless_away(error))
                self._stop.wait(_PAUSE_SECONDS)


def _unless_away(error: Exception) -> Exception | None:
    """The error to show in the log; none when MongoDB is simply away."""
    return error if translate(error) is None else None
