"""A worker that runs nothing: the test says how its tasks end."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from banyan.client import Client, Document


class HandWorker:
    """A worker in the test's own time, over HTTP: claims, sends files, reports ends."""

    def __init__(self, client: Client, models: Sequence[str] = ()) -> None:
        self.client = client
        resources = {"cores": 4, "memory": 1 << 30}
        capabilities = ["shell", *(f"model:{name}" for name in models)]
        document = {"name": "by hand", "resources": resources, "capabilities": capabilities, "pid": 1, "host": "here"}
        document["models"] = [{"name": name, "summary": f"Model {name}."} for name in models]
        self.id = client.register_worker(document)["_id"]

    def claim(self, max_tasks: int = 10) -> list[Document]:
        """What is granted at once."""
        body = {"request": uuid4().hex, "resources": {"cores": 4, "memory": 1 << 30}, "max_tasks": max_tasks, "wait": 0}
        tasks: list[Document] = self.client.claim(self.id, body)["tasks"]
        return tasks

    def end(self, grant: Document, exit_status: str = "success", **fields: Any) -> Document:
        """Report the end of an attempt."""
        end = {"execution": grant["execution"], "token": grant["token"], "exit_status": exit_status, **fields}
        return self.client.report(self.id, {"reports": [end], "memory_usage": []})
