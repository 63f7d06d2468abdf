"""The models' side of the HTTP interface: the list of models, and their default inputs."""

from collections.abc import Mapping
from typing import Any

from banyan.list_calls import part
from banyan.transport import SAFE_TRIES
from banyan.worker_calls import Document, WorkerCalls


class ModelCalls(WorkerCalls):
    """The calls for models; a part of `Client`."""

    def models(self) -> list[Document]:
        """Return the models of workers and the server, by name, with `summary`, `defaults`, `workers`, `server`."""
        return list(self._act("GET", "models", tries=SAFE_TRIES)["_items"])

    def model_helpers(self) -> list[Document]:
        """Return files and directories beside the server's models that are none: `name`, and the reason as `fault`."""
        return list(self._act("GET", "models", tries=SAFE_TRIES)["helpers"])

    def model(self, name: str) -> Document:
        """Return one model; NotFound if neither a worker nor the server has it."""
        return self._act("GET", _path(name), tries=SAFE_TRIES)

    def model_defaults(self, name: str) -> Document:
        """Return the default inputs of a model, which are laid below the inputs of its tasks when they are posted."""
        return self._act("GET", f"{_path(name)}/defaults", tries=SAFE_TRIES)

    def set_model_defaults(self, name: str, inputs: Mapping[str, Any]) -> Document:
        """Replace all default inputs of a model (admin); tasks that were posted before keep their inputs."""
        return self._act("PUT", f"{_path(name)}/defaults", body=inputs, tries=SAFE_TRIES)


def _path(name: str) -> str:
    return f"models/{part(name)}"
