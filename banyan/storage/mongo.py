"""The connection to MongoDB: collections, indexes, clock, transactions and the meaning of driver errors."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import pymongo
from bson.errors import InvalidDocument
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
    WTimeoutError,
)

from banyan.errors import BadRequest, BanyanError, Conflict, Invalid, SetupError, TooLarge, Unavailable
from banyan.storage.clock import Clock
from banyan.storage.edges import EdgeStore
from banyan.storage.executions import ExecutionStore
from banyan.storage.files import FileStore
from banyan.storage.forget import ForgetStore
from banyan.storage.idempotency import IdempotencyStore
from banyan.storage.leftovers import Leftovers
from banyan.storage.memory import MemoryStore
from banyan.storage.meta import MetaStore
from banyan.storage.models import ModelStore
from banyan.storage.parts import PartStore
from banyan.storage.queues import QueueStore
from banyan.storage.reach import AWAY, OPTIONS, Listener, Reach, transact
from banyan.storage.retention import RetentionStore
from banyan.storage.signals import SignalStore
from banyan.storage.sweeps import SweepStore
from banyan.storage.tasks import TaskStore
from banyan.storage.upgrade import upgrade
from banyan.storage.users import UserStore
from banyan.storage.workers import WorkerStore

Document = dict[str, Any]
Session = ClientSession
Result = TypeVar("Result")

_CLOCK_SECONDS = 2.0
_AWAY_CODES = frozenset(
    {6, 7, 43, 64, 89, 91, 100, 133, 134, 175, 189, 237, 262, 9001, 10107, 11600, 11601, 11602, 13435, 13436}
)
"""Server error codes with the meaning: no primary now, or the primary was lost during the operation; try again."""
_AGAIN_LABELS = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")
_DUPLICATE = 11000
_LARGE_CODES = frozenset({10334, 17419, 17420})
_CACHE_CODE = 388
_QUERY_CODES = frozenset({2, 9, 14, 51091, 51111, 51156})
_LARGE = "the document would be larger than MongoDB's limit of 16 MiB; pass large data as files"


def translate(error: BaseException) -> BanyanError | None:
    """Banyan's error for a driver error; None when it is a defect of ours and should be visible as one."""
    if isinstance(error, (ConnectionFailure, WaitQueueTimeoutError, WTimeoutError)):
        return Unavailable(AWAY)
    if isinstance(error, DocumentTooLarge):
        return TooLarge(_LARGE)
    if isinstance(error, (InvalidDocument, OverflowError)):
        return Invalid({"_body": f"MongoDB cannot store it: {error}"})
    if isinstance(error, OperationFailure):
        return _translate_failure(error)
    return None


def _translate_failure(error: OperationFailure) -> BanyanError | None:
    details = error.details or {}
    codes = {fault.get("code") for fault in details.get("writeErrors", ())} or {error.code}
    if isinstance(error, ExecutionTimeout):
        return BadRequest("the query took too long and was stopped; narrow it, or filter by an indexed field")
    again = any(error.has_error_label(label) for label in _AGAIN_LABELS) or bool(details.get("writeConcernErrors"))
    if codes <= _AWAY_CODES or again:
        return Unavailable("MongoDB has no primary now; try again in a few seconds")
    if codes == {_CACHE_CODE}:
        return Unavailable("MongoDB's cache is too full for it now; try again, or give it more (mongo.cache_gigabytes)")
    if codes == {_DUPLICATE}:
        return Conflict("a document with this key is there already")
    if codes <= _LARGE_CODES:
        return TooLarge(_LARGE)
    if codes <= _QUERY_CODES:
        return BadRequest(f"MongoDB refused the query: {details.get('errmsg')}")
    return None


class Storage:
    """All stored data of Banyan, by collection."""

    def __init__(self, client: "MongoClient[Document]", database: str, reach: Reach | None = None) -> None:
        self.client = client
        self.reach = reach or Reach()
        self.db: Database[Document] = client[database]
        self.clock = Clock(self._read_clock)
        self.tasks = TaskStore(self.db)
        self.edges = EdgeStore(self.db)
        self.executions = ExecutionStore(self.db)
        self.workers = WorkerStore(self.db)
        self.queues = QueueStore(self.db)
        self.models = ModelStore(self.db)
        self.meta = MetaStore(self.db)
        self.signals = SignalStore(self.db)
        self.users = UserStore(self.db)
        self.memory = MemoryStore(self.db)
        self.files = FileStore(self.db)
        self.leftovers = Leftovers(self.db, self.files)
        self.idempotency = IdempotencyStore(self.db)
        self.parts = PartStore(self.db)
        self.sweeps = SweepStore(self.db)
        self.forget = ForgetStore(self.db)
        self.retention = RetentionStore(self.db)

    @classmethod
    def connect(cls, uri: str, database: str, listeners: Iterable[Listener] = ()) -> "Storage":
        """Open the database and upgrade it to this program's schema, with the collections and indexes that are missing.

        Raises what `open` does, and `SetupError` for a database that a newer program has used.
        """
        storage = cls.open(uri, database, listeners)
        try:
            storage.prepare()
        except PyMongoError as error:
            storage.close()
            raise translate(error) or SetupError(f"mongo.uri: {error}") from error
        except BanyanError:
            storage.close()
            raise
        return storage

    @classmethod
    def open(cls, uri: str, database: str, listeners: Iterable[Listener] = ()) -> "Storage":
        """Connect, and refuse a MongoDB that cannot keep our promises; nothing is changed.

        `listeners` are the driver's event listeners.

        Raises `SetupError` for a wrong URI or a MongoDB that is no replica set, `Unavailable` when none responds.
        """
        reach = Reach()
        try:
            client: MongoClient[Document] = MongoClient(
                uri,
                tz_aware=True,
                appname="banyan",
                event_listeners=[reach, *listeners],
                **OPTIONS,
            )
            storage = cls(client, database, reach)
            storage._refuse_standalone()
        except ConfigurationError as error:
            raise SetupError(f"mongo.uri: {error}") from error
        except PyMongoError as error:
            raise translate(error) or SetupError(f"mongo.uri: {error}") from error
        return storage

    def prepare(self) -> None:
        """Upgrade the database to this program's schema; `SetupError` if a newer program has used it."""
        upgrade(self.db)
        for store in (self.tasks, self.edges, self.executions, self.workers, self.queues, self.meta, self.signals):
            store.prepare()
        for kept in (self.users, self.memory, self.files, self.idempotency, self.models, self.parts, self.sweeps):
            kept.prepare()
        for leaving in (self.forget, self.retention):
            leaving.prepare()

    def ping(self, timeout_seconds: float = 2.0) -> None:
        """Return if a primary responds; raises the driver's error otherwise."""
        with pymongo.timeout(timeout_seconds):
            self.client.admin.command("ping")

    def transaction(self, act: Callable[[ClientSession], Result]) -> Result:
        """Run `act(session)` in a transaction; it is repeated when MongoDB reports a conflict with another one."""
        with self.client.start_session() as session:
            return transact(session, act)

    @contextmanager
    def in_order(self) -> Iterator[ClientSession]:
        """A session whose reads never show older data than its earlier reads did, even when the primary has changed."""
        with self.client.start_session(causal_consistency=True) as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def _read_clock(self) -> datetime:
        with pymongo.timeout(_CLOCK_SECONDS):
            now: datetime = self.client.admin.command("hello")["localTime"]
        return now.replace(tzinfo=UTC)

    def _refuse_standalone(self) -> None:
        hello = self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise SetupError(
                "mongo.uri: this MongoDB is a standalone server, and Banyan needs a replica set (one node is enough). "
                "Start mongod with --replSet rs0 and run in mongosh: rs.initiate()"
            )
