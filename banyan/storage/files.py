"""Files of attempts that workers sent to the server: streams and work files in GridFS, in pieces.

The collection `files` has one head for each file with its size; the bytes are in the GridFS bucket `file_segments`, one
GridFS file for each received piece (small ones are joined). A piece counts once the size in the head includes it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bson import ObjectId
from gridfs import GridFSBucket
from gridfs.errors import CorruptGridFile, NoFile
from pymongo import ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database

from banyan.errors import TooLarge

Document = dict[str, Any]
Session = ClientSession | None

JOINED_BYTES = 64 * 1024
"""The size up to which pieces are joined, so that a log that grows by a line a second is not a million pieces."""

_CHUNK_BYTES = 2**20
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits for the files of one attempt on the server."""

    max_file_bytes: int
    max_attempt_bytes: int
    max_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A received file; `path` is `stdout`, `stderr`, or `files/` and the path in the work directory.

    Bytes of the path that are not UTF-8 are lone surrogates, as in Python.
    """

    id: ObjectId
    path: str
    size: int
    generation: ObjectId
    modified: datetime


class FileStore:
    """Files by attempt and path."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db
        self._heads = db["files"]
        self._doomed = db["doomed_files"]
        self._segments = db["file_segments.files"]
        self._chunks = db["file_segments.chunks"]

    def prepare(self) -> None:
        """Create the indexes on files and their pieces."""
        self._heads.create_index([("execution", 1), ("path", 1)], unique=True, name="file")
        self._segments.create_index([("metadata.file", 1), ("metadata.offset", 1)], name="piece")
        # The driver creates these with the first file of a bucket; after a restore (see `restore`) that may never
        # happen.
        self._segments.create_index([("filename", 1), ("uploadDate", 1)])
        self._chunks.create_index([("files_id", 1), ("n", 1)], unique=True)

    def find(self, execution: ObjectId, path: str) -> StoredFile | None:
        """The file at a path of an attempt."""
        head = self._heads.find_one({"execution": execution, "path": _key(path)})
        return None if head is None else _stored(head)

    def list(self, execution: ObjectId) -> "list[StoredFile]":
        """All files of an attempt by path."""
        return [_stored(head) for head in self._heads.find({"execution": execution}).sort("path")]

    def append(
        self, execution: ObjectId, path: str, offset: int, data: bytes, quota: Quota, now: datetime
    ) -> tuple[bool, int]:
        """Append bytes to a file, or with offset 0 begin it anew; return whether it was done, and the file's size.

        Nothing is done when `offset` is not the file's size. Raises `TooLarge` when the quota is exceeded.
        """
        head = self.find(execution, path)
        size = head.size if head else 0
        if offset not in (0, size):
            return False, size
        self._check(execution, path, offset + len(data), quota)
        if offset == 0 or head is None:
            return True, self._begin(execution, path, head, data, now)
        if not data:
            return True, size
        return self._extend(head, data, now)

    def _begin(self, execution: ObjectId, path: str, old: StoredFile | None, data: bytes, now: datetime) -> int:
        generation = ObjectId()
        file = old.id if old else ObjectId()
        if data:
            self._write(file, generation, 0, data)
        head = self._heads.find_one_and_update(
            {"execution": execution, "path": _key(path)},
            {
                "$set": {"size": len(data), "generation": generation, "modified": now},
                "$setOnInsert": {"_id": file},
            },
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if head is None or head["_id"] != file:
            self._drop({"metadata.file": file})  # another request created the file in between; its content stands
            return int(head["size"]) if head else 0
        self._drop({"metadata.file": file, "metadata.generation": {"$ne": generation}})
        return len(data)

    def _extend(self, head: StoredFile, data: bytes, now: datetime) -> tuple[bool, int]:
        last = self._piece(head, head.size - 1)
        joined = last if last and last["length"] + len(data) <= JOINED_BYTES else None
        start = joined["metadata"]["offset"] if joined else head.size
        before = b"".join(self.read(head, start, head.size)) if joined else b""
        written = self._write(head.id, head.generation, start, before + data)
        size = head.size + len(data)
        result = self._heads.update_one(
            {"_id": head.id, "generation": head.generation, "size": head.size},
            {"$set": {"size": size, "modified": now}},
        )
        if not result.matched_count:
            self._drop({"_id": written})
            now_there = self._heads.find_one({"_id": head.id})
            return False, now_there["size"] if now_there else 0
        if joined:
            self._drop({"_id": joined["_id"]})
        return True, size

    def read(self, file: StoredFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, both within the file's size."""
        position, tries = start, 0
        while position < stop:
            piece = self._piece(file, position)
            try:
                if piece is None:
                    raise NoFile(f"no piece of file {file.id} has byte {position}")
                data = self._bytes(piece, position, stop)
            except (NoFile, CorruptGridFile):
                tries += 1  # the piece was joined to another one just now: search again
                if tries > _TRIES:
                    raise
                continue
            position += len(data)
            yield data

    def doom(self, executions: Iterable[ObjectId], session: Session = None) -> None:
        """Mark the files of attempts for deletion, within the transaction that deletes the attempts."""
        ids = list(executions)
        noted = {note["_id"] for note in self._doomed.find({"_id": {"$in": ids}}, session=session)}
        if fresh := [{"_id": execution} for execution in ids if execution not in noted]:
            self._doomed.insert_many(fresh, session=session)

    def remove_doomed(self, limit: int) -> int:
        """Delete the files of deleted attempts; return the number of those attempts."""
        doomed = [note["_id"] for note in self._doomed.find().limit(limit)]
        if doomed:
            self.delete_of(doomed)
            self._doomed.delete_many({"_id": {"$in": doomed}})
        return len(doomed)

    def delete_of(self, executions: Iterable[ObjectId]) -> None:
        """Delete all files of these attempts."""
        heads = [head["_id"] for head in self._heads.find({"execution": {"$in": list(executions)}}, {"_id": 1})]
        if heads:
            self._drop({"metadata.file": {"$in": heads}})
            self._heads.delete_many({"_id": {"$in": heads}})

    def _check(self, execution: ObjectId, path: str, size: int, quota: Quota) -> None:
        if size > quota.max_file_bytes:
            raise TooLarge(f"{path}: a file has at most {quota.max_file_bytes} bytes (files.max_file_bytes)")
        others = [file for file in self.list(execution) if file.path != path]
        if len(others) >= quota.max_files:
            raise TooLarge(f"{path}: an attempt has at most {quota.max_files} files (files.max_files)")
        if size + sum(file.size for file in others) > quota.max_attempt_bytes:
            limit = quota.max_attempt_bytes
            raise TooLarge(f"{path}: the files of an attempt have at most {limit} bytes (files.max_attempt_bytes)")

    def _write(self, file: ObjectId, generation: ObjectId, offset: int, data: bytes) -> ObjectId:
        metadata = {"file": file, "generation": generation, "offset": offset, "end": offset + len(data)}
        bucket = GridFSBucket(self._db, "file_segments", chunk_size_bytes=_CHUNK_BYTES)
        written: ObjectId = bucket.upload_from_stream(str(file), data, metadata=metadata)
        return written

    def _piece(self, file: StoredFile, position: int) -> Document | None:
        """A piece that contains the byte at `position`; pieces that overlap have the same bytes."""
        where = {
            "metadata.file": file.id,
            "metadata.generation": file.generation,
            "metadata.offset": {"$lte": position},
            "metadata.end": {"$gt": position},
        }
        return self._segments.find_one(where, sort=[("metadata.offset", -1)])

    def _bytes(self, piece: Document, position: int, stop: int) -> bytes:
        with GridFSBucket(self._db, "file_segments").open_download_stream(piece["_id"]) as stream:
            stream.seek(position - piece["metadata"]["offset"])
            data: bytes = stream.read(min(stop - position, _CHUNK_BYTES))
        if not data:
            raise NoFile(f"piece {piece['_id']} has gone")
        return data

    def _drop(self, where: Document) -> None:
        self.drop(segment["_id"] for segment in self._segments.find(where, {"_id": 1}))

    def drop(self, pieces: Iterable[ObjectId]) -> None:
        """Delete pieces with their bytes."""
        ids = list(pieces)
        if ids:
            # In this order: a piece without its bytes would block the one that has replaced it, and bytes without a
            # piece are found later (see `Leftovers`).
            self._segments.delete_many({"_id": {"$in": ids}})
            self._chunks.delete_many({"files_id": {"$in": ids}})


def _key(path: str) -> str | bytes:
    """A path as MongoDB stores it: as bytes if it is not UTF-8."""
    key = path.encode(errors="surrogateescape")
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def _stored(head: Document) -> StoredFile:
    return StoredFile(
        id=head["_id"],
        path=head["path"] if isinstance(head["path"], str) else head["path"].decode(errors="surrogateescape"),
        size=head["size"],
        generation=head["generation"],
        modified=head["modified"],
    )
