"""The standard output of a command when a signal interrupts it: nothing is written twice."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

from tests.support.up import eventually

PROGRAM = """
import signal, sys
from banyan.cli.streams import stand_in
def leave(number, frame):
    raise SystemExit(7)
signal.signal(signal.SIGTERM, leave)
stand_in()
print("".join(f"{line:05d}\\n" for line in range(int(sys.argv[1]))), flush=True)
"""
PIPE_BYTES = 4096


def waiting_in(pipe: int) -> int:
    """The bytes in a pipe that nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


@pytest.mark.parametrize("lines", [1_000, 100_000], ids=["less than a buffer", "more than a buffer"])
def test_a_signal_in_the_middle_of_a_write_repeats_nothing(lines: int) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(lines)], stdout=writing)
    os.close(writing)
    eventually(lambda: waiting_in(reading), lambda count: count == PIPE_BYTES)
    process.send_signal(signal.SIGTERM)
    with open(reading, "rb") as pipe:
        seen = [line for line in pipe.read().split(b"\n") if len(line) == 5]
    assert process.wait(30) == 7
    assert seen == [b"%05d" % line for line in range(len(seen))]
