"""`banyan demo` comes out right, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.up import alive, eventually


def demo(home: Path) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_"))}
    environment = kept | {"HOME": str(home), "TMPDIR": str(home)}
    command = [sys.executable, "-m", "banyan", "demo"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def processes_below(directory: Path) -> list[int]:
    """Processes whose command line names a file below `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                shown = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if str(directory).encode() in shown:
                found.append(int(entry.name))
    return alive(found)


def test_all_of_it_comes_out_right(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        shown, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "All of it came out right." in shown
    assert "✗" not in shown
    assert re.search(r"their sum is what a direct count gives: [\d,]+ words in [\d,]+ files", shown)
    assert processes_below(tmp_path) == []
    assert list(tmp_path.glob("banyan-demo-*")) == []


def test_interrupting_it_stops_everything(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        eventually(lambda: processes_below(tmp_path), lambda pids: len(pids) >= 1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert processes_below(tmp_path) == []
    assert list(tmp_path.glob("banyan-demo-*")) == []
