"""Mounts of one program's own: no other program sees them, and they are gone with it. No root is needed."""

import os
import subprocess

_ROOT = os.geteuid() == 0
OWN_MOUNTS = ["unshare", "--mount", *([] if _ROOT else ["--user", "--map-root-user"])]
"""Words before a program that is to have mounts of its own."""


def within(process: "subprocess.Popen[bytes] | subprocess.Popen[str]", script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a shell that sees the mounts of the process."""
    enter = ["nsenter", "--target", str(process.pid), "--mount"]
    enter += [] if _ROOT else ["--user", "--preserve-credentials"]
    return subprocess.run([*enter, "bash", "-c", script], check=False, capture_output=True, text=True, timeout=60)
