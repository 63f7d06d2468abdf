"""Models whose tasks are as small as can be; `do` says which."""

import time
from concurrent.futures import CancelledError

from dask import delayed


def task(spec, cancel):
    return delayed(ACTS[spec.inputs.get("do", "nothing")])(spec, cancel)


def nothing(spec, cancel):
    return {}


def read_flag(spec, cancel):
    count = 1_000_000
    begun = time.perf_counter()
    for _ in range(count):
        cancel.get()
    with_get = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(count):
        pass
    return {"seconds": (with_get - (time.perf_counter() - begun)) / count}


def notice(spec, cancel):
    """Says when it has noticed its cancellation, and succeeds."""
    while not cancel.get():
        time.sleep(0.0005)
    return {"noticed": time.time()}


def give_up(spec, cancel):
    while not cancel.get():
        time.sleep(0.0005)
    raise CancelledError


def ignore(spec, cancel):
    time.sleep(600)
    return {}


ACTS = {"nothing": nothing, "read flag": read_flag, "notice": notice, "give up": give_up, "ignore": ignore}
