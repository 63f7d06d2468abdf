"""Backups of the database that the settings name, or of the one in a data directory, whether it runs or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from banyan.config import ServerSettings
from banyan.errors import SetupError
from banyan.storage import backup, embedded
from banyan.storage.archive import Contents
from banyan.storage.mongo import Storage

__all__ = ["Contents", "back_up", "restore"]


def back_up(settings: ServerSettings, data: Path | None, target: Path, *, force: bool) -> Contents:
    """Write a backup of the database at `settings.mongo.uri`, or of the one that `banyan up` has in `data`.

    `SetupError` or `Unavailable` if that fails; `target` is then as it was.
    """
    if data is None:
        with _opened(settings.mongo.uri, settings) as storage:
            return backup.back_up(storage, target, force=force)
    running = embedded.running_at(data / "mongo")
    if running is not None:
        with _opened(running, settings) as storage:
            return backup.back_up(storage, target, force=force)
    if not (data / "mongo").is_dir():
        raise SetupError(f"there is no database in {data}; name the data directory of `banyan up` with --data")
    with _started(data, settings) as storage:
        return backup.back_up(storage, target, force=force)


def restore(settings: ServerSettings, data: Path | None, source: Path, *, force: bool) -> Contents:
    """Fill the database at `settings.mongo.uri`, or the one in `data`, from a backup.

    `SetupError` or `Unavailable` if that fails.
    """
    if data is None:
        with _opened(settings.mongo.uri, settings) as storage:
            return backup.restore(storage, source, force=force)
    backup.check(source)  # before a data directory is made for it
    with _started(data, settings) as storage:
        return backup.restore(storage, source, force=force, alone=True)


@contextmanager
def _opened(uri: str, settings: ServerSettings) -> Iterator[Storage]:
    storage = Storage.open(uri, settings.mongo.database)
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def _started(data: Path, settings: ServerSettings) -> Iterator[Storage]:
    """Start the database of a `banyan up` that does not run; `SetupError` if it runs."""
    log = data / "logs" / "mongod.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        embedded.start(data / "mongo", log=log, cache_gigabytes=settings.mongo.cache_gigabytes) as mongo,
        _opened(mongo.uri, settings) as storage,
    ):
        yield storage
