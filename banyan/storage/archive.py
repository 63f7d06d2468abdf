"""A backup as a file: the documents of each collection as MongoDB has them, compressed, with counts and checksums.

::

    banyan backup 1\n                    as it stands; the rest is one gzip stream of records:
    H  {schema, database, created}       BSON; each record is a letter, its length in four bytes, and so many bytes
    C  name of a collection
    D  BSON documents one after the other, as often as it takes
    E  {documents, bytes, sha256}        BSON: what the collection has
    F  {collections, documents}          BSON: nothing is missing at the end
"""

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import bson

from banyan.errors import SetupError

Document = dict[str, Any]

MAGIC = b"banyan backup 1\n"
_FRAME = struct.Struct(">cI")
_LENGTH = struct.Struct("<i")
_LEVEL = 4
_AS_GZIP = 31
_MAX_RECORD_BYTES = 64 * 2**20


class _Damage(Exception):
    """A fault in the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The contents of a backup: documents by collection, and the facts in its header."""

    schema: int
    created: str
    counts: dict[str, int]

    @property
    def documents(self) -> int:
        """The total number of documents."""
        return sum(self.counts.values())


class Writer:
    """Writes a backup to `file`; complete once `close` has returned."""

    def __init__(self, file: IO[bytes], *, schema: int, database: str, created: str) -> None:
        file.write(MAGIC)
        self._file = file
        # Not a GzipFile: an abandoned one writes its end into the file whenever Python collects it.
        self._zip = zlib.compressobj(_LEVEL, wbits=_AS_GZIP)
        self._schema = schema
        self._created = created
        self._counts: dict[str, int] = {}
        self._record(b"H", bson.encode({"schema": schema, "database": database, "created": created}))

    def collection(self, name: str, batches: Iterator[bytes]) -> None:
        """Write a collection, given as pieces of whole documents."""
        self._record(b"C", name.encode())
        tally = _Tally()
        for batch in batches:
            tally.add(batch)
            self._record(b"D", batch)
        self._record(b"E", bson.encode(tally.document()))
        self._counts[name] = tally.documents

    def close(self) -> Contents:
        """Write the end; return the contents that were written."""
        documents = sum(self._counts.values())
        self._record(b"F", bson.encode({"collections": len(self._counts), "documents": documents}))
        self._file.write(self._zip.flush())
        return Contents(schema=self._schema, created=self._created, counts=self._counts)

    def _record(self, kind: bytes, payload: bytes) -> None:
        self._file.write(self._zip.compress(_FRAME.pack(kind, len(payload))))
        self._file.write(self._zip.compress(payload))


class _Tally:
    """Counts the documents of a collection, and digests them."""

    def __init__(self) -> None:
        self.documents = 0
        self._bytes = 0
        self._digest = hashlib.sha256()

    def add(self, batch: bytes) -> int:
        """Add whole documents; return their number."""
        position = count = 0
        while position < len(batch):
            (length,) = _LENGTH.unpack_from(batch, position)
            if length < _LENGTH.size + 1:
                raise _Damage(f"a document of {length} bytes")
            position += length
            count += 1
        if position != len(batch):
            raise _Damage("a document is cut off")
        self.documents += count
        self._bytes += len(batch)
        self._digest.update(batch)
        return count

    def document(self) -> Document:
        return {"documents": self.documents, "bytes": self._bytes, "sha256": self._digest.hexdigest()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some documents of a collection, one after the other as BSON; the first piece of each collection is empty."""

    collection: str
    documents: int
    raw: bytes


def verify(file: IO[bytes], name: str) -> Contents:
    """Read a whole backup and check all of it; raises `SetupError` that calls it `name` if anything is wrong."""
    counts: dict[str, int] = {}
    for piece in read(file, name):
        counts[piece.collection] = counts.get(piece.collection, 0) + piece.documents
    try:
        header = _decoded(*next(_records(file)), b"H")
        return Contents(schema=int(header["schema"]), created=str(header["created"]), counts=counts)
    except _FAULTS as error:
        raise _damaged(name, error) from error


def read(file: IO[bytes], name: str) -> Iterator[Piece]:
    """The documents of a backup, piece by piece.

    Raises `SetupError` at the first fault; the pieces before it are correct as far as they go.
    """
    try:
        yield from _pieces(file)
    except _FAULTS as error:
        raise _damaged(name, error) from error


def _pieces(file: IO[bytes]) -> Iterator[Piece]:
    records = _records(file)
    _decoded(*next(records, _NOTHING), b"H")
    collections = documents = 0
    for kind, payload in records:
        if kind == b"F":
            if _decoded(kind, payload, b"F") != {"collections": collections, "documents": documents}:
                raise _Damage("a collection is missing")
            if next(records, None) is not None:  # reading on also checks the checksum of all that was read
                raise _Damage("something follows its end")
            return
        if kind != b"C":
            raise _Damage(f"a record {kind!r} where a collection should begin")
        name, tally = payload.decode(), _Tally()
        yield Piece(collection=name, documents=0, raw=b"")
        end = _NOTHING
        for inner in records:
            if inner[0] != b"D":
                end = inner
                break
            yield Piece(collection=name, documents=tally.add(inner[1]), raw=inner[1])
        if _decoded(*end, b"E") != tally.document():
            raise _Damage(f"the checksum of collection {name!r} is wrong")
        collections, documents = collections + 1, documents + tally.documents
    raise _Damage("its end is missing")


def _records(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise _Damage("it is not a backup that Banyan has made")
    with gzip.GzipFile(fileobj=file, mode="rb") as unzipped:
        while frame := unzipped.read(_FRAME.size):
            if len(frame) < _FRAME.size:
                raise _Damage("it is cut off")
            kind, length = _FRAME.unpack(frame)
            if length > _MAX_RECORD_BYTES:
                raise _Damage(f"a record of {length} bytes")
            payload = unzipped.read(length)
            if len(payload) < length:
                raise _Damage("it is cut off")
            yield kind, payload


def _decoded(kind: bytes, payload: bytes, wanted: bytes) -> Document:
    if kind != wanted:
        raise _Damage(f"a record {kind!r} in place of {wanted!r}")
    document: Document = bson.decode(payload)
    return document


_NOTHING = (b"", b"")
_FAULTS = (_Damage, OSError, EOFError, ValueError, KeyError, struct.error, zlib.error, bson.InvalidBSON)


def _damaged(name: str, error: BaseException) -> SetupError:
    return SetupError(f"{name} is not a whole backup ({str(error) or type(error).__name__}); take another one")
