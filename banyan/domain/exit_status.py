"""Exit statuses of attempts: the forms that are stored, and the other spellings that are accepted."""

import re
import signal

PATTERN = (
    r"(?:success|cancelled|timed out|out of memory|abandoned \((?:worker|server) unreachable\)"
    r"|failure(?: \([^\n]+\))?)"
)
FORMS = (
    "'success', 'failure (exit code 3)', 'failure (SIGKILL)', 'failure (ValueError)', 'failure (worker: reason)', "
    "'failure (no directory: path)', "
    "'failure' (then exit_code or signal says more), 'timed out', 'out of memory', 'cancelled', "
    "'abandoned (worker unreachable)', 'abandoned (server unreachable)'"
)
FAILURE = "failure"
"""A bare failure. Without an exit code or a signal the program exited with -1, which is exit code 255."""
_EXIT_CODE = 255
_SIGNAL = re.compile(r"failure \((?:signal |Signals\.)?(-?[0-9]{1,3}|SIG[A-Z0-9]+)\)", re.IGNORECASE)


def exact(exit_status: str, exit_code: int | None = None, signal_name: str | None = None) -> str:
    """The stored form: a bare `failure` gets its exit code or signal, a signal gets its name.

    `exit_code` and `signal_name` are the other fields of the report.
    """
    if exit_status == FAILURE:
        if signal_name:
            return exact(f"{FAILURE} ({signal_name})")
        return f"{FAILURE} (exit code {_EXIT_CODE if exit_code is None else exit_code})"
    found = _SIGNAL.fullmatch(exit_status)
    return exit_status if found is None else f"{FAILURE} ({_name(found[1])})"


def _name(text: str) -> str:
    """The name of a signal that is given by name or number; the text itself if there is no such signal."""
    if text.upper() in signal.Signals.__members__:
        return text.upper()
    try:
        return signal.Signals(abs(int(text))).name
    except ValueError:
        return text
