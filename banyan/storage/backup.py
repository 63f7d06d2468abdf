"""Backup of a database in use, and restore.

All collections are read as they were at one moment, in a session of MongoDB's that reads a snapshot. So a backup equals
the database after a server was killed at that moment, from which servers recover.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

from bson import decode_all
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, WriteConcern
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from banyan.errors import SetupError, Unavailable
from banyan.storage import archive
from banyan.storage.archive import Contents, Piece
from banyan.storage.mongo import Storage, translate
from banyan.storage.upgrade import FIRST_VERSION, RESTORING, check_version

Document = dict[str, Any]

_FLEETING = frozenset({"signals"})
_WATCHED_SECONDS = 30.0
_WINDOW = "minSnapshotHistoryWindowInSeconds"
_WINDOW_SECONDS = 300
_TOO_OLD = 239
_UNAVAILABLE = 246
_TRIES = 5
_RAW: CodecOptions[Document | RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)


def back_up(storage: Storage, path: Path, *, force: bool = False) -> Contents:
    """Write the whole database to a new file (mode 0600), and read the file once more to check it.

    Raises `SetupError` if the file exists, unless `force` allows to replace it, or if it cannot be written;
    `Unavailable` if MongoDB becomes unavailable. There is a file at `path` only if it is complete.
    """
    if path.exists() and not force:
        raise SetupError(f"{path} is there already; name another file, or replace it with --force")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            written = _written(storage, file)
            file.flush()
            os.fsync(file.fileno())
            if archive.verify(file, str(path)) != written:
                raise SetupError(f"{path}: what was read back is not what was written; is the disk sound?")
        unfinished.replace(path)
    except OSError as error:
        raise SetupError(f"cannot write the backup {path}: {error.strerror or error}") from error
    except PyMongoError as error:
        raise translate(error) or error from error
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _written(storage: Storage, file: IO[bytes]) -> Contents:
    for tries in range(_TRIES):
        try:
            with _history(storage.client) as keep, storage.client.start_session(snapshot=True) as session:
                return _write(storage, file, session, keep)
        except OperationFailure as error:
            # A collection or an index was created just now, or MongoDB dropped the past: a later moment succeeds.
            if error.code not in (_TOO_OLD, _UNAVAILABLE) or tries == _TRIES - 1:
                raise
            time.sleep(tries)
            file.seek(0)
            file.truncate()
    raise AssertionError("unreachable")


def _write(storage: Storage, file: IO[bytes], session: ClientSession, keep: Callable[[], None]) -> Contents:
    # This first read fixes the moment; a collection that is created after it, and is thus in the list, is an error.
    schema = storage.db["meta"].find_one({"_id": "schema"}, session=session)
    writer = archive.Writer(
        file,
        schema=int(schema["version"]) if schema else FIRST_VERSION,
        database=storage.db.name,
        created=storage.clock.now().isoformat(),
    )
    for name in sorted(_collections(storage)):
        writer.collection(name, _batches(storage, name, session, keep))
    return writer.close()


def _batches(storage: Storage, name: str, session: ClientSession, keep: Callable[[], None]) -> Iterator[bytes]:
    for batch in storage.db[name].find_raw_batches(session=session):
        keep()
        yield cast("bytes", batch)


def _collections(storage: Storage) -> list[str]:
    names = storage.db.list_collection_names(filter={"type": "collection"})
    return [name for name in names if name not in _FLEETING and not name.startswith("system.")]


@contextmanager
def _history(client: "MongoClient[Document]") -> Iterator[Callable[[], None]]:
    """Make MongoDB keep the past for the duration of the block, which must call the yielded function from time to time.

    Without the right to do so, MongoDB keeps the past for as long as it is configured to, five minutes by default.
    """
    try:
        before = int(client.admin.command({"getParameter": 1, _WINDOW: 1})[_WINDOW])
    except OperationFailure:
        yield lambda: None
        return
    window, begun = max(before, _WINDOW_SECONDS), time.monotonic()

    def keep() -> None:
        nonlocal window
        if time.monotonic() - begun > window / 2:
            window *= 2
            _set_window(client, window)

    _set_window(client, window)
    try:
        yield keep
    finally:
        with suppress(PyMongoError):
            _set_window(client, before)


def _set_window(client: "MongoClient[Document]", seconds: int) -> None:
    with suppress(OperationFailure):
        client.admin.command({"setParameter": 1, _WINDOW: seconds})


def check(path: Path) -> Contents:
    """Read a whole backup; raises `SetupError` if it is damaged, or of a newer program."""
    with _reading(path) as file:
        contents = archive.verify(file, str(path))
        check_version(contents.schema, str(path))
        return contents


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise SetupError(f"cannot read the backup {path}: {error.strerror or error}") from error
    with file:
        yield file


def restore(storage: Storage, path: Path, *, force: bool = False, alone: bool = False) -> Contents:
    """Fill an empty database from a backup and upgrade it to this program's schema.

    The whole file is checked before the first write. With `force` the contents of the database are removed first;
    `alone` states that no server can be using it, which is checked otherwise. Raises `SetupError` if the file is
    damaged or of a newer program, or if the database is not empty or in use.
    """
    contents = check(path)
    try:
        if not alone:
            _refuse_used(storage)
        _clear(storage, force)
        with _reading(path) as file:
            _fill(storage, file, path)
        _compare(storage, contents)
        storage.db["meta"].delete_one({"_id": RESTORING})
        storage.prepare()
    except PyMongoError as error:
        raise translate(error) or error from error
    return contents


def _refuse_used(storage: Storage) -> None:
    leases = storage.db["meta"].find_one({"_id": "leases"})
    silent = storage.clock.now() - leases["watched"] if leases else None
    if silent is not None and silent < timedelta(seconds=_WATCHED_SECONDS):
        raise SetupError(
            f"a server was using this database {silent.total_seconds():.0f} s ago; stop all servers, wait "
            f"{_WATCHED_SECONDS:g} s, and try again"
        )


def _clear(storage: Storage, force: bool) -> None:
    there = _collections(storage)
    if not force and any(storage.db[name].find_one({}, {"_id": 1}) is not None for name in there):
        name = storage.db.name
        raise SetupError(f"the database {name!r} is not empty; --force removes what it has before the backup comes")
    marker = {"_id": RESTORING}
    storage.db["meta"].update_one(marker, {"$set": {"begun": storage.clock.now()}}, upsert=True)
    storage.db["meta"].delete_many({"_id": {"$ne": RESTORING}})
    for name in there:
        if name != "meta":
            storage.db.drop_collection(name)


def _fill(storage: Storage, file: IO[bytes], path: Path) -> None:
    quick = WriteConcern(w=1, j=False)  # the last write, which is acknowledged by a majority, comes after all of these
    for piece in archive.read(file, str(path)):
        target = storage.db.get_collection(piece.collection, _RAW, write_concern=quick)
        if piece.raw:
            target.insert_many(documents_of(piece), ordered=False)


def documents_of(piece: Piece) -> list[Document | RawBSONDocument]:
    """The documents as they are in a backup, including the order of their fields."""
    return decode_all(piece.raw, _RAW)


def _compare(storage: Storage, contents: Contents) -> None:
    """Raise `Unavailable` if MongoDB lacks some of the written documents, or has more."""
    local = ReadConcern("local")  # the majority may not have everything yet: the last write waits for that
    there: Mapping[str, int] = {
        name: storage.db.get_collection(name, read_concern=local).count_documents({}) for name in contents.counts
    }
    wrong = [name for name, count in contents.counts.items() if there[name] - (name == "meta") != count]
    if wrong:
        raise Unavailable(f"not all documents have arrived, in {', '.join(wrong)}; restore it once more with --force")
