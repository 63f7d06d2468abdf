"""What MongoDB itself says of the commands that it was sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.database import Database

Document = dict[str, Any]

_BYTES = 64 * 2**20
_PROFILE = "system.profile"


@contextmanager
def profiled(db: Database[Document], seen: list[Document], only: Document | None = None) -> Iterator[None]:
    """Add the profiler's entries of all that happens in the block to `seen` at its end.

    It keeps so many bytes of them; who lets more happen than that asks for those `only` that match a filter.
    """
    if _PROFILE not in db.list_collection_names():
        db.create_collection(_PROFILE, capped=True, size=_BYTES)
    begun = db.client.admin.command("hello")["localTime"]
    db.command({"profile": 1, "filter": only} if only else {"profile": 2})
    try:
        yield
    finally:
        db.command({"profile": 0, "filter": "unset"})
        mine = {"ts": {"$gte": begun}, "ns": {"$ne": f"{db.name}.{_PROFILE}"}}
        seen += db[_PROFILE].find(mine).sort("ts", 1)
