"""The best claimable task of each class, cached between claims and read again where it may have changed."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

Document = dict[str, Any]

_BELIEVED_SECONDS = 1.0
"""The time for which cached heads are trusted without a notice: a server that dies may fail to send one."""
_MOST_CHANGED = 500
"""The number of changed classes above which all heads are read: that is one pass over the index."""

Read = Callable[[Sequence[str] | None], Sequence[Document]]


class Heads:
    """One server's cache of the heads of classes. An outdated head costs one read of its class and nothing else.

    `read(keys)` reads the heads of these classes, or of all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = Lock()  # held during a read, so that no other claim trusts the heads that are being read again
        self._lock = Lock()
        self._known: Mapping[str, Document] = {}
        self._read_at: float | None = None
        self._changed: set[str] = set()

    def changed(self, keys: Iterable[str]) -> None:
        """Note that tasks of these classes have become claimable, or no longer are."""
        with self._lock:
            self._changed.update(keys)

    def current(self, read: Read, *, fresh: bool = False) -> Mapping[str, Document]:
        """The heads by class; with `fresh` all of them are read now."""
        with self._reading:
            at = self._clock()
            with self._lock:
                changed, self._changed = self._changed, set()
            old = self._read_at is None or at - self._read_at >= _BELIEVED_SECONDS
            everything = fresh or old or len(changed) > _MOST_CHANGED
            if everything or changed:
                self._known = self._read(read, None if everything else changed)
                self._read_at = at if everything else self._read_at
            return self._known

    def _read(self, read: Read, changed: set[str] | None) -> Mapping[str, Document]:
        try:
            found = {head["class_key"]: head for head in read(None if changed is None else sorted(changed))}
        except BaseException:
            self.changed(changed or ())
            self._read_at = None
            raise
        if changed is None:
            return found
        return {key: head for key, head in self._known.items() if key not in changed} | found
