"""Tasks with a model: the executor that turns a grant into a job for a host process."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from banyan.config import Models
from banyan.models.finding import Source
from banyan.models.host import command
from worker.events import Allocation, Document, Grant
from worker.executors import CannotStart, Workplace
from worker.outcome import HOST_DIED
from worker.spawner import Job

VERSION_SECONDS = 1.0
"""The time for which the files of a model count as unchanged."""


class ModelExecutor:
    """The executor of the models of `sources`, in host processes with these `settings`."""

    def __init__(self, place: Workplace, settings: Models, sources: Mapping[str, Source]) -> None:
        self._place = place
        self._settings = settings
        self._sources = sources
        self._dask = json.loads(json.dumps(settings.dask, default=str))
        self._versions: dict[str, tuple[float, str]] = {}
        self._newest: tuple[list[Any], str] = ([], "")
        self.capabilities = [f"model:{name}" for name in sources]

    @property
    def models(self) -> list[Document]:
        """Return the models as the server receives them."""
        return [{"name": name, "summary": source.summary} for name, source in self._sources.items()]

    def runs(self, grant: Grant) -> bool:
        """Return whether the task has a model."""
        return grant.document.get("model") is not None

    def prepare(self, grant: Grant, allocation: Allocation) -> Job:
        """Make the directories and return the job with its host; CannotStart."""
        source = self._sources.get(grant.document["model"])
        if source is None:
            raise CannotStart(f"this worker has no model {grant.document['model']!r}")
        stdin = self._place.make(grant)
        logs, work = self._place.layout.logs(grant), self._place.layout.work(grant)
        cwd, stdout, stderr = self._place.cwd(grant), f"{logs}/stdout", f"{logs}/stderr"
        environment = self._place.environment(grant, allocation)
        what: Document = {
            "inputs": grant.document.get("inputs") or {},
            "fault": grant.document.get("input_error"),
            "jobid": grant.task,
            "workdir": work,
            "cwd": cwd,
            "env": self._place.names(grant),
            "stdin": stdin,
            "grace_seconds": grant.grace_seconds,
            "memory_limit_bytes": grant.memory_limit_bytes,
        }
        return Job(
            argv=command(),
            env=[f"{name}={value}" for name, value in environment.items()],
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            hosted=(*self._pool(source, allocation.threads, environment), what),
        )

    def _pool(self, source: Source, threads: int, environment: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
        """Return the name of the pool whose hosts can run such a task, and the setup of these.

        A host that was started before a file of the model changed belongs to another pool.
        """
        setup = {
            "name": source.name,
            "module": source.module,
            "attribute": source.attribute,
            "directory": source.directory,
            "dask": self._dask,
            "scheduler": self._settings.scheduler,
            "cluster": self._settings.cluster,
            "cores": threads,
        }
        parts = [source.name, self._version(source), threads, environment]
        if self._newest[0] != parts:  # many tasks in a row are of one pool
            self._newest = parts, hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._newest[1], setup

    def _version(self, source: Source) -> str:
        seen, version = self._versions.get(source.name, (0.0, ""))
        now = time.monotonic()
        if not seen or now - seen > VERSION_SECONDS:
            version = source.version()
            self._versions[source.name] = now, version
        return version

    def refused(self, grant: Grant, stage: str, number: int, text: str) -> CannotStart:
        """Return the fault: the machine's, except for an environment that is too long."""
        return CannotStart.too_long(number) or CannotStart(f"{'model host' if stage == 'host' else stage}: {text}")

    def release(self, grant: Grant) -> None:
        """Do nothing: hosts stay."""

    def collect(self, grant: Grant, outcome: Document | None = None) -> Document:
        """Return the output of every task, the result or the error that the host reported, and the end as marks."""
        left = self._place.collect(grant)
        outcome = outcome or {}
        if "result" in outcome:
            try:
                left["result"] = json.loads(outcome["result"])
            except (ValueError, RecursionError) as error:  # the model can make its host send anything
                left |= {"exception": "BadResult", "error": f"the result is not JSON: {error}"}
        elif "result_file" in outcome:
            left["result_file"] = outcome["result_file"]
        elif "exception" in outcome:
            left |= {"exception": outcome["exception"], "error": outcome["error"]}
            left |= {"broken": HOST_DIED} if "died" in outcome else {}
        elif "no_directory" in outcome:
            left |= self._no_directory(grant, outcome["no_directory"])
        elif "broken" in outcome:
            left |= {"broken": outcome["broken"], "error": outcome["broken"]}
        else:
            left |= {"broken": HOST_DIED, "error": "the host process of the model died while it ran the task"}
        return left

    def _no_directory(self, grant: Grant, why: str) -> Document:
        """Return the fault of a model that has no directory to run in: the task's, or its own work directory."""
        directory = grant.document.get("directory") or ""
        if not os.path.isabs(directory):
            return {"exception": "FileNotFoundError", "error": f"{self._place.cwd(grant)}: {why}"}
        return {"no_directory": directory, "error": CannotStart.no_directory(directory, why).reason}
