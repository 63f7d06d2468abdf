"""Admission: the check of a request's token, and the choice of its lane."""

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable

from banyan.api.serving.incoming import Incoming
from banyan.api.serving.memory import LARGE_BYTES

MOST_KNOWN = 10_000

_WAITS = re.compile(r"/workers/[^/]*/claim/?")
_STORED = re.compile(r"/execution_history/.*")


class KnownTokens:
    """The `Authorization` headers that were valid at their last lookup; safe to be shared by threads.

    The application checks each of them again: this only decides which threads a request may use.
    """

    def __init__(self, look_up: Callable[[str], bool]) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def has(self, header: str) -> bool:
        """Return whether it is known to be valid, without a lookup."""
        digest = _digest(header)
        with self._lock:
            known = digest in self._known
            if known:
                self._known.move_to_end(digest)
            return known

    def check(self, header: str) -> bool:
        """Look it up; return whether it is valid."""
        good = self._look_up(header)
        if good:
            with self._lock:
                self._known[_digest(header)] = None
                while len(self._known) > MOST_KNOWN:
                    self._known.popitem(last=False)
        return good

    def forget(self, header: str) -> None:
        """Remove a header that was refused."""
        with self._lock:
            self._known.pop(_digest(header), None)


def _digest(header: str) -> bytes:
    return hashlib.sha256(header.encode("latin-1", "replace")).digest()


def waits(incoming: Incoming) -> bool:
    """Return whether the request is a claim, which may be held open until there is work."""
    return incoming.request.method == "POST" and _WAITS.fullmatch(incoming.request.path) is not None


def is_heavy(incoming: Incoming) -> bool:
    """Return whether the body takes much memory when it is parsed; a file that is stored does not."""
    return incoming.parsed_bytes > LARGE_BYTES and _STORED.fullmatch(incoming.request.path) is None
