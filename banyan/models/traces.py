"""Tracebacks for the author of a model: without the frames of Dask and of the host."""

import os
import sys
import traceback
from collections.abc import Iterator

_MACHINERY = ("concurrent.futures", "dask", "distributed", "importlib")
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = (os.path.join(_ROOT, "banyan", "models", ""), os.path.join(_ROOT, "worker", ""))
MAX_CHARACTERS = 60_000


def name_of(error: BaseException) -> str:
    """The name of the error's class, as exit statuses show it."""
    return type(error).__name__


def text_of(error: BaseException, note: str = "") -> str:
    """The traceback with the frames of the model and of its calls; `note` goes before it."""
    trace = traceback.TracebackException.from_exception(error, compact=True)
    _clean(trace, 0)
    text = shortened("".join(trace.format()).rstrip("\n"))
    return f"{note}\n{text}" if note else text


def shortened(text: str) -> str:
    """The text as Unicode, without its middle if it is long."""
    if len(text) > MAX_CHARACTERS:
        half = MAX_CHARACTERS // 2
        text = f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text.encode(errors="replace").decode()


def last_line(error: BaseException) -> str:
    """The error in one line: `ValueError: x is missing`."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


def _clean(trace: traceback.TracebackException, depth: int) -> None:
    machinery = ("<frozen importlib", *_OURS, *_directories())
    own = [frame for frame in trace.stack if not frame.filename.startswith(machinery)]
    if own:
        trace.stack = traceback.StackSummary.from_list(own)
    for inner in (trace.__cause__, trace.__context__):
        if inner is not None and depth < 20:
            _clean(inner, depth + 1)


def _directories() -> Iterator[str]:
    for name in _MACHINERY:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file:
            yield os.path.dirname(file) + os.sep
