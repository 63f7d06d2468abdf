"""The connection to MongoDB: collections, indexes, clock, transactions and what driver errors mean."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pymongo
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.dbref import DBRef
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
from pymongo.monitoring import CommandListener

from banyan.errors import BadRequest, BanyanError, Conflict, Invalid, SetupError, TooLarge, Unavailable
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

SERVER_SELECTION_MS = 5000
_CLOCK_SYNC_SECONDS = 10.0
_AWAY_CODES = frozenset({11600, 11602, 10107, 13435, 189, 91, 7, 6, 89, 9001})
"""Server error codes that mean: no primary now, try again."""
_DUPLICATE = 11000
_LARGE_CODES = frozenset({10334, 17419, 17420})
_CACHE_CODE = 388
_QUERY_CODES = frozenset({2, 9, 14, 51091})
_LARGE = "the document would be larger than MongoDB's limit of 16 MiB; pass large data as files"


def translate(error: BaseException) -> BanyanError | None:
    """What a driver error means to a caller; None when it is a defect of ours and should be seen as one."""
    if isinstance(error, (ConnectionFailure, WaitQueueTimeoutError, WTimeoutError)):
        return Unavailable("MongoDB cannot be reached now; try again in a few seconds")
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
    if codes <= _AWAY_CODES or error.has_error_label("TransientTransactionError"):
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


class _PlainReference(TypeDecoder):
    """Objects with the names `$ref` and `$id` come back as they were stored: they are users' inputs, no references."""

    bson_type = DBRef

    def transform_bson(self, value: DBRef) -> Document:
        """The object."""
        return dict(value.as_doc())


class Clock:
    """MongoDB's clock, read now and then and carried on by the monotonic one in between."""

    def __init__(self, read: Callable[[], datetime]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._base = datetime.now(UTC)
        self._synced: float | None = None

    def now(self) -> datetime:
        """MongoDB's time in UTC, to the millisecond that BSON keeps."""
        with self._lock:
            if self._synced is None or time.monotonic() - self._synced > _CLOCK_SYNC_SECONDS:
                before = time.monotonic()
                self._base = self._read()
                self._synced = (before + time.monotonic()) / 2
            current = self._base + timedelta(seconds=time.monotonic() - self._synced)
        return current.replace(microsecond=current.microsecond // 1000 * 1000)


class Storage:
    """All that Banyan keeps, by collection."""

    def __init__(self, client: "MongoClient[Document]", database: str) -> None:
        self.client = client
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
    def connect(cls, uri: str, database: str, listeners: Sequence[CommandListener] = ()) -> "Storage":
        """Open the database and bring it to this program's schema, with the collections and indexes that are missing.

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
    def open(cls, uri: str, database: str, listeners: Sequence[CommandListener] = ()) -> "Storage":
        """Connect, and refuse what cannot keep our promises; nothing is changed.

        `listeners` hear of every command (see `failpoints`).
        Raises `SetupError` for a wrong URI or a MongoDB that is no replica set, `Unavailable` when none answers.
        """
        try:
            client: MongoClient[Document] = MongoClient(
                uri,
                tz_aware=True,
                w="majority",
                journal=True,
                retryWrites=True,
                serverSelectionTimeoutMS=SERVER_SELECTION_MS,
                appname="banyan",
                event_listeners=list(listeners),
                type_registry=TypeRegistry([_PlainReference()]),
            )
            storage = cls(client, database)
            storage._refuse_standalone()
        except ConfigurationError as error:
            raise SetupError(f"mongo.uri: {error}") from error
        except PyMongoError as error:
            raise translate(error) or SetupError(f"mongo.uri: {error}") from error
        return storage

    def prepare(self) -> None:
        """Bring the database to this program's schema; `SetupError` if a newer program has used it."""
        upgrade(self.db)
        for store in (self.tasks, self.edges, self.executions, self.workers, self.queues, self.meta, self.signals):
            store.prepare()
        for kept in (self.users, self.memory, self.files, self.idempotency, self.models, self.parts, self.sweeps):
            kept.prepare()
        for leaving in (self.forget, self.retention):
            leaving.prepare()

    def ping(self, timeout_seconds: float = 2.0) -> None:
        """Return if a primary answers; raises the driver's error otherwise."""
        with pymongo.timeout(timeout_seconds):
            self.client.admin.command("ping")

    def transaction(self, act: Callable[[ClientSession], Result]) -> Result:
        """Run `act(session)` in a transaction, again when MongoDB says that it met another one."""
        with self.client.start_session() as session:
            return session.with_transaction(act)

    def close(self) -> None:
        """Let go of all connections."""
        self.client.close()

    def _read_clock(self) -> datetime:
        now: datetime = self.client.admin.command("hello")["localTime"]
        return now.replace(tzinfo=UTC)

    def _refuse_standalone(self) -> None:
        hello = self.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise SetupError(
                "mongo.uri: this MongoDB is a standalone server, and Banyan needs a replica set (one node is enough). "
                "Start mongod with --replSet rs0 and run in mongosh: rs.initiate()"
            )
