"""A model for tests: its input `do` says what its computation does, the others are that act's own.

An ordinary model: it imports nothing of the queue.
"""

import concurrent.futures
import enum
import http
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import numpy as np
from dask import delayed
from simsvc.tasks import Task_spec

LOADED = time.time()
CALLED_BACK = []


def worker_callback():
    CALLED_BACK.append(os.getpid())


def task(spec: Task_spec, cancel):
    act = spec.inputs["do"]
    if act == "raise in task":
        raise ValueError("the inputs do not fit")
    if act == "return no graph":
        return {"answer": 42}
    return delayed(ACTS[act])(spec, cancel)


def echo(spec, cancel):
    return {name: value for name, value in spec.inputs.items() if name != "do"}


def describe(spec, cancel):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return {
        "pid": os.getpid(),
        "loaded": LOADED,
        "called_back": len(CALLED_BACK),
        "workdir": spec.workdir,
        "jobid": spec.jobid,
        "cwd": os.getcwd(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "num_workers": dask.config.get("num_workers"),
        "config": dask.config.get("simsvc.model", None),
        "variables": {name: value for name, value in os.environ.items() if name.startswith(("BANYAN", "MY_"))},
    }


class Colour(enum.StrEnum):
    RED = "red"


def raise_error(spec, cancel):
    raise {
        "ValueError": ValueError("no such value"),
        "TimeoutError": TimeoutError("too slow"),
        "CancelledError": concurrent.futures.CancelledError(),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
    }[spec.inputs["error"]]


def give(spec, cancel):
    return {
        "list": [1, 2],
        "number keys": {1: 2},
        "object": {"value": object()},
        "huge": {"value": 2**64},
        "very huge": {"value": 10**5000},
        "nul": {"a\0": 1},
        "large": {"text": "x" * 100_000},
        "numpy": {
            "scalar": np.float64(1.5),
            "flag": np.bool_(True),
            "nan": np.nan,
            "array": np.array([[1, 2], [3, 4]]),
            "floats": np.array([np.inf, -np.inf]),
            "long": [np.longdouble(0.5), np.array([np.longdouble(2)])],
            "colour": {Colour.RED: Colour.RED},
            "status": http.HTTPStatus.OK,
            "inner": {"c.x": np.int64(7), "$ref": (1, None), "": "empty", "\N{DECIDUOUS TREE}": True},
        },
    }[spec.inputs["value"]]


def wait_for_cancel(spec, cancel):
    say(spec, "waiting")
    while not cancel.get():
        time.sleep(0.005)
    say(spec, "noticed")
    raise concurrent.futures.CancelledError


def wait_for_file(spec, cancel):
    with open(os.path.join(spec.workdir, "where"), "w") as file:
        file.write(spec.workdir)
    say(spec, "waiting")
    while not os.path.exists(os.path.join(spec.workdir, "go")):
        if cancel.get():
            raise concurrent.futures.CancelledError
        time.sleep(0.01)
    return {"pid": os.getpid()}


def clean_up_slowly(spec, cancel):
    say(spec, "waiting")
    while not cancel.get():
        time.sleep(0.005)
    time.sleep(spec.inputs["seconds"])
    say(spec, "cleaned")
    raise concurrent.futures.CancelledError


def ignore_cancel(spec, cancel):
    mark = spec.inputs["mark"]
    subprocess.Popen(["sh", "-c", f": {mark}; sleep 600"])
    subprocess.Popen(["setsid", "sh", "-c", f": {mark}; trap '' TERM; sleep 600"])
    print("last words")
    say(spec, "waiting")
    time.sleep(600)


def write_again(spec, cancel):
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        print(spec.inputs["text"], 1, file=stream, flush=True)
        subprocess.run(["sh", "-c", f"echo {spec.inputs['text']} 2 > /dev/{name}"], check=True)
        print(spec.inputs["text"], 3, file=stream)
    return {}


def leave_savers(spec, cancel):
    save = "trap 'echo x >> heard; while ! test -e ended; do sleep 0.02; done; echo saved > {0}.saved; exit' TERM"
    for name, how in (("near", []), ("far", ["setsid"])):
        script = f"{save.format(name)}; echo > {name}.ready; while :; do sleep 0.02; done; : {spec.inputs['mark']}"
        subprocess.Popen([*how, "sh", "-c", script])
    while not all(os.path.exists(f"{name}.ready") for name in ("near", "far")):
        time.sleep(0.01)
    say(spec, "waiting")
    while not cancel.get() and not spec.inputs["fail"]:
        time.sleep(0.005)
    open("ended", "w").close()
    raise concurrent.futures.CancelledError


def leave_processes(spec, cancel):
    subprocess.Popen(["setsid", "sh", "-c", f"sh -c ': {spec.inputs['mark']}; sleep 600' & wait"])
    return {"pid": os.getpid()}


def kill_host(spec, cancel):
    if spec.inputs["signal"]:
        os.kill(os.getpid(), spec.inputs["signal"])
        time.sleep(600)
    os._exit(7)


def term_host(spec, cancel):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)
    return {"pid": os.getpid()}


def allocate(spec, cancel):
    held = bytearray(spec.inputs["bytes"])
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(spec.inputs["seconds"])
    return {"held": len(held)}


def fan_out(spec, cancel):
    """A nested computation, whose subtasks get `cancel`; one fails, the others stop when they are told."""
    files = [os.path.join(spec.workdir, str(number)) for number in range(3)]
    with open(os.path.join(spec.workdir, "waiting"), "w"):
        pass
    return {"pids": dask.compute(*[delayed(_subtask)(file, cancel) for file in files])[:]}


def _subtask(file, cancel):
    while not cancel.get():
        time.sleep(0.005)
    with open(file, "w") as opened:
        opened.write("stopped")
    raise concurrent.futures.CancelledError


def stray_thread(spec, cancel):
    """Fails at once while a thread of it goes on for a while, and notes when it is over."""

    def go_on():
        while not cancel.get():
            time.sleep(0.005)
        say(spec, "thread stopped")

    threading.Thread(target=go_on).start()
    raise ValueError("failed early")


def fail_beside_nested(spec, cancel):
    def nested():
        dask.compute(delayed(linger)(spec))

    return dask.compute(delayed(nested)(), delayed(fail_after)(os.path.join(spec.workdir, "begun")))


def linger(spec):
    with open(os.path.join(spec.workdir, "begun"), "w"):
        time.sleep(0.5)
    with open(os.path.join(spec.workdir, "nested"), "w") as file:
        file.write("over")


def fail_after(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    raise ValueError("beside")


def close_stdout(spec, cancel):
    print("before")
    sys.stdout.close()
    sys.stderr = None
    return {}


def close_descriptor(spec, cancel):
    os.close(0)
    os.close(1)
    return {}


def set_an_alarm(spec, cancel):
    signal.setitimer(signal.ITIMER_REAL, 1)
    return {}


def change_signals(spec, cancel):
    return {"known": signal.getsignal(signal.SIGTERM) is not None}


def fork_and_return(spec, cancel):
    os.fork()
    return {"pid": os.getpid()}


def use_a_fork_server(spec, cancel):
    process = multiprocessing.get_context("forkserver").Process(target=abs, args=(1,))
    process.start()
    process.join()
    return {"exit_code": process.exitcode}


def write_everywhere(spec, cancel):
    for descriptor in range(3, 30):
        try:
            os.write(descriptor, b"x" * 100)
        except OSError:
            continue
    return {}


def end_processes(spec, cancel):
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join()
    return {"exit_code": process.exitcode}


KEPT = []


def keep_memory(spec, cancel):
    KEPT.append(b"x" * spec.inputs["bytes"])
    return {}


def echo_after_a_while(spec, cancel):
    time.sleep(1)
    return {}


def die_later(spec, cancel):
    threading.Thread(target=lambda: (time.sleep(0.5), os._exit(1)), daemon=True).start()
    return {}


def runtime_tasks(spec, cancel):
    """Submits further tasks while it runs, as one can on a Dask cluster."""
    from distributed import worker_client

    with worker_client() as client:
        futures = client.map(_square, range(spec.inputs["count"]))
        return {"squares": client.gather(futures), "pid": os.getpid(), "called_back": len(CALLED_BACK)}


def _square(number):
    return number**2


def say(spec, text):
    with open(os.path.join(spec.workdir, "said.part"), "w") as file:
        file.write(text)
    os.replace(os.path.join(spec.workdir, "said.part"), os.path.join(spec.workdir, "said"))


ACTS = {
    "echo": echo,
    "describe": describe,
    "raise": raise_error,
    "give": give,
    "wait for cancel": wait_for_cancel,
    "wait for file": wait_for_file,
    "clean up slowly": clean_up_slowly,
    "ignore cancel": ignore_cancel,
    "leave processes": leave_processes,
    "leave savers": leave_savers,
    "write again": write_again,
    "kill host": kill_host,
    "term host": term_host,
    "allocate": allocate,
    "fan out": fan_out,
    "stray thread": stray_thread,
    "runtime tasks": runtime_tasks,
    "fail beside nested": fail_beside_nested,
    "close stdout": close_stdout,
    "close descriptor": close_descriptor,
    "set an alarm": set_an_alarm,
    "change signals": change_signals,
    "fork and return": fork_and_return,
    "use a fork server": use_a_fork_server,
    "write everywhere": write_everywhere,
    "end processes": end_processes,
    "keep memory": keep_memory,
    "echo after a while": echo_after_a_while,
    "die later": die_later,
}
