"""The transport of a model's exceptions between processes: Dask cannot carry some, and these are packed."""

from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # Dask needs it, too


class Packed(Exception):
    """Another exception in a form that can be pickled; `error` is None if it cannot be pickled itself."""

    def __init__(self, name: str, text: str, error: BaseException | None) -> None:
        super().__init__(name, text, error)
        self.name = name
        self.text = text
        self.error = error

    def unpacked(self) -> BaseException:
        """The exception, or one of the same name and text, with the traceback of the other process."""
        error = self.error
        if error is None:
            kind: type[BaseException] = type(self.name, (BaseException,), {})
            error = kind(self.text)
        return error.with_traceback(self.__traceback__)


def packed(error: BaseException) -> Packed:
    """The exception, packed."""
    name = type(error).__name__
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever it says, it does not travel
        return Packed(name, str(error), None)
    return Packed(name, str(error), error)


def dumps(value: Any) -> bytes:
    """The pickle for Dask's scheduler with processes; in `(exception, traceback)` the exception may be packed."""
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception:
        if not isinstance(value, tuple) or not value or not isinstance(value[0], BaseException):
            raise
        return bytes(cloudpickle.dumps((packed(value[0]), *value[1:])))
