"""Somebody's things in a queue, made over HTTP when a test first asks for them: tasks, attempts, samples, sweeps."""

from collections.abc import Callable
from functools import cached_property
from itertools import count
from typing import Any
from urllib.parse import quote

from werkzeug.test import TestResponse

Document = dict[str, Any]
Call = Callable[..., TestResponse]

TIME = "Tue, 02 Apr 2013 10:29:13 GMT"

_numbers = count()


class Things:
    """What one provider owns and one worker runs. Each attribute is made once; `call`s are `Api.call`s.

    `marks` go into every text that a user may choose, so that a test can look for them.
    """

    def __init__(self, provider: Call, worker: Call, admin: Call, mark: str = "mark") -> None:
        self._provider = provider
        self._worker = worker
        self._admin = admin
        self.mark = mark

    def task(self, **fields: Any) -> str:
        """A new inactive task."""
        texts = {"name": self.mark, "tags": [self.mark], "metadata": {self.mark: self.mark}, "env": {"X": self.mark}}
        return str(done(self._provider("POST", "/tasks", {"command": f"echo {self.mark}", **texts, **fields}))["_id"])

    @cached_property
    def waiting(self) -> str:
        """An inactive task."""
        return self.task()

    @cached_property
    def child(self) -> str:
        """Another one."""
        return self.task()

    @cached_property
    def linked(self) -> str:
        """An inactive task whose continuation is `child`."""
        return self.task(continuations=[self.child])

    @cached_property
    def edge(self) -> str:
        """The edge from `linked` to `child`."""
        found = self._admin("GET", f'/continuations?where={{"parent": "{self.linked}"}}')
        return str(found.get_json()["_items"][0]["_id"])

    @cached_property
    def worker(self) -> str:
        """A registered worker that has the model `model`."""
        body: Document = {"name": self.mark, "resources": {"cores": 9}, "labels": {"l": self.mark}}
        body |= {"capabilities": ["shell", f"model:{self.model}"], "models": [{"name": self.model}]}
        return str(done(self._worker("POST", "/workers", body))["_id"])

    @cached_property
    def grant(self) -> Document:
        """The answer to a claim: `_id` of a running task, `execution`, `token`."""
        task = self.task(state="available")
        body = {"state": "running", "update_execution_data": {"worker": self.worker}}
        return done(self._worker("PATCH", f"/tasks/{task}", body))

    @property
    def running(self) -> str:
        """A running task."""
        return str(self.grant["_id"])

    @property
    def execution(self) -> str:
        """Its attempt."""
        return str(self.grant["execution"])

    @property
    def token(self) -> str:
        """The attempt's token."""
        return str(self.grant["token"])

    @cached_property
    def printed(self) -> str:
        """The running task, which has sent what it printed, a file, and how far it is."""
        for name in ("stdout", "stderr", "files/a.txt"):
            path = f"/execution_history/{self.execution}/{name}"
            done(self._worker("PUT", path, data=self.mark, headers={"Banyan-Attempt-Token": self.token}))
        said = {"token": self.token, "progress": {"fraction": 0.5, "message": self.mark}}
        done(self._worker("POST", f"/tasks/{self.running}/update_execution_data", said))
        return self.running

    @cached_property
    def ended(self) -> str:
        """A task that has run and failed."""
        task = self.printed
        said = {"token": self.token, "exit_status": "failure (exit code 3)", "result": {self.mark: self.mark}}
        said |= {"stdout_tail": self.mark, "error": self.mark, "directory": {"logs": f"/{self.mark}"}}
        done(self._worker("PATCH", f"/tasks/{task}", {"state": "terminated", "update_execution_data": said}))
        return task

    @cached_property
    def sample(self) -> str:
        """A sample of memory usage."""
        return str(done(self._provider("POST", "/memory_usage", self.sample_of(self.waiting)))["_id"])

    def sample_of(self, task: str, **more: Any) -> Document:
        """The body of a sample."""
        return {"task": task, "time": TIME, "resident_memory_bytes": 1, **more}

    @cached_property
    def sweep(self) -> str:
        """A sweep of one inactive task."""
        body = {"name": self.mark, "command": f"echo {self.mark}", "points": [{self.mark: self.mark}]}
        return str(done(self._provider("POST", "/sweeps", body | {"state": "inactive"}))["_id"])

    @cached_property
    def ended_sweep(self) -> str:
        """A sweep that was cancelled."""
        done(self._provider("POST", f"/sweeps/{self.sweep}/cancel"))
        return self.sweep

    @property
    def model(self) -> str:
        """A model that only `worker` has."""
        return "sum"

    @cached_property
    def served(self) -> str:
        """The same model, once the worker is there."""
        return self.model if self.worker else ""

    @cached_property
    def user(self) -> str:
        """Some user."""
        return str(done(self._admin("POST", "/users", {"name": f"u{next(_numbers)}", "role": "provider"}))["name"])

    @cached_property
    def queue(self) -> str:
        """Some queue."""
        return str(done(self._admin("POST", "/queues", {"name": f"q{next(_numbers)}"}))["name"])


def done(answer: TestResponse) -> Document:
    """The answer's JSON; AssertionError if it is a refusal."""
    if answer.status_code >= 400:
        raise AssertionError(f"{answer.request.method} {answer.request.path}: {answer.get_data(as_text=True)}")
    return dict(answer.get_json())


def query(**parameters: str) -> str:
    """A query string."""
    return "?" + "&".join(f"{name}={quote(value)}" for name, value in parameters.items())
