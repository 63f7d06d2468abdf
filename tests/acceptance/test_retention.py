"""Old things leave a real server and its real worker, whether they share a disk or not."""

import secrets
from pathlib import Path

import pytest

from banyan.client import Client
from banyan.errors import NotFound
from tests.support.up import Up, eventually, started

SOON = {
    "BANYAN_RETENTION__FILES": "1",
    "BANYAN_RETENTION__TASKS": "3",
    "BANYAN_LEASES__LOST_AFTER": "5",
    "BANYAN_FILES__UPLOAD_INTERVAL": "0.2",
}


def directories(up: Up) -> set[str]:
    """What lies in the worker's directory for tasks, whose names do not begin with a dot."""
    return {path.name for path in (up.home.parent / "data" / "work").iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("shared", [True, False])
def test_files_leave_and_then_the_task_and_the_worker_clears_its_disk(tmp_path: Path, shared: bool) -> None:
    with started(tmp_path, env={**SOON, "BANYAN_FILES__SHARED": str(shared).lower()}) as up:
        with Client(up.url, up.ready["provider_token"]) as client:
            wanted = {"state": "available", "command": "echo said | tee file; seq 10000", "workdir": "task"}
            old, kept, child = (secrets.token_hex(12) for _ in range(3))
            waits = {"_id": child, "command": "true", "state": "available", "dependencies": [kept], "hold": True}
            client.submit([{**wanted, "_id": old}, {**wanted, "_id": kept}, waits])
            client.wait([old, kept], timeout=30)
            assert client.file(kept, "file") == b"said\n"
            eventually(lambda: files(client, old), lambda found: found == [])
            eventually(lambda: directories(up), lambda found: old not in found)
            eventually(lambda: gone(client, old), bool)
            assert files(client, kept) == ["file"], "its child has not ended"
            if shared:
                assert kept in directories(up)

            client.update(child, {"hold": False})
            client.wait([child], timeout=30)
            eventually(lambda: gone(client, kept) and gone(client, child), bool, seconds=60)
            eventually(lambda: directories(up), lambda found: found == set())
            eventually(lambda: list((tmp_path / "data" / "work" / ".banyan-trash").iterdir()), lambda left: not left)
        with Client(up.url, up.ready["admin_token"]) as admin:
            assert [len(admin.page(name).items) for name in ("tasks", "execution_history", "continuations")] == [0] * 3


def files(client: Client, task: str) -> list[str]:
    """The paths of a task's files; none where the task has left."""
    try:
        return [file["path"] for file in client.files(task)]
    except NotFound:
        return []


def gone(client: Client, task: str) -> bool:
    """Whether there is no such task."""
    return not client.tasks({"_id": task}).total
