"""`banyan hold`, `release`, `edit` and `delete`: changes of waiting tasks, and the removal of ended ones."""

from typing import TYPE_CHECKING, Annotated, Any

from banyan.cli import completion
from banyan.cli import late_typer as typer
from banyan.cli.act import AsJson, ids_matching, read_filter
from banyan.cli.changes import Setting, changes_of, name_entries, settings_of
from banyan.cli.connection import connect
from banyan.cli.ids import Kind, SomeIds, resolve
from banyan.cli.steering import check_choice, each, in_batches, matching, state_of
from banyan.errors import PreconditionFailed

if TYPE_CHECKING:
    from banyan.client import Client

Document = dict[str, Any]
Where = Annotated[str | None, typer.Option(metavar="JSON", help="All of one's own that match this filter.")]

_UNBEGUN = {"$or": [{"state": {"$in": ["inactive", "available"]}}, {"state": "running", "time_started": None}]}
"""Tasks that can be held: a worker may have them, but has not begun them."""
_TRIES = 5
"""The most tries of an edit of one entry while others change the same task."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for command in (hold, release, edit, delete):
        app.command()(command)


def hold(ids: SomeIds = None, where: Where = None, as_json: AsJson = False) -> None:
    """Hold tasks that have not begun: they wait until `banyan release`."""
    _set_hold(ids, where, True, as_json)


def release(ids: SomeIds = None, where: Where = None, as_json: AsJson = False) -> None:
    """Release tasks that were held."""
    _set_hold(ids, where, False, as_json)


def _set_hold(ids: list[str] | None, where: str | None, held: bool, as_json: bool) -> None:
    check_choice(ids, where)
    client, change = connect(), {"hold": held}
    if ids:
        _update(client, ids, change, as_json, (lambda answer: f"{state_of(answer)}, held") if held else state_of)
        return
    chosen = read_filter(where) or {}
    narrowed = {"$and": [chosen, _UNBEGUN if held else {**_UNBEGUN, "hold": True}]}
    answer = client.update_where(narrowed, change)
    matching(client, chosen, answer, "updated", "held" if held else "released", as_json)


def edit(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="ID .. KEY=VALUE ..",
            help="Tasks (- reads their ids from standard input), and new values of their fields.",
            autocompletion=completion.tasks,
        ),
    ],
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Change fields of tasks, of most only until they begin; `tags` and `metadata` at any time.

    A value is JSON or a text; a field is replaced whole, and `a.b=1` changes one entry of it. `cores`, `memory`, `gpus`
    and the like are entries of `requested_resources`. All of the changes to a task are made, or none.
    Examples: `banyan edit ID priority=5 timeout=2h`, `banyan edit ID memory='4 GiB' env.SEED=17 tags=night,long`.
    """
    changes = settings_of([word for word in words if "=" in word], "KEY=VALUE")
    if not changes:
        raise typer.BadParameter("say what to change: KEY=VALUE", param_hint="KEY=VALUE")
    ids = resolve(Kind.TASK, [word for word in words if "=" not in word], "ID")
    check_choice(ids, where)
    client = connect()
    if where is not None and not name_entries(changes):
        chosen = read_filter(where) or {}
        answer = client.update_where(chosen, changes_of(changes, dict, "KEY=VALUE"))
        matching(client, chosen, answer, "updated", "changed", as_json)
        return
    if where is not None:  # each task has other entries beside the changed ones
        ids = ids_matching(client, where)
    if name_entries(changes):
        each(ids, lambda task: _edit_entries(client, task, changes), as_json)
    else:
        _update(client, ids, changes_of(changes, dict, "KEY=VALUE"), as_json)


def _update(client: "Client", ids: list[str], change: Document, as_json: bool, described: Any = state_of) -> None:
    """Set the same new values for all of these tasks."""
    if len(ids) == 1:
        each(ids, lambda task: client.update(task, change), as_json, described)
    else:
        in_batches(ids, lambda batch: client.bulk_update([{"_id": id, **change} for id in batch]), as_json, described)


def _edit_entries(client: "Client", task: str, changes: list[Setting], tries: int = _TRIES) -> Document:
    """Change entries of a task's fields; the others stay as they are, even if another client changes them meanwhile."""
    before = client.task(task)
    try:
        return client.update(task, changes_of(changes, lambda: before, "KEY=VALUE"), before["_etag"])
    except PreconditionFailed:
        if tries == 1:
            raise
    return _edit_entries(client, task, changes, tries - 1)


def delete(ids: SomeIds = None, where: Where = None, as_json: AsJson = False) -> None:
    """Delete tasks that have ended, with their histories, files and memory samples."""
    check_choice(ids, where)
    client = connect()
    if ids:
        each(ids, client.delete, as_json, lambda answer: f"{answer['_id']} deleted")
        return
    chosen = read_filter(where) or {}
    answer = client.delete_where(chosen)
    matching(client, chosen, answer, "deleted", "deleted", as_json)
