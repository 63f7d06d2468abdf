"""Tests that are started in the background, where shells and `nohup` ignore signals: what they start hears of them."""

import signal
from types import FrameType

KEYBOARD_AND_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def heed_in_children() -> None:
    """Let what we start hear of signals that we were told to ignore; we ourselves go on ignoring them.

    A program inherits what is ignored, and not what is caught.
    """
    for number in KEYBOARD_AND_TERMINAL:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    return None
