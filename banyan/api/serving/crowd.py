"""All connections of a process, and the bounds on those without a valid token."""

import resource
from collections import OrderedDict
from collections.abc import Callable, Iterator

from banyan.api.serving.connection import Connection, Phase

_MOST_UNPROVEN = 8_192


class Crowd:
    """The connections by descriptor. Unproven ones are bounded in total and for each address.

    Of an address that has too many the oldest is closed, so that a client that sends its request at once is always
    admitted, even from an address that it shares with other clients. Proven connections do not count.
    """

    def __init__(self, most: int | None = None) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = most or min(_MOST_UNPROVEN, files // 2)
        self.by_fd: dict[int, Connection] = {}
        self._unproven: dict[str, OrderedDict[int, Connection]] = {}
        self._count = 0

    def add(self, connection: Connection) -> None:
        """Admit a connection; another one may be closed for it."""
        self.by_fd[connection.fd] = connection
        own = self._unproven.setdefault(connection.place, OrderedDict())
        own[connection.fd] = connection
        self._count += 1
        if len(own) > self._most // 2:
            self._drop_of(own)
        elif self._count > self._most:
            self.drop_one()

    def prove(self, connection: Connection) -> None:
        """Mark the connection as proven: a valid token was received on it."""
        if not connection.proven:
            connection.proven = True
            self._forget(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has ended."""
        self.by_fd.pop(connection.fd, None)
        if not connection.proven:
            self._forget(connection)

    def drop_one(self) -> bool:
        """Close the oldest connection of the address with the most unproven ones; False if there is none."""
        crowded = max(self._unproven.values(), key=len, default=None)
        return crowded is not None and self._drop_of(crowded)

    def late(self, now: float) -> list[Connection]:
        """The connections that wait for their client and are past their deadline."""
        return [
            each
            for each in self.by_fd.values()
            if each.deadline < now and each.phase not in (Phase.ANSWER, Phase.CHECK, Phase.QUEUED)
        ]

    def close_those(self, chosen: Callable[[Connection], bool]) -> None:
        """Close the connections for which `chosen` is true, unless a thread responds there."""
        for each in [each for each in self.by_fd.values() if each.phase is not Phase.ANSWER and chosen(each)]:
            self.remove(each)
            each.close()

    def _drop_of(self, own: "OrderedDict[int, Connection]") -> bool:
        for each in _free(own):
            self.remove(each)
            each.close()
            return True
        return False

    def _forget(self, connection: Connection) -> None:
        own = self._unproven.get(connection.place, OrderedDict())
        if own.pop(connection.fd, None) is not None:
            self._count -= 1
        if not own:
            self._unproven.pop(connection.place, None)


def _free(own: "OrderedDict[int, Connection]") -> Iterator[Connection]:
    """The oldest first, without those that a thread works on."""
    return (each for each in own.values() if each.phase not in (Phase.ANSWER, Phase.CHECK))
