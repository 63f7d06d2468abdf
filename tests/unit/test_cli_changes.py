"""`KEY=VALUE` words as new values of fields."""

from typing import Any

import pytest

from banyan.cli import late_typer as typer
from banyan.cli.changes import changes_of, name_entries, settings_of

BEFORE = {
    "requested_resources": {"cores": 2, "custom": {"licence": 1}},
    "env": {"A": "1"},
    "metadata": {"a": {"b": 1}},
    "priority": 3,
}


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["priority=5"], {"priority": 5}),
        (["name=2024"], {"name": "2024"}),
        (['name="2024"'], {"name": "2024"}),
        (["name=null"], {"name": None}),
        (["name=x=y"], {"name": "x=y"}),
        (["name="], {"name": ""}),
        (["command=true"], {"command": "true"}),
        (['command=["echo", "[1]"]'], {"command": ["echo", "[1]"]}),
        (["timeout=90", "not-before=2030-01-01"], {"timeout": 90, "not_before": "2030-01-01"}),
        (["max-retries=2", "dir=/srv"], {"max_retry_count": 2, "directory": "/srv"}),
        (["tags=a,b"], {"tags": ["a", "b"]}),
        (['tags=["a,b"]'], {"tags": ["a,b"]}),
        (["tags="], {"tags": []}),
        (["requires=null"], {"requires": None}),
        (["env.SEED=17"], {"env": {"A": "1", "SEED": "17"}}),
        (["env.A=", "env.B=null"], {"env": {"A": "", "B": None}}),
        (["memory=4 GiB"], {"requested_resources": {"cores": 2, "custom": {"licence": 1}, "memory": "4 GiB"}}),
        (['requested_resources={"cores": 1}', "gpus=1"], {"requested_resources": {"cores": 1, "gpus": 1}}),
        (["metadata.a.b=2"], {"metadata": {"a": {"b": 1}, "a.b": 2}}),
        (["inputs.x=NaN-like"], {"inputs": {"x": "NaN-like"}}),
        (["priorty=1"], {"priorty": 1}),
    ],
    ids=str,
)
def test_words_become_values(words: list[str], changes: dict[str, Any]) -> None:
    assert changes_of(settings_of(words, "--set"), lambda: BEFORE, "--set") == changes


def test_only_entries_need_the_task_to_be_read() -> None:
    assert not name_entries(settings_of(["priority=1", "requested_resources={}", "name=a.b"], "--set"))
    assert name_entries(settings_of(["priority=1", "cores=2"], "--set"))


@pytest.mark.parametrize("word", ["x", "=1", "a.=1", ".a=1", "priority.a=1"])
def test_other_forms_are_refused(word: str) -> None:
    with pytest.raises(typer.BadParameter):
        changes_of(settings_of([word], "--set"), lambda: BEFORE, "--set")
