"""The common part of steering commands: a change of tasks that ids or a filter name, and the result for each."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from banyan.cli import late_typer as typer
from banyan.cli.names import check_matched
from banyan.cli.output import print_json
from banyan.errors import BanyanError, IllegalTransition

if TYPE_CHECKING:
    from banyan.client import Client

Document = dict[str, Any]

AT_ONCE = 1000
"""The most tasks in one request."""
_NAMED = 5
"""The most tasks that are named of those that a filter has found and a change refuses."""


def check_choice(ids: Sequence[str] | None, where: str | None) -> None:
    """Refuse a command line with neither ids nor a filter, or with both."""
    if bool(ids) == (where is not None):
        raise typer.BadParameter("give ids, or --where", param_hint="ID")


def state_of(answer: Mapping[str, Any]) -> str:
    """Return the id of a task and its state."""
    return f"{answer['_id']} {answer['state']}"


def each(
    ids: Iterable[str], act: Callable[[str], Document], as_json: bool, described: Callable[[Document], str] = state_of
) -> None:
    """Call `act` for each id, also after a failure for another one, and print the results."""

    def outcomes() -> Iterator[Document | BanyanError]:
        for id in dict.fromkeys(ids):
            try:
                yield act(id)
            except BanyanError as error:
                yield error

    _tell(outcomes(), as_json, described)


def in_batches(
    ids: Sequence[str],
    act: Callable[[list[str]], list[Document]],
    as_json: bool,
    described: Callable[[Document], str] = state_of,
) -> None:
    """Change many tasks by requests for many at once, whose responses have an item for each."""
    from banyan.answers import error_in

    known = list(dict.fromkeys(ids))
    items = [item for start in range(0, len(known), AT_ONCE) for item in act(known[start : start + AT_ONCE])]
    _tell((error_in(item) or item for item in items), as_json, described)


def _tell(outcomes: Iterable[Document | BanyanError], as_json: bool, described: Callable[[Document], str]) -> None:
    """Print the changes, and the failures on stderr; raises the last of these errors."""
    found = list(outcomes)
    answers = [outcome for outcome in found if not isinstance(outcome, BanyanError)]
    problems = [outcome for outcome in found if isinstance(outcome, BanyanError)]
    if as_json:
        print_json(answers)
    else:
        for answer in answers:
            print(described(answer))
    for problem in problems[:-1]:
        print(f"banyan: {problem}", file=sys.stderr)
    if problems:
        raise problems[-1]


def matching(client: "Client", where: dict[str, Any], answer: Document, count: str, done: str, as_json: bool) -> None:
    """Print how many of the matching tasks were changed; an error if some of them refused.

    `count` names the number in the response, and `done` is the verb for the output.
    """
    if not answer["matched"]:
        check_matched(client, where)
    if as_json:
        print_json(answer)
    else:
        print(f"{answer[count]} of {answer['matched']} matching tasks {done}")
    faults = [item for item in answer.get("_items", ()) if "_error" in item]
    for item in faults[:_NAMED]:
        print(f"banyan: {item['_error']['message']}", file=sys.stderr)
    if refused := answer.get("refused", len(faults)):
        raise IllegalTransition({"where": f"{refused} of the tasks refused it"})
