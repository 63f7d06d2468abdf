"""The standard streams of a command, in any state at its start: closed, full, broken, or of another encoding."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from banyan.errors import BanyanError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class OutputLost(BanyanError):
    """The output of a command cannot be written to its standard output."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror}")
        self.unread = error.errno == errno.EPIPE
        """True if it was a pipe whose reader has gone: that is no fault."""


class _Output(io.BufferedWriter):
    """Standard output; OutputLost where it accepts no more.

    Errors are renamed here and not in the raw file below: a signal whose handler raises may arrive when the raw write
    has returned, and then the buffer must know already which bytes were written, or it writes them a second time.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        """Buffer the data; return its size."""
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from error

    def flush(self) -> None:
        """Write the buffered data."""
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from error


class _Errors(io.BufferedWriter):
    """Standard error; bytes that it does not accept are lost, since there is no other place for them."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Buffer the data; return its size."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes

    def flush(self) -> None:
        """Write the buffered data."""
        with suppress(OSError):
            super().flush()


def stand_in() -> None:
    """Replace standard streams that cannot be used.

    Closed ones become `/dev/null`, so that no file of ours gets their numbers. Characters that the encoding of the
    terminal does not have are shown as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the whole life of the process
    output = _Output(io.FileIO(1, "wb", closefd=False))
    sys.stdout = _text(output, getattr(sys.stdout, "encoding", "utf-8"), at_once=output.isatty())
    sys.stderr = _text(_Errors(io.FileIO(2, "wb", closefd=False)), getattr(sys.stderr, "encoding", "utf-8"))


def _text(buffer: io.BufferedWriter, encoding: str, *, at_once: bool = True) -> io.TextIOWrapper:
    return io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=at_once)


def drop_output() -> None:
    """Discard the buffered data of standard output."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
