"""Lanes of complete requests: each has threads of its own, so that none can delay another."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

Job = Callable[[], None]


class Lane:
    """Runs jobs in at most `threads` threads, in order. Concurrent jobs weigh at most `budget` together.

    A job that alone is heavier than the budget runs when no other does.
    """

    def __init__(self, name: str, threads: int, budget: int = 0) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._budget = budget
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Job]] = deque()
        self._weight = 0

    def submit(self, job: Job, weight: int = 0) -> None:
        """Run the job when it is its turn."""
        if not self._budget:
            self._pool.submit(job)
            return
        with self._lock:
            self._waiting.append((weight, job))
        self._start()

    def _start(self) -> None:
        """Pass jobs to the threads as far as the budget allows."""
        with self._lock:
            while self._waiting and (self._weight == 0 or self._weight + self._waiting[0][0] <= self._budget):
                weight, job = self._waiting.popleft()
                self._weight += weight
                self._pool.submit(self._run, weight, job)

    def _run(self, weight: int, job: Job) -> None:
        try:
            job()
        finally:
            with self._lock:
                self._weight -= weight
            self._start()

    def close(self) -> None:
        """Start no more jobs."""
        with self._lock:
            self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)


class FromAddress(Protocol):
    """An object that came from an address."""

    @property
    def place(self) -> str:
        """The address."""


Item = TypeVar("Item", bound=FromAddress)


class FairQueue(Generic[Item]):
    """A queue that gives each address its turn, and lets at most `per_second` pass after a burst as large.

    It is for one thread alone. `clock` is a monotonic clock in seconds.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._allowed = per_second
        self._counted = clock()
        self._by_address: OrderedDict[str, deque[Item]] = OrderedDict()

    def put(self, item: Item) -> None:
        """Add an item."""
        self._by_address.setdefault(item.place, deque()).append(item)

    def take(self) -> Item | None:
        """The next item; None when there is none, or it is too soon."""
        now = self._clock()
        self._allowed = min(self._per_second, self._allowed + (now - self._counted) * self._per_second)
        self._counted = now
        if not self._by_address or self._allowed < 1:
            return None
        self._allowed -= 1
        address, items = self._by_address.popitem(last=False)
        item = items.popleft()
        if items:
            self._by_address[address] = items
        return item

    def give_back(self) -> None:
        """Refund the last item, which needed no response."""
        self._allowed += 1

    @property
    def wait_seconds(self) -> float | None:
        """The seconds until `take` has an item; None when none waits."""
        return max(0.0, (1 - self._allowed) / self._per_second) if self._by_address else None
