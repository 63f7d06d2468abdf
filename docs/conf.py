"""How Sphinx builds the documentation; the lists of commands and routes are written from the code itself."""

import subprocess
import sys
from importlib.metadata import version as installed
from pathlib import Path

from sphinx.application import Sphinx

project = "Banyan"
author = "the Banyan authors"
copyright = author
release = version = installed("banyan-queue")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_generated"]
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "Banyan"

GENERATED = Path(__file__).parent / "_generated"


def commands() -> str:
    """Every command with its options, as `--help` says them."""
    command = [sys.executable, "-m", "typer", "banyan.cli.full", "utils", "docs", "--name", "banyan"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.split("\n", 1)[1].replace("&#x27;", "'").replace("&quot;", '"')


def routes() -> str:
    """Every route of our own with its roles, from the registry that serves the requests."""
    from banyan.api import app  # noqa: F401 - it registers the routes
    from banyan.api.routes import ANYONE, ROUTES

    rows = []
    for route in sorted(ROUTES.values(), key=lambda each: (each.path, each.method)):
        path = route.path.replace("<objectid:", "<").replace("<path:", "<")
        who = "anyone, without a token" if route.open else ", ".join(sorted(role.value for role in route.roles))
        who = "every role" if route.roles == frozenset(ANYONE) and not route.open else who
        rows.append(f"| `{route.method}` | `{path}` | {route.summary} | {who} |")
    return "\n".join(["| | path | does | for |", "| --- | --- | --- | --- |", *rows]) + "\n"


def generate(_: Sphinx) -> None:
    """Write what the pages include."""
    GENERATED.mkdir(exist_ok=True)
    for name, text in {"commands.md": commands(), "routes.md": routes()}.items():
        (GENERATED / name).write_text(text)


def setup(app: Sphinx) -> None:
    """Sphinx calls this first."""
    app.connect("builder-inited", generate)
