"""The `banyan` command: `python -m banyan`, and the console script."""

import os
import signal
from types import FrameType

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit.

    While code is being loaded, and after the command has ended, Ctrl-C has nothing to unwind: it just ends the process.
    """
    try:
        heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if heeded:
            signal.signal(signal.SIGINT, _leave)
        from banyan.cli.app import main as command
        from banyan.cli.streams import stand_in

        stand_in()
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            command()
        finally:
            if heeded:
                signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
