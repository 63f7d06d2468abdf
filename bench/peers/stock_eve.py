"""Stock Eve with the schema of our tasks: what posting costs where Eve does it all."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from bench.peers.plain_mongod import answers
from bench.processes import running

NAME = "stock Eve"

_DATABASE = "stock_eve"
_URI = "STOCK_EVE_MONGO_URI"
_KINDS = ("_normalize_coerce_", "_check_with_")
"""The methods of our validator that say what our kinds of fields are; all else stays Eve's."""


def make_app() -> Any:
    """A plain Eve application: its own validation, its own data layer, our schema and kinds of fields."""
    from eve import Eve
    from eve.io.mongo import Validator as EveValidator

    from banyan.api.schema import RESOURCES
    from banyan.api.validator import Validator

    kinds = {name: value for name, value in vars(Validator).items() if name.startswith(_KINDS) or name == "_tell"}
    validator = type("StockValidator", (EveValidator,), {**kinds, "types_mapping": Validator.types_mapping})
    tasks = {"schema": deepcopy(RESOURCES["tasks"]), "resource_methods": ["GET", "POST"]}
    settings = {
        "DOMAIN": {"tasks": tasks},
        "MONGO_URI": os.environ[_URI],
        "MONGO_DBNAME": _DATABASE,
        "HATEOAS": False,
        "RENDERERS": ["eve.render.JSONRenderer"],
    }
    return Eve(settings=settings, validator=validator)


@contextmanager
def served(mongo_uri: str, port: int, home: Path) -> Iterator[str]:
    """Its URL: one process of the WSGI server that ours has, with threads."""
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "--worker-class", "gthread", "--threads", "16"]
    command += ["--bind", f"127.0.0.1:{port}", "bench.peers.stock_eve:make_app()"]
    environment = {**os.environ, _URI: mongo_uri}
    with running(command, log=home / "eve.log", ready=lambda: answers(port), env=environment):
        yield f"http://127.0.0.1:{port}"
