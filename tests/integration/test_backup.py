"""Backups: what is in them, what damage is found, and what they are restored into."""

import gzip
import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import DBRef, Int64, ObjectId, decode_all
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from banyan.domain.roles import Role
from banyan.errors import SetupError
from banyan.queue.context import Context
from banyan.queue.rescue import rescue
from banyan.storage import archive, backup
from banyan.storage.archive import MAGIC, Writer
from banyan.storage.files import Quota
from banyan.storage.mongo import Storage
from banyan.storage.upgrade import SCHEMA_VERSION
from tests.support.queue import SimulatedWorker, after, context_of, post, states, task

Contents = dict[str, dict[Any, bytes]]
QUOTA = Quota(max_file_bytes=2**30, max_attempt_bytes=2**30, max_files=100)


def stored(storage: Storage) -> Contents:
    """Every document of a database as it lies there, by collection and id; what is fleeting left out."""
    found: Contents = {}
    options: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
    for name in storage.db.list_collection_names():
        batches: Any = storage.db[name].find_raw_batches()
        documents = {each["_id"]: bytes(each.raw) for batch in batches for each in decode_all(batch, options)}
        if documents and name != "signals":
            found[name] = documents
    return found


@pytest.fixture
def full(context: Context) -> Storage:
    """A database with some of everything."""
    storage = context.storage
    storage.users.add("ann", Role.PROVIDER, context.now())
    parent = ObjectId()
    post(context, task(_id=parent), task(dependencies=after(parent)), task(inputs={"": float("nan"), "$x": 1}))
    worker = SimulatedWorker(context)
    for execution in [grant["execution"] for grant in worker.claim().tasks]:
        storage.files.append(execution, "files/big", 0, bytes(range(256)) * 20_000, QUOTA, context.now())
        sample = {"task": parent, "execution": execution, "time": context.now(), "resident_memory_bytes": 1}
        storage.memory.add([sample], context.now())
    worker.end("success", result={"a.b": Int64(2**60)})
    storage.db["tasks"].insert_one({"odd": DBRef("x", 1), "": None, "deep": [{"$ref": 1}]})
    storage.db["executions"].insert_many([{"n": number, "pad": "x" * 2000} for number in range(3000)])
    return storage


@pytest.fixture
def empty(mongo_uri: str, database_name: str) -> Iterator[Storage]:
    """A database without anything."""
    storage = Storage.open(mongo_uri, f"{database_name}_2")
    yield storage
    storage.close()
    with MongoClient[dict[str, Any]](mongo_uri) as client:
        client.drop_database(storage.db.name)


@pytest.fixture
def file(full: Storage, tmp_path: Path) -> Path:
    """A backup of it."""
    path = tmp_path / "backup"
    backup.back_up(full, path)
    return path


def test_a_restored_database_is_the_same_to_the_byte_and_has_all_indexes(
    full: Storage, empty: Storage, file: Path
) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    contents = backup.restore(empty, file)
    there = stored(full)
    assert stored(empty) == there
    assert contents.documents == sum(map(len, there.values()))
    for name in there:
        assert empty.db[name].index_information() == full.db[name].index_information(), name
    assert [path.name for path in file.parent.iterdir()] == ["backup"]


def test_it_shows_one_moment_while_others_write(context: Context, tmp_path: Path) -> None:
    storage, stop = context.storage, threading.Event()
    pad = "x" * 1000
    storage.db["executions"].insert_many([{"_id": n, "value": 0, "pad": pad} for n in range(2000)])
    storage.db["tasks"].insert_many([{"_id": n, "value": 0, "pad": pad} for n in range(2000)])

    def move() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1999) % 2000

            def write(session: Any, number: int = number) -> None:
                storage.db["tasks"].update_one({"_id": number}, {"$inc": {"value": -1}}, session=session)
                storage.db["executions"].update_one({"_id": number}, {"$inc": {"value": 1}}, session=session)

            storage.transaction(write)

    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    sums = []
    try:
        for number in range(3):
            backup.back_up(storage, tmp_path / str(number))
            with (tmp_path / str(number)).open("rb") as opened:
                sums.append(_moved(opened))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(taken == -given for taken, given in sums)
    assert sums[-1] != sums[0]


def _moved(opened: Any) -> tuple[int, int]:
    totals = {"tasks": 0, "executions": 0}
    for piece in archive.read(opened, "it"):
        if piece.collection in totals:
            totals[piece.collection] += sum(d["value"] for d in backup.documents_of(piece))
    return totals["tasks"], totals["executions"]


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(full: Storage, file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(SetupError, match=r"is there already; .*--force"):
        backup.back_up(full, file)
    assert file.read_bytes() == before
    full.users.add("eve", Role.PROVIDER, full.clock.now())
    backup.back_up(full, file, force=True)
    assert backup.check(file).counts["users"] == 2


def damaged(whole: bytes) -> Iterator[bytes]:
    """Backups to which something has happened."""
    yield b""
    yield b"something else"
    for share in (0.05, 0.3, 0.7, 0.999):
        place = len(MAGIC) + int(share * (len(whole) - len(MAGIC)))
        yield whole[:place]
        yield whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
    yield whole[:-1]
    yield whole[:-8]
    yield whole + b"x"
    plain = gzip.decompress(whole[len(MAGIC) :])
    middle = len(plain) // 2
    yield MAGIC + gzip.compress(plain[:middle], 1)
    yield MAGIC + gzip.compress(plain[:middle] + bytes([plain[middle] ^ 1]) + plain[middle + 1 :], 1)


def test_a_damaged_file_is_refused_before_anything_is_written(empty: Storage, file: Path, tmp_path: Path) -> None:
    empty.db["tasks"].insert_one({"_id": "precious"})
    for number, content in enumerate(damaged(file.read_bytes())):
        bad = tmp_path / f"bad-{number}"
        bad.write_bytes(content)
        with pytest.raises(SetupError, match=f"bad-{number} is not a whole backup"):
            backup.restore(empty, bad, force=True)
        assert stored(empty).keys() == {"tasks"}
    with pytest.raises(SetupError, match=r"cannot read the backup .*No such file"):
        backup.restore(empty, tmp_path / "nothing", force=True)


def test_a_backup_of_a_newer_program_is_refused(empty: Storage, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    with newer.open("wb") as opened:
        Writer(opened, schema=SCHEMA_VERSION + 1, database="banyan", created="2030-01-01").close()
    with pytest.raises(SetupError, match=f"newer is of schema {SCHEMA_VERSION + 1}"):
        backup.restore(empty, newer)
    assert stored(empty) == {}


def test_what_a_database_has_goes_only_when_it_is_said_so(full: Storage, empty: Storage, file: Path) -> None:
    empty.db["tasks"].insert_one({"_id": "precious"})
    empty.db["others"].insert_one({"_id": 1})
    with pytest.raises(SetupError, match="not empty; --force"):
        backup.restore(empty, file)
    assert stored(empty).keys() == {"tasks", "others"}
    empty.db["meta"].insert_one({"_id": "restoring"})  # as an earlier one left it that was interrupted
    backup.restore(empty, file, force=True)
    assert stored(empty) == stored(full)


def test_no_server_starts_on_what_was_restored_by_half(mongo_uri: str, context: Context) -> None:
    context.storage.db["meta"].insert_one({"_id": "restoring"})
    with pytest.raises(SetupError, match=r"not complete; .*banyan restore FILE --force"):
        Storage.connect(mongo_uri, context.storage.db.name)


def test_a_database_that_a_server_watches_is_left_alone(context: Context, file: Path) -> None:
    rescue(context)
    with pytest.raises(SetupError, match=r"a server was using this database \d s ago; stop all servers"):
        backup.restore(context.storage, file, force=True)


def test_what_ran_at_that_moment_is_a_lost_lease_and_runs_again(
    context: Context, empty: Storage, tmp_path: Path
) -> None:
    token = context.storage.users.add("ann", Role.PROVIDER, context.now())
    [id] = post(context, task())
    [grant] = SimulatedWorker(context).claim().tasks
    backup.back_up(context.storage, tmp_path / "backup")
    backup.restore(empty, tmp_path / "backup")

    restored = context_of(empty)
    assert empty.users.by_token(token) is not None
    assert empty.meta.token_matches(grant["execution"], context.storage.meta.attempt_token(grant["execution"]))
    rescue(restored)
    assert states(restored, [id]) == ["running"]
    then = restored.now() - timedelta(minutes=1)
    empty.db["workers"].update_many({}, {"$set": {"last_seen": then}})
    empty.db["meta"].update_one({"_id": "leases"}, {"$set": {"since": then, "watched": restored.now()}})
    rescue(restored)
    [again] = SimulatedWorker(restored).claim().tasks
    assert (again["_id"], again["attempt"]) == (id, 2)
