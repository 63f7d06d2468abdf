"""What each of the example models promises."""

import ast

import pytest

from tests.models.running import DIRECTORY, load

MODELS = ["fmi", "monte_carlo", "portfolio", "shell_sum", "slow_sum", "sum"]


def test_no_model_is_forgotten() -> None:
    files = [file for file in DIRECTORY.glob("*.py") if "\ndef task(" in file.read_text()]
    packages = [file.parent for file in DIRECTORY.glob("*/__init__.py")]
    assert sorted(file.stem for file in files + packages) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_the_docstring_states_inputs_and_results(name: str) -> None:
    text = load(name).__doc__ or ""
    summary, empty, *rest = text.splitlines()
    assert summary.endswith(".")
    assert empty == ""
    assert any(line.startswith("Inputs") and line.endswith(":") for line in rest)
    assert any(line in ("Result:", "Results:") for line in rest)


def test_models_use_nothing_of_ours() -> None:
    for file in DIRECTORY.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"banyan", "worker", "tests"}, file
