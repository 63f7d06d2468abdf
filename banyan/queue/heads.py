"""The best claimable task of each class, remembered between claims and read again where something may have changed."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

Document = dict[str, Any]

_BELIEVED_SECONDS = 1.0
"""For so long heads are believed about which nobody has said anything: a server that dies may leave it unsaid."""
_MOST_CHANGED = 500
"""When more classes have changed, all heads are read: that is one pass over the index."""

Read = Callable[[Sequence[str] | None], Sequence[Document]]


class Heads:
    """What one server knows of the heads of classes. A head that is gone costs a look at its class and nothing else.

    `read(keys)` reads the heads of these classes, or of all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = Lock()  # held by the one that reads, so that nobody else believes what is being read again
        self._lock = Lock()
        self._known: Mapping[str, Document] = {}
        self._read_at: float | None = None
        self._changed: set[str] = set()

    def changed(self, keys: Iterable[str]) -> None:
        """Tasks of these classes have become claimable, or are so no longer."""
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
