"""The supervisor's calls of the kernel: starts of programs, searches for processes, signals to them.

Imported by the supervisor alone, which must stay small; so this imports next to nothing.
"""

import _ctypes  # `ctypes` around it is half a megabyte, and its size would count for every task
import errno
import os
import sys

PR_SET_CHILD_SUBREAPER = 36
SIGKILL, SIGTERM, SIGCONT, SIGSTOP = 9, 15, 18, 19
"""Their numbers in Linux on all machines that we run on: the module `signal` brings the large `enum` along."""
EVERY_SIGNAL = tuple(each for each in range(1, 65) if each not in (SIGKILL, SIGSTOP, 32, 33))
"""All except those that no program can change, and two that the C library keeps for itself."""
_HEEDED = (4, 5, 6, 7, 8, 11, 17, SIGCONT, 20, 21, 22, 31)
"""The signals for faults of the program, for a child's end, and for stops and continuations."""
IGNORED_SIGNALS = tuple(each for each in EVERY_SIGNAL if each not in _HEEDED)
"""The signals that the supervisor ignores since they would end it; the programs that it starts must not."""


def become_subreaper() -> None:
    """Inherit every orphan among the descendants of this process, instead of `init`."""
    prctl = _ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl")  # type: ignore[arg-type]  # None: all that is loaded
    if _ctypes.call_function(prctl, (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)):
        sys.exit("banyan supervisor: this kernel has no child subreapers; Linux 3.4 or newer is needed")


def spawn(argv: list[str], env: list[str], streams: tuple[int, int, int]) -> int:
    """Start a program in a session of its own with these streams as 0, 1, 2; OSError if it cannot be started.

    `env` holds `NAME=value` texts; its PATH is searched.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stream, number) for number, stream in enumerate(streams)]
    variables = dict(pair.split("=", 1) for pair in env)
    fault: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    for path in candidates(argv[0], variables.get("PATH", os.defpath)):
        try:
            return os.posix_spawn(
                path, argv, variables, file_actions=actions, setsid=True, setsigmask=(), setsigdef=EVERY_SIGNAL
            )
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            fault = error
    raise fault


def candidates(name: str, path: str) -> list[str]:
    """Return the possible paths of a program: `name` itself if it is a path, else one in each directory of `path`."""
    if "/" in name:
        return [name]
    there = [f"{directory or '.'}/{name}" for directory in path.split(":")]
    return [each for each in there if os.access(each, os.F_OK)]


def children() -> list[int]:
    """Return the ids of our child processes."""
    with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
        return [int(pid) for pid in file.read().split()]


def session_of(pid: int) -> int:
    """Return the session of a process; 0 if it is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def group_of(pid: int) -> int:
    """Return the process group of a process; 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def peak_bytes(process: "int | str") -> int:
    """Return the largest resident size of a process (`self` for this one) since its reset; 0 if it is gone."""
    try:
        with open(f"/proc/{process}/status", "rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def reset_peak(process: "int | str") -> bool:
    """Reset the largest resident size of a process; return whether the kernel does so."""
    try:
        with open(f"/proc/{process}/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process so far, in clock ticks; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def had_children(pid: int) -> bool:
    """Return whether a process, which has ended and is not reaped yet, has waited for another one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[8] != b"0" or fields[10] != b"0"  # page faults of these


def resident_bytes(pid: int) -> int:
    """Return the resident size of a process; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return whether it has a process."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # only processes that changed to another user are left
    return True


def kill(pid: int) -> None:
    """Kill one process, if it is still there and ours."""
    signal_process(pid, SIGKILL)


def signal_process(pid: int, number: int) -> None:
    """Send a signal to one process, if it is still there and ours."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def own_children() -> set[int]:
    """Return the child processes of this process, of all its threads."""
    return set(_children_of(os.getpid()))


def descendants(pid: int) -> set[int]:
    """Return all processes that descend from a process and have not been orphaned."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in _children_of(waiting.pop()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _children_of(pid: int) -> list[int]:
    """Return the child processes of all its threads."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(child) for child in file.read().split()]
        except OSError:
            continue  # it has ended
    return found
