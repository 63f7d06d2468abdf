"""Doing at once what several callers ask at the same time: while one round runs, those who come wait for the next."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")
_Act = Callable[[Sequence[Asked]], Sequence[Told]]

_MOST = 64
"""So many are in one round: more would make the first of them wait for the last."""
_PATIENCE_SECONDS = 1.0
"""Nobody waits longer for the round before, for that may wait for a MongoDB that is away."""


class _Call(Generic[Asked, Told]):
    """One caller, who is called either to hear the answer or to lead the next round."""

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
        return self.answer  # type: ignore[return-value]  # it is done, so there is one


class Together(Generic[Asked, Told]):
    """Answers calls round by round; a call that comes alone is a round of its own, and waits for nobody."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS, *, apart: bool = False) -> None:
        """With `apart` the calls of a round that fails are asked again one by one: none fails for another one's fault.

        Otherwise all of them hear of the error.
        """
        self._patience_seconds = patience_seconds
        self._apart = apart
        self._lock = threading.Lock()
        self._waiting: list[_Call[Asked, Told]] = []
        self._running = False
        self._over = threading.Event()
        """Set while no round runs."""
        self._over.set()

    def wait_for_round(self) -> None:
        """Wait for the end of the round that runs now, which may not know yet what its caller has just changed.

        No longer than a call waits for the round before it.
        """
        with self._lock:
            over = self._over
        over.wait(self._patience_seconds)

    def __call__(self, act: _Act[Asked, Told], asked: Asked) -> Told:
        """What `act`, the same for all calls, answers to this; it is asked for a whole round, and answers in order.

        Raises what it raised.
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
        """Until it is answered, or to lead a round: the next one, or one of its own if that takes too long."""
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
