"""The tests mean the same when they are started in the background as in the foreground."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.background import KEYBOARD_AND_TERMINAL

SOURCE = Path(__file__).parents[2]


def test_what_a_test_starts_ignores_no_signal_of_the_keyboard() -> None:
    done = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    (ignored,) = re.findall(r"SigIgn:\s+(\w+)", done.stdout)
    assert [each for each in KEYBOARD_AND_TERMINAL if int(ignored, 16) >> (each - 1) & 1] == []


def test_neither_does_it_when_the_tests_run_in_the_background() -> None:
    test = f"{__file__}::{test_what_a_test_starts_ignores_no_signal_of_the_keyboard.__name__}"
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    background = ["bash", "-c", 'trap "" INT QUIT HUP; exec "$@"', "bash", *run]
    done = subprocess.run(background, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=200)
    assert "1 passed" in done.stdout, done.stdout
