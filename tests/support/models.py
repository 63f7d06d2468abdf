"""Models written for a test."""

from pathlib import Path
from textwrap import dedent

HEAD = "import os, signal, subprocess, sys, time\nfrom dask import delayed\n"


def write_models(directory: Path, **bodies: str) -> str:
    """A directory for `models.path` with a model for each name, whose `task` has this body."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        lines = "\n".join(f"    {line}" for line in dedent(body).strip().splitlines())
        text = f'"""Model {name}."""\n{HEAD}\n\ndef task(spec, cancel):\n{lines}\n'
        (directory / f"{name}.py").write_text(text)
    return str(directory)


SUM = """
    missing = [name for name in ("x", "y") if name not in spec.inputs]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    return delayed(lambda x, y: {"sum": x + y})(spec.inputs["x"], spec.inputs["y"])
"""
"""A task that refuses to do without `x` and `y`."""
