"""The `banyan` command: `python -m banyan`, and the console script."""

import os
import signal
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit.

    While code is being loaded, and after the command has ended, Ctrl-C needs no cleanup: it ends the process at once. A
    worker that starts anew without its token blocks Ctrl-C until it arrives here, because Python's own start shows a
    traceback.
    """
    try:
        heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heeded:
            signal.signal(signal.SIGINT, _leave)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        from banyan.cli.app import main as command
        from banyan.cli.streams import stand_in

        stand_in()
        if heeded:
            signal.signal(signal.SIGINT, _interrupt)
        try:
            command()
        finally:
            if heeded:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            os._exit(_INTERRUPTED)  # Python may end by the signal, if that came while it executed a text
        raise
    except BaseException:
        if _interrupts:  # a library that was being loaded may make another error of it
            os._exit(_INTERRUPTED)
        raise


_interrupts: list[int] = []
"""The signals of Ctrl-C that came while a command ran."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
