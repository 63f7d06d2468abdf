"""Names in the filters of commands: a filter without matches may name a missing queue, state or model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from banyan.cli import late_typer as typer
from banyan.spelling import unknown

if TYPE_CHECKING:
    from banyan.client import Client


def check_state(state: str) -> None:
    """Refuse a state that tasks do not have, with the probable one."""
    from banyan.domain.task import STATE_WORDS, State

    states = [str(each) for each in State]
    if state not in states:
        raise typer.BadParameter(unknown("state", state, states, STATE_WORDS), param_hint="--state")


def check_matched(client: "Client", where: Mapping[str, Any], option: str = "--where") -> None:
    """Refuse a filter that has matched nothing and names a queue or a model that does not exist.

    It requests the names from the server, so it is called only for an empty result.
    """
    if queues := _named(where, "queue"):
        known = [str(queue["name"]) for queue in client.queues()]
        _refuse("queue", queues, known, option)
    if models := _named(where, "model"):
        _refuse("model", models, [str(model["name"]) for model in client.models()], option)


def _named(where: Mapping[str, Any], field: str) -> list[str]:
    """Return the values that a filter compares a field with, where it is that simple."""
    value = where.get(field)
    values = value.get("$in", value.get("$eq")) if isinstance(value, dict) else value
    return [each for each in (values if isinstance(values, list) else [values]) if isinstance(each, str)]


def _refuse(kind: str, names: list[str], known: list[str], option: str) -> None:
    for name in names:
        if name not in known:
            raise typer.BadParameter(unknown(kind, name, known), param_hint=option)
