"""`banyan user`: users, their roles and their tokens (administrators)."""

import sys
from enum import StrEnum
from typing import Annotated

from banyan.cli import completion, output
from banyan.cli import late_typer as typer
from banyan.cli.act import AsJson
from banyan.cli.connection import connect

Name = Annotated[str, typer.Argument(help="The user's name.", autocompletion=completion.users)]
NewName = Annotated[str, typer.Argument(help="The user's name.")]
_WHEN = "When the token ends: a duration such as 30d, or a date such as 2030-01-31"

group = typer.Typer(no_args_is_help=True, help="Add, list and remove users, and give new tokens (administrators).")


class Role(StrEnum):
    """The rights of a user."""

    ADMIN = "admin"
    PROVIDER = "provider"
    WORKER = "worker"


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    app.add_typer(group, name="user")


@group.command()
def add(
    name: NewName,
    role: Annotated[Role, typer.Option(help="provider submits tasks, worker runs them, admin does everything.")],
    expires: Annotated[str | None, typer.Option(help=f"{_WHEN}; never by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a user and print the token, this once."""
    _print_token(connect(admin=True).add_user(name, role.value, None if expires == "never" else expires), as_json)


@group.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List the users and their roles."""
    found = connect(admin=True).users()
    if as_json:
        output.print_json(found)
        return
    rows = [
        (str(user["name"]), str(user["role"]), output.moment(user.get("_created")), output.moment(user.get("expires")))
        for user in found
    ]
    output.screen().print(output.table(("NAME", "ROLE", "CREATED", "EXPIRES"), rows))


@group.command()
def remove(name: Name, as_json: AsJson = False) -> None:
    """Take a user's access away; the user's tasks stay."""
    connect(admin=True).remove_user(name)
    if as_json:
        output.print_json({"_status": "OK", "name": name})


@group.command()
def rotate(
    name: Name,
    expires: Annotated[str | None, typer.Option(help=f"{_WHEN}, or never; the date stays by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print a new token for a user; the old one ends at once."""
    _print_token(connect(admin=True).rotate_user(name, expires), as_json)


def _print_token(answer: dict[str, object], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
        return
    print(answer["token"])
    print("This token is not shown again; keep it where only its user can read it.", file=sys.stderr)
