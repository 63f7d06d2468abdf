"""What holds for each task of each model."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest


def state() -> tuple[str, list[str], object]:
    return os.getcwd(), list(sys.path), signal.getsignal(signal.SIGTERM)


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """Tasks share their process with others: none changes the state of the process."""
    before = state()
    yield
    assert state() == before
