"""Commands in odd terminals: texts that are not UTF-8, few characters, full and broken outputs, an early Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from banyan.client import Client
from tests.support.up import Up, eventually

NOWHERE = {"BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN": "x"}
FEW = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
"""A terminal with ASCII alone."""

INTERRUPTED_SECOND_START = """
import os, signal, sys
if "--token-fd" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGINT)
"""
"""A module that Python runs before ours: Ctrl-C comes while Python starts the worker that has begun anew."""

INTERRUPTED_TEXT = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT).__name__ == "_interrupt":
            sys.meta_path.remove(self)
            exec("os.kill(os.getpid(), signal.SIGINT); [None for _ in range(10)]")
sys.meta_path.insert(0, Finder())
"""
"""A module that Python runs before ours: Ctrl-C comes while a module that a command imports executes a text."""

INTERRUPTED_LIBRARY = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT).__name__ == "_interrupt":
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
                [None for _ in range(10)]
            except KeyboardInterrupt:
                raise BaseException("panic") from None
sys.meta_path.insert(0, Finder())
"""
"""A module that Python runs before ours: a library that is being loaded makes another error of Ctrl-C."""


def banyan(
    *arguments: str | bytes, env: dict[str, str | bytes] | dict[str, str] | None = None, script: str = 'exec "$@"'
) -> subprocess.CompletedProcess[bytes]:
    """Run a command that ends by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BANYAN_", "XDG_", "LC_"))}
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "banyan", *arguments]
    return subprocess.run(command, env={**kept, **(env or {})}, capture_output=True, timeout=120, check=False)


def known(up: Up) -> dict[str, str]:
    return {"BANYAN_URL": up.url, "BANYAN_TOKEN": up.ready["provider_token"]}


@pytest.mark.parametrize(
    ("arguments", "env", "code"),
    [
        ((b"\xff",), {}, 2),
        (("list", b"--\xff"), {}, 2),
        (("list", "--count", b"\xff"), {}, 2),
        (("show", b"\xff"), NOWHERE, 2),
        (("list", "--where", b'{"name": "\xff"}'), NOWHERE, 2),
        (("submit", "--", b"\xff"), NOWHERE, 2),
        (("user", "add", b"\xff", "--role", "provider"), NOWHERE, 2),
        (("list",), {"BANYAN_URL": b"http://\xff", "BANYAN_TOKEN": "x"}, 2),
        (("list",), {**NOWHERE, "BANYAN_TOKEN": b"\xff"}, 3),
        (("list",), {"BANYAN_URL": "http://127.0.0.1:1", "BANYAN_TOKEN_FILE": b"/tmp/\xff"}, 2),
        (("list",), {"HOME": b"/tmp/\xff"}, 3),
        (("up",), {"BANYAN_CONFIG": b"/tmp/\xff"}, 2),
        (("worker", "--workdir", "/tmp/\u00e9", "--name", b"\xff"), NOWHERE, 2),
        (("worker",), {**NOWHERE, "BANYAN_LABELS": b'{"a": "\xff"}'}, 2),
    ],
)
def test_what_is_not_utf_8_is_told_in_one_sentence(
    arguments: tuple[str | bytes, ...], env: dict[str, str | bytes], code: int
) -> None:
    for terminal in ({}, FEW):
        done = banyan(*arguments, env={**env, **terminal})
        assert (done.returncode, done.stdout) == (code, b""), done.stderr
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("terminal", [FEW, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C"}], ids=str)
def test_a_terminal_of_few_characters_shows_the_others_as_escapes(up: Up, terminal: dict[str, str]) -> None:
    env = known(up) | terminal
    done = banyan("submit", "--name", "n\u00e9 \u2026 \U0001f600", "--wait", "--", "printf", "%s", "h\u00e9", env=env)
    task = done.stdout.decode().strip()
    assert done.returncode == 0, done.stderr
    with Client(up.url, up.ready["provider_token"]) as client:
        assert client.task(task)["name"] == "n\u00e9 \u2026 \U0001f600"
    assert banyan("logs", task, env=env).stdout.decode() == "h\u00e9"
    for command in (
        ("list", "--where", f'{{"_id": "{task}"}}'),
        ("show", task),
        ("show", task, "--json"),
        ("logs", "--json", task),
        ("stats",),
    ):
        done = banyan(*command, env=env)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("command", [("--help",), ("list", "--json"), ("stats",), ("workers",), ("queues",)], ids=str)
def test_a_full_output_is_told_and_a_closed_pipe_is_not(up: Up, command: tuple[str, ...]) -> None:
    full = banyan(*command, env=known(up), script='exec "$@" >/dev/full')
    assert (full.returncode, full.stderr) == (2, b"banyan: cannot write the output: No space left on device\n")
    closed = banyan(*command, env=known(up), script='"$@" | : ; exit "${PIPESTATUS[0]}"')
    assert (closed.returncode, closed.stderr) in ((141, b""), (0, b""))  # 0: it was quicker


def test_a_full_or_closed_error_output_changes_no_exit_code() -> None:
    for script in ('exec "$@" 2>/dev/full', '"$@" 2> >(:)'):
        assert banyan("list", env=NOWHERE, script=script).returncode == 3
        assert banyan("list", "--none", env=NOWHERE, script=script).returncode == 2
        assert banyan("worker", "--tasks", "/dev/null", script=script).returncode == 0


@pytest.mark.parametrize(
    ("command", "codes"),
    [
        (("list",), {130}),
        (("worker", "--workdir", "w"), {130, 0, 3}),
        (("up", "--port", "0", "--data", "d"), {130, 0}),
    ],
    ids=str,
)
def test_an_early_ctrl_c_leaves_without_a_traceback(tmp_path: Path, command: tuple[str, ...], codes: set[int]) -> None:
    log = tmp_path / "log"
    for hundredths in (0, 5, 15, 30, 60, 120):
        with socket.create_server(("127.0.0.1", 0)) as silent, log.open("wb") as errors:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            env = {**os.environ, "HOME": str(tmp_path), "BANYAN_URL": url, "BANYAN_TOKEN": "x"}
            program = [sys.executable, "-X", "importtime", "-m", "banyan", *command]
            process = subprocess.Popen(program, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=errors)
            eventually(log.read_text, lambda text: "banyan.cli\n" in text)
            time.sleep(hundredths / 100)  # the moment of the Ctrl-C, whatever is going on then
            process.send_signal(signal.SIGINT)
            end(process)
        assert "Traceback" not in log.read_text()
        assert process.returncode in codes


@pytest.mark.parametrize("token", [("--token", "x"), ()], ids=["from an option", "from the environment"])
def test_a_ctrl_c_while_python_starts_a_worker_anew_without_its_token_leaves_without_a_traceback(
    tmp_path: Path, token: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTED_SECOND_START)
    env = {**os.environ, "HOME": str(tmp_path), "BANYAN_TOKEN": "x", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "banyan", "worker", "--url", "http://127.0.0.1:1", *token]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    "library", [INTERRUPTED_TEXT, INTERRUPTED_LIBRARY], ids=["a text", "a library of its own kind"]
)
def test_a_ctrl_c_while_a_command_loads_its_modules_ends_with_its_exit_code(tmp_path: Path, library: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(library)
    done = banyan("list", env={**NOWHERE, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for its end; a worker that drains without a server is asked again."""
    for _ in range(12):
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        else:
            return
    raise AssertionError(f"{process.args!r} does not end")
