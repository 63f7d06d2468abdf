"""The model `probe`, which does what its input `do` says, on a worker with a stand-in for the server."""

from pathlib import Path
from typing import Any

from tests.support.fake_server import FakeServer, work

MODELS = str(Path(__file__).parent / "probe_models")
"""Where it is."""

Document = dict[str, Any]


def asked(do: str, given: Document | None = None, *, fields: Document | None = None, **inputs: Any) -> Document:
    """A task of the model `probe`; `given` are inputs whose names are no identifiers."""
    return {"model": "probe", "inputs": {"do": do, **(given or {}), **inputs}} | (fields or {})


def run(root: Path, server: FakeServer, **settings: Any) -> list[Document]:
    """Run all of the server's tasks; the reports of their ends, in the order of the tasks."""
    root.mkdir(exist_ok=True)
    models = {"path": [MODELS], **settings.pop("models", {})}
    assert work(root, server, models=models, **settings) == 0
    return [server.ends[task["execution"]] for task in server.tasks]


def ends(root: Path, *tasks: Document, **settings: Any) -> list[Document]:
    """The same for these tasks."""
    return run(root, FakeServer(tasks), **settings)


def cancelling(*tasks: Document) -> FakeServer:
    """A server that cancels its first task as soon as it hears that it runs."""
    server = FakeServer(tasks)
    server.on_report = lambda report: server.cancel.append("e1") if "pid" in report and not server.cancel else None
    return server
