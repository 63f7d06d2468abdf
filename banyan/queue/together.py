"""Batches of concurrent calls: while one batch runs, new callers wait for the next."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")
_Act = Callable[[Sequence[Asked]], Sequence[Told]]

_MOST = 64
"""The most calls in one batch: more would make the first of them wait for the last."""
_PATIENCE_SECONDS = 1.0
"""The longest wait for the previous batch, which may itself wait for an unavailable MongoDB."""


class _Call(Generic[Asked, Told]):
    """One caller, which is woken either with its result or to lead the next batch."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.called = threading.Event()
        self.answer: Told | None = None
        self.error: Exception | None = RuntimeError("the round ended without an answer")
        self.done = False

    def end(self) -> None:
        self.done = True
        self.called.set()

    def told(self) -> Told:
        if self.error is not None:
            raise self.error
        return self.answer  # type: ignore[return-value]  # it is done, so there is a result


class Together(Generic[Asked, Told]):
    """Runs calls in batches; a call that comes alone is a batch of its own and does not wait."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS, *, apart: bool = False) -> None:
        """Set up without calls; `apart` repeats the calls of a failed batch one by one: none fails for another's fault.

        Without `apart` all of them raise the error.
        """
        self._patience_seconds = patience_seconds
        self._apart = apart
        self._lock = threading.Lock()
        self._waiting: list[_Call[Asked, Told]] = []
        self._running = False
        self._over = threading.Event()
        """Set while no batch runs."""
        self._over.set()

    def wait_for_round(self) -> None:
        """Wait for the end of the current batch, which may not see its caller's latest changes yet.

        It waits no longer than a call waits for the previous batch.
        """
        with self._lock:
            over = self._over
        over.wait(self._patience_seconds)

    def __call__(self, act: _Act[Asked, Told], asked: Asked) -> Told:
        """Return the result of `act` for this call; `act`, the same for all calls, maps a whole batch, in order.

        Raises the error of `act`.
        """
        call: _Call[Asked, Told] = _Call(asked)
        with self._lock:
            self._waiting.append(call)
            leads, self._running = not self._running, True
        if not leads:
            self._wait(act, call)
        if not call.done:
            self._lead(act)
        return call.told()

    def _wait(self, act: _Act[Asked, Told], call: _Call[Asked, Told]) -> None:
        """Wait for the result, or to lead a batch: the next one, or one of its own if the wait takes too long."""
        if call.called.wait(self._patience_seconds):
            return
        with self._lock:
            alone = call in self._waiting and not call.called.is_set()
            if alone:
                self._waiting.remove(call)
        if alone:
            _answer(act, [call])
            call.end()
        else:
            call.called.wait()

    def _lead(self, act: _Act[Asked, Told]) -> None:
        with self._lock:
            round, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            self._over = over = threading.Event()
        try:
            _answer(act, round)
            if self._apart and len(round) > 1 and round[0].error is not None:
                for call in round:
                    _answer(act, [call])
        finally:
            for call in round:
                call.end()
            over.set()
            with self._lock:
                if self._waiting:
                    self._waiting[0].called.set()
                else:
                    self._running = False


def _answer(act: _Act[Asked, Told], calls: Sequence[_Call[Asked, Told]]) -> None:
    try:
        for call, answer in zip(calls, act([call.asked for call in calls]), strict=True):
            call.answer, call.error = answer, None
    except Exception as error:  # noqa: BLE001  # each of them raises it
        for call in calls:
            call.error = error
