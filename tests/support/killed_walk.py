"""Walks of retention that are killed after their first write, after their second, and so on.

`python -m tests.support.killed_walk DATABASE KIND`, with MongoDB's URI on stdin, prints how often it was killed; it
exits 1 when something is left after the next walk that should have gone, or has gone that should be there.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from types import FrameType

from banyan.queue.context import Context
from banyan.queue.rescue import mend
from banyan.queue.retention import walk
from banyan.storage.failpoints import Points
from banyan.storage.files import Quota
from banyan.storage.mongo import Storage
from tests.support.queue import SimulatedWorker, context_of, post, task

DAY = timedelta(days=1)
_QUOTA = Quota(max_file_bytes=1000, max_attempt_bytes=1000, max_files=5)
LEFT = {
    "tasks": {"tasks": 1, "executions": 0, "files": 0, "memory_usage": 0},
    "history": {"tasks": 3, "executions": 0, "files": 0, "memory_usage": 2},
    "files": {"tasks": 3, "executions": 2, "files": 0, "memory_usage": 2},
    "memory_usage": {"tasks": 3, "executions": 2, "files": 2, "memory_usage": 0},
}
"""How many documents there are after the walk of each kind."""


def fill(context: Context) -> None:
    """Two tasks that have run and left something, and one that waits; nothing else."""
    for name in context.storage.db.list_collection_names():
        if name not in ("meta", "queues"):
            context.storage.db[name].delete_many({})
    context.storage.db["meta"].update_one({"_id": "retention"}, {"$unset": dict.fromkeys(LEFT, 1)})
    post(context, task(), task())
    worker = SimulatedWorker(context)
    for grant in worker.claim().tasks:
        execution = grant["execution"]
        context.storage.files.append(execution, "stdout", 0, b"said", _QUOTA, context.now())
        sample = {"task": grant["_id"], "execution": execution, "time": context.now(), "resident_memory_bytes": 1}
        context.storage.memory.add([sample], context.now())
    worker.end()
    post(context, task(hold=True))


def go_on(context: Context, kind: str) -> None:
    """The next walk."""
    walk(context, kind, context.now() + 2 * DAY, DAY)


def check(context: Context, kind: str) -> None:
    """What another server does afterwards, and whether all is right then."""
    go_on(context, kind)
    mend(context)
    there = {name: context.storage.db[name].count_documents({}) for name in LEFT[kind]}
    noted = context.storage.db["forget"].count_documents({})
    doomed = [name for name in ("doomed_files", "doomed_samples") if context.storage.db[name].find_one()]
    pieces = context.storage.db["file_segments.chunks"].count_documents({})
    assert (there, doomed, pieces) == (LEFT[kind], [], there["files"]), (there, doomed, pieces)
    assert noted == (0 if kind == "memory_usage" else 2), noted


def main() -> None:
    """See above."""
    uri, database, kind = sys.stdin.read(), sys.argv[1], sys.argv[2]

    def apart(act: Callable[[Context], None], killed_after: int = 0) -> int:
        """Do it in a process of its own; how that ended."""
        pid = os.fork()
        if pid:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            numbers = count(1)

            def passed(name: str, frame: FrameType | None) -> None:
                if next(numbers) == killed_after:
                    os.kill(os.getpid(), signal.SIGKILL)

            act(context_of(Storage.open(uri, database, [Points(passed)] if killed_after else [])))
        except Exception:  # noqa: BLE001 - it is told, by the exit code too: the child must not go on in the parent's code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    for number in count(1):
        if apart(fill):
            sys.exit(1)
        ended = apart(lambda context: go_on(context, kind), killed_after=number)
        if ended not in (0, -signal.SIGKILL) or apart(lambda context: check(context, kind)):
            sys.exit(1)
        if ended == 0:
            print(number - 1)
            return


if __name__ == "__main__":
    main()
