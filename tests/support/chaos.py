"""A chaos run: the plan is carried out on a world, clients ask and watch, and all that happened is read at the end."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

from bson import ObjectId
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from banyan.errors import BanyanError, Invalid, Unavailable
from tests.support.chaos_plan import Document, Plan, Wish
from tests.support.chaos_world import DATABASE, World
from tests.support.happened import History
from tests.support.history import ENDED, contradictions

_LOOK_SECONDS = 0.5
_SETTLED_SECONDS = 1.5
"""How long a task has ended before it is retried, so that its attempts are surely older than the retry."""


class Chaos:
    """A context manager; `run` from the main thread, which all processes belong to."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._plan = plan
        self._client = world.servers[0].client("user", f"http://127.0.0.1:{world.line.port}")
        self._mongo: MongoClient[Document] = MongoClient(world.trio.uri, tz_aware=True, serverSelectionTimeoutMS=2000)
        self._submitter = ThreadPoolExecutor(1)  # one after the other: later ones name tasks of earlier ones
        self._wishers = ThreadPoolExecutor(2)
        self._asked: list[Future[None]] = []
        self._submitted: list[ObjectId] = []
        self._lock = Lock()
        self._told: dict[ObjectId, tuple[str, str]] = {}
        self._told_at: dict[ObjectId, float] = {}
        self._retried: dict[ObjectId, datetime] = {}
        self._over = Event()
        self._watcher = Thread(target=self._watch, name="watcher")

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        for pool in (self._submitter, self._wishers):
            pool.shutdown(cancel_futures=True)
        self._client.close()
        self._mongo.close()

    def run(self) -> None:
        """Carry out the plan, then mend the world."""
        acts: list[tuple[float, Callable[[], None]]] = []
        for at, tasks in self._plan.submissions:
            acts.append((at, partial(self._ask, self._submitter, self._submit, tasks)))
        acts += [(wish.at, partial(self._ask, self._wishers, self._grant, wish)) for wish in self._plan.wishes]
        for fault in self._plan.faults:
            acts.append((fault.at, partial(self._world.begin, fault)))
            acts.append((fault.at + fault.seconds, partial(self._world.end, fault)))
        begun = time.monotonic()
        for at, act in sorted(acts, key=lambda each: each[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            act()
        self._world.mend()

    def _ask(self, pool: ThreadPoolExecutor, act: Callable[[Any], None], what: Any) -> None:
        self._asked.append(pool.submit(act, what))

    # What clients do

    def _submit(self, tasks: Sequence[Document]) -> None:
        key = str(ObjectId())
        while not self._over.is_set():
            with suppress(Unavailable):
                accepted = self._client.submit(tasks, key=key)
                self._submitted += [ObjectId(each["_id"]) for each in accepted]
                return

    def _grant(self, wish: Wish) -> None:
        if wish.what == "cancel":
            with suppress(BanyanError):  # it may not be there yet
                self._client.cancel(str(self._plan.ids[wish.index]))
        else:
            self._retry(wish.index)

    def _retry(self, hint: int) -> None:
        """Retry a task that ended otherwise than by success, the first one from the hinted index on."""
        ids = [*self._plan.ids[hint:], *self._plan.ids[:hint]]
        now = time.monotonic()
        with self._lock:
            ended = [id for id in ids if id in self._told and self._told[id][1] != "success"]
            ended = [id for id in ended if now - self._told_at[id] > _SETTLED_SECONDS and id not in self._retried]
        if ended:
            self._retry_surely(ended[0])

    def _retry_surely(self, id: ObjectId) -> None:
        """Until it is known whether it was done; the revision tells where an answer was lost."""
        before = self._etag(id)
        while before is not None and not self._over.is_set():
            asked_at = datetime.now(UTC)
            with self._lock:
                self._retried[id] = self._retried.get(id, asked_at)
            try:
                self._client.retry(str(id))
            except Unavailable:
                continue
            except Invalid:
                if self._etag(id) == before:
                    with self._lock:
                        self._retried.pop(id)
            return

    def _etag(self, id: ObjectId) -> str | None:
        while not self._over.is_set():
            with suppress(Unavailable):
                return str(self._client.task(str(id))["_etag"])
        return None

    def _watch(self) -> None:
        """Remember what clients are told of ends."""
        while not self._over.wait(_LOOK_SECONDS):
            with suppress(BanyanError):
                for task in self._client.each_task({"state": {"$in": list(ENDED)}}, ["state", "exit_status"]):
                    self._tell(ObjectId(task["_id"]), (task["state"], task["exit_status"]))

    def _tell(self, id: ObjectId, how: tuple[str, str]) -> None:
        with self._lock:
            if id not in self._told:
                self._told[id], self._told_at[id] = how, time.monotonic()

    # What there is at the end

    def ended(self) -> bool:
        """Whether everything was accepted and has ended; keeps the world alive meanwhile."""
        self._world.revive()
        if not all(each.done() for each in self._asked):
            return False
        for each in self._asked:
            each.result()
        with suppress(PyMongoError):
            return not self._mongo[DATABASE]["tasks"].count_documents({"state": {"$nin": list(ENDED)}})
        return False

    def history(self) -> History:
        """All that happened, as a majority has it."""
        self._world.revive()
        db = self._mongo.get_database(DATABASE, read_concern=ReadConcern("majority"))
        with self._lock:
            told, retried = dict(self._told), dict(self._retried)
        return History(
            tasks=list(db["tasks"].find()),
            edges=list(db["continuations"].find()),
            attempts=list(db["executions"].find()),
            submitted=list(self._submitted),
            effects=self._world.effects(),
            told=told,
            retried=retried,
            statistics=self._client.statistics(),
        )

    def show(self) -> str:
        """What is wrong, and the end of every log."""
        found = contradictions(self.history())
        open_ones = list(self._mongo[DATABASE]["tasks"].find({"state": {"$nin": list(ENDED)}}).limit(5))
        waiting = [each for each in self._asked if not each.done()]
        lines = [f"{len(found)} contradictions", *found[:20], f"{len(waiting)} requests wait", *map(str, open_ones)]
        return "\n".join([*lines, self._world.logs()])

    def summary(self) -> str:
        """What happened, in figures."""
        history = self.history()
        ends = Counter(task["exit_status"] for task in history.tasks)
        lost = sum(bool(attempt.get("lost")) for attempt in history.attempts)
        kinds = Counter(f"{fault.kind} {fault.target}" for fault in self._plan.faults)
        text = (
            f"{len(history.tasks)} tasks, {len(history.attempts)} attempts ({lost} lost), {len(self._retried)} retried"
        )
        return f"{text}; ends: {dict(ends.most_common(6))}; faults: {dict(kinds)}"
