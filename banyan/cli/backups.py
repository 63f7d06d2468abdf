"""`banyan backup` and `banyan restore`: for the operator of the server, beside its database."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from banyan.cli import late_typer as typer
from banyan.cli import output
from banyan.cli.act import AsJson
from banyan.cli.processes import Config, default_data

if TYPE_CHECKING:
    from banyan.backups import Contents
    from banyan.config import ServerSettings

Data = Annotated[Path | None, typer.Option(help="The data directory of `banyan up`, running or not.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; readable by its owner alone.")],
    data: Data = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Write all that the server keeps to a file, while it runs or not. The file is secret: keep it safe."""
    from banyan.backups import back_up

    settings, directory = _database(data, config)
    _tell(file, back_up(settings, directory, file.absolute(), force=force), as_json)


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    data: Data = None,
    force: Annotated[
        bool, typer.Option("--force", help="Remove what the database has; else it must be empty.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Fill an empty database from a backup; servers must not be running."""
    from banyan.backups import restore as fill

    settings, directory = _database(data, config)
    _tell(file, fill(settings, directory, file.absolute(), force=force), as_json)


def _database(data: Path | None, config: Path | None) -> "tuple[ServerSettings, Path | None]":
    """Return the settings, and the data directory with the database; None if mongo.uri names it."""
    from banyan.config import load_server_settings

    settings = load_server_settings({}, config=config)
    if data is not None:
        return settings, data.expanduser().absolute()
    if settings.mongo.uri:
        return settings, None
    named = settings.data.directory
    return settings, Path(named).expanduser().absolute() if named else default_data()


def _tell(file: Path, contents: "Contents", as_json: bool) -> None:
    size = os.stat(file).st_size
    if as_json:
        known = {"schema": contents.schema, "created": contents.created, "collections": contents.counts}
        output.print_json({"file": str(file), "bytes": size, "documents": contents.documents, **known})
        return
    from banyan.wire import format_size

    print(f"{file}: {contents.documents} documents in {len(contents.counts)} collections, {format_size(size)}")
